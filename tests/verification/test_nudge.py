"""An image drawn again on slightly moved copies: near ties fall otherwise, and nothing else changes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qcrs_jax.experiments.verification.nudge import nudged
from qcrs_jax.sampling.classifiers import NoiseConditional

IMAGES = jnp.linspace(0, 1, 12).reshape(1, 2, 2, 3)
SHIFT = np.arange(12, dtype=np.float32).reshape(2, 2, 3)


def total(images):
    return jnp.stack([images.sum((1, 2, 3)), jnp.zeros(len(images))], 1)


def told(images, sigma):
    return total(images) * sigma[:, None]


def test_a_classifier_sees_moved_images():
    moved = nudged(jax.tree_util.Partial(total), SHIFT)
    np.testing.assert_allclose(moved(IMAGES), total(IMAGES + SHIFT))


def test_one_that_knows_the_noise_sees_them_with_its_sigma():
    moved = nudged(NoiseConditional(told), SHIFT)
    assert isinstance(moved, NoiseConditional)
    np.testing.assert_allclose(moved(IMAGES, 0.5), NoiseConditional(told)(IMAGES + SHIFT, 0.5))


def test_so_do_all_stages_of_a_cascade():
    stages = nudged((jax.tree_util.Partial(total), NoiseConditional(told)), SHIFT)
    np.testing.assert_allclose(stages[0](IMAGES), total(IMAGES + SHIFT))
    np.testing.assert_allclose(stages[1](IMAGES, 2.0), 2 * total(IMAGES + SHIFT))


def test_another_shift_needs_no_other_program():
    traced = []

    def counted(images):
        traced.append(images.shape)
        return total(images)

    classify, run = jax.tree_util.Partial(counted), jax.jit(lambda classify, images: classify(images))
    answers = [run(nudged(classify, turn * SHIFT), IMAGES) for turn in range(3)]
    assert len(traced) == 1 and answers[0][0, 0] < answers[1][0, 0] < answers[2][0, 0]
    assert float(answers[2][0, 0]) == pytest.approx(float((IMAGES + 2 * SHIFT).sum()))
