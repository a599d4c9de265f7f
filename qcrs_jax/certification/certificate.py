"""Certify and predict with a smoothed classifier: Cohen's RS at one sigma, QCRS and DDRS at one found per input.

`certify` is `conclude(draw(...))`: `draw` runs on the devices and returns at once, as all of JAX does; `conclude` waits
for the counts and computes in float64 on the host. `predict` is `decide(draw_counts(...))` in the same way.
"""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from .. import bounds
from ..checks import (
    UNIT,
    ValueRange,
    as_image_keys,
    as_images,
    check_execution,
    check_sigma,
    for_each,
    instance_of,
    whole_number,
)
from ..errors import SettingError
from ..sampling.classifiers import Classifier, as_pytree
from ..sampling.counts import default_batch_size
from ..sampling.devices import Device
from ..sampling.smoothing import GAUSSIAN, Noise, check_largest, check_noise
from ..sampling.streams import uniform_words
from ..search import FixedSigma, Search, SigmaAscent, SigmaSearch
from .estimates import Drawn, Estimate, Fixed
from .procedure import draw_curve, draw_prediction, draw_search, draw_votes
from .verdict import Certificate, Prediction, make_prediction

MAX_N = 2**30
_A_SEARCH = "search=GoldenSection(0.08, 0.9) with the bracket of sigmas, or another search; None for a fixed sigma"
_AN_ESTIMATE = 'estimate=Sequential(decide=0.5), Tolerance(0.01), Soft(beta=16.0) or Fixed("clopper-pearson")'


def certify(
    classify: Classifier,
    images: Float[Array | np.ndarray, "*m h w c"],
    sigma: Float[ArrayLike, ""] | Float[ArrayLike, "*m"],
    *,
    key,
    n0: int = 100,
    n: int | Int[ArrayLike, "*m"] = 100_000,
    alpha: float = 0.001,
    search: Search | None = None,
    estimate: Estimate = Fixed(),  # noqa: B008
    labels: Int[ArrayLike, "*m"] | None = None,
    noise: Noise = GAUSSIAN,
    value_range: ValueRange = UNIT,
    batch_size: int | None = None,
    devices: Sequence[Device] | None = None,
) -> Certificate:
    """A certified radius for each image (CERTIFY of Cohen et al. 2019), at `sigma` or at one searched for the image.

    Selection, estimation and search each draw noise of their own. Counts are exact integers; from them the
    bound and the radius are computed in float64 on the host. Inside jit they are float32, rounded down.

    Args:
        classify: images (batch, h, w, c) in [0, 1] to logits (batch, num_classes), jit-compatible, normalisation
            inside; or a `NoiseConditional`, which is told sigma as well. Weights bound with `jax.tree_util.Partial` are
            passed as arguments of the compiled program.
        images: one image (h, w, c) of floats in `value_range`, or several (m, h, w, c), which are then certified
            together under vmap.
        sigma: the noise level, or one for each image; with `search`, the one the classifier was trained at, where the
            search starts.
        key: a PRNG key, `jax.random.key(seed)` or `jax.random.PRNGKey(seed)`. Several images draw from
            `fold_in(key, position)`, or from m keys.
        n0: samples that select the class.
        n: samples that estimate its probability, at most; outside jit also a number for each image, which must not
            depend on its certification samples.
        alpha: failure probability of each image's certificate.
        search: how sigma is chosen for each image: GoldenSection, Bisection, Shrinking, Grid, Bayesian (of QCRS), or
            DDRS. None keeps sigma fixed. QCRS looks at hard counts, whatever the certificate.
        estimate: how many of the n samples an image gets, and what follows from them: `Fixed`, `Tolerance`,
            `Sequential` or `Soft`. Inside jit only `Fixed()` can be had.
        labels: true classes. An image whose selected class is another abstains, and no certification samples are drawn
            for it: for evaluations, which count it as wrong in any case.
        noise: what is added: `Gaussian()`, `GridGaussian()`, which is exact for 8-bit images, or `Uniform()`, whose
            radii are of L1.
        value_range: lowest and highest value of an image, in whose units sigma and the radius are. Images outside it
            are refused, outside jit. None takes any values and any layout.
        batch_size: noisy copies per forward pass of an image on a device; changes no count.
        devices: devices that share the noisy copies, `jax.devices()` for all; changes no count. None leaves the
            choice to JAX: one device. Of several hosts, all have to make the same call.

    Raises:
        TypeError: an argument of another kind; the message says what to write.
        ValueError: an argument out of its range, images of another layout or range, a sigma outside the bracket of its
            search, or an n at which no count can certify.
    """
    drawn = draw(
        classify,
        images,
        sigma,
        key=key,
        n0=n0,
        n=n,
        alpha=alpha,
        search=search,
        estimate=estimate,
        labels=labels,
        noise=noise,
        value_range=value_range,
        batch_size=batch_size,
        devices=devices,
    )
    return conclude(drawn)


def draw(
    classify: Classifier,
    images: Float[Array | np.ndarray, "*m h w c"],
    sigma: Float[ArrayLike, ""] | Float[ArrayLike, "*m"],
    *,
    key,
    n0: int = 100,
    n: int | Int[ArrayLike, "*m"] = 100_000,
    alpha: float = 0.001,
    search: Search | None = None,
    estimate: Estimate = Fixed(),  # noqa: B008
    labels: Int[ArrayLike, "*m"] | None = None,
    noise: Noise = GAUSSIAN,
    value_range: ValueRange = UNIT,
    batch_size: int | None = None,
    devices: Sequence[Device] | None = None,
) -> Drawn:
    """What `certify` draws, as soon as the devices are at work; `conclude` makes the certificate of it.

    Jit- and vmap-compatible. Arguments and errors as for `certify`.
    """
    images = as_images(images, value_range)
    keys = as_image_keys(key, images)
    n0, n = whole_number("n0", n0, least=None), whole_number("n", n, least=None)
    check_execution(classify, batch_size, devices)
    search = FixedSigma() if search is None else search
    check_search(search, sigma, value_range, noise)
    check_noise(noise, images, sigma)
    instance_of("estimate", estimate, (Estimate,), _AN_ESTIMATE)
    check_request(sigma, n0, n, alpha, estimate, labels is not None, value_range)
    if search.keeps_sigma and not isinstance(sigma, Tracer):
        estimate.check_reach(sigma, n, alpha, noise)
    words = uniform_words(keys) if estimate.randomises else None  # before the devices are at work
    ns = np.stack(np.broadcast_arrays(search.search_n, n0, n), axis=-1)
    wanted = None if labels is None else for_each(images, "labels", whole_number("labels", labels, None), jnp.int32)
    enough, looks = estimate.tables(n0, n, alpha, noise)
    votes0, votes, number, seen, chosen, trace = draw_votes(
        as_pytree(classify),
        images,
        (for_each(images, "sigma", sigma, jnp.float32), keys, for_each(images, "n", ns, jnp.int32, axes=1), wanted),
        search,
        search.tables(int(np.max(n)), alpha, noise),
        None if enough is None else jnp.asarray(enough, jnp.int32),
        looks,
        noise=noise,
        beta=estimate.votes_beta,
        batch_size=batch_size or default_batch_size(images.shape),
        devices=devices and tuple(devices),
    )
    most = int(np.max(n))
    fixed = most if np.ndim(n) == 0 and labels is None else None
    return Drawn(votes0, votes, number, seen, chosen, words, trace, estimate, noise, float(alpha), most, fixed)


def conclude(drawn: Drawn) -> Certificate:
    """The certificate that follows from what `draw` drew; waits for it. Float64 on the host, or float32 inside jit.

    Raises:
        ValueError: inside jit, of another estimate than `Fixed()`.
    """
    inside = isinstance(drawn.estimation.counts, Tracer)
    if inside and (drawn.estimate.on_host or drawn.fixed is None):
        raise SettingError(
            "this certificate is computed on the host: call certify or conclude outside jit and vmap, or ask for "
            "{estimate} Fixed(), one {n} for all images, and no {labels}"
        )
    return drawn.estimate.conclude(drawn)._replace(search=drawn.search)


def search_sigma(
    classify: Classifier,
    images: Float[Array | np.ndarray, "*m h w c"],
    sigma: Float[ArrayLike, ""],
    search: Search,
    *,
    key,
    n: int = 100_000,
    alpha: float = 0.001,
    noise: Noise = GAUSSIAN,
    value_range: ValueRange = UNIT,
    batch_size: int | None = None,
    devices: Sequence[Device] | None = None,
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
    check_search(search, sigma, value_range, noise)
    check_noise(noise, images, sigma)
    return draw_search(
        as_pytree(classify),
        images,
        (for_each(images, "sigma", sigma, jnp.float32), keys),
        search,
        search.tables(n, alpha, noise),
        noise=noise,
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
    noise: Noise = GAUSSIAN,
    value_range: ValueRange = UNIT,
    batch_size: int | None = None,
    devices: Sequence[Device] | None = None,
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
    check_noise(noise, images, sigmas, "sigmas")
    if np.ndim(sigmas) != 1:
        raise SettingError(f"{{sigmas}} must be a list of noise levels, not of shape {np.shape(sigmas)}")
    return draw_curve(
        as_pytree(classify),
        images,
        (keys,),
        jnp.asarray(sigmas, jnp.float32),
        jnp.asarray(n, jnp.int32),
        noise=noise,
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
    noise: Noise = GAUSSIAN,
    value_range: ValueRange = UNIT,
    batch_size: int | None = None,
    devices: Sequence[Device] | None = None,
) -> Prediction:
    """The smoothed classifier's class for each image, or ABSTAIN (PREDICT of Cohen et al. 2019).

    With probability at least 1 - alpha for each image, the answer is ABSTAIN or the true top class of the
    smoothed classifier. Arguments as for `certify`, whose n estimation samples it draws too: at one key and sigma
    the samples of a smaller n are the first of a larger.

    Raises:
        TypeError, ValueError: as `certify`.
    """
    check_prediction(sigma, n, alpha, value_range)
    execution = {"noise": noise, "value_range": value_range, "batch_size": batch_size, "devices": devices}
    return decide(draw_counts(classify, images, sigma, key=key, n=n, **execution), n, alpha)


def draw_counts(
    classify: Classifier,
    images: Float[Array | np.ndarray, "*m h w c"],
    sigma: Float[ArrayLike, ""],
    *,
    key,
    n: int = 100_000,
    noise: Noise = GAUSSIAN,
    value_range: ValueRange = UNIT,
    batch_size: int | None = None,
    devices: Sequence[Device] | None = None,
) -> Int[Array, "*m num_classes"]:
    """The class counts that `predict` draws, as soon as the devices are at work; `decide` answers from them.

    Jit- and vmap-compatible. Arguments and errors as for `certify`.
    """
    images = as_images(images, value_range)
    keys = as_image_keys(key, images)
    n = whole_number("n", n)
    check_execution(classify, batch_size, devices)
    check_sigma(sigma, value_range)
    check_noise(noise, images, sigma)
    return draw_prediction(
        as_pytree(classify),
        images,
        (for_each(images, "sigma", sigma, jnp.float32), keys),
        jnp.asarray(n, jnp.int32),
        noise=noise,
        batch_size=batch_size or default_batch_size(images.shape),
        devices=devices and tuple(devices),
    )


def decide(counts: Int[Array | np.ndarray, "*m num_classes"], n: int, alpha: float = 0.001) -> Prediction:
    """PREDICT's answer that follows from the counts of n samples; waits for them. Guarantee as for `predict`."""
    return make_prediction(counts, n, alpha)


def check_request(
    sigma,
    n0: int,
    n,
    alpha: float,
    estimate: Estimate = Fixed(),  # noqa: B008
    labels: bool = False,
    value_range: ValueRange = UNIT,
) -> None:
    """Raises SettingError for a request that cannot be met, before anything is computed."""
    bounds.check_alpha(alpha)
    check_sigma(sigma, value_range)
    for name, number in (("n0", n0), ("n", n)):
        if not np.all(np.isfinite(number)) or np.any(np.mod(number, 1)):
            raise SettingError(f"{{{name}}} is a number of samples and must be a whole number, not {number}")
    if n0 < 1:
        raise SettingError(f"{{n0}} = {n0} samples select no class; it must be at least 1")
    estimate.check(n0, n, alpha, labels)
    bounds.check_asked_alpha(alpha)
    if max(n0, np.max(n)) > MAX_N:
        raise SettingError(f"{{n0}} = {n0} and {{n}} = {n} must be at most {MAX_N}: samples are numbered in 32 bits")


def check_search(search, sigma, value_range: ValueRange = UNIT, noise: Noise = GAUSSIAN) -> None:
    """Raises unless `search` is a search that can start at `sigma`.

    Raises:
        TypeError: it is something else.
        SettingError: `sigma` lies outside its bracket, its bracket reaches far beyond the range of the images or of the
            noise, or it knows no radii of the noise.
    """
    check_sigma(sigma, value_range)
    instance_of("search", search, (Search,), _A_SEARCH)
    if search.sigma_upper is not None:
        check_sigma(search.sigma_upper, value_range, "sigma_upper")
        check_largest(noise, search.sigma_upper, "sigma_upper")
    search.check_start(sigma)
    search.check_noise(noise)


def check_prediction(sigma, n: int, alpha: float, value_range: ValueRange = UNIT) -> None:
    """Raises SettingError for a request of PREDICT that cannot be met, before anything is computed."""
    bounds.check_alpha(alpha)
    if n < bounds.smallest_n(alpha / 2):
        raise SettingError(
            f"{{n}} = {n} samples can decide nothing at {{alpha}} = {alpha}; the smallest n that could is "
            f"{bounds.smallest_n(alpha / 2)}"
        )
    check_request(sigma, 1, n, alpha, value_range=value_range)
