"""The documented noise once more, in NumPy and SciPy."""

import jax
import numpy as np
from scipy import special


def threefry(key, index, size):
    """The two words of Threefry-2x32 at the counters (index, 0), (index, 1), ...; Salmon et al. 2011, figure 3."""
    keys = [np.uint32(word) for word in jax.random.key_data(key)]
    keys.append(keys[0] ^ keys[1] ^ np.uint32(0x1BD11BDA))
    x = [np.full(size, index, np.uint32) + keys[0], np.arange(size, dtype=np.uint32) + keys[1]]
    for number, rotation in enumerate((13, 15, 26, 6, 17, 29, 16, 24) * 2 + (13, 15, 26, 6)):
        x[0] = x[0] + x[1]
        x[1] = x[0] ^ (x[1] << np.uint32(rotation) | x[1] >> np.uint32(32 - rotation))
        if (turn := (number + 1) // 4) * 4 == number + 1:
            x[0] = x[0] + keys[turn % 3]
            x[1] = x[1] + keys[(turn + 1) % 3] + np.uint32(turn)
    return x


def quantiles(first, second):
    """The normal numbers of pairs of words, in float64: SciPy's quantiles, from the nearer end of the distribution."""
    k = (first & np.uint32(2**31 - 1)).astype(np.int64) << 31 | (second >> np.uint32(1)).astype(np.int64)
    tail, body = ((x.astype(np.longdouble) + 0.5) / 2.0**62 for x in (k, 2**62 - 1 - k))
    magnitude = np.where(
        tail < 0.5, -special.ndtri((tail / 2).astype(float)), np.sqrt(2) * special.erfinv(body.astype(float))
    )
    return np.where(first >> np.uint32(31), -magnitude, magnitude)


def reference_noise(key, index, shape):
    """The noise of sample `index` under a threefry key, to float32."""
    return quantiles(*threefry(key, index, int(np.prod(shape)))).reshape(shape).astype(np.float32)
