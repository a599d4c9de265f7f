"""The posterior of a curve of probabilities, against SciPy's optimiser in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, special

from qcrs_jax.search.posterior import Prior, posterior

SIGMAS = np.geomspace(0.06, 1.2, 60)
CURVE = Prior().curve(Prior().on(SIGMAS), jnp.float32(0.25))
fit = jax.jit(lambda successes, n: posterior(CURVE, successes, n))


def some_counts(rng, most=12, samples=(50, 500, 5000)):
    """Counts at some of the sigmas, of a curve that falls off, or goes up and down."""
    v = np.log(np.append(SIGMAS, 0.25) / 0.25)
    n = np.zeros(len(v), int)
    n[rng.choice(len(v), rng.integers(1, most), replace=False)] = rng.choice(samples)
    z = 1.5 - 2 * v + 2 * rng.normal() + np.sin(3 * v) * rng.normal()
    return rng.binomial(n, special.ndtr(z)), n


def scipy_posterior(successes, n):
    mean, basis = (np.asarray(a, float) for a in CURVE)
    hazard = lambda z: np.exp(-0.5 * z**2 - 0.5 * np.log(2 * np.pi) - special.log_ndtr(z))  # noqa: E731

    def minus_log(x):
        z = mean + basis @ x
        value = successes @ special.log_ndtr(z) + (n - successes) @ special.log_ndtr(-z) - 0.5 * x @ x
        return -value, x - basis.T @ (successes * hazard(z) - (n - successes) * hazard(-z))

    def second(x):
        z = mean + basis @ x
        up, down = hazard(z), hazard(-z)
        curvature = successes * up * (z + up) + (n - successes) * down * (down - z)
        return np.eye(x.size) + basis.T @ (curvature[:, None] * basis)

    options = {"gtol": 1e-9, "maxiter": 1000}
    x = optimize.minimize(
        minus_log, np.zeros(basis.shape[1]), jac=True, hess=second, method="trust-exact", options=options
    ).x
    return mean + basis @ x, np.sqrt(np.einsum("ij,jk,ik->i", basis, np.linalg.inv(second(x)), basis))


@pytest.mark.slow_for("0")
@pytest.mark.parametrize("seed", range(20))
def test_mode_and_deviation_are_scipy_s(seed):
    successes, n = some_counts(np.random.default_rng(seed))
    ours = fit(jnp.float32(successes), jnp.float32(n))
    mode, deviation = scipy_posterior(successes, n)
    assert np.max(np.abs(ours.mean - mode) / deviation) < 0.05
    np.testing.assert_allclose(ours.deviation, deviation, rtol=0.05)


def test_without_counts_it_is_the_prior():
    zero = jnp.zeros(61)
    prior = Prior()
    v = np.append(np.log(SIGMAS / 0.25), 0)
    ours = fit(zero, zero)
    np.testing.assert_allclose(ours.mean, prior.height + prior.slope * v, rtol=1e-4, atol=1e-5)
    variance = prior.height_sd**2 + (prior.slope_sd * v) ** 2 + prior.amplitude**2
    np.testing.assert_allclose(ours.deviation, np.sqrt(variance), rtol=2e-3)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 60), st.integers(1, 2**24), st.floats(0, 1)), min_size=1, max_size=15))
def test_it_is_finite_whatever_was_counted(evidence):
    successes, n = np.zeros(61), np.zeros(61)
    for point, samples, share in evidence:
        successes[point] += int(share * samples)
        n[point] += samples
    ours = fit(jnp.float32(successes), jnp.float32(n))
    assert np.all(np.isfinite(ours.mean)) and np.all(np.isfinite(ours.deviation)) and np.all(ours.deviation > 0)


def test_its_intervals_cover_curves_of_the_prior():
    rng = np.random.default_rng(5)
    mean, basis = (np.asarray(a) for a in CURVE)
    inside = []
    for _ in range(200):
        z = mean + basis @ rng.normal(size=basis.shape[1])
        n = np.where(rng.random(61) < 0.15, 200, 0)
        ours = fit(jnp.float32(rng.binomial(n, special.ndtr(z))), jnp.float32(n))
        inside.append(np.abs(z - ours.mean) < 1.96 * np.asarray(ours.deviation))
    assert 0.9 < np.mean(inside) < 0.99


@pytest.mark.slow
def test_images_together_are_those_one_by_one():
    counts = [some_counts(np.random.default_rng(seed)) for seed in range(3)]
    successes, n = (jnp.asarray(np.stack(a), jnp.float32) for a in zip(*counts))
    together = jax.vmap(fit)(successes, n)
    for i in range(3):
        alone = fit(successes[i], n[i])
        np.testing.assert_allclose(together.mean[i], alone.mean, atol=1e-2)
        np.testing.assert_allclose(together.deviation[i], alone.deviation, rtol=1e-2)
