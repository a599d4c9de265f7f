"""Bayesian optimisation of the radius on curves that are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from qcrs_jax import bayesian
from qcrs_jax.bayesian import REACH
from qcrs_jax.bounds import PROBITS, expected_radius_table
from qcrs_jax.search import run

RADII = expected_radius_table(100_000, 0.001)
BRACKET = (0.08, 0.9)
CLASSES = 10  # the first is the one that is searched for; the others share what it leaves


def search(probability, evaluations=15, n=200, sigma0=0.25, bracket=BRACKET, seeds=1):
    """The last states and the answers of searches of a class of known probability(sigma)."""
    machine = bayesian.bayesian(*bracket, evaluations, n, jnp.float32(sigma0), jnp.float32(RADII), CLASSES)

    def one(seed):
        def evaluate(sigma):
            key = jax.random.fold_in(jax.random.key(seed), jax.lax.bitcast_convert_type(sigma, jnp.int32))
            kept = (jax.random.uniform(key, (n,)) < probability(sigma)).sum()
            return jnp.append(kept, jnp.full(CLASSES - 1, (n - kept) / (CLASSES - 1)))

        final = run(machine, evaluate)
        return final, machine.best(final)

    return jax.tree.map(np.asarray, jax.jit(jax.vmap(one))(jnp.arange(seeds)))


def share(probability, sigmas):
    """Mean radius at `sigmas` as a share of the largest there is."""
    best = radius(probability, np.geomspace(BRACKET[0] / 4, BRACKET[1] * 4, 4000)).max()
    return radius(probability, sigmas).mean() / best


def radius(probability, sigma):
    return np.asarray(sigma) * np.interp(special.ndtri(np.asarray(probability(sigma), float)), PROBITS, RADII)


def falls(middle, steepness):
    """A probability that falls from 1 to 0 around `middle`."""
    return lambda sigma: jax.scipy.special.ndtr(-steepness * jnp.log(jnp.asarray(sigma) / middle))


@pytest.mark.parametrize("middle", [0.15, 0.4, 0.9])
@pytest.mark.parametrize("steepness", [2.0, 8.0])
def test_it_finds_nearly_the_largest_radius(middle, steepness):
    probability = falls(middle, steepness)
    sigma0 = min(0.25, 0.8 * middle)
    assert share(probability, search(probability, 10, 100, sigma0, seeds=20)[1]) > 0.93
    assert share(probability, search(probability, 15, 500, sigma0, seeds=20)[1]) > 0.96


def test_the_first_sigma_is_the_original_and_no_more_are_asked_than_allowed():
    for evaluations in (2, 4, 9):
        final, sigma = search(falls(0.6, 5.0), evaluations)
        assert final.told[0] <= evaluations and BRACKET[0] * 0.999 <= sigma[0] <= BRACKET[1] * 1.001
        assert final.n[0, -1] >= 200 and final.n.sum() == 200 * final.told[0]


def test_a_bracket_whose_end_is_best_is_widened():
    beyond = falls(2.0, 5.0)  # its best sigma is 1.0
    final, sigma = search(beyond, seeds=5)
    assert np.all(sigma > 0.92) and share(beyond, sigma) > 0.93
    below = falls(0.12, 1.2)  # its best sigma is 0.044
    sigma = search(below, 15, 500, seeds=5)[1]
    assert np.all(sigma < 0.078) and share(below, sigma) > 0.9
    everywhere, sigma = search(lambda sigma: jnp.float32(1.0), 40)
    assert 2 < sigma[0] <= 0.9 * REACH * 1.001 and everywhere.told[0] < 40  # no further, and no more than it takes


def test_a_class_without_hope_ends_the_search_early():
    final, sigma = search(lambda sigma: jnp.float32(0.2), 40)
    assert final.told[0] < 15 and np.isfinite(sigma[0])


def test_an_original_sigma_outside_the_bracket_is_its_first_query():
    assert search(falls(0.6, 5.0), sigma0=1.1)[0].n[0, -1] >= 200


def test_many_samples_do_no_harm():
    probability = falls(0.5, 8.0)
    assert share(probability, search(probability, 15, 50_000)[1]) > 0.98


def test_level_classes_are_sampled_again_before_one_is_chosen():
    machine = bayesian.bayesian(*BRACKET, 20, 100, jnp.float32(0.25), jnp.float32(RADII), 3)
    state, asked, chosen = machine.init, [], []
    for counts in ([46, 52, 2], [60, 38, 2], [55, 43, 2], [50, 50, 0], [44, 56, 0], [90, 10, 0]):
        asked.append(float(machine.ask(state)))
        state = machine.tell(state, jnp.asarray(counts))
        chosen.append(int(state.prediction))
    assert asked[:5] == [0.25] * 5 and asked[5] != 0.25  # 500 samples at most
    assert chosen == [1, 0, 0, 0, 0, 0]  # by all of them
    clear = machine.tell(machine.init, jnp.asarray([70, 30, 0]))
    assert float(machine.ask(clear)) != 0.25
