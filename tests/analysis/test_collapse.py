"""The collapse of classifiers whose accuracy under noise is known in closed form."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from classifiers import DIRECTION, SHAPE, at_distance, by_sign, linear
from scipy import special

from qcrs_jax import GridGaussian, NoiseConditional, Uniform, sample_curve
from qcrs_jax.analysis.collapse import RATIO, collapse_grid, measure_collapse

KEY = jax.random.key(0)
SIGMAS = [0.1, 0.3, 0.5, 0.7, 0.9, 1.2, 1.6, 2.4]


def tilted(images):
    """`linear`, with class 0 for any image that its noise moves far from the boundary: with much noise, for all."""
    score = jnp.einsum("bhwc,hwc->b", images - 0.5, jnp.asarray(DIRECTION, jnp.float32))
    far = jnp.sqrt(((images - 0.5) ** 2).mean((1, 2, 3))) > 0.8
    zero = jnp.where(far, 1.0, score)
    return jnp.stack([zero, -zero], axis=-1)


@functools.cache
def halves(m=60, distance=0.3):
    """Images at a distance on both sides of the boundary of `linear`, and their classes."""
    labels = np.arange(m) % 2
    return np.stack([np.asarray(at_distance(distance * (1 - 2 * label))) for label in labels]), labels


def measured(classify, sigmas=SIGMAS, **options):
    images, labels = halves()
    return measure_collapse(classify, images, sigmas, labels, key=KEY, copies=10, **options)


@pytest.mark.slow
def test_accuracy_is_that_of_the_closed_form():
    found = measured(linear)
    for level in found.levels:
        expected = special.ndtr(0.3 / level.sigma)
        assert abs(level.accuracy - expected) < 5 * np.sqrt(expected * (1 - expected) / 600) + 1e-9
    assert found.constant == 0.5 and found.images == 60 and found.copies == 10
    assert found.levels[0].classes == pytest.approx(2.0)
    # .75 is the middle of 1 and .5, and Phi(.3 / sigma) is .75 at sigma = .3 / .6745.
    assert found.lost_at == pytest.approx(0.3 / special.ndtri(0.75), rel=0.25)


@pytest.mark.slow
def test_a_classifier_that_becomes_constant_answers_one_class():
    levels = measured(tilted).levels
    assert levels[0].classes == pytest.approx(2.0) and levels[0].share == pytest.approx(0.5)
    assert levels[-1].classes == 1.0 and levels[-1].commonest == 0 and levels[-1].share == 1.0
    assert levels[-1].accuracy == 0.5
    without = measure_collapse(tilted, halves()[0], SIGMAS, key=KEY, copies=10)
    assert without.lost_at is not None and 0.6 < without.lost_at < 1.2


def test_a_classifier_that_no_noise_moves_loses_nothing():
    def steady(images):
        return jnp.stack([images[:, 0, 0, 0] * 0 + 1, images[:, 0, 0, 0] * 0], axis=-1)

    found = measured(steady)
    assert found.reference is None and found.lost_at is None
    assert {level.classes for level in found.levels} == {1.0}


@pytest.mark.slow
def test_one_that_is_told_sigma_and_other_noises():
    def told(images, sigma):
        return linear(images) * jnp.where(sigma < 0.6, 1.0, -1.0)[:, None]  # wrong beyond

    found = measured(NoiseConditional(told))
    assert 0.3 < found.lost_at < 0.7 and found.levels[-1].accuracy < 0.5
    uniform = measured(linear, noise=Uniform())
    assert uniform.lost_at == pytest.approx(found.lost_at, rel=0.5) and uniform != measured(linear)
    grid = np.round(halves()[0] * 255).astype(np.float32) / 255
    there = measure_collapse(linear, grid, SIGMAS, halves()[1], key=KEY, copies=10, noise=GridGaussian())
    assert there.lost_at == pytest.approx(measured(linear).lost_at, rel=0.1)


@pytest.mark.slow
def test_the_counts_are_those_of_sample_curve_whatever_the_batch_and_the_devices():
    images = np.random.default_rng(0).random((7, *SHAPE), np.float32) - 0.5
    labels, keys = np.arange(7) % 4, jax.vmap(jax.random.fold_in, in_axes=(None, 0))(KEY, np.arange(7))
    options = {"n": 5, "value_range": None}
    counts = [sample_curve(by_sign, image, SIGMAS, key=key, **options) for image, key in zip(images, keys)]
    right = np.array([np.asarray(c)[:, label].sum() / 5 for c, label in zip(np.asarray(counts)[:, 3:4], labels)])
    ways = ({}, {"batch_size": 1}, {"batch_size": 64, "devices": jax.devices()}, {"key": keys})
    found = [
        measure_collapse(by_sign, images, SIGMAS, labels, **{"key": KEY, "copies": 5, "value_range": None, **way})
        for way in ways
    ]
    assert found.count(found[0]) == len(ways)
    assert found[0].levels[3].accuracy == pytest.approx(right.mean())


def test_what_cannot_be_measured_is_refused():
    images, labels = halves()
    with pytest.raises(ValueError, match="labels"):
        measure_collapse(linear, images, SIGMAS, labels[:3], key=KEY)
    with pytest.raises(ValueError, match=r"\(m, h, w, c\)"):
        measure_collapse(linear, images[0], SIGMAS, key=KEY)
    with pytest.raises(ValueError, match="copies"):
        measure_collapse(linear, images, SIGMAS, key=KEY, copies=0)
    with pytest.raises(TypeError, match="key"):
        measure_collapse(linear, images, SIGMAS, key=0)


@pytest.mark.parametrize(("lower", "sigma", "upper"), [(0.0625, 0.25, 3.5), (0.25, 0.25, 0.25), (0.1, 0.5, 0.52)])
def test_the_grid_has_the_ends_and_sigma_and_is_dense_above_it(lower, sigma, upper):
    grid = collapse_grid(lower, sigma, upper)
    assert grid == sorted(set(grid)) and grid[0] == np.float32(lower) and grid[-1] == np.float32(upper)
    above = [s for s in grid if s >= np.float32(sigma)]
    assert above[0] == np.float32(sigma) and all(b / a < RATIO + 1e-5 for a, b in zip(above, above[1:]))
