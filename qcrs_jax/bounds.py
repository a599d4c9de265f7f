"""Exact binomial bounds and the radii they certify; tables of them for use inside jit.

Everything is computed on the host in float64 with SciPy. JAX has no inverse of the incomplete beta
function, and needs none: for a fixed n a bound is a table over the count 0..n.
"""

import functools
import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int
from scipy import special


def check_alpha(alpha: float) -> None:
    """Raises ValueError unless 0 < alpha < 1."""
    if not 0 < alpha < 1:
        raise ValueError(f"alpha is a failure probability and must lie in (0, 1), not {alpha}")


def clopper_pearson_lower(successes, n, alpha: float):
    """One-sided Clopper-Pearson lower bound of a binomial proportion, float64.

    With probability at least 1 - alpha over the n draws the bound is at most the true proportion
    (Clopper and Pearson 1934; LOWERCONFBOUND of Cohen et al. 2019).

    Args:
        successes: counts k, any shape, 0 <= k <= n.
        n: number of draws, at least 1.
        alpha: failure probability in (0, 1).
    """
    check_alpha(alpha)
    k, n = np.asarray(successes, np.float64), np.asarray(n, np.float64)
    if np.any(k < 0) or np.any(k > n) or np.any(n < 1):
        raise ValueError("successes must lie between 0 and n, and n must be at least 1")
    bound = special.betaincinv(np.maximum(k, 1), n - k + 1, alpha)
    return np.where(k == 0, 0.0, bound)[()]


def clopper_pearson_upper(successes, n, alpha: float):
    """One-sided Clopper-Pearson upper bound of a binomial proportion, float64; at least the true one as above."""
    return 1.0 - clopper_pearson_lower(np.asarray(n) - np.asarray(successes), n, alpha)


def certified_radius(pa_lower, sigma):
    """L2 radius sigma * ndtri(pa_lower), 0 where pa_lower <= 1/2 (Cohen et al. 2019, theorem 1).

    Args:
        pa_lower: lower bounds of the top class's probability, in [0, 1).
        sigma: noise levels in units of pixels in [0, 1]; broadcasts against pa_lower.
    """
    return np.asarray(sigma, np.float64) * special.ndtri(np.maximum(pa_lower, 0.5))


def smallest_n(alpha: float) -> int:
    """The smallest n at which any count can certify: alpha ** (1 / n) > 1/2."""
    check_alpha(alpha)
    return math.floor(-math.log2(alpha)) + 1


@functools.lru_cache(maxsize=16)
def pa_lower_table(n: int, alpha: float) -> np.ndarray:
    """`clopper_pearson_lower` for k = 0..n; shape (n + 1,), float64, read-only."""
    table = clopper_pearson_lower(np.arange(n + 1), n, alpha)
    table.setflags(write=False)
    return table


@functools.lru_cache(maxsize=16)
def radius_table(n: int, alpha: float) -> np.ndarray:
    """`certified_radius` at sigma = 1 for k = 0..n; shape (n + 1,), float64, read-only."""
    table = certified_radius(pa_lower_table(n, alpha), 1.0)
    table.setflags(write=False)
    return table


def predict_threshold(n, alpha: float):
    """Smallest top count that PREDICT accepts when the two top classes have n votes in all; int64.

    The two-sided exact binomial test of n1 out of n1 + n2 = n against 1/2 has a p-value of at most alpha exactly when
    n1 reaches it (Hung and Fithian 2019, as used by Cohen et al. 2019). It exceeds n where no count is accepted.
    """
    from scipy import stats  # slow to import, and only PREDICT needs it

    check_alpha(alpha)
    return np.asarray(stats.binom.isf(alpha / 2, n, 0.5)).astype(np.int64) + 1


@functools.lru_cache(maxsize=16)
def predict_table(n: int, alpha: float) -> np.ndarray:
    """`predict_threshold` for 0..n votes; shape (n + 1,), int64, read-only."""
    table = predict_threshold(np.arange(n + 1), alpha)
    table.setflags(write=False)
    return table


def look_up(table: np.ndarray, index: Int[Array | np.ndarray, "..."]):
    """`table[index]` inside jit, in float32 or int32.

    Real entries are lowered by two units in the last place, so that neither the entry nor its product with a sigma
    overstates what float64 certifies.
    """
    if table.dtype.kind == "f":
        down = np.nextafter(table.astype(np.float32), np.float32(-np.inf))
        table = np.where(table == 0, 0, np.nextafter(down, np.float32(-np.inf))).astype(np.float32)
    return jnp.asarray(table)[index]
