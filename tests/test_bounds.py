"""Bounds against SciPy and statsmodels, and the tables of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from qcrs_jax import bounds


@given(st.integers(1, 100_000), st.floats(0, 1), st.sampled_from([1e-9, 0.001, 0.05, 0.5]))
def test_clopper_pearson_is_that_of_scipy_and_statsmodels(n, share, alpha):
    k = round(share * n)
    ours = bounds.clopper_pearson_lower(k, n, alpha)
    if k > 0:
        np.testing.assert_allclose(ours, stats.beta.ppf(alpha, k, n - k + 1), rtol=1e-9)
    if k > 0 and alpha < 0.5:
        both = ours, bounds.clopper_pearson_upper(k, n, alpha)
        np.testing.assert_allclose(both, proportion_confint(k, n, 2 * alpha, method="beta"), rtol=1e-9)


@pytest.mark.parametrize("n", [1, 10, 500, 100_000])
def test_ends_in_closed_form(n):
    assert bounds.clopper_pearson_lower(0, n, 0.001) == 0
    np.testing.assert_allclose(bounds.clopper_pearson_lower(n, n, 0.001), 0.001 ** (1 / n), rtol=1e-12)


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


@pytest.mark.parametrize(("k", "n"), [(-1, 5), (6, 5), (0, 0)])
def test_counts_outside_their_range_are_refused(k, n):
    with pytest.raises(ValueError, match="between 0 and n"):
        bounds.clopper_pearson_lower(k, n, 0.1)
