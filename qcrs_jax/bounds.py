"""Binomial and empirical Bernstein bounds, and the radii that they certify; tables of the binomial ones for inside jit.

Everything is computed on the host in float64 with SciPy. JAX has no inverse of the incomplete beta function, and needs
none: for a fixed n a bound is a table over the counts 0..n.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy import special

from .errors import SettingError

LEAST_ALPHA = 1e-300
"""The smallest failure probability that can be asked for. Its parts for looks and classes must be floats too."""


def check_asked_alpha(alpha) -> None:
    """Raises SettingError unless LEAST_ALPHA <= alpha < 1."""
    check_alpha(alpha)
    if np.any(np.asarray(alpha) < LEAST_ALPHA):
        raise SettingError(f"{{alpha}} is a failure probability and must be at least {LEAST_ALPHA:g}, not {alpha}")


def check_alpha(alpha, name: str = "alpha") -> None:
    """Raises SettingError, which calls it `name`, unless 0 < alpha < 1."""
    if not np.all((np.asarray(alpha) > 0) & (np.asarray(alpha) < 1)):
        raise SettingError(f"{{{name}}} is a failure probability and must lie in (0, 1), not {alpha}")


def clopper_pearson_lower(successes, n, alpha):
    r"""One-sided Clopper-Pearson lower bound of a binomial proportion, float64.

    With probability at least 1 - alpha over the n draws the bound is at most the true proportion. For k >= 1 it is the
    p with

    $$P(K \ge k \mid p) = \alpha, \qquad K \sim \text{Binomial}(n, p),$$

    rounded down: the probability at the bound, computed again, does not exceed alpha.

    Source: Clopper and Pearson 1934; LOWERCONFBOUND of Cohen et al. 2019.

    Args:
        successes: counts k, any shape, 0 <= k <= n.
        n: number of draws; the bound is 0 for n = 0.
        alpha: failure probability in (0, 1); broadcasts.

    Raises:
        ValueError: a number is out of its range.
    """
    check_alpha(alpha)
    k, n = np.asarray(successes, np.float64), np.asarray(n, np.float64)
    if np.any(k < 0) or np.any(k > n):
        raise ValueError("successes must lie between 0 and n")
    return np.where(k == 0, 0.0, _confirmed(_nearest_lower(k, n, alpha), np.maximum(k, 1), n - k + 1, alpha))[()]


def _nearest_lower(k, n, alpha):
    """`clopper_pearson_lower` as near as SciPy has it, and not rounded down: for expectations."""
    return np.where(k == 0, 0.0, special.betaincinv(np.maximum(k, 1), n - k + 1, alpha))


def _confirmed(bound, a, b, alpha):
    """`bound`, lowered as far as is needed for the incomplete beta function to confirm it: I(bound; a, b) <= alpha."""
    bound, a, b, alpha = np.broadcast_arrays(bound, a, b, alpha)
    bound, least = np.array(bound), alpha * (1 - INCOMPLETE_BETA)
    open_ = np.flatnonzero(special.betainc(a, b, bound).ravel() > least.ravel())
    flat, (a, b, least) = bound.reshape(-1), (array.ravel() for array in (a, b, least))
    for step in 2.0 ** np.arange(-53, 0):
        if not open_.size:
            break
        flat[open_] *= 1 - step
        open_ = open_[special.betainc(a[open_], b[open_], flat[open_]) > least[open_]]
    return bound


def randomised_lower(successes, n, alpha: float, u):
    r"""One-sided randomised Clopper-Pearson lower bound of a binomial proportion, float64 in [0, 1].

    With probability exactly 1 - alpha over the n draws and u the bound is at most the true proportion p, for every
    0 < p < 1. It is the p with

    $$P(K > k \mid p) + u \, P(K = k \mid p) = \alpha.$$

    At u = 1 it is Clopper and Pearson's bound for k, at u = 0 the one for k + 1. In between it falls in u. Where u <=
    alpha and all draws succeed no p < 1 remains, and the bound is 1.

    Source: Stevens 1950; Voracek 2024.

    Args:
        successes, n, alpha: as for `clopper_pearson_lower`.
        u: number from a uniform distribution on (0, 1], independent of the draws and not looked at before; broadcasts.

    Raises:
        ValueError: a number is out of its range.
    """
    smallest = clopper_pearson_lower(successes, n, alpha)
    k, n, u, low = np.broadcast_arrays(np.asarray(successes, np.float64), np.asarray(n, np.float64), u, smallest)
    if np.any(u < 0) or np.any(u > 1):
        raise ValueError("u must lie in [0, 1]")
    high = np.where(k == n, 1.0, clopper_pearson_lower(np.minimum(k + 1, n), n, alpha))
    for _ in range(60):
        middle = (low + high) / 2
        more = np.where(k == n, 0.0, special.betainc(k + 1, np.maximum(n - k, 1), middle))
        as_many = np.where(k == 0, 1.0, special.betainc(np.maximum(k, 1), n - k + 1, middle))
        rejected = more + u * (as_many - more) <= alpha * (1 - INCOMPLETE_BETA)
        low, high = np.where(rejected, middle, low), np.where(rejected, high, middle)
    return np.where((k == n) & (u <= alpha), 1.0, low)[()]


def clopper_pearson_upper(successes, n, alpha: float):
    """One-sided Clopper-Pearson upper bound of a binomial proportion, float64.

    With probability at least 1 - alpha it is at least the true proportion. Arguments as for `clopper_pearson_lower`.
    """
    return 1.0 - clopper_pearson_lower(np.asarray(n) - np.asarray(successes), n, alpha)


UnitRadius = Callable[[Any], Any]
"""The radius at sigma = 1 of a probability, `Noise.unit_radius`; by default that of normal noise, ndtri."""


def certified_radius(pa_lower, sigma, unit_radius: UnitRadius = special.ndtri):
    r"""The radius sigma * unit_radius(pa_lower), 0 where pa_lower <= 1/2; float64 (Cohen et al. 2019, theorem 1).

    For normal noise this is

    $$\sigma \, \Phi^{-1}(\underline{p_A}).$$

    Args:
        pa_lower: lower bounds of the top class's probability, in [0, 1).
        sigma: noise levels in the units of the image; broadcasts against pa_lower.
        unit_radius: radius at sigma = 1 of a probability, as `Noise.unit_radius`.
    """
    return np.asarray(sigma, np.float64) * rounded_down(unit_radius(np.maximum(pa_lower, 0.5)))


def rounded_down(radius):
    """`radius`, lowered by more than the error of a quantile, a product with sigma and a sum; float64."""
    return radius * np.where(np.signbit(radius), 1 + QUANTILE, 1 - QUANTILE)


def smallest_n(alpha: float) -> int:
    """The smallest n at which some count can certify: alpha ** (1 / n) > 1/2."""
    check_alpha(alpha)
    return math.floor(-math.log2(alpha)) + 1


@functools.lru_cache(maxsize=16)
def pa_lower_table(n: int, alpha: float) -> np.ndarray:
    """`clopper_pearson_lower` for k = 0..n; shape (n + 1,), float64, read-only."""
    table = clopper_pearson_lower(np.arange(n + 1), n, alpha)
    table.setflags(write=False)
    return table


@functools.lru_cache(maxsize=16)
def radius_table(n: int, alpha: float, unit_radius: UnitRadius = special.ndtri) -> np.ndarray:
    """`certified_radius` at sigma = 1 for k = 0..n; shape (n + 1,), float64, read-only."""
    table = certified_radius(pa_lower_table(n, alpha), 1.0, unit_radius)
    table.setflags(write=False)
    return table


INCOMPLETE_BETA = 2.0**-36
"""The relative error of SciPy's incomplete beta function that bounds allow for."""

QUANTILE = 2.0**-46
"""The relative error of SciPy's normal quantile, and of a product, that radii allow for."""

LEAST_BOUND = 1e-9
"""Bounds below it count as this one in means of radii: that of a bound of 0 is infinite."""

PROBITS = np.linspace(-2, 7, 901)
"""The z = ndtri(p) at which `expected_radius_table` is tabulated, from below p = 1/2 to beyond what samples show."""


def _equally_likely(values):
    """Equally likely levels of quantiles, which represent a distribution."""
    return (np.arange(values) + 0.5) / values


def expected_radius(z, n: int, alpha: float, quantiles: int = 200, unit_radius: UnitRadius = special.ndtri):
    """The radius at sigma = 1 that n samples can be expected to certify where p = Phi(z), float64.

    It is the mean of the certified radius over the binomial distribution of the count, represented by `quantiles` of
    its quantiles.
    """
    levels, z = _equally_likely(quantiles), np.asarray(z, np.float64)
    radii, p = np.zeros((*z.shape, quantiles)), special.ndtr(z)
    some = special.bdtr(n // 2, n, p) < levels[-1]  # elsewhere no more than half of the samples succeed
    counts = binomial_quantiles(levels, n, z[some])
    radii[some] = unit_radius(np.maximum(_nearest_lower(counts, n, alpha), 0.5))
    return radii.mean(axis=-1)


def binomial_quantiles(levels: Float[np.ndarray, "q"], n: int, z: Float[np.ndarray, "m"]) -> Float[np.ndarray, "m q"]:
    """The smallest counts of n samples at which the binomial distribution function reaches `levels`, where p = Phi(z).

    The search starts at a normal approximation with its first corrections (Cornish and Fisher 1938), which is off by a
    count or so, and continues in steps of one. This takes a fifth of the time of SciPy's inverse, which searches the
    whole range.
    """
    p, w = special.ndtr(z)[:, None], special.ndtri(levels)
    variance = np.maximum(n * p * special.ndtr(-z)[:, None], 1e-12)
    guess = n * p + np.sqrt(variance) * w + (1 - 2 * p) * (w**2 - 1) / 6 - 0.5
    counts = np.clip(np.ceil(guess), 0, n)

    def steps(step, misses):
        """Moves the counts for which `misses(counts, p, levels)` holds by one, again and again."""
        place = np.arange(counts.size)
        flat, of_p, of_level = counts.reshape(-1), *(np.broadcast_to(a, counts.shape).ravel() for a in (p, levels))
        while place.size:
            place = place[misses(flat[place], of_p[place], of_level[place])]
            flat[place] += step

    steps(1, lambda k, p, level: (k < n) & (special.bdtr(k, n, p) < level))
    steps(-1, lambda k, p, level: (k > 0) & (special.bdtr(k - 1, n, p) >= level))
    return counts


@functools.lru_cache(maxsize=16)
def expected_radius_table(n: int, alpha: float, unit_radius: UnitRadius = special.ndtri) -> np.ndarray:
    """`expected_radius` at the z of `PROBITS`; shape (901,), float64, read-only."""
    table = expected_radius(PROBITS, n, alpha, unit_radius=unit_radius)
    table.setflags(write=False)
    return table


@functools.lru_cache(maxsize=16)
def expected_half_table(n: int, alpha: float, unit_radius: UnitRadius = special.ndtri) -> np.ndarray:
    """Half the mean of unit_radius(`clopper_pearson_lower`) over n samples, at the z of `PROBITS`; (901,), float64.

    Unlike a radius it is negative where the bound is below 1/2. Half a gap between two bounds is a sum of two of these.
    """
    counts = binomial_quantiles(_equally_likely(200), n, PROBITS)
    table = unit_radius(np.maximum(_nearest_lower(counts, n, alpha), LEAST_BOUND)).mean(axis=-1) / 2
    table.setflags(write=False)
    return table


@functools.lru_cache(maxsize=16)
def predictive_table(m: int, n: int, alpha: float, unit_radius: UnitRadius = special.ndtri) -> np.ndarray:
    """The radius at sigma = 1 that n samples can be expected to certify after k of m samples; shape (m + 1,), float64.

    It is `predictive(expected_radius_table(n, alpha), m)`. It takes k for the count of a class that was named before
    the samples were drawn. If k is the largest count, the radius is overestimated where two classes are close. This can
    cost radius or samples; no certificate depends on it.
    """
    table = predictive(expected_radius_table(n, alpha, unit_radius), m)
    table.setflags(write=False)
    return table


def predictive(table: Float[np.ndarray, "probits"], m: int) -> Float[np.ndarray, "counts"]:
    """The mean of a table at `PROBITS` over p given k = 0..m successes of m, under Jeffreys' prior: (m + 1,)."""
    return np.interp(_posterior_probits(m), PROBITS, table).mean(axis=1)


@functools.lru_cache(maxsize=16)
def _posterior_probits(m):
    """Equally likely quantiles of ndtri(p) given k = 0..m successes of m; (m + 1, 200)."""
    k = np.arange(m + 1)[:, None]
    return special.ndtri(special.betaincinv(k + 0.5, m - k + 0.5, _equally_likely(200)))


@functools.lru_cache(maxsize=16)
def enough_table(m: int, n: int, alpha: float, tolerance: float, unit_radius: UnitRadius = special.ndtri) -> np.ndarray:
    """The number of samples, at most n, that can be expected to keep the radius of n samples within `tolerance`.

    After k of m successes, for k = 0..m, it is the smallest of n, n / sqrt(2), n / 2, ... down to n / 128 whose
    `predictive_table` is at least 1 - tolerance times that of n; shape (m + 1,), int64, read-only.

    As there, k is taken for the count of a class that was named beforehand.
    """
    most = predictive_table(m, n, alpha, unit_radius)
    table = np.full(m + 1, n)
    for step in range(1, 15):
        fewer = max(math.ceil(n * 2 ** (-step / 2)), smallest_n(alpha))
        table = np.where(predictive_table(m, fewer, alpha, unit_radius) >= (1 - tolerance) * most, fewer, table)
    table.setflags(write=False)
    return table


def predict_threshold(n, alpha: float):
    """The smallest top count that PREDICT accepts when the two top classes have n votes in all; int64.

    The two-sided exact binomial test of n1 out of n1 + n2 = n against 1/2 has a p-value of at most alpha exactly when
    n1 reaches this count. It exceeds n where no count is accepted.

    Source: Hung and Fithian 2019, as used by Cohen et al. 2019.
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


def bernstein_bounds(sums, squares, n: int, alpha: float, scale: int = 1):
    r"""One-sided empirical Bernstein bounds (lower, upper) of the mean of a variable in [0, 1], float64 in [0, 1].

    Each of the two holds with probability at least 1 - alpha over n independent draws. With V the sample variance of
    the draws, each lies

    $$\sqrt{\frac{2 V \log(2 / \alpha)}{n}} + \frac{7 \log(2 / \alpha)}{3 (n - 1)}$$

    from the mean of the draws (Maurer and Pontil 2009, theorem 4).

    Args:
        sums, squares: sums of the draws and of their squares, any shape, exact integers. A draw is an integer from 0 to
            `scale`, and stands for its share of `scale`.
        n: number of draws, at least 2.
        alpha: failure probability in (0, 1).
        scale: integer that stands for a draw of 1.

    Raises:
        ValueError: a number is out of its range, or the sums are not those of such draws.
    """
    check_alpha(alpha)
    sums, squares = np.asarray(sums, object), np.asarray(squares, object)  # Python's integers: nothing cancels
    spread = n * squares - sums * sums
    if n < 2 or np.any(spread < 0) or np.any(sums < 0) or np.any(squares > sums * scale):
        raise ValueError(f"sums and squares must be those of n >= 2 integers from 0 to {scale}")
    mean = np.asarray(sums / (n * scale), np.float64)
    variance = np.asarray(spread / (n * (n - 1) * scale**2), np.float64)
    log = math.log(2 / alpha)
    margin = np.sqrt(2 * variance * log / n) + 7 * log / (3 * (n - 1))
    margin += QUANTILE  # far more than the rounding of these few steps
    return np.maximum(mean - margin, 0.0), np.minimum(mean + margin, 1.0)


def soft_bounds(selected, sums, squares, spoilt, n: int, alpha: float, scale: int):
    """Bounds of mean soft votes, float64: pa_lower of the selected class, and pb_upper of every other class.

    With probability at least 1 - alpha over the n draws both hold. alpha is spent once. One half is for the selected
    class, which must be chosen from other draws. The other half is for the other classes in equal parts, as any of them
    may be the runner-up. The votes of a draw sum to at most 1, so 1 - pa_lower bounds the others as well.

    Args:
        selected: the selected class, any shape (*m).
        sums, squares: sums of the classes' votes and of their squares, (*m, num_classes), as for `bernstein_bounds`.
        spoilt: number of draws that voted for no class, (*m). Both bounds hold whatever they would have voted.
        n, alpha, scale: as for `bernstein_bounds`.
    """
    selected = np.asarray(selected)[..., None]
    sums, squares = np.asarray(sums, object), np.asarray(squares, object)
    spoilt = np.asarray(spoilt, object)[..., None]
    lower, _ = bernstein_bounds(sums, squares, n, alpha / 2, scale)
    others = alpha / (2 * (sums.shape[-1] - 1))
    _, upper = bernstein_bounds(sums + spoilt * scale, squares + spoilt * scale**2, n, others, scale)
    pa_lower = np.take_along_axis(lower, selected, axis=-1)[..., 0][()]
    np.put_along_axis(upper, selected, 0.0, axis=-1)
    return pa_lower, np.minimum(upper.max(axis=-1), 1 - pa_lower)


def gap_radius(pa_lower, pb_upper, sigma, unit_radius: UnitRadius = special.ndtri):
    r"""The radius sigma / 2 * (unit_radius(pa_lower) - unit_radius(pb_upper)), 0 where pa_lower <= pb_upper.

    Let any function into [0, 1] be smoothed with N(0, sigma^2). Then ndtri of the result is 1 / sigma-Lipschitz (Salman
    et al. 2019, appendix A; Zhai et al. 2020). Within the radius a class with a mean of at least pa_lower therefore
    stays above those below pb_upper. The same holds for other noises and their `unit_radius`.

    Args:
        pa_lower, pb_upper: bounds in [0, 1].
        sigma: noise levels in the units of the image; broadcasts against them.
        unit_radius: radius at sigma = 1 of a probability, as `Noise.unit_radius`.
    """
    certified = pa_lower > pb_upper
    of_others = rounded_down(-unit_radius(np.where(certified, pb_upper, 0.5)))
    gap = rounded_down(unit_radius(np.where(certified, pa_lower, 0.5))) + of_others
    return np.asarray(sigma, np.float64) / 2 * np.maximum(gap, 0.0)


def smallest_soft_n(alpha: float) -> int:
    """The smallest n at which soft votes can certify: the bounds of whole votes then lie on both sides of 1/2."""
    check_alpha(alpha)
    return math.floor(14 / 3 * (math.log(4) - math.log(alpha))) + 2


def look_up(table: np.ndarray, index: Int[Array | np.ndarray, "..."]):
    """`table[index]` inside jit, in float32 or int32.

    Real entries are lowered by two units in the last place. Neither the entry nor its product with a sigma then exceeds
    what float64 certifies.
    """
    if table.dtype.kind == "f":
        down = np.nextafter(table.astype(np.float32), np.float32(-np.inf))
        table = np.where(table == 0, 0, np.nextafter(down, np.float32(-np.inf))).astype(np.float32)
    return jnp.asarray(table)[index]
