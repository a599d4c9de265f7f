"""Bayesian optimisation of the radius on curves that are known."""

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from classifiers import SHAPE, slab
from jax.tree_util import Partial
from scipy import special

from qcrs_jax import search_sigma
from qcrs_jax.bounds import PROBITS, expected_radius_table
from qcrs_jax.search import DDRS, Bayesian, FixedSigma, GoldenSection, Radii, bayesian, search_of
from qcrs_jax.search.bayesian import REACH, SigmaGrid
from qcrs_jax.search.maximisers import run

RADII = expected_radius_table(100_000, 0.001)
BRACKET = (0.08, 0.9)
CLASSES = 10  # the first is the one that is searched for; the others share what it leaves
SEEDS = 20


class Fall(NamedTuple):
    """A probability that falls from `top` to 0 around sigma = `middle`."""

    middle: float
    steepness: float
    top: float = 1.0

    def __call__(self, sigma):
        return self.top * jax.scipy.special.ndtr(-self.steepness * jnp.log(jnp.asarray(sigma) / self.middle))


@jax.jit
def searches(probability, evaluations, n, sigma0):
    machine = bayesian.bayesian(SigmaGrid.over(*BRACKET), evaluations, n, sigma0, Radii(jnp.float32(RADII)), CLASSES)

    def one(seed):
        def evaluate(sigma):
            key = jax.random.fold_in(jax.random.key(seed), jax.lax.bitcast_convert_type(sigma, jnp.int32))
            kept = jax.random.binomial(key, jnp.float32(n), probability(sigma))
            return jnp.append(kept, jnp.full(CLASSES - 1, (n - kept) / (CLASSES - 1)))

        final = run(machine, evaluate)
        return final, machine.best(final)

    return jax.vmap(one)(jnp.arange(SEEDS))


def search(probability, evaluations=15, n=200, sigma0=0.25):
    """The last states and the answers of `SEEDS` searches of a class of known probability(sigma)."""
    return jax.tree.map(np.asarray, searches(probability, evaluations, n, sigma0))


def share(probability, sigmas):
    """Mean radius at `sigmas` as a share of the largest there is."""
    best = radius(probability, np.geomspace(BRACKET[0] / 4, BRACKET[1] * 4, 4000)).max()
    return radius(probability, sigmas).mean() / best


def radius(probability, sigma):
    return np.asarray(sigma) * np.interp(special.ndtri(np.asarray(probability(sigma), float)), PROBITS, RADII)


@pytest.mark.slow
@pytest.mark.parametrize("middle", [0.15, 0.4, 0.9])
@pytest.mark.parametrize("steepness", [2.0, 8.0])
def test_it_finds_nearly_the_largest_radius(middle, steepness):
    probability = Fall(middle, steepness)
    sigma0 = min(0.25, 0.8 * middle)
    assert share(probability, search(probability, 10, 100, sigma0)[1]) > 0.93
    assert share(probability, search(probability, 15, 500, sigma0)[1]) > 0.96


@pytest.mark.slow
def test_the_first_sigma_is_the_original_and_no_more_are_asked_than_allowed():
    for evaluations in (2, 4, 9):
        final, sigma = search(Fall(0.6, 5.0), evaluations)
        assert np.all(final.told <= evaluations)
        assert np.all((BRACKET[0] * 0.999 <= sigma) & (sigma <= BRACKET[1] * 1.001))
        assert np.all(final.n[:, -1] >= 200) and np.all(final.n.sum(axis=1) == 200 * final.told)


def test_a_bracket_is_not_widened_above_where_that_is_not_wanted():
    grid, whole = SigmaGrid.over(*BRACKET, above=False), SigmaGrid.over(*BRACKET)
    assert len(grid.sigmas) == grid.last + 1 == grid.design[0] and grid.sigmas[-1] == np.float32(BRACKET[1])
    assert (
        np.array_equal(grid.sigmas, whole.sigmas[: grid.last + 1])
        and grid.design[1:].tolist() == whole.design[1:].tolist()
    )


@pytest.mark.slow
def test_the_answer_of_such_a_bracket_is_its_end():
    classify = Partial(slab, 3.0)  # wide: its radius at the origin is largest at a sigma beyond the bracket
    image, options = jnp.zeros(SHAPE), {"key": jax.random.key(0), "n": 10_000, "value_range": (-1, 1)}
    widened = search_sigma(classify, image, 0.25, Bayesian(0.1, 0.5), **options)
    ended = search_sigma(classify, image, 0.25, Bayesian(0.1, 0.5, widen_above=False), **options)
    assert widened.sigma > 0.6 and ended.sigma == np.float32(0.5)


def test_a_search_that_ends_at_a_sigma_answers_none_beyond_and_files_of_before_have_its_record():
    assert Bayesian(0.1, 0.5).ending_at(0.4) == Bayesian(0.1, 0.4, widen_above=False)
    assert (
        GoldenSection(0.1, 0.5).ending_at(0.4) == GoldenSection(0.1, 0.4) and DDRS(0.1, 0.5).ending_at(0.4).reach == 0.4
    )
    assert Bayesian(0.1, 0.5).reach == 0.5 * REACH and Bayesian(0.1, 0.5, widen_above=False).reach == 0.5
    assert FixedSigma().reach is None
    assert "widen_above" not in Bayesian(0.1, 0.5).recorded()
    for search in (Bayesian(0.1, 0.5), Bayesian(0.1, 0.5, widen_above=False)):
        assert search_of(search.recorded()) == search


@pytest.mark.slow
def test_a_bracket_whose_end_is_best_is_widened():
    beyond = Fall(2.0, 5.0)  # its best sigma is 1.0
    final, sigma = search(beyond)
    assert np.all(sigma > 0.92) and share(beyond, sigma) > 0.93
    below = Fall(0.12, 1.2)  # its best sigma is 0.044
    sigma = search(below, 15, 500)[1]
    assert np.all(sigma < 0.078) and share(below, sigma) > 0.9
    everywhere, sigma = search(Fall(1e9, 5.0), 40)
    assert np.all((2 < sigma) & (sigma <= 0.9 * REACH * 1.001))  # no further
    assert np.all(everywhere.told < 40)  # no more than it takes


@pytest.mark.slow
def test_a_class_without_hope_ends_the_search_early():
    final, sigma = search(Fall(1e9, 5.0, top=0.2), 40)
    assert np.all(final.told < 15) and np.all(np.isfinite(sigma))


@pytest.mark.slow
def test_an_original_sigma_outside_the_bracket_is_its_first_query():
    assert np.all(search(Fall(0.6, 5.0), sigma0=1.1)[0].n[:, -1] >= 200)


@pytest.mark.slow
def test_many_samples_do_no_harm():
    probability = Fall(0.5, 8.0)
    assert share(probability, search(probability, 15, 50_000)[1]) > 0.98


@pytest.mark.slow
def test_level_classes_are_sampled_again_before_one_is_chosen():
    machine = bayesian.bayesian(SigmaGrid.over(*BRACKET), 20, 100, jnp.float32(0.25), Radii(jnp.float32(RADII)), 3)
    ask, tell = jax.jit(machine.ask), jax.jit(machine.tell)
    state, asked, chosen = machine.init, [], []
    for counts in ([46, 52, 2], [60, 38, 2], [55, 43, 2], [50, 50, 0], [44, 56, 0], [90, 10, 0]):
        asked.append(float(ask(state)))
        state = tell(state, jnp.asarray(counts))
        chosen.append(int(state.prediction))
    assert asked[:5] == [0.25] * 5 and asked[5] != 0.25  # 500 samples at most
    assert chosen == [1, 0, 0, 0, 0, 0]  # by all of them
    clear = tell(machine.init, jnp.asarray([70, 30, 0]))
    assert float(ask(clear)) != 0.25


SEVERAL = """
import jax, jax.numpy as jnp
from jax.tree_util import Partial
import sys
sys.path.insert(0, {helpers!r})
from classifiers import SHAPE, slab
from qcrs_jax import Bayesian, search_sigma
images = jnp.zeros((8, *SHAPE)) + jnp.linspace(0, 0.1, 8)[:, None, None, None]
for key in range(3):
    found = search_sigma(Partial(slab, 0.5), images, 0.25, Bayesian(0.08, 0.9, search_n=100), key=jax.random.key(key))
    print(found.sigma.tolist())
"""


@pytest.mark.slow
def test_the_searches_of_several_images_come_to_an_end():
    """On two threads, jaxlib's solutions of several systems at once waited for each other, here and there, for ever."""
    code = SEVERAL.format(helpers=str(Path(__file__).parents[1] / "helpers"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600, check=True)
    assert len(done.stdout.splitlines()) == 3
