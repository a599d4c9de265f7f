"""The random streams of an image: each stage of its certification draws from one of its own.

A sample is a function of (seed, index of the image, stage, draw, number of the sample) alone, whatever the batch, the
devices, and the other images.
"""

import jax
import numpy as np
from jaxtyping import Float, UInt32

SEARCH, SELECTION, ESTIMATION, END = range(4)  # the stages of a certification, and what is behind the last
CURVE = 4  # curves of R(sigma), whose noise no certificate sees
UNIFORM = 5  # the number that randomises a bound


def stream(key, stage, draw):
    """The key of a stage, and within it of a draw: a search that samples anew at each sigma numbers its draws."""
    return jax.random.fold_in(jax.random.fold_in(key, stage), draw)


def uniform_words(keys) -> UInt32[jax.Array, "*m 2"]:
    """The bits of `uniform`: those of the stream's own key, a hash of the image's, whatever the kind of key."""
    words = lambda key: jax.random.key_data(stream(key, UNIFORM, 0))[:2]  # noqa: E731
    return jax.vmap(words)(keys) if keys.ndim else words(keys)


def uniform(words) -> Float[np.ndarray, "*m"] | np.float64:
    """For each image a number in (0, 1], uniform on multiples of 2**-53: rounded up, which lowers bounds."""
    bits = np.asarray(words).astype(np.uint64)
    return (((bits[..., 0] * 2**32 + bits[..., 1]) // 2**11) + 1)[()] / 2.0**53
