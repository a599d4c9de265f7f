"""Class counts and soft votes of noisy copies of an image: the one hot loop, the only place that draws their noise.

The noise of a sample is a function of (key, sample index) alone. Counts therefore do not depend on the batch
size, up to floating-point ties of the network itself, nor do the sums of soft votes, up to its rounding.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from ..checks import UNIT, ValueRange, as_images, as_key, check_sigma
from ..errors import SettingError
from .classifiers import Classifier, as_pytree, logits_of, num_classes
from .smoothing import GAUSSIAN, Noise, check_noise

_DIGIT = 15
SOFT_ONE = 2**_DIGIT  # a whole soft vote, in the units that are counted
_STEPS = 2**10  # to each unit of a scaled logit
_WEIGHTS = np.floor(SOFT_ONE * np.exp(-np.arange(math.ceil(math.log(SOFT_ONE) * _STEPS) + 1) / _STEPS)).astype(np.int32)


class Votes(NamedTuple):
    """What noisy copies voted for, summed over the copies; exact.

    counts: how many fell into each class.
    digits: the sums of their soft votes and of the squares, for `soft_sums`; None where none were asked for.
    """

    counts: Int[Array, "... num_classes"]
    digits: Int[Array, "... 2 3 num_classes"] | None


def default_batch_size(image_shape: tuple[int, ...], platform: str | None = None) -> int:
    """Noisy copies of each image per forward pass of a device when no number is asked for.

    Small on a CPU, for its cache. Large elsewhere; less so for large images, which leave a chip's own memory otherwise.
    A number of copies that is no multiple of it costs a whole batch more, and those of a search are 500 or so: images
    in step fill a larger pass together.

    Args:
        image_shape: (..., h, w, c); with an axis in front for images in step.
        platform: a name of JAX's; by default the one it would run on.
    """
    most, together = default_pass(image_shape[-3:], platform or jax.default_backend())
    return max(1, min(most, together // max(1, math.prod(image_shape[:-3]))))


def default_pass(image_shape: tuple[int, ...], platform: str) -> tuple[int, int]:
    """Noisy copies in a forward pass of a device: of one image at most, and of all images in step together."""
    small = image_shape[0] * image_shape[1] <= 64 * 64
    if platform == "cpu":
        return 16, 16
    if platform == "tpu":
        return (512, 512) if small else (128, 128)
    return (512, 2048) if small else (256, 512)


def sample_counts(
    classify: Classifier,
    image: Float[Array | np.ndarray, "h w c"],
    sigma: Float[ArrayLike, ""],
    key,
    n: Int[ArrayLike, ""],
    *,
    value_range: ValueRange = UNIT,
    **options,
) -> Int[Array, "num_classes"]:
    """Counts of the classes that `classify` gives to n noisy copies of `image`: `sample_votes` without soft ones.

    Arguments are refused as by `certify`: TypeError or ValueError for an image, a key or a sigma that cannot be meant.
    """
    image = as_images(image, value_range)
    if image.ndim != 3:
        raise ValueError(f"image must have shape (h, w, c), not {image.shape}; jax.vmap counts for several")
    check_sigma(sigma, value_range)
    check_noise(options.get("noise", GAUSSIAN), image, sigma)
    return _votes(as_pytree(classify), image, sigma, as_key(key), n, **options).counts


def sample_votes(
    classify: Classifier,
    image: Float[Array | np.ndarray, "h w c"],
    sigma: Float[ArrayLike, ""],
    key,
    n: Int[ArrayLike, ""],
    *,
    first: Int[ArrayLike, ""] = 0,
    beta: float | None = None,
    noise: Noise = GAUSSIAN,
    batch_size: int | None = None,
    axis_name: str | None = None,
) -> Votes:
    """What `classify` makes of n noisy copies of `image`.

    Jit- and vmap-compatible; n is a traced loop bound, so that one compilation serves every n. The counts sum
    to n, less the copies with a logit that is not finite: those belong to no class and help no certificate.

    Args:
        classify: images in [0, 1] with noise added, not clipped, to logits; a `NoiseConditional` is told sigma.
        image: one image in [0, 1].
        sigma: standard deviation of the noise, in the image's units.
        key: a threefry key, JAX's default, or one of rbg; the same key gives the same random numbers at every sigma.
        n: number of copies, at most 2**30.
        first: index of the first of them; those before are another call's, with the same key.
        beta: inverse temperature of `soft_votes`, which are summed as well; None for none.
        noise: what is added. At a sigma beyond its `largest_sigma` no copy belongs to a class.
        batch_size: copies per forward pass of a device; the default depends on the kind of device.
        axis_name: inside `jax.shard_map`, the axis of devices that share the copies; each gets the sum.
    """
    batch_size = batch_size or default_batch_size(image.shape)
    if beta is not None and batch_size > SOFT_ONE:
        raise SettingError(f"{{batch_size}} {batch_size} is more than soft votes are summed exactly for: {SOFT_ONE}")
    classes = jnp.arange(num_classes(classify, image.shape), dtype=jnp.int32)
    device = jax.lax.axis_index(axis_name) if axis_name else 0
    devices = jax.lax.axis_size(axis_name) if axis_name else 1
    sigma = jnp.asarray(sigma, jnp.float32)
    level, possible = noise.level(sigma), sigma <= noise.largest_sigma

    def add_batch(i, votes):
        place = (i * devices + device) * batch_size + jnp.arange(batch_size)
        noisy = noise.add(image, level, key, first + place)
        logits = logits_of(classify, noisy, sigma, classes.size)
        valid = possible & (place < n) & jnp.isfinite(logits).all(axis=-1)
        digits = votes.digits
        if beta is not None:
            digits = _add(digits, jnp.where(valid[:, None], soft_votes(logits, beta), 0))
        hard = valid[:, None] & (jnp.argmax(logits, axis=-1)[:, None] == classes[None])
        return Votes(votes.counts + hard.sum(axis=0, dtype=jnp.int32), digits)

    turns = -(-jnp.asarray(n, jnp.int32) // (batch_size * devices))
    votes = jax.lax.fori_loop(0, turns, add_batch, no_votes(classes.size, beta))
    return jax.lax.psum(votes, axis_name) if axis_name else votes


_votes = jax.jit(sample_votes, static_argnames=("beta", "noise", "batch_size", "axis_name"))
"""`sample_votes`, compiled once for each classifier and shape, with images and keys that are no constants of it."""


def soft_votes(logits: Float[Array, "batch num_classes"], beta: float) -> Int[Array, "batch num_classes"]:
    """softmax(beta * logits) in whole numbers of 1 / SOFT_ONE, at most SOFT_ONE in all.

    Differences of beta * logits go down to a multiple of 1 / 1024, weights and shares to whole numbers. So it is one
    function of the logits on every device and in every batch, which a floating-point softmax is not; for ten classes
    the two differ by less than 0.001. Logits must be finite.
    """
    logits = logits.astype(jnp.float32)
    steps = _STEPS * (beta * (logits.max(axis=-1, keepdims=True) - logits))
    steps = jnp.minimum(steps, 2 * len(_WEIGHTS)).astype(jnp.int32)
    steps -= steps.min(axis=-1, keepdims=True)  # which is not 0 where the subtraction is fused with a product
    weights = jnp.take(jnp.asarray(_WEIGHTS), steps, mode="clip")
    return weights * SOFT_ONE // weights.sum(axis=-1, keepdims=True, dtype=jnp.int32)


def no_votes(classes: int, beta: float | None) -> Votes:
    """The sums over no copy."""
    digits = None if beta is None else jnp.zeros((2, 3, classes), jnp.int32)
    return Votes(jnp.zeros(classes, jnp.int32), digits)


def _add(digits, soft):
    """`digits` (high or low, summand, class) and the soft votes of a batch (copy, class), with the carry."""
    squares = soft * soft  # up to 2**30: in two digits, so that 2**30 of them have sums of two digits each
    batch = jnp.stack([soft, squares & (SOFT_ONE - 1), squares >> _DIGIT]).sum(axis=1, dtype=jnp.int32)
    high, low = digits[0], digits[1] + batch
    return jnp.stack([high + (low >> _DIGIT), low & (SOFT_ONE - 1)])


def soft_sums(digits: Int[Array | np.ndarray, "*m 2 3 num_classes"]):
    """The sums of soft votes and of their squares, (sums, squares), each (*m, num_classes), int64.

    Votes are in units of 1 / SOFT_ONE, squares of its square.
    """
    digits = np.asarray(digits, np.int64)
    totals = digits[..., 0, :, :] * SOFT_ONE + digits[..., 1, :, :]
    return totals[..., 0, :], totals[..., 1, :] + totals[..., 2, :] * SOFT_ONE
