"""Bounds against SciPy, and the tables of them."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from qcrs_jax import bounds


@given(st.integers(1, 100_000), st.floats(0, 1), st.sampled_from([1e-9, 0.001, 0.05, 0.5]))
def test_clopper_pearson_is_that_of_scipy(n, share, alpha):
    k = round(share * n)
    ours = bounds.clopper_pearson_lower(k, n, alpha)
    if k > 0:
        np.testing.assert_allclose(ours, stats.beta.ppf(alpha, k, n - k + 1), rtol=1e-9)
    if k > 0 and alpha < 0.5:
        both = ours, bounds.clopper_pearson_upper(k, n, alpha)
        upper = stats.beta.isf(alpha, k + 1, n - k) if k < n else 1
        np.testing.assert_allclose(both[1], upper, rtol=1e-9)
        exact = stats.binomtest(k, n).proportion_ci(1 - 2 * alpha, "exact")  # by a root of the binomial distribution
        np.testing.assert_allclose(both, exact, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("n", [1, 10, 500, 100_000])
def test_ends_in_closed_form(n):
    assert bounds.clopper_pearson_lower(0, n, 0.001) == 0
    bound = bounds.clopper_pearson_lower(n, n, 0.001)  # rounded down
    np.testing.assert_allclose(bound, 0.001 ** (1 / n), rtol=1e-10)
    assert bound <= 0.001 ** (1 / n)


def test_the_bound_covers_at_its_level():
    # Exact coverage: the probability of the counts whose bound exceeds p, summed, not sampled.
    n, alpha = 200, 0.01
    lower = bounds.pa_lower_table(n, alpha)
    for p in (0.3, 0.5, 0.7, 0.95, 0.999):
        wrong = stats.binom.pmf(np.arange(n + 1), n, p)[lower > p].sum()
        assert wrong <= alpha
    assert stats.binom.pmf(np.arange(n + 1), n, 0.7)[lower > 0.7].sum() > alpha / 3  # and is not vacuous


def test_largest_radius_at_the_field_s_defaults():
    # 3.811 sigma at n = 100 000 and alpha = .001.
    np.testing.assert_allclose(bounds.radius_table(100_000, 0.001)[-1], 3.811, atol=5e-4)


@given(st.integers(1, 3000), st.sampled_from([1e-6, 0.001, 0.1]))
def test_tables_grow_with_the_count(n, alpha):
    assert np.all(np.diff(bounds.pa_lower_table(n, alpha)) > 0)
    radius = bounds.radius_table(n, alpha)
    assert np.all(np.diff(radius) >= 0) and np.all((radius > 0) == (bounds.pa_lower_table(n, alpha) > 0.5))


@pytest.mark.parametrize("alpha", [0.5, 0.25, 0.1, 0.001, 1e-6])
def test_smallest_n_is_the_first_that_certifies(alpha):
    n = bounds.smallest_n(alpha)
    assert bounds.radius_table(n, alpha)[-1] > 0
    assert n == 1 or bounds.radius_table(n - 1, alpha)[-1] == 0


def test_predict_table_is_the_exact_binomial_test():
    alpha, n = 0.01, 60
    table = bounds.predict_table(n, alpha)
    assert table[0] > 0
    for m in range(1, n + 1):
        for top in range((m + 1) // 2, m + 1):
            assert (stats.binomtest(top, m, 0.5).pvalue <= alpha) == (top >= table[m]), (top, m)


def test_inside_jit_a_table_never_overstates():
    n, alpha = 5000, 0.001
    exact = bounds.radius_table(n, alpha)
    inside = jax.jit(lambda k: bounds.look_up(exact, k))(jnp.arange(n + 1))
    for sigma in np.float32([0.1, 0.25, 0.377, 1.3]):
        product = np.asarray(inside * sigma, np.float64)
        assert np.all(product <= exact * np.float64(sigma))
        np.testing.assert_allclose(product, exact * sigma, rtol=1e-6)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_alpha_outside_its_range_is_refused(alpha):
    with pytest.raises(ValueError, match="alpha"):
        bounds.clopper_pearson_lower(1, 2, alpha)


@pytest.mark.parametrize(("k", "n"), [(-1, 5), (6, 5), (0, -1)])
def test_counts_outside_their_range_are_refused(k, n):
    with pytest.raises(ValueError, match="between 0 and n"):
        bounds.clopper_pearson_lower(k, n, 0.1)


def test_no_draws_bound_nothing():
    assert bounds.clopper_pearson_lower(0, 0, 0.001) == 0
    assert bounds.clopper_pearson_lower([0, 9], [0, 10], 0.5).tolist()[0] == 0


def test_bernstein_is_that_of_maurer_and_pontil():
    draws = np.random.default_rng(0).integers(0, 101, (3, 50))
    lower, upper = bounds.bernstein_bounds(draws.sum(1), (draws**2).sum(1), 50, 0.01, scale=100)
    shares = draws / 100
    term = np.log(2 / 0.01)
    margin = np.sqrt(2 * shares.var(axis=1, ddof=1) * term / 50) + 7 * term / (3 * 49)
    np.testing.assert_allclose(lower, np.maximum(shares.mean(1) - margin, 0), rtol=1e-12)
    np.testing.assert_allclose(upper, np.minimum(shares.mean(1) + margin, 1), rtol=1e-12)


def test_bernstein_is_exact_where_floats_would_cancel():
    # 2**30 votes of almost everything, that vary in the last unit of one of them.
    n, one = 2**30, 2**15
    sums, squares = n * one - 1, n * one**2 - 2 * one + 1
    lower, upper = bounds.bernstein_bounds(sums, squares, n, 0.001, one)
    least = 7 * np.log(2000) / (3 * (n - 1))
    assert upper == 1 and 1 - lower - 1 / (n * one) == pytest.approx(least, rel=1e-6)


@pytest.mark.parametrize(("values", "p"), [((0, 8), (0.3, 0.7)), ((0, 3, 8), (0.05, 0.15, 0.8)), ((7, 8), (0.5, 0.5))])
def test_bernstein_covers_at_its_level(values, p):
    values, runs, n, alpha = np.array(values), 20_000, 200, 0.05
    counts = np.random.default_rng(1).multinomial(n, p, runs)
    lower, upper = bounds.bernstein_bounds(counts @ values, counts @ values**2, n, alpha, 8)
    mean = np.dot(values, p) / 8
    most = stats.binom.isf(1e-6, runs, alpha)
    assert (lower > mean).sum() <= most and (upper < mean).sum() <= most
    assert (upper - lower).mean() < 0.5


def test_soft_bounds_cover_together_at_their_level():
    # Votes for four classes in units of 1/8; the last draw is spoilt, and what it would have voted anyone's guess.
    votes = np.array([[8, 0, 0, 0], [4, 3, 1, 0], [1, 5, 2, 0], [0, 0, 8, 0], [0, 0, 0, 0]])
    p, n, runs, alpha = np.array([0.5, 0.2, 0.15, 0.05, 0.1]), 100, 20_000, 0.05
    counts = np.random.default_rng(2).multinomial(n, p, runs)
    pa_lower, pb_upper = bounds.soft_bounds(
        np.zeros(runs, int), counts @ votes, counts @ votes**2, counts[:, -1], n, alpha, 8
    )
    means = p @ votes / 8
    wrong = (pa_lower > means[0]) | (pb_upper < means[1] + p[-1])  # all spoilt draws for the runner-up
    assert wrong.sum() <= stats.binom.isf(1e-6, runs, alpha)
    assert np.all(pb_upper <= 1 - pa_lower) and np.all(pb_upper >= counts[:, -1] / n)


def test_soft_bounds_spend_alpha_once():
    sums, squares, n, alpha = np.array([700, 200, 90]), np.array([600, 150, 80]), 1000, 0.01
    pa_lower, pb_upper = bounds.soft_bounds(0, sums, squares, 0, n, alpha, 1)
    assert pa_lower == bounds.bernstein_bounds(700, 600, n, alpha / 2)[0]
    assert pb_upper == bounds.bernstein_bounds(200, 150, n, alpha / 4)[1]
    # With two classes the second bound is no better than what the first leaves.
    pa_lower, pb_upper = bounds.soft_bounds(0, sums[:2], squares[:2], 0, 1000, alpha, 1)
    assert pb_upper == min(1 - pa_lower, bounds.bernstein_bounds(200, 150, n, alpha / 2)[1])


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0.01, 10))
def test_gap_radius_is_half_the_gap(pa_lower, pb_upper, sigma):
    radius = bounds.gap_radius(pa_lower, pb_upper, sigma)
    if pa_lower <= pb_upper:
        assert radius == 0
    else:
        gap = special.ndtri(pa_lower) - special.ndtri(pb_upper)
        assert radius == pytest.approx(sigma / 2 * gap, rel=1e-12, abs=1e-12 * sigma)  # up to 38 - 37


def test_gap_radius_of_two_classes_is_cohens():
    np.testing.assert_allclose(bounds.gap_radius(0.9, 1 - 0.9, 0.5), bounds.certified_radius(0.9, 0.5))


@pytest.mark.parametrize("alpha", [0.5, 0.1, 0.001, 1e-6])
def test_smallest_soft_n_is_the_first_that_certifies(alpha):
    smallest = bounds.smallest_soft_n(alpha)
    for n in (smallest - 1, smallest):
        pa_lower, pb_upper = bounds.soft_bounds(0, [n, 0, 0], [n, 0, 0], 0, n, alpha, 1)
        assert (pa_lower > pb_upper) == (n == smallest)


@pytest.mark.parametrize(("sums", "squares", "n"), [(5, 4, 6), (7, 7, 6), (-1, 1, 6), (1, 2, 6), (1, 1, 1)])
def test_impossible_sums_are_refused(sums, squares, n):
    with pytest.raises(ValueError, match="n >= 2 integers from 0 to 1"):
        bounds.bernstein_bounds(sums, squares, n, 0.1)


@pytest.mark.parametrize("n", [10, 500, 100_000])
def test_the_expected_radius_is_the_mean_over_the_binomial(n):
    table = bounds.expected_radius_table(n, 0.001)
    counts = np.arange(n + 1)
    for z in (-0.5, 0.01, 1.0, 2.5, 4.5):
        exact = stats.binom.pmf(counts, n, special.ndtr(z)) @ bounds.radius_table(n, 0.001)
        assert np.interp(z, bounds.PROBITS, table) == pytest.approx(exact, rel=0.005, abs=0.005)
    assert np.all(np.diff(table) >= -1e-12)


def test_the_predictive_radius_is_the_mean_over_the_posterior():
    table = bounds.predictive_table(100, 2000, 0.001)
    rng = np.random.default_rng(0)
    for k in (40, 55, 80, 99, 100):
        counts = rng.binomial(2000, rng.beta(k + 0.5, 100.5 - k, 200_000))
        assert table[k] == pytest.approx(bounds.radius_table(2000, 0.001)[counts].mean(), rel=0.01, abs=0.002)
    assert np.all(np.diff(table) >= 0)
    assert table[100] > bounds.radius_table(100, 0.001)[100]  # it does not saturate as the bound of 100 does


@pytest.mark.slow_for("1414", "100000")
@pytest.mark.parametrize("n", [1, 2, 10, 101, 1414, 100_000])
def test_quantiles_of_binomials_are_scipy_s(n):
    levels = (np.arange(200) + 0.5) / 200
    with np.errstate(all="ignore"):
        theirs = np.ceil(special.bdtrik(levels, n, special.ndtr(bounds.PROBITS)[:, None]))
    theirs = np.nan_to_num(np.clip(theirs, 0, n))
    assert np.array_equal(bounds.binomial_quantiles(levels, n, bounds.PROBITS), theirs)


@pytest.mark.slow
def test_enough_samples_keep_the_expected_radius():
    m, n, tolerance = 100, 20_000, 0.02
    table = bounds.enough_table(m, n, 0.001, tolerance)
    assert table.min() >= n / 128 and table.max() <= n and table[0] < 200 < table[99]
    for k in (55, 80, 99, 100):
        most = bounds.predictive_table(m, n, 0.001)[k]
        assert bounds.predictive_table(m, int(table[k]), 0.001)[k] >= (1 - tolerance) * most
    assert np.all(bounds.enough_table(m, n, 0.001, 0.2) <= table)
    assert bounds.enough_table(20, 12, 0.001, 0.5).min() >= bounds.smallest_n(0.001)


@pytest.mark.slow_for("0.3")
@pytest.mark.parametrize("p", [0.3, 0.52, 0.75, 0.97, 0.9995])
def test_a_number_of_samples_chosen_by_the_selection_keeps_the_coverage(p):
    # Exactly: over all counts of the selection, and of as many samples as it asks for, whose bound exceeds p.
    m, n, alpha = 50, 2000, 0.05
    table = bounds.enough_table(m, n, alpha, 0.05)
    failure = 0.0
    for k0, chance in enumerate(stats.binom.pmf(np.arange(m + 1), m, p)):
        samples = int(table[k0])
        too_large = bounds.clopper_pearson_lower(np.arange(samples + 1), samples, alpha) > p
        failure += chance * stats.binom.pmf(np.arange(samples + 1), samples, p)[too_large].sum()
    assert failure <= alpha + 1e-12


@pytest.mark.slow
def test_a_table_of_expected_radii_is_made_for_any_n():
    exact = bounds.certified_radius(bounds.clopper_pearson_lower(2**29, 2**30, 0.001), 1.0)
    table = bounds.expected_radius_table(2**30, 0.001)
    assert exact == 0 and np.interp(1.0, bounds.PROBITS, table) == pytest.approx(1.0, abs=1e-3)


def exact_tail(k, n, p):
    """P(K >= k) of K from Binomial(n, p) to 30 digits, where p lies below k / n."""
    p = mpmath.mpf(float(p))
    log_ways = mpmath.loggamma(n + 1) - mpmath.loggamma(k + 1) - mpmath.loggamma(n - k + 1)
    term = mpmath.exp(log_ways + k * mpmath.log(p) + (n - k) * mpmath.log(1 - p))
    total, odds = term, p / (1 - p)
    for i in range(k, n):
        term *= odds * (n - i) / (i + 1)
        total += term
        if term < total * mpmath.mpf(10) ** -30:
            break
    return total


@pytest.mark.parametrize("points", [150, pytest.param(4000, marks=pytest.mark.slow)])
def test_no_bound_fails_more_often_than_alpha_by_its_rounding(points):
    """Against exact sums, in counts and alphas of all sizes: float64 alone is above alpha in half of the cases."""
    rng, lowered = np.random.default_rng(points), []
    with mpmath.workdps(40):
        for kind in rng.integers(4, size=points):
            n, alpha = round(10 ** rng.uniform(0.5, 6)), 10 ** rng.uniform(-12, -0.5)
            k = [int(rng.integers(1, n + 1)), n, 1, n - min(n - 1, int(10 ** rng.uniform(0, 2)))][kind]
            bound = bounds.clopper_pearson_lower(k, n, alpha)
            assert exact_tail(k, n, bound) <= mpmath.mpf(alpha)
            lowered.append(1 - bound / special.betaincinv(k, n - k + 1, alpha))
    assert 0 <= np.median(lowered) < 1e-11 and max(lowered) < 1e-9


@pytest.mark.parametrize("points", [300, pytest.param(5000, marks=pytest.mark.slow)])
def test_no_radius_exceeds_that_of_its_bound(points):
    """Against quantiles to 40 digits, from bounds just above 1/2 to such as samples cannot show."""
    rng = np.random.default_rng(points)
    with mpmath.workdps(40):

        def quantile(p):
            z = mpmath.mpf(float(special.ndtri(p)))
            for _ in range(3):
                z -= (mpmath.ncdf(z) - mpmath.mpf(p)) / mpmath.npdf(z)
            return z

        for _ in range(points):
            p = 0.5 + 10 ** rng.uniform(-12, -1) if rng.random() < 0.3 else special.ndtr(rng.uniform(0, 7.5))
            q, sigma = float(rng.uniform(0, min(p, 1 - 1e-9))), float(10 ** rng.uniform(-3, 1))
            exact = mpmath.mpf(sigma) * quantile(p)
            radius = bounds.certified_radius(p, sigma)
            assert exact * (1 - 1e-13) <= mpmath.mpf(float(radius)) <= exact
            gap = mpmath.mpf(sigma) / 2 * (quantile(p) - quantile(q))
            assert mpmath.mpf(float(bounds.gap_radius(p, q, sigma))) <= gap
