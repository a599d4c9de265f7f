"""Certify and predict with a smoothed classifier: Cohen's RS at one sigma, QCRS and DDRS at one found per input."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from . import bounds
from .checks import (
    UNIT,
    ValueRange,
    as_image_keys,
    as_images,
    check_bracket,
    check_execution,
    check_sigma,
    for_each,
    instance_of,
    whole_number,
)
from .ddrs import DDRS, SigmaAscent
from .procedure import draw_curve, draw_prediction, draw_search, draw_votes, search_tables, uniform, uniform_words
from .sampling import (
    Classifier,
    as_pytree,
    default_batch_size,
    soft_sums,
)
from .sequential import Sequential
from .sequential import tables as tables_of_looks
from .sigma import (
    QCRS,
    SigmaSearch,
)
from .verdict import (
    Certificate,
    Prediction,
    make_certificate,
    make_prediction,
    make_randomised_certificate,
    make_sequential_certificate,
    make_soft_certificate,
)

CERTIFICATES = ("hard", "soft")
BOUNDS = ("clopper-pearson", "randomised")
MAX_N = 2**30
_A_SEARCH = 'search=QCRS(0.08, 0.9, search="golden") with the bracket of sigmas, or None for a fixed sigma'


def certify(
    classify: Classifier,
    images: Float[Array | np.ndarray, "*m h w c"],
    sigma: Float[ArrayLike, ""] | Float[ArrayLike, "*m"],
    *,
    key,
    n0: int = 100,
    n: int | Int[ArrayLike, "*m"] = 100_000,
    alpha: float = 0.001,
    search: QCRS | DDRS | None = None,
    labels: Int[ArrayLike, "*m"] | None = None,
    tolerance: float | None = None,
    sequential: Sequential | None = None,
    bound: str = "clopper-pearson",
    certificate: str = "hard",
    beta: float = 16.0,
    value_range: ValueRange = UNIT,
    batch_size: int | None = None,
    devices: Sequence[jax.Device] | None = None,
    wait: bool = True,
) -> Certificate | Callable[[], Certificate]:
    """A certified L2 radius for each image (CERTIFY of Cohen et al. 2019), at `sigma` or at one searched for the image.

    Selection, estimation and search each draw noise of their own. Counts are exact integers; from them the
    bound and the radius are computed in float64 on the host. Inside jit they are float32, rounded down.

    The soft certificate (Soft-RS of Zhai et al. 2020) is about another smoothed classifier: the class with the largest
    mean of softmax(beta * logits) over the noise, as `make_soft_certificate` defines it. The bounds of all classes
    share alpha (`bounds.soft_bounds`).

    Args:
        classify: images (batch, h, w, c) in [0, 1] to logits (batch, num_classes), jit-compatible, normalisation
            inside. Weights bound with `jax.tree_util.Partial` are passed as arguments of the compiled program.
        images: one image (h, w, c) of floats in `value_range`, or several (m, h, w, c), which are then certified
            together under vmap.
        sigma: the noise level, or one for each image; with `search`, the one the classifier was trained at, where the
            search starts.
        key: a PRNG key, `jax.random.key(seed)` or `jax.random.PRNGKey(seed)`. Several images draw from
            `fold_in(key, position)`, or from m keys.
        n0: samples that select the class.
        n: samples that estimate its probability; outside jit also a number for each image, which must not depend on
            its certification samples.
        alpha: failure probability of each image's certificate.
        search: settings of the search for sigma, QCRS or DDRS; None keeps sigma fixed. QCRS looks at hard counts,
            whatever the certificate.
        labels: true classes. An image whose selected class is another abstains, and no certification samples are drawn
            for it: for evaluations, which count it as wrong in any case.
        tolerance: the share of its radius that an image may be expected to lose to fewer than n samples. Its n0
            selection samples decide how many it gets (`bounds.enough_table`). They are independent of the samples that
            certify: whatever that number, these are as many independent draws, and the certificate fails with
            probability at most alpha. None for n samples each. Cannot be had inside jit.
        sequential: draws samples, n at most, until a radius is decided or known closely enough; the certificate fails
            with probability at most alpha all the same (`sequential`). Cannot be had inside jit.
        bound: "clopper-pearson", or "randomised", `bounds.randomised_lower`: never below, and as large as a bound can
            be that fails with probability alpha. Its uniform number is drawn from the key, in a stream of its own.
            Cannot be had inside jit.
        certificate: "hard", or "soft", which cannot be had inside jit.
        beta: inverse temperature of the soft certificate; MACER's by default.
        value_range: lowest and highest value of an image, in whose units sigma and the radius are. Images outside it
            are refused, outside jit. None takes any values and any layout.
        batch_size: noisy copies per forward pass of an image on a device; changes no count.
        devices: devices that share the noisy copies, `jax.devices()` for all; changes no count. None leaves the
            choice to JAX: one device. Of several hosts, all have to make the same call.
        wait: False to get, as soon as the devices are at work, a function that waits for them and returns the
            certificate: what comes next can be started before.

    Raises:
        TypeError: an argument of another kind; the message says what to write.
        ValueError: an argument out of its range, images of another layout or range, a sigma outside the bracket of its
            search, or an n at which no count can certify.
    """
    images = as_images(images, value_range)
    keys = as_image_keys(key, images)
    n0, n = whole_number("n0", n0, least=None), whole_number("n", n, least=None)
    check_execution(classify, batch_size, devices)
    check_search(search, sigma, value_range)
    if sequential is not None:
        instance_of("sequential", sequential, (Sequential,), "sequential=Sequential(decide=0.5)")
    check_request(sigma, n0, n, alpha, certificate, beta, tolerance, sequential, bound, labels is not None, value_range)
    if sequential and search is None and not isinstance(sigma, jax.core.Tracer):
        sequential.check_reach(sigma, n, alpha)
    soft = certificate == "soft"
    enough = None if tolerance is None else bounds.enough_table(n0, n, alpha, tolerance)
    words = uniform_words(keys) if bound == "randomised" else None  # before the devices are at work
    search_n = search.search_n if isinstance(search, QCRS) else 0
    ns = np.stack(np.broadcast_arrays(search_n, n0, n), axis=-1)
    wanted = (
        None if labels is None else for_each(images, "labels", whole_number("labels", labels, least=None), jnp.int32)
    )
    votes0, votes, looks, sigma, trace = draw_votes(
        as_pytree(classify),
        images,
        (for_each(images, "sigma", sigma, jnp.float32), keys, for_each(images, "n", ns, jnp.int32, axes=1), wanted),
        search_tables(search, int(np.max(n)), alpha),
        None if enough is None else jnp.asarray(enough, jnp.int32),
        None if sequential is None else tables_of_looks(sequential, n, alpha),
        search=search,
        beta=float(beta) if soft else None,
        batch_size=batch_size or default_batch_size(images.shape),
        devices=devices and tuple(devices),
    )
    on_host = soft or enough is not None or sequential or bound == "randomised" or labels is not None or np.ndim(n) > 0
    if on_host and isinstance(sigma, jax.core.Tracer):
        raise ValueError(
            "this certificate is computed on the host: call certify outside jit and vmap, or ask for a hard one of n "
            "samples and its Clopper-Pearson bound"
        )

    def conclude():
        counts = votes0.counts, votes.counts
        samples = n if enough is None else enough[np.max(votes0.counts, axis=-1)]
        if labels is not None:
            samples = np.where(np.argmax(votes0.counts, axis=-1) == np.asarray(labels), samples, 0)
        if soft:
            sums = (soft_sums(votes0.digits)[0], *soft_sums(votes.digits))
            made = make_soft_certificate(*counts, *sums, sigma, samples, alpha)
        elif sequential:
            made = make_sequential_certificate(*counts, sigma, np.asarray(looks) - 1, sequential, samples, alpha)
        elif bound == "randomised":
            made = make_randomised_certificate(*counts, sigma, samples, alpha, uniform(words))
        else:
            made = make_certificate(*counts, sigma, samples, alpha)
        return made._replace(search=trace)

    return conclude() if wait else conclude


def search_sigma(
    classify: Classifier,
    images: Float[Array | np.ndarray, "*m h w c"],
    sigma: Float[ArrayLike, ""],
    search: QCRS | DDRS,
    *,
    key,
    n: int = 100_000,
    alpha: float = 0.001,
    value_range: ValueRange = UNIT,
    batch_size: int | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> SigmaSearch | SigmaAscent:
    """The sigma that QCRS or DDRS chooses for each image, with the trace of the search; certifies nothing.

    `certify(..., search=search)` with the same arguments chooses the same sigma; n and alpha are the ones of the
    certification that sigma is for.

    Raises:
        TypeError, ValueError: as `certify`.
    """
    images = as_images(images, value_range)
    keys = as_image_keys(key, images)
    n = whole_number("n", n)
    check_execution(classify, batch_size, devices)
    instance_of("search", search, (QCRS, DDRS), _A_SEARCH)
    check_search(search, sigma, value_range)
    return draw_search(
        as_pytree(classify),
        images,
        (for_each(images, "sigma", sigma, jnp.float32), keys),
        search_tables(search, n, alpha),
        search=search,
        batch_size=batch_size or default_batch_size(images.shape),
        devices=devices and tuple(devices),
    )


def sample_curve(
    classify: Classifier,
    images: Float[Array | np.ndarray, "*m h w c"],
    sigmas: Float[Array | np.ndarray, "s"] | Sequence[float],
    *,
    key,
    n: int,
    value_range: ValueRange = UNIT,
    batch_size: int | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> Int[Array, "*m s num_classes"]:
    """Class counts of n noisy copies of each image at each of `sigmas`; `curves.radius_band` makes R(sigma) of them.

    The noise is the same at all sigmas, and another than that of certificates with the same key. Arguments as for
    `certify`; certifies nothing.

    Raises:
        TypeError, ValueError: as `certify`.
    """
    images = as_images(images, value_range)
    keys = as_image_keys(key, images)
    n = whole_number("n", n)
    check_execution(classify, batch_size, devices)
    check_sigma(sigmas, value_range, "sigmas")
    if np.ndim(sigmas) != 1:
        raise ValueError(f"sigmas must be a list of noise levels, not of shape {np.shape(sigmas)}")
    return draw_curve(
        as_pytree(classify),
        images,
        (keys,),
        jnp.asarray(sigmas, jnp.float32),
        jnp.asarray(n, jnp.int32),
        batch_size=batch_size or default_batch_size(images.shape),
        devices=devices and tuple(devices),
    )


def predict(
    classify: Classifier,
    images: Float[Array | np.ndarray, "*m h w c"],
    sigma: Float[ArrayLike, ""],
    *,
    key,
    n: int = 100_000,
    alpha: float = 0.001,
    value_range: ValueRange = UNIT,
    batch_size: int | None = None,
    devices: Sequence[jax.Device] | None = None,
    wait: bool = True,
) -> Prediction | Callable[[], Prediction]:
    """The smoothed classifier's class for each image, or ABSTAIN (PREDICT of Cohen et al. 2019).

    With probability at least 1 - alpha for each image, the answer is ABSTAIN or the true top class of the
    smoothed classifier. Arguments as for `certify`, whose n estimation samples it draws too: at one key and sigma
    the samples of a smaller n are the first of a larger.

    Raises:
        TypeError, ValueError: as `certify`.
    """
    images = as_images(images, value_range)
    keys = as_image_keys(key, images)
    n = whole_number("n", n, least=None)
    check_execution(classify, batch_size, devices)
    check_prediction(sigma, n, alpha, value_range)
    counts = draw_prediction(
        as_pytree(classify),
        images,
        (for_each(images, "sigma", sigma, jnp.float32), keys),
        jnp.asarray(n, jnp.int32),
        batch_size=batch_size or default_batch_size(images.shape),
        devices=devices and tuple(devices),
    )
    return make_prediction(counts, n, alpha) if wait else lambda: make_prediction(counts, n, alpha)


def check_request(
    sigma,
    n0: int,
    n,
    alpha: float,
    certificate: str = "hard",
    beta: float = 1.0,
    tolerance: float | None = None,
    sequential: Sequential | None = None,
    bound: str = "clopper-pearson",
    labels: bool = False,
    value_range: ValueRange = UNIT,
) -> None:
    """Raises ValueError for a request that cannot be met, before anything is computed."""
    bounds.check_alpha(alpha)
    check_sigma(sigma, value_range)
    for name, number in (("n0", n0), ("n", n)):
        if not np.all(np.isfinite(number)) or np.any(np.mod(number, 1)):
            raise ValueError(f"{name} is a number of samples and must be a whole number, not {number}")
    if n0 < 1:
        raise ValueError(f"n0 = {n0} samples select no class; it must be at least 1")
    if certificate not in CERTIFICATES:
        raise ValueError(f"unknown certificate {certificate!r}; known are {', '.join(CERTIFICATES)}")
    if not 0 < beta < np.inf:
        raise ValueError(f"beta is an inverse temperature and must be positive and finite, not {beta}")
    if tolerance is not None and not 0 < tolerance < 1:
        raise ValueError(f"tolerance is a share of the radius and must lie in (0, 1), not {tolerance}")
    if tolerance is not None and certificate == "soft":
        raise ValueError("tolerance looks ahead to hard certificates; it does not go with the soft one")
    if bound not in BOUNDS:
        raise ValueError(f"unknown bound {bound!r}; known are {', '.join(BOUNDS)}")
    if bound == "randomised" and (certificate == "soft" or sequential):
        raise ValueError("the randomised bound is of hard certificates of a number of samples that is fixed beforehand")
    if sequential:
        sequential.check_alpha(alpha)
    if sequential and certificate == "soft":
        raise ValueError("a sequential estimation counts hard votes; it does not go with the soft certificate")
    if sequential and tolerance is not None:
        raise ValueError("tolerance fixes an image's samples beforehand, a sequential estimation does not; choose one")
    if np.ndim(n) > 0 and (certificate == "soft" or sequential or tolerance is not None):
        raise ValueError("a number of samples for each image goes with hard certificates of these samples alone")
    if labels and (certificate == "soft" or sequential):
        raise ValueError("to stop where the class is wrong goes with hard certificates of a number of samples alone")
    smallest = bounds.smallest_n(alpha) if certificate == "hard" else bounds.smallest_soft_n(alpha)
    if np.min(n) < smallest:
        raise ValueError(
            f"n = {n} samples can certify nothing at alpha = {alpha}: even if all agree the bound stays below "
            f"1/2. The smallest n that could is {smallest}"
        )
    bounds.check_asked_alpha(alpha)
    if max(n0, np.max(n)) > MAX_N:
        raise ValueError(f"n0 = {n0} and n = {n} must be at most {MAX_N}: samples are numbered in 32 bits")


def check_search(search, sigma, value_range: ValueRange = UNIT) -> None:
    """Raises unless `search` is None or the settings of a search that can start at `sigma`.

    Raises:
        TypeError: `search` is something else.
        ValueError: `sigma` lies outside its bracket, or its bracket reaches far beyond the range of the images.
    """
    check_sigma(sigma, value_range)
    if search is None:
        return
    instance_of("search", search, (QCRS, DDRS), _A_SEARCH)
    check_sigma(search.sigma_upper, value_range, "sigma_upper")
    if getattr(search, "start", None) is None:  # an ascent of DDRS may have a start of its own
        check_bracket(sigma, search.sigma_lower, search.sigma_upper)


def check_prediction(sigma, n: int, alpha: float, value_range: ValueRange = UNIT) -> None:
    """Raises ValueError for a request of PREDICT that cannot be met, before anything is computed."""
    bounds.check_alpha(alpha)
    if n < bounds.smallest_n(alpha / 2):
        raise ValueError(
            f"n = {n} samples can decide nothing at alpha = {alpha}; the smallest n that could is "
            f"{bounds.smallest_n(alpha / 2)}"
        )
    check_request(sigma, 1, n, alpha, value_range=value_range)
