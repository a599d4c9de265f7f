"""The random streams of an image. Each stage of its certification draws from a stream of its own.

A sample is a function of (seed, index of the image, stage, draw, number of the sample) alone. The batch, the devices
and the other images do not change it.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, UInt32

SEARCH, SELECTION, ESTIMATION, END = range(4)  # the stages of a certification, and the end of the last
CURVE = 4  # curves of R(sigma); no certificate sees their noise
UNIFORM = 5  # the number that randomises a bound
ATTACK = 6  # the gradients of an attack, one draw for each of its ascents
CHECK = 7  # the fresh samples that check what an attack found, one draw for each check
_COLLAPSE = np.frombuffer(b"collapse", ">u4").astype(np.uint32)  # no seed of 32 bits has these words


def stream(key, stage, draw):
    """The key of a stage and, within it, of a draw. A search that samples anew at each sigma numbers its draws."""
    return jax.random.fold_in(jax.random.fold_in(key, stage), draw)


def collapse_key():
    """The key under which a run measures collapse: the same for all seeds, and none that a seed of a run gives.

    The record of collapse may end the bracket of a search. It has to be known before a committed seed is.
    """
    return jax.random.wrap_key_data(jnp.asarray(_COLLAPSE), impl="threefry2x32")


def uniform_words(keys) -> UInt32[jax.Array, "*m 2"]:
    """The bits of `uniform`: those of the stream's own key, a hash of the image's key, for every kind of key."""
    words = lambda key: jax.random.key_data(stream(key, UNIFORM, 0))[:2]  # noqa: E731
    return jax.vmap(words)(keys) if keys.ndim else words(keys)


def uniform(words) -> Float[np.ndarray, "*m"] | np.float64:
    """For each image a number in (0, 1], uniform on multiples of 2**-53. It is rounded up, which lowers bounds."""
    bits = np.asarray(words).astype(np.uint64)
    return (((bits[..., 0] * 2**32 + bits[..., 1]) // 2**11) + 1)[()] / 2.0**53
