"""The loss of a denoiser, its steps, and the levels that a denoiser before a classifier receives in training."""

import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qcrs_jax.errors import SettingError
from qcrs_jax.models import Spec
from qcrs_jax.models.denoiser import SPREAD, Denoiser, DenoiserSpec, build_denoiser
from qcrs_jax.training import METHODS, DenoiserTrainer, Denoising, Gaussian, LogUniform, Trainer, adam, sgd
from qcrs_jax.training.levels import draw_levels, draw_noise
from qcrs_jax.training.trainer import _Passes

KEY = jax.random.key(0)
IMAGES = jax.random.uniform(jax.random.key(1), (64, 8, 8, 1))


def identity(images, sigma):
    return images


@pytest.mark.slow_for("0.2")
@pytest.mark.parametrize("sigma", [0.2, LogUniform(0.1, 1.0)])
def test_the_squared_error_of_the_identity_is_that_of_the_noise(sigma):
    noise, sigmas = draw_noise(IMAGES, sigma, 1, KEY)
    squared = (np.asarray(noise[:, 0], np.float64) ** 2).mean(axis=(1, 2, 3))
    scale = np.asarray(sigmas, np.float64) * SPREAD / np.sqrt(np.asarray(sigmas, np.float64) ** 2 + SPREAD**2)
    loss, error = Denoising(sigma).loss(identity, IMAGES, KEY)
    assert loss == pytest.approx((squared / scale**2).mean(), rel=1e-4)
    assert error == pytest.approx(squared.mean(), rel=1e-4)


def test_a_perfect_denoiser_has_no_error():
    assert Denoising(0.5).loss(lambda images, sigma: IMAGES, IMAGES, KEY) == (0.0, 0.0)


def test_stability_is_cross_entropy_with_the_answer_to_the_clean_image():
    def classify(images):
        x = 3 * images.mean(axis=(1, 2, 3))
        return jnp.stack([x, 1.5 - x, 0 * x], axis=-1)

    noise, _ = draw_noise(IMAGES, 0.5, 1, KEY)
    clean = np.asarray(classify(IMAGES)).argmax(axis=-1)
    chosen = jax.nn.log_softmax(classify(IMAGES + noise[:, 0]))[np.arange(len(IMAGES)), clean]
    loss, _ = Denoising(0.5, classify).loss(identity, IMAGES, KEY)
    assert loss == pytest.approx(-float(chosen.mean()), rel=1e-5)


def test_bad_levels_are_refused():
    with pytest.raises(SettingError, match="must be positive"):
        Denoising(0.0)
    assert Denoising(0.3).levels == (0.3,) * 3
    assert Denoising(LogUniform(0.1, 0.9)).levels == pytest.approx((0.1, 0.3, 0.9))


def flat(key, count):
    """Images of one grey each: nearly all noise can be removed."""
    return jnp.broadcast_to(jax.random.uniform(key, (count, 1, 1, 1)), (count, 8, 8, 1))


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_error_falls_and_the_result_is_what_was_tested(dtype):
    trainer = DenoiserTrainer(DenoiserSpec((8, 8, 1), 2), Denoising(LogUniform(0.2, 0.5)), adam(1e-2), dtype=dtype)
    state = trainer.init(0)
    before = trainer.errors(state, flat(KEY, 64), 0.3, KEY).mean()
    losses = []
    for i in range(40):
        state, loss, _ = trainer.step(state, flat(jax.random.key(i), 32), KEY)
        losses.append(float(loss))
    assert np.mean(losses[-10:]) < 0.4 * losses[0] and state.step == 40
    after = trainer.errors(state, flat(KEY, 64), 0.3, KEY)
    assert after.mean() < 0.4 * before
    made = trainer.denoiser(state, {"sigma": 0.3})
    noisy = flat(KEY, 64) + 0.3 * jax.random.normal(KEY, (64, 8, 8, 1))
    denoised = made.denoise(noisy, jnp.full(64, 0.3))
    tolerance = 1e-5 if dtype == "float32" else 1e-2
    np.testing.assert_allclose(((denoised - flat(KEY, 64)) ** 2).mean(axis=(1, 2, 3)), after, atol=tolerance)
    again = trainer.init(1, made)
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), again.weights, state.weights))


@pytest.mark.slow
def test_the_levels_of_an_image_are_those_of_its_noise():
    for sigma in (0.3, LogUniform(0.1, 1.0)):
        _, sigmas = draw_noise(IMAGES, sigma, 3, KEY)
        np.testing.assert_array_equal(draw_levels(sigma, len(IMAGES), KEY), sigmas)

    def apply(graph, weights, statistics, images, sigmas):
        return jnp.stack([images.std(axis=(1, 2, 3)), sigmas], axis=-1), statistics

    noise, sigmas = draw_noise(jnp.zeros((64, 16, 16, 1)), LogUniform(0.1, 1.0), 3, KEY)
    passes = _Passes(SimpleNamespace(_apply=apply, _training=None, _evaluating=None), {}, {}, sigmas)
    for logits in (passes.learn(noise), passes.probe(noise)):
        assert logits.shape == (64, 3, 2)
        np.testing.assert_allclose(logits[..., 0], logits[..., 1], rtol=0.2)


def spied(seen):
    """A denoiser that notes the share of noise that it is told of, of what there is, and returns black images."""
    spec = DenoiserSpec((28, 28, 1), 2)
    made = Denoiser(spec, build_denoiser(spec))

    def note(found, sigma):
        seen.append(found / sigma)

    def denoise(images, sigma):
        jax.debug.callback(note, images.std(axis=(1, 2, 3)), sigma)
        return jnp.zeros_like(images)

    made.inference = lambda dtype: denoise
    return made


@pytest.mark.slow_for("gaussian")
@pytest.mark.parametrize("name", ["gaussian", pytest.param("smoothadv", marks=pytest.mark.slow)])
def test_a_classifier_learns_from_denoised_images_alone(name):
    seen, spec = [], Spec("lenet", 10, (28, 28, 1), (0.0,), (1.0,))
    small = {"copies": 2, "steps": 1, "epsilon": 1e-3} if name == "smoothadv" else {}
    method = METHODS[name](LogUniform(0.1, 1.0), **small)
    trainer = Trainer(spec, method, sgd(0.1, 0.9, 0.0), denoiser=spied(seen))
    state = trainer.init(0)
    images, labels = jnp.full((8, 28, 28, 1), 0.5), jnp.arange(8)
    state, _, _ = trainer.step(state, images, labels, KEY)
    assert trainer.hits(state, images, labels, 0.3, KEY) in (0, 1)  # black images, one answer
    jax.effects_barrier()
    assert len(seen) >= 2
    for shares in seen:
        np.testing.assert_allclose(shares, 1, atol=0.15)
    plain = Trainer(spec, Gaussian(0.3), sgd(0.1, 0.9, 0.0))
    assert plain.denoise is None and dataclasses.asdict(plain.spec) == dataclasses.asdict(trainer.spec)
