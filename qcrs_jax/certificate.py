"""Certify and predict with a smoothed classifier: Cohen's RS at one sigma, QCRS and DDRS at one found per input."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from . import bounds
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
        images: one image (h, w, c), or several (m, h, w, c), which are then certified together under vmap.
        sigma: the noise level, or one for each image; with `search`, the one the classifier was trained at, where the
            search starts.
        key: a PRNG key, `jax.random.key(seed)`. Several images draw from `fold_in(key, position)`, or from m keys.
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
        batch_size: noisy copies per forward pass of an image on a device; changes no count.
        devices: devices that share the noisy copies, `jax.devices()` for all; changes no count. None leaves the
            choice to JAX: one device. Of several hosts, all have to make the same call.
        wait: False to get, as soon as the devices are at work, a function that waits for them and returns the
            certificate: what comes next can be started before.

    Raises:
        ValueError: an argument out of its range, or an n at which no count can certify.
    """
    check_request(sigma, n0, n, alpha, certificate, beta, tolerance, sequential, bound, labels is not None)
    if sequential and search is None and not isinstance(sigma, jax.core.Tracer):
        sequential.check_reach(sigma, n, alpha)
    soft = certificate == "soft"
    enough = None if tolerance is None else bounds.enough_table(n0, n, alpha, tolerance)
    images = jnp.asarray(images, jnp.float32)
    keys = _image_keys(key, images)
    words = uniform_words(keys) if bound == "randomised" else None  # before the devices are at work
    search_n = search.search_n if isinstance(search, QCRS) else 0
    ns = np.stack(np.broadcast_arrays(search_n, n0, n), axis=-1)
    wanted = None if labels is None else _each(images, labels, jnp.int32)
    votes0, votes, looks, sigma, trace = draw_votes(
        as_pytree(classify),
        images,
        (_each(images, sigma, jnp.float32), keys, _each(images, ns, jnp.int32, 1), wanted),
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
    batch_size: int | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> SigmaSearch | SigmaAscent:
    """The sigma that QCRS or DDRS chooses for each image, with the trace of the search; certifies nothing.

    `certify(..., search=search)` with the same arguments chooses the same sigma; n and alpha are the ones of the
    certification that sigma is for.
    """
    images = jnp.asarray(images, jnp.float32)
    return draw_search(
        as_pytree(classify),
        images,
        (_each(images, sigma, jnp.float32), _image_keys(key, images)),
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
    batch_size: int | None = None,
    devices: Sequence[jax.Device] | None = None,
) -> Int[Array, "*m s num_classes"]:
    """Class counts of n noisy copies of each image at each of `sigmas`; `curves.radius_band` makes R(sigma) of them.

    The noise is the same at all sigmas, and another than that of certificates with the same key. Arguments as for
    `certify`; certifies nothing.
    """
    images = jnp.asarray(images, jnp.float32)
    return draw_curve(
        as_pytree(classify),
        images,
        (_image_keys(key, images),),
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
    batch_size: int | None = None,
    devices: Sequence[jax.Device] | None = None,
    wait: bool = True,
) -> Prediction | Callable[[], Prediction]:
    """The smoothed classifier's class for each image, or ABSTAIN (PREDICT of Cohen et al. 2019).

    With probability at least 1 - alpha for each image, the answer is ABSTAIN or the true top class of the
    smoothed classifier. Arguments as for `certify`, whose n estimation samples it draws too: at one key and sigma
    the samples of a smaller n are the first of a larger.
    """
    check_prediction(sigma, n, alpha)
    images = jnp.asarray(images, jnp.float32)
    counts = draw_prediction(
        as_pytree(classify),
        images,
        (_each(images, sigma, jnp.float32), _image_keys(key, images)),
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
) -> None:
    """Raises ValueError for a request that cannot be met, before anything is computed."""
    bounds.check_alpha(alpha)
    if not isinstance(sigma, jax.core.Tracer) and not np.all((0 < np.float32(sigma)) & (np.float32(sigma) < np.inf)):
        raise ValueError(f"sigma is the standard deviation of the noise and must be positive and finite, not {sigma}")
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
    if max(n0, np.max(n)) > MAX_N:
        raise ValueError(f"n0 = {n0} and n = {n} must be at most {MAX_N}: samples are numbered in 32 bits")


def check_prediction(sigma, n: int, alpha: float) -> None:
    """Raises ValueError for a request of PREDICT that cannot be met, before anything is computed."""
    bounds.check_alpha(alpha)
    if n < bounds.smallest_n(alpha / 2):
        raise ValueError(
            f"n = {n} samples can decide nothing at alpha = {alpha}; the smallest n that could is "
            f"{bounds.smallest_n(alpha / 2)}"
        )
    check_request(sigma, 1, n, alpha)


def _each(images, value, dtype, ndim=0):
    """`value`, of `ndim` axes, for each of several images where it is one for all."""
    value = jnp.asarray(value, dtype)
    return value if images.ndim == 3 or value.ndim > ndim else jnp.broadcast_to(value, (len(images), *value.shape))


def _image_keys(key, images):
    if images.ndim == 3 or (jnp.issubdtype(key.dtype, jax.dtypes.prng_key) and key.shape == images.shape[:1]):
        return key
    if images.ndim != 4:
        raise ValueError(f"images must have shape (h, w, c) or (m, h, w, c), not {images.shape}")
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(images.shape[0]))
