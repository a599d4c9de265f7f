"""Certify and predict with a smoothed classifier: Cohen's RS at one sigma, QCRS and DDRS at a sigma for each input.

`certify` is `conclude(draw(...))`. `draw` runs on the devices and returns at once, as all of JAX does. `conclude` waits
for the counts and computes on the host in float64. In the same way `predict` is `decide(draw_counts(...))`.
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
    r"""Returns a certified radius for each image, at `sigma` or at a sigma searched for each image.

    This is CERTIFY of Cohen et al., ICML 2019. n0 samples select the class, and n other samples bound its probability:

    $$R = \sigma \, \Phi^{-1}(\underline{p_A}) \quad \text{where} \quad \underline{p_A} > \tfrac{1}{2},$$

    for normal noise; `Uniform` and the soft certificate have other radii. With probability at least 1 - alpha for each
    image, over its certification samples, the certificate holds. `Certificate` states what it guarantees.

    Search, selection and estimation each draw noise of their own. Counts are exact integers. Bound and radius are
    computed from them in float64 on the host. Inside jit they are float32, rounded down.

    Args:
        classify: jit-compatible function of images (batch, h, w, c) in [0, 1] to logits (batch, num_classes), with the
            normalisation inside; or a `NoiseConditional`, which also receives sigma. Weights bound by
            `jax.tree_util.Partial` are arguments of the compiled program.
        images: one image (h, w, c) of floats in `value_range`, or several (m, h, w, c). Several images are certified
            together under vmap.
        sigma: noise level, or one for each image (m,), in the units of `value_range`. With `search` it is the level
            that the classifier was trained at, where the search starts.
        key: PRNG key, `jax.random.key(seed)` or `jax.random.PRNGKey(seed)`. Several images draw from
            `fold_in(key, position)`, or from m keys that are given.
        n0: number of samples that select the class.
        n: largest number of samples that estimate its probability. Outside jit it may be a number for each image (m,),
            which must not depend on that image's certification samples.
        alpha: failure probability of each image's certificate, in (0, 1).
        search: object that chooses sigma for each image: GoldenSection, Bisection, Shrinking, Grid or Bayesian (QCRS),
            or DDRS. None keeps sigma fixed. QCRS uses hard counts, for every kind of certificate.
        estimate: object that decides how many of the n samples an image gets, and what they certify: `Fixed`,
            `Tolerance`, `Sequential` or `Soft`. Inside jit only `Fixed` is possible, unless its bound is randomised.
        labels: true classes, (m,). An image whose selected class differs from its label abstains, and draws no
            certification samples. This saves time in evaluations, which count such an image as wrong in any case.
        noise: noise that is added: `Gaussian()`, `GridGaussian()`, which is exact for 8-bit images, or `Uniform()`,
            whose radii are in the L1 norm.
        value_range: lowest and highest value of an image. sigma and the radius have the same units. Outside jit, images
            beyond this range are refused. None accepts any values and any layout.
        batch_size: noisy copies of an image per forward pass of a device. It changes no count.
        devices: devices that share the noisy copies, `jax.devices()` for all. They change no count. None leaves the
            choice to JAX, which takes one device. With several hosts, all must make the same call.

    Returns:
        A Certificate with fields of shape () for one image, or (m,) for several.

    Raises:
        TypeError: an argument has the wrong kind; the message says what to write.
        ValueError: an argument is out of its range, images have another layout or range, sigma lies outside the bracket
            of its search, or n is so small that no count can certify.
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
    """Returns the samples of `certify` as soon as the devices are at work. `conclude` makes the certificate from them.

    Jit- and vmap-compatible. Arguments and errors are those of `certify`.
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
        search.tables(estimate.aim(int(np.max(n)), float(alpha), noise)),
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
    """Returns the certificate for the samples of `draw`, after waiting for them: float64, or float32 inside jit.

    The guarantee is that of `Certificate`.

    Raises:
        ValueError: inside jit, the estimate is not `Fixed()`, n is not one number, or labels were given.
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
    estimate: Estimate = Fixed(),  # noqa: B008
    noise: Noise = GAUSSIAN,
    value_range: ValueRange = UNIT,
    batch_size: int | None = None,
    devices: Sequence[Device] | None = None,
) -> SigmaSearch | SigmaAscent:
    """Returns the sigma that QCRS or DDRS chooses for each image, with the trace of the search. It certifies nothing.

    `certify(..., search=search)` with the same arguments chooses the same sigma. n, alpha and estimate are those of the
    certification for which sigma is chosen. The other arguments are those of `certify`.

    Raises:
        TypeError, ValueError: as for `certify`.
    """
    images = as_images(images, value_range)
    keys = as_image_keys(key, images)
    n = whole_number("n", n)
    check_execution(classify, batch_size, devices)
    check_search(search, sigma, value_range, noise)
    check_noise(noise, images, sigma)
    instance_of("estimate", estimate, (Estimate,), _AN_ESTIMATE)
    return draw_search(
        as_pytree(classify),
        images,
        (for_each(images, "sigma", sigma, jnp.float32), keys),
        search,
        search.tables(estimate.aim(n, float(alpha), noise)),
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
    """Returns class counts of n noisy copies of each image at each of `sigmas`. It certifies nothing.

    `analysis.curves.radius_band` computes R(sigma) from them. All sigmas share the same noise. Certificates with the
    same key use other noise. The other arguments are those of `certify`.

    Args:
        sigmas: s noise levels, in the units of `value_range`.
        n: number of copies at each sigma.

    Returns:
        Counts (s, num_classes) for one image, or (m, s, num_classes), int32.

    Raises:
        TypeError, ValueError: as for `certify`.
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
    """Returns the smoothed classifier's class for each image, or ABSTAIN (PREDICT of Cohen et al. 2019).

    With probability at least 1 - alpha for each image, over the n samples, the answer is ABSTAIN or the true top class
    of the smoothed classifier. Arguments are those of `certify`. The samples are the n estimation samples of `certify`:
    at one key and sigma, the samples of a smaller n are the first of a larger n.

    Raises:
        TypeError, ValueError: as for `certify`.
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
    """Returns the class counts that `predict` draws, as soon as the devices are at work. `decide` answers from them.

    Jit- and vmap-compatible. Arguments and errors are those of `certify`.

    Returns:
        Counts (num_classes,) for one image, or (m, num_classes), int32.
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
    """Returns PREDICT's answer for the counts of n samples, after waiting for them. The guarantee is that of `predict`.

    Args:
        counts: class counts, (num_classes,) or (m, num_classes).
        n: number of samples. Counts sum to less where logits were not finite.
        alpha: failure probability of each answer, in (0, 1).
    """
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
    """Raises an error unless `search` is a search that can start at `sigma`.

    Raises:
        TypeError: `search` is something else.
        SettingError: `sigma` lies outside its bracket, the bracket reaches far beyond the range of the images or of the
            noise, or the search has no radii for the noise.
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
