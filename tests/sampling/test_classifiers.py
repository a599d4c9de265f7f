"""Classifiers that know the noise: they receive sigma everywhere, and are certified like others."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from qcrs_jax import DDRS, Bayesian, GoldenSection, NoiseConditional, certify, predict, run, sample_counts, sample_curve
from qcrs_jax import verify as verify_file
from qcrs_jax.certification.procedure import draw_votes

KEY = jax.random.key(2)
IMAGES = np.random.default_rng(5).integers(0, 256, (4, 4, 4, 1)).astype(np.float32) / np.float32(255)
LABELS = np.array([0, 1, 0, 1])


def within(images):
    """Two classes by the first pixel; a margin that a gradient sees."""
    x = images[:, 0, 0, 0]
    return jnp.stack([0.5 - x, x - 0.5], axis=1)


def denoised(weight, images, sigma):
    """Shrinks the first pixel to the middle by what it is told of the noise, then shifts the border by 0.3 sigma."""
    x = images[:, 0, 0, 0] * weight
    return jnp.stack([0.5 - x, x - 0.5 - 0.3 * sigma], axis=1) * 4


KNOWING = NoiseConditional(Partial(denoised, jnp.float32(1)))
"""Class 1 beyond 0.5 + 0.3 sigma."""


def at(sigma):
    """The same, told one sigma; a leaf, so that all share a program."""
    return Partial(_told, jnp.float32(sigma))


def _told(sigma, images):
    return denoised(1.0, images, jnp.full(len(images), sigma, jnp.float32))


@pytest.mark.slow
@pytest.mark.parametrize("sigma", [0.05, 0.3])
def test_it_counts_as_the_network_of_its_sigma(sigma):
    counts = sample_counts(KNOWING, IMAGES[0], sigma, KEY, 300)
    np.testing.assert_array_equal(counts, sample_counts(at(sigma), IMAGES[0], sigma, KEY, 300))
    made, told = (certify(f, IMAGES[0], sigma, key=KEY, n=500) for f in (KNOWING, at(sigma)))
    np.testing.assert_array_equal(made.counts, told.counts)
    assert made.radius == told.radius
    found, told = (predict(f, IMAGES[0], sigma, key=KEY, n=300) for f in (KNOWING, at(sigma)))
    np.testing.assert_array_equal(found.counts, told.counts)


@pytest.mark.slow
def test_it_receives_the_sigmas_of_curves():
    sigmas = [0.05, 0.2, 0.6]
    curve = sample_curve(KNOWING, IMAGES[0], sigmas, key=KEY, n=200)
    for counts, sigma in zip(curve, sigmas):
        np.testing.assert_array_equal(counts, sample_curve(at(sigma), IMAGES[0], [sigma], key=KEY, n=200)[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    "search", [GoldenSection(0.05, 0.9), Bayesian(0.05, 0.9, max_evaluations=4)], ids=["golden", "bayesian"]
)
def test_it_receives_the_sigmas_of_searches(search):
    made = certify(KNOWING, IMAGES[1], 0.2, key=KEY, n=500, search=search)
    told = certify(at(float(made.sigma)), IMAGES[1], float(made.sigma), key=KEY, n=500)
    np.testing.assert_array_equal(made.counts, told.counts)


@pytest.mark.slow
def test_images_in_step_are_told_each_its_own_sigma():
    sigmas = np.array([0.05, 0.1, 0.3, 0.7], np.float32)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(KEY, jnp.arange(4))
    together = certify(KNOWING, IMAGES, sigmas, key=keys, n=400)
    for i, sigma in enumerate(sigmas):
        alone = certify(at(sigma), IMAGES[i], sigma, key=keys[i], n=400)
        np.testing.assert_array_equal(together.counts[i], alone.counts)
    curves = sample_curve(KNOWING, IMAGES, [0.1, 0.4], key=keys, n=100)
    np.testing.assert_array_equal(curves[2], sample_curve(KNOWING, IMAGES[2], [0.1, 0.4], key=keys[2], n=100))


@pytest.mark.slow
def test_the_ascent_sees_how_it_depends_on_sigma():
    search = DDRS(0.05, 0.6, steps=3, draws=40)
    knowing, blind = (certify(f, IMAGES[1], 0.2, key=KEY, n=200, search=search).search for f in (KNOWING, at(0.2)))
    np.testing.assert_allclose(knowing.surrogates[0], blind.surrogates[0], rtol=1e-5)
    assert knowing.sigmas[0] != blind.sigmas[0]


def test_weights_are_leaves_and_other_weights_compile_nothing():
    assert jax.tree.leaves(KNOWING) == [1.0]
    other = NoiseConditional(Partial(denoised, jnp.float32(2)))
    certify(KNOWING, IMAGES[0], 0.2, key=KEY, n=200)
    compiled = draw_votes.program._cache_size()
    certify(other, IMAGES[0], 0.2, key=KEY, n=200)
    assert draw_votes.program._cache_size() == compiled
    inside = jax.jit(lambda f, image: certify(f, image, 0.2, key=KEY, n=200))(KNOWING, jnp.asarray(IMAGES[0]))
    np.testing.assert_array_equal(inside.counts, certify(KNOWING, IMAGES[0], 0.2, key=KEY, n=200).counts)


def test_errors_of_noise_conditional_classifiers_are_clear():
    with pytest.raises(ValueError, match=r"classify must map images .* it gave \(1,\)"):
        certify(NoiseConditional(lambda images, sigma: sigma), IMAGES[0], 0.2, key=KEY, n=200)
    with pytest.raises(ValueError, match="one row for each"):
        one = NoiseConditional(lambda images, sigma: within(images)[:1] + sigma[:1, None])
        certify(one, IMAGES[0], 0.2, key=KEY, n=200)


@pytest.mark.slow
def test_a_run_of_one_is_kept_and_verified(tmp_path):
    path = tmp_path / "r.tsv"
    options = {"n": 300, "batch_size": 8, "devices": 1, "search": GoldenSection(0.05, 0.6)}
    made = run(KNOWING, (IMAGES, LABELS), path, 0.2, **options)
    assert len(made.records) == 4
    assert any("verified" in line for line in verify_file(path, KNOWING, (IMAGES, LABELS), recount=4))
    other = NoiseConditional(Partial(denoised, jnp.float32(1.5)))
    with pytest.raises(ValueError, match="weights"):
        verify_file(path, other, (IMAGES, LABELS), recount=1)
