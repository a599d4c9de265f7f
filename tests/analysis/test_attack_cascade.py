"""Attacks on a cascade: inside its radius they fail, and beyond it they find the nearest other answer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from classifiers import SHAPE, at_distance, linear

from qcrs_jax import Attack, Cascade, CascadeRule, GridGaussian, attack, certify_cascade
from qcrs_jax.errors import SettingError

KEY = jax.random.key(0)
CASCADE = Cascade((0.5, 0.25))
SMALL = Attack(attempts=6, restarts=1, steps=10, draws=64)


@pytest.mark.slow
def test_of_a_linear_classifier_the_upper_bound_is_near_the_distance():
    made = certify_cascade(linear, at_distance(0.3), CASCADE, key=KEY, n=20_000)
    found = attack(
        linear, at_distance(0.3), 0, CascadeRule(CASCADE), radius=made.radius, key=KEY, settings=SMALL, n=20_000
    )
    assert made.radius <= 0.3 < found.distance < 0.36 and found.prediction == 1


def test_the_counts_are_those_of_all_stages_and_show_the_answer():
    rule = CascadeRule(CASCADE, n0=50)
    answer = rule.answer(linear, jnp.asarray(at_distance(-0.3)), KEY, 400, 0.001, noise=GridGaussian(), batch_size=16,
                         devices=None)  # an image off the grid  # fmt: skip
    counts0, counts = answer.counts.reshape(2, 2, 2)
    assert (counts0.sum(axis=-1) == 50).all() and counts[0].sum() == 400
    assert answer.prediction == 1
    assert CASCADE.certificate(counts0, counts, 50, 400, 0.001, GridGaussian()).prediction == 1


def test_each_stage_is_attacked_by_its_network():
    other = lambda images: -linear(images)  # noqa: E731
    parts = CascadeRule(CASCADE).parts([linear, other])
    assert [sigma for _, sigma in parts] == [0.5, 0.25] and [network for network, _ in parts] == [linear, other]
    with pytest.raises(SettingError, match="smallest n"):
        attack(linear, np.full(SHAPE, 0.5, np.float32), 0, CascadeRule(CASCADE), key=KEY, n=10)
