"""Counts: exact, equal for every batch size, and one compilation for all n."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from classifiers import SHAPE, at_distance, by_sign, linear
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.tree_util import Partial
from reference_noise import reference_noise
from scipy import special

from qcrs_jax.sampling.classifiers import as_pytree, num_classes
from qcrs_jax.sampling.counts import SOFT_ONE, _add, _votes, sample_counts, sample_votes, soft_sums, soft_votes
from qcrs_jax.sampling.noise import gaussian_noise

IMAGE = jnp.full(SHAPE, 0.1)
KEY = jax.random.key(3)


@functools.cache
def counts_by(batch_size):
    """The counts of n samples, by a program for batches of this size."""
    return jax.jit(lambda n: sample_counts(by_sign, IMAGE, 0.3, KEY, n, batch_size=batch_size))


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 400), st.sampled_from([1, 2, 7, 64, 150]))
def test_counts_sum_to_n_and_do_not_depend_on_the_batch(n, batch_size):
    counts = counts_by(batch_size)(n)
    assert counts.sum() == n
    np.testing.assert_array_equal(counts, counts_by(1000)(n))


def test_counts_are_those_of_a_plain_loop():
    counts = np.zeros(4, int)
    for i in range(50):
        noise = reference_noise(KEY, i, SHAPE)
        counts[int(jnp.argmax(by_sign((IMAGE + 0.3 * noise)[None])))] += 1
    np.testing.assert_array_equal(sample_counts(by_sign, IMAGE, 0.3, KEY, 50, batch_size=16), counts)


def test_counts_are_the_same_under_jit_and_vmap():
    keys = jax.random.split(KEY, 3)
    alone = [sample_counts(by_sign, IMAGE, 0.3, key, 70, batch_size=32) for key in keys]
    together = jax.jit(jax.vmap(lambda key: sample_counts(by_sign, IMAGE, 0.3, key, 70, batch_size=32)))(keys)
    np.testing.assert_array_equal(together, np.stack(alone))


def test_the_share_is_that_of_the_closed_form():
    n, sigma, d = 40_000, 0.5, 0.3
    counts = sample_counts(linear, at_distance(d), sigma, KEY, n, batch_size=1000)
    p = special.ndtr(d / sigma)
    assert abs(int(counts[0]) - n * p) < 4 * np.sqrt(n * p * (1 - p))


@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
def test_logits_that_are_not_finite_vote_for_no_class(bad):
    def spoilt(images):
        logits = by_sign(images)
        return logits.at[:, 3].set(jnp.where(images[:, 0, 0, 0] > 0, bad, logits[:, 3]))

    whole, counts = (sample_counts(f, IMAGE, 0.3, KEY, 500) for f in (by_sign, spoilt))
    np.testing.assert_array_equal(counts, whole * jnp.array([1, 1, 0, 0]))


def test_counts_do_not_depend_on_the_precision_that_jax_is_set_to():
    counts = sample_counts(by_sign, IMAGE, 0.3, KEY, 200)
    with jax.enable_x64(True):
        np.testing.assert_array_equal(sample_counts(by_sign, jnp.float32(IMAGE), 0.3, KEY, 200), counts)


def test_one_trace_serves_every_n():
    traces = []

    def classify(images):
        traces.append(images.shape)
        return by_sign(images)

    sampler = jax.jit(lambda n: sample_counts(classify, IMAGE, 0.3, KEY, n, batch_size=8))
    assert [int(sampler(n).sum()) for n in (3, 100, 57)] == [3, 100, 57]
    assert [shape for shape in traces if shape[0] == 8] == [(8, *SHAPE)]


def test_bound_weights_are_arguments_of_the_program():
    calls = []

    def network(weight, images):
        calls.append(1)
        return weight * by_sign(images)

    sampler = jax.jit(lambda f: sample_counts(f, IMAGE, 0.3, KEY, 20, batch_size=8))
    first = sampler(Partial(network, jnp.float32(1)))
    traced = len(calls)
    assert not np.array_equal(first, sampler(Partial(network, jnp.float32(-1))))
    assert len(calls) == traced


@pytest.mark.parametrize("wrong", [lambda x: x.sum(), lambda x: x.sum((1, 2, 3)), lambda x: x[:, 0]])
def test_a_function_that_gives_no_logits_is_refused(wrong):
    with pytest.raises(ValueError, match="batch, num_classes"):
        num_classes(wrong, SHAPE)


def pixels(images):
    """The first pixels as logits: exact whatever the batch."""
    return images.reshape(len(images), -1)[:, :5]


def soft_votes_numpy(logits, beta):
    """The whole-number softmax, in NumPy."""
    weights = np.zeros(logits.shape, np.int64)
    for place, gap in np.ndenumerate(logits.max(-1, keepdims=True) - logits):
        step = np.floor(np.float32(1024) * (np.float32(beta) * gap))
        weights[place] = np.floor(2**15 * np.exp(-np.float64(step) / 1024))
    return weights * 2**15 // weights.sum(-1, keepdims=True)


@pytest.mark.slow_for("1.0", "0.3")
@pytest.mark.parametrize("beta", [0.3, 1.0, 16.0])
def test_soft_votes_are_a_softmax_in_whole_numbers(beta):
    logits = np.asarray(3 * jax.random.normal(KEY, (300, 10)))
    votes = soft_votes(jnp.asarray(logits), beta)
    np.testing.assert_array_equal(votes, soft_votes_numpy(logits, beta))
    np.testing.assert_allclose(votes / SOFT_ONE, special.softmax(beta * logits.astype(float), axis=-1), atol=1e-3)
    assert votes.sum(-1).max() <= SOFT_ONE
    np.testing.assert_array_equal(soft_votes(jnp.array([[3e38, -3e38], [1.0, 1.0]]), beta), [[2**15, 0], [2**14] * 2])


@pytest.mark.slow_for("1-1", "399-150")
@pytest.mark.parametrize(("n", "batch_size"), [(1, 1), (150, 7), (399, 150)])
def test_soft_sums_are_exact_and_do_not_depend_on_the_batch(n, batch_size):
    votes = _votes(as_pytree(pixels), IMAGE, 0.3, KEY, n, beta=4.0, batch_size=batch_size)
    noise = gaussian_noise(KEY, jnp.arange(n), SHAPE)
    soft = np.asarray(soft_votes(pixels(IMAGE + 0.3 * noise), 4.0), np.int64)
    sums, squares = soft_sums(votes.digits)
    np.testing.assert_array_equal(sums, soft.sum(0))
    np.testing.assert_array_equal(squares, (soft**2).sum(0))
    np.testing.assert_array_equal(votes.counts, sample_counts(pixels, IMAGE, 0.3, KEY, n))


@pytest.mark.slow
def test_soft_sums_beyond_32_bits():
    image = jnp.zeros((1, 1, 2))
    votes = sample_votes(pixels, image + jnp.array([0.0, 9.0]), 0.1, KEY, 150_000, beta=1.0, batch_size=2**15)
    sums, squares = soft_sums(votes.digits)
    assert sums[1] > 2**32 and abs(sums[1] / 150_000 / SOFT_ONE - special.expit(9)) < 1e-3
    assert squares[1] > 2**47 and abs(squares[1] / 150_000 / SOFT_ONE**2 - special.expit(9) ** 2) < 2e-3


def test_soft_sums_hold_the_most_that_can_be_asked_for():
    # 2**30 whole votes, the last batch of them added here; devices share the sum.
    before, batch = 2**30 - 2**15, jnp.full((2**15, 1), SOFT_ONE)
    high = jnp.array([[before], [0], [before]], jnp.int32)
    digits = _add(jnp.stack([high, jnp.zeros((3, 1), jnp.int32)]), batch)
    assert [int(total[0]) for total in soft_sums(digits)] == [2**45, 2**60]


def test_batches_too_large_for_the_digits_are_refused():
    with pytest.raises(ValueError, match="batch_size 32769"):
        sample_votes(pixels, IMAGE, 0.3, KEY, 10, beta=1.0, batch_size=2**15 + 1)
    sample_counts(by_sign, IMAGE, 0.3, KEY, 10, batch_size=2**15 + 1)


@pytest.mark.slow_for("nan")
@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf, -jnp.inf])
def test_logits_that_are_not_finite_give_no_soft_votes(bad):
    def spoilt(images):
        logits = by_sign(images)
        return logits.at[:, 3].set(jnp.where(images[:, 0, 0, 0] > 0, bad, logits[:, 3]))

    whole, votes = (sample_votes(f, IMAGE, 0.3, KEY, 500, beta=1e6) for f in (by_sign, spoilt))
    np.testing.assert_array_equal(soft_sums(votes.digits)[0], whole.counts * SOFT_ONE * np.array([1, 1, 0, 0]))
    np.testing.assert_array_equal(votes.counts, whole.counts * jnp.array([1, 1, 0, 0]))
