"""Denoisers: what they compute, their files, and classifiers behind them."""

import dataclasses
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkpoints import lenet_file
from flax import nnx
from jax.tree_util import Partial
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from qcrs_jax import Denoised, certify, load_classifier, load_denoiser, save_classifier
from qcrs_jax.errors import UserError
from qcrs_jax.models.checkpoint import DENOISER, CheckpointError, fill, write_classifier, write_denoiser
from qcrs_jax.models.denoiser import CENTRE, SPREAD, Denoiser, DenoiserSpec, build_denoiser, error_scale

SHAPE = (28, 28, 1)


def denoiser(shape=SHAPE, width=2, seed=0, **source):
    """A denoiser with random weights everywhere."""
    spec = DenoiserSpec(shape, width, source=source)
    model, rng = nnx.eval_shape(lambda: build_denoiser(spec)), np.random.default_rng(seed)
    shapes = nnx.to_pure_dict(nnx.state(model))
    return Denoiser(spec, fill(model, jax.tree.map(lambda a: 0.15 * rng.normal(size=a.shape), shapes)))


@pytest.fixture(scope="module")
def classifier(tmp_path_factory):
    return load_classifier(lenet_file(tmp_path_factory.mktemp("file")))


def denoised(made, images, sigma, **options):
    return np.asarray(jax.jit(made.inference(**options))(images, sigma))


def noisy(count, shape=SHAPE, seed=0):
    return np.random.default_rng(seed).normal(0.5, 0.5, (count, *shape)).astype(np.float32)


@pytest.mark.slow
def test_a_fresh_denoiser_is_the_best_linear_one():
    fresh = Denoiser(spec := DenoiserSpec(SHAPE, 2), build_denoiser(spec))
    images, sigma = noisy(3), np.array([0.1, 0.5, 2.0], np.float32)
    expected = CENTRE + (SPREAD**2 / (sigma**2 + SPREAD**2))[:, None, None, None] * (images - CENTRE)
    np.testing.assert_allclose(denoised(fresh, images, sigma), expected, atol=1e-6)


def test_without_noise_the_estimate_is_the_image():
    images = noisy(2)
    np.testing.assert_allclose(denoised(denoiser(), images, np.zeros(2, np.float32)), images, atol=1e-6)
    np.testing.assert_allclose(error_scale(jnp.array([0.0, 1e-6, 1e6])), [0, 1e-6, SPREAD], rtol=1e-4)


@pytest.mark.slow_for("shape1")
@pytest.mark.parametrize("shape", [(28, 28, 1), (7, 10, 3)])
def test_each_image_is_denoised_by_itself_at_its_own_level(shape):
    made, images, sigma = denoiser(shape), noisy(3, shape), np.array([0.1, 0.5, 2.0], np.float32)
    found = denoised(made, images, sigma)
    assert found.shape == images.shape and found.dtype == np.float32
    for i in range(3):
        np.testing.assert_allclose(found[i : i + 1], denoised(made, images[i : i + 1], sigma[i : i + 1]), atol=1e-5)
    assert np.abs(found - denoised(made, images, sigma[::-1].copy())).max() > 0.01  # it hears the level


@pytest.mark.slow
def test_bfloat16_is_near_float32():
    made, images, sigma = denoiser(), noisy(4), np.full(4, 0.3, np.float32)
    low = denoised(made, images, sigma, dtype="bfloat16")
    assert low.dtype == np.float32
    apart = np.abs(low - denoised(made, images, sigma)).max()
    assert 0 < apart < 0.02


def test_a_denoiser_comes_back_bit_for_bit(tmp_path):
    made, images, sigma = denoiser(sigma_range=[0.1, 1.0]), noisy(2), np.full(2, 0.3, np.float32)
    write_denoiser(made, tmp_path / "dn")
    for path in (tmp_path / "dn", tmp_path / "dn" / DENOISER, str(tmp_path / "dn")):
        opened = load_denoiser(path)
        assert opened.spec == made.spec and opened.fingerprint() == made.fingerprint()
        assert opened.spec.levels == (0.1, 1.0)
        np.testing.assert_array_equal(denoised(opened, images, sigma), denoised(made, images, sigma))


def test_damaged_and_other_files_are_refused(tmp_path, classifier):
    write_denoiser(denoiser(), tmp_path / "dn")
    file = tmp_path / "dn" / DENOISER
    weights = load_file(file)
    with safe_open(file, framework="numpy") as content:
        metadata = content.metadata()
    for name, changed, said in (
        ("first/bias", weights["first/bias"] + 1, "their SHA-256 differs"),
        ("first/bias", np.zeros(5, np.float32), "its weights are not those of a unet"),
        ("more", np.zeros(5, np.float32), "'more' is only in one"),
    ):
        save_file({**weights, name: changed}, file, metadata)
        with pytest.raises(CheckpointError, match=said):
            load_denoiser(file)
    save_file(weights, file, {**metadata, "denoiser": metadata["denoiser"].replace("unet", "vnet")})
    with pytest.raises(CheckpointError, match="was changed after it was written"):
        load_denoiser(tmp_path / "dn")
    file.write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="not a whole file of a denoiser"):
        load_denoiser(tmp_path / "dn")
    with pytest.raises(CheckpointError, match="no such file"):
        load_denoiser(tmp_path / "nowhere")
    write_classifier(classifier, tmp_path / "classifier")
    with pytest.raises(CheckpointError, match="holds a classifier, and is no denoiser"):
        load_denoiser(tmp_path / "classifier")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=f"holds no {DENOISER}"):
        load_denoiser(tmp_path / "empty")


def test_a_denoiser_is_not_opened_as_a_classifier(tmp_path):
    write_denoiser(denoiser(), tmp_path / "dn")
    shutil.copy(tmp_path / "dn" / DENOISER, tmp_path / "copy.safetensors")
    for path in (tmp_path / "dn", tmp_path / "copy.safetensors"):
        with pytest.raises(CheckpointError, match="is a denoiser, and no classifier") as refused:
            load_classifier(path)
        assert refused.value.settings == ("denoiser",)


def identity():
    """A denoiser that returns its images."""
    made = denoiser()
    made.inference = lambda dtype="float32": Partial(lambda images, sigma: images)
    return made


@pytest.mark.slow
def test_behind_the_identity_a_classifier_has_its_own_counts(classifier):
    image, key = np.clip(noisy(1)[0], 0, 1), jax.random.key(3)
    plain, behind = (
        certify(one, image, 0.4, key=key, n0=20, n=300)
        for one in (classifier.classify, Denoised(classifier, identity()).classify)
    )
    np.testing.assert_array_equal(behind.counts, plain.counts)
    assert behind.radius == plain.radius


def test_the_logits_are_those_of_the_denoised_images(classifier):
    made, images, sigma = denoiser(), noisy(3), np.array([0.1, 0.5, 0.7], np.float32)
    expected = classifier.classify(jnp.asarray(denoised(made, images, sigma)))
    np.testing.assert_allclose(jax.jit(Denoised(classifier, made).classify)(images, sigma), expected, atol=1e-4)


def test_a_classifier_behind_a_denoiser_has_the_spec_of_the_one_and_the_levels_of_the_other(classifier):
    before, other = denoiser(sigma_range=[0.1, 1.0]), denoiser(seed=1)
    made = Denoised(classifier, before)
    assert made.spec.num_classes == classifier.spec.num_classes and made.spec.image_shape == SHAPE
    assert made.spec.source["sigma_range"] == [0.1, 1.0]
    assert dataclasses.replace(made.spec, source={}) == dataclasses.replace(classifier.spec, source={})
    hashes = {made.fingerprint(), Denoised(classifier, other).fingerprint(), classifier.fingerprint()}
    assert len(hashes) == 3


def test_what_does_not_fit_is_refused(classifier, tmp_path):
    with pytest.raises(UserError, match="for images of shape .32, 32, 3., and the classifier takes .28, 28, 1."):
        Denoised(classifier, denoiser((32, 32, 3)))
    made = Denoised(classifier, denoiser())
    with pytest.raises(UserError, match="knows the noise already"):
        Denoised(made, denoiser())
    with pytest.raises(UserError, match="two networks; save or export each"):
        save_classifier(made, tmp_path / "out")
