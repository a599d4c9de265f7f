"""Class counts and soft votes of noisy copies of an image: the one hot loop, and the only place that draws their noise.

The noise of a sample is a function of (key, sample index) alone. Counts therefore do not depend on the batch size, up
to floating-point ties of the network itself. The sums of soft votes do not depend on it up to the network's rounding.
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
_STEPS = 2**10  # steps in each unit of a scaled logit
_WEIGHTS = np.floor(SOFT_ONE * np.exp(-np.arange(math.ceil(math.log(SOFT_ONE) * _STEPS) + 1) / _STEPS)).astype(np.int32)


class Votes(NamedTuple):
    """The votes of noisy copies, summed over the copies; exact.

    counts: number of copies that fell into each class.
    digits: sums of their soft votes and of the squares, for `soft_sums`; None if soft votes were not asked for.
    """

    counts: Int[Array, "... num_classes"]
    digits: Int[Array, "... 2 3 num_classes"] | None


def default_batch_size(image_shape: tuple[int, ...], platform: str | None = None) -> int:
    """The default number of noisy copies of each image per forward pass of a device.

    It is small on a CPU, for its cache, and large elsewhere. It is smaller for large images, which otherwise leave a
    chip's own memory. A number of copies that is no multiple of it costs one more whole batch. A search has 500 copies
    or so; images in step together fill a larger pass.

    Args:
        image_shape: (..., h, w, c); with an axis in front for images in step.
        platform: a platform of JAX; by default the one on which it would run.
    """
    most, together = default_pass(image_shape[-3:], platform or jax.default_backend())
    return max(1, min(most, together // max(1, math.prod(image_shape[:-3]))))


def default_pass(image_shape: tuple[int, ...], platform: str) -> tuple[int, int]:
    """The noisy copies in a forward pass of a device: the most of one image, and of all images in step together."""
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
    """Counts of the classes that `classify` gives to n noisy copies of `image`, (num_classes,), int32.

    The counts sum to n, less the copies with a logit that is not finite. jit- and vmap-compatible.

    Args:
        classify: jit-compatible function of images (batch, h, w, c) in [0, 1], with noise added and not clipped, to
            logits (batch, num_classes).
        image: one image (h, w, c) in `value_range`.
        sigma: standard deviation of the noise, in the image's units.
        key: PRNG key. The same key gives the same random numbers at every sigma.
        n: number of copies, at most 2**30.
        value_range: lowest and highest value of an image; None accepts any.
        options: `first` (index of the first copy), `noise`, `batch_size` and `axis_name`, as for
            `sampling.counts.sample_votes`.

    Raises:
        TypeError, ValueError: an image, a key or a sigma that `certify` would refuse.
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
    """The votes of `classify` for n noisy copies of `image`.

    Jit- and vmap-compatible; n is a traced loop bound, so one compilation serves every n. The counts sum to n, less the
    copies with a logit that is not finite. Those belong to no class and support no certificate.

    Args:
        classify: function of images in [0, 1], with noise added and not clipped, to logits; a `NoiseConditional` also
            receives sigma.
        image: one image (h, w, c) in [0, 1].
        sigma: standard deviation of the noise, in the image's units.
        key: a threefry key, JAX's default, or one of rbg. The same key gives the same random numbers at every sigma.
        n: number of copies, at most 2**30.
        first: index of the first copy. Another call with the same key draws those before it.
        beta: inverse temperature of `soft_votes`, which are summed as well; None sums none.
        noise: noise that is added. At a sigma beyond its `largest_sigma` no copy belongs to a class.
        batch_size: copies per forward pass of a device; the default depends on the kind of device.
        axis_name: inside `jax.shard_map`, the axis of devices that share the copies. Each gets the sum.
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
"""`sample_votes`, compiled once for each classifier and shape. Images and keys are its arguments, not constants."""


def soft_votes(logits: Float[Array, "batch num_classes"], beta: float) -> Int[Array, "batch num_classes"]:
    """softmax(beta * logits) in whole numbers of 1 / SOFT_ONE, which sum to at most SOFT_ONE.

    Differences of beta * logits are rounded down to a multiple of 1 / 1024, weights and shares to whole numbers. The
    result is therefore one function of the logits on every device and in every batch, which a floating-point softmax is
    not. For ten classes the two differ by less than 0.001. Logits must be finite.
    """
    logits = logits.astype(jnp.float32)
    steps = _STEPS * (beta * (logits.max(axis=-1, keepdims=True) - logits))
    steps = jnp.minimum(steps, 2 * len(_WEIGHTS)).astype(jnp.int32)
    steps -= steps.min(axis=-1, keepdims=True)  # the minimum is not 0 where the subtraction is fused with a product
    weights = jnp.take(jnp.asarray(_WEIGHTS), steps, mode="clip")
    return weights * SOFT_ONE // weights.sum(axis=-1, keepdims=True, dtype=jnp.int32)


def no_votes(classes: int, beta: float | None) -> Votes:
    """The sums over no copies."""
    digits = None if beta is None else jnp.zeros((2, 3, classes), jnp.int32)
    return Votes(jnp.zeros(classes, jnp.int32), digits)


def _add(digits, soft):
    """`digits` (high or low, summand, class) plus the soft votes of a batch (copy, class), with the carry."""
    squares = soft * soft  # up to 2**30; two digits each, so that sums of 2**30 of them fit into two digits
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
