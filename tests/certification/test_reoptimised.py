"""What a certificate of QCRS does not say: a search of sigma begun again inside the radius may answer otherwise."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from qcrs_jax import GoldenSection, certify
from qcrs_jax.convert.load import load_classifier
from qcrs_jax.data.load import load_dataset
from qcrs_jax.experiments.commands import demo

pytestmark = pytest.mark.slow  # an attack, and three certificates of ten thousand samples

SIGMA = 0.25  # that the classifier was trained at: QCRS takes its class from there
SEARCH = GoldenSection(0.08, 0.9, epsilon=0.03)


@functools.partial(jax.jit, static_argnums=0)
def attacked(classify, image, label, distance, key):
    """A valid image within `distance` at which the classifier smoothed with SIGMA is led away from `label`.

    Projected gradient descent on the mean softmax of 64 noisy copies, drawn afresh in each of 40 steps.
    """

    def confidence(x, key):
        noisy = x + SIGMA * jax.random.normal(key, (64, *x.shape))
        return jnp.log(jax.nn.softmax(classify(noisy))[:, label].mean() + 1e-6)

    def step(i, x):
        gradient = jax.grad(confidence)(x, jax.random.fold_in(key, i))
        x = jnp.clip(x - distance / 8 * gradient / (jnp.linalg.norm(gradient) + 1e-12), 0, 1)
        move = x - image
        return image + move * jnp.minimum(1, distance / (jnp.linalg.norm(move) + 1e-12))

    return jax.lax.fori_loop(0, 40, step, image)


@pytest.fixture(scope="module")
def find():
    """An image of label 4 that sigma 0.25 hardly tells from a shirt, the attack on it, and what was said of both."""
    classify = load_classifier("zoo:fashion_mnist-lenet-sigma0.25").classify
    image, label = load_dataset("npz", demo.IMAGES)[320]
    certified = certify(classify, image, SIGMA, key=jax.random.key(0), n=10_000, search=SEARCH)
    near = attacked(classify, jnp.asarray(image), label, 0.97 * certified.radius, jax.random.key(1))
    held = certify(classify, near, certified.sigma, key=jax.random.key(2), n=10_000)
    searched = certify(classify, near, SIGMA, key=jax.random.key(3), n=10_000, search=SEARCH)
    return image, label, certified, np.asarray(near), held, searched


def test_the_attack_stays_inside_the_certified_radius(find):
    image, label, certified, near, _, _ = find
    assert certified.prediction == label and certified.radius > 0.1
    assert np.linalg.norm(near - image) < certified.radius and near.min() >= 0 and near.max() <= 1


def test_with_sigma_held_fixed_the_answer_stands(find):
    _, label, _, _, held, _ = find
    assert held.prediction == label


def test_with_sigma_searched_again_it_does_not(find):
    _, label, certified, _, _, searched = find
    assert searched.prediction not in (label, -1) and searched.sigma != certified.sigma
