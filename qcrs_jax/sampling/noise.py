"""Random bits of a counter, and standard normal numbers with correct tails, made from them by the quantile function.

The normal numbers of `jax.random` have 23 random bits in float32 and end at 5.42 deviations. Of the true noise vectors
of 224 x 224 x 3 images 0.9% have a coordinate beyond that. Here a number has 63 bits: a sign, and a magnitude. The
magnitude is the quantile of (k + 1/2) / 2**62 for a whole k, uniform on 0 to 2**62 - 1. It reaches 9.08 deviations.

The distance to a normal number. Let the bits be uniform and independent, as Threefry is trusted to make them. Let Z be
the quantile of (k + V) / 2**62 with V uniform on [0, 1). Z is exactly normal, and independent between coordinates. The
number that is drawn is T(Z), where T is one fixed, odd function, and

    |T(Z) - Z| <= 5e-7 |Z| + 1e-9    wherever |Z| <= 7.5    (1.5e-5 wherever |Z| <= 8),

rounding included, as the tests measure.

A coordinate lies beyond 7.5 with probability 2e-10 in a 32 x 32 x 3 image, and 1e-8 in one of 224 x 224 x 3. Where none
does, T moves the noise vector by at most 3e-5 or 2e-4 in L2. In total variation any law on floating-point numbers is at
distance 1 from a continuous one. If points so near to each other are identified, what remains is that probability.

The consequence for a certificate. The classes of x + sigma T(Z) are those that another classifier gives to x + sigma Z.
That classifier first moves its input by sigma (T(Z) - Z), by less than 3e-5 sigma or 2e-4 sigma in L2, as the rounding
of pixels to float32 does too. For that classifier, smoothed with true normal noise, radius and 1 - alpha hold as they
are. For the network without that step they hold with pa_lower less the share of noisy images that lie as near to a
boundary.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, UInt32

from ..version import version

_Array = Array | np.ndarray

IMPLEMENTATIONS = {"threefry": "threefry2x32", "rbg": "rbg"}  # JAX's names of the generators

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_HALF = np.uint32(2**31)

# Minimax polynomials, lowest power first, of relative error 1.1e-7, 1.4e-7 and 2.6e-8; see `_quantile`.
_CENTRE = (
    *(2.3806455, 0.23391629, -0.0042760566, -0.00030606214, 5.8256409e-05),
    *(-3.3682289e-06, -1.8599762e-07, 4.4730102e-08, -9.2039983e-10, -2.2621336e-10),
)
_TAIL = (
    *(5.9244955, 1.1391467, 0.0098968875, -0.0021081668, 0.00040764649),
    *(-6.6323488e-05, 1.0584316e-05, -4.6966934e-06, 1.7541981e-06, -2.2912532e-07),
)
_LOG2 = (
    *(1.442695, -0.72134735, 0.48091064, -0.36070368, 0.28791624),
    *(-0.23894489, 0.21571574, -0.2072693, 0.1258361),
)


@functools.partial(jax.jit, static_argnames="shape")
def gaussian_noise(key, index: Int[Array, "batch"], shape: tuple[int, ...]) -> Float[Array, "batch ..."]:
    """Standard normal noise of the samples `index`, float32, (batch, *shape).

    The noise of a sample is a function of (key, index) alone. The batch and the other keys under vmap do not change it.

    Args:
        key: a threefry key, or one of rbg, whose numbers depend on the platform and on XLA's version.
        index: numbers of the samples, each below 2**32.
        shape: shape of one sample.
    """
    return numbers_of(normal_numbers, key, index, shape)


def numbers_of(
    make: Callable, key, index: Int[Array, "batch"], shape: tuple[int, ...], *more, tpu: Callable | None = None
) -> Array:
    """`make(first, second, *more)` of two random words for each coordinate of the samples `index`; (batch, *shape).

    Args:
        make: an elementwise function of two arrays of uint32 of one shape.
        key, index, shape: as for `gaussian_noise`.
        more: further arrays that `make` takes.
        tpu: (words of a threefry key, index, *more, shape=) -> the same numbers, for a TPU.
    """
    implementation = str(jax.random.key_impl(key))
    if implementation not in IMPLEMENTATIONS.values():
        raise ValueError(f"key is of {implementation}; make it with jax.random.key(seed, impl='threefry2x32') or 'rbg'")
    if implementation == "rbg":
        return jax.lax.map(lambda i: make(*_rbg_words(jax.random.fold_in(key, i), shape), *more), index)
    draws = {"cpu": _one_by_one, "default": _together}
    draws = {platform: functools.partial(draw, make=make, shape=shape) for platform, draw in draws.items()}
    if tpu is not None:
        draws["tpu"] = functools.partial(tpu, shape=shape)
    return jax.lax.platform_dependent(jax.random.key_data(key), index.astype(jnp.uint32), *more, **draws)


def _together(words, index, *more, make, shape):
    """The numbers of all samples at once, in the shape of images. XLA computes them where they are added."""
    return jax.vmap(lambda i: make(*threefry2x32(words[0], words[1], i, places(shape)), *more))(index)


def places(shape: tuple[int, ...]) -> UInt32[Array, "..."]:
    """The numbers of the coordinates of an image, by which its random words are drawn."""
    strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    axes = (jax.lax.broadcasted_iota(jnp.uint32, shape, axis) * np.uint32(s) for axis, s in enumerate(strides))
    return functools.reduce(jnp.add, axes)


def _one_by_one(words, index, *more, make, shape):
    """The same numbers sample by sample, flat: on a CPU in less than half the time.

    In the shape of images the last axis, of three channels, would leave vector units idle.
    """
    place = jax.lax.iota(jnp.uint32, math.prod(shape))
    flat = jax.lax.map(lambda i: make(*threefry2x32(words[0], words[1], i, place), *more), index)
    return flat.reshape(-1, *shape)


def bits(prng: str) -> str:
    """The source of the random words of `numbers_of` under keys of `prng`, for the record of a run."""
    words = {
        "threefry": "threefry2x32 at (sample, coordinate)",
        "rbg": f"rbg of fold_in(sample), jaxlib {version('jaxlib')}",
    }
    return f"fold_in(seed, image, stage, draw), {words[prng]}"


def threefry2x32(k0, k1, x0, x1) -> tuple[UInt32[Array, "..."], UInt32[Array, "..."]]:
    """The two words of Threefry-2x32 with 20 rounds (Salmon et al. 2011) for the key (k0, k1) and the counter (x0, x1).

    It is written out: XLA then fuses it with the code that uses its words, and both words cost as much as one.
    """
    keys = (k0, k1, k0 ^ k1 ^ np.uint32(0x1BD11BDA))
    x0, x1 = x0 + k0, x1 + k1
    for turn in range(5):
        for rotation in _ROTATIONS[turn % 2]:
            x0 = x0 + x1
            x1 = x0 ^ (x1 << np.uint32(rotation) | x1 >> np.uint32(32 - rotation))
        x0 = x0 + keys[(turn + 1) % 3]
        x1 = x1 + keys[(turn + 2) % 3] + np.uint32(turn + 1)
    return x0, x1


def _rbg_words(key, shape):
    """Two arrays of random words. Under vmap it takes one key after another: JAX would draw for all from the first."""
    draw = jax.custom_batching.sequential_vmap(lambda key: jax.lax.rng_bit_generator(key, (2, *shape), jnp.uint32)[1])
    return draw(jax.random.key_data(key))


def normal_numbers(first: UInt32[_Array, "..."], second: UInt32[_Array, "..."]) -> Float[Array, "..."]:
    """The normal number of each pair of words, float32.

    The first bit of `first` is the sign. Its other 31 bits and the first 31 of `second` are a whole number k. The
    magnitude is the z that a normal number exceeds, to both sides, with probability (k + 1/2) / 2**62.
    """
    magnitude = jax.lax.bitcast_convert_type(normal_magnitude(*magnitude_words(first, second)), jnp.uint32)
    return jax.lax.bitcast_convert_type(magnitude | first & _HALF, jnp.float32)


def magnitude_words(first: UInt32[_Array, "..."], second: UInt32[_Array, "..."]):
    """The upper and the lower 31 bits of k, int32."""
    return (first & (_HALF - 1)).astype(jnp.int32), (second >> 1).astype(jnp.int32)


def is_negative(first: UInt32[_Array, "..."]):
    """The sign of a number, from its first word."""
    return first >= _HALF


def normal_magnitude(k0, k1) -> Float[Array, "..."]:
    """The magnitude of the normal number for each k, float32, to a relative error of 5e-7 up to 7.5."""
    tail = (k0.astype(jnp.float32) + (k1.astype(jnp.float32) + 0.5) * np.float32(2**-31)) * np.float32(2**-31)
    body = ((k0 ^ (2**31 - 1)).astype(jnp.float32) + 0.5) * np.float32(2**-31)  # 1 - tail, exact where it is small
    return _quantile(tail, body)


def _quantile(tail, body):
    """The z >= 0 with P(|Z| > z) = tail = 1 - body, to a relative error of 4e-7.

    z / body is smooth in w = -log2(1 - body**2) (Giles 2012). It is a polynomial in w up to 9.375, where z is 3.37, and
    beyond that a polynomial in the root of w.
    """
    w = -_log2(tail * (1 + body))
    root = jnp.sqrt(jnp.maximum(w, 9.375) - 2.25)
    return body * jnp.where(w < 9.375, _polynomial(_CENTRE, w - 4.6875), _polynomial(_TAIL, root - 5))


def _log2(x):
    """The binary logarithm of positive normal numbers, from sums and products alone: the same on every platform."""
    bits = jax.lax.bitcast_convert_type(x, jnp.int32)
    exponent = (bits - 0x3F3504F3) >> 23  # so that the rest lies within the root of 2 of 1
    fraction = jax.lax.bitcast_convert_type(bits - (exponent << 23), jnp.float32) - 1
    return exponent.astype(jnp.float32) + fraction * _polynomial(_LOG2, fraction)


def _polynomial(coefficients, x):
    first, *rest = np.asarray(coefficients[::-1], np.float32)
    return functools.reduce(lambda value, coefficient: value * x + coefficient, rest, first)
