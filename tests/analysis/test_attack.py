"""Attacks on classifiers whose distance to another answer is known in closed form."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from classifiers import DIRECTION, SHAPE, at_distance, linear

from qcrs_jax import DDRS, GoldenSection, GridGaussian, NoiseConditional, Uniform, certify, predict
from qcrs_jax.analysis.attack import (
    Answer,
    Attack,
    FrozenRule,
    Smoothed,
    attack,
    begin,
    distance_between,
    share_of,
)
from qcrs_jax.bounds import predict_threshold
from qcrs_jax.errors import SettingError
from qcrs_jax.sampling.streams import CHECK, stream

KEY = jax.random.key(0)
SMALL = Attack(attempts=7, restarts=1, steps=10, draws=64)
AWAY = (0.1, 0.3, 0.6)


@functools.cache
def on_linear(distance, n=100_000, sigma=0.25, radius=0.9, **settings):
    image = at_distance(distance)
    options = {"key": KEY, "settings": Attack(**{**vars(SMALL), **settings}), "n": n}
    return attack(linear, image, 0, Smoothed(sigma), radius=radius * distance, **options)


@pytest.mark.slow_for("0.1")
@pytest.mark.parametrize("distance", AWAY)
def test_the_upper_bound_is_a_few_per_cent_above_the_exact_distance(distance):
    found = on_linear(distance)
    # n samples see a difference of 4 deviations; p = 1/2 + 2 / sqrt(n) is .0158 sigma beyond the boundary.
    slack = 2 * 0.25 * np.sqrt(2 * np.pi) * 2 / np.sqrt(100_000)
    assert distance < found.distance < (distance + slack) * 1.03
    assert found.prediction == 1 and found.sigma == np.float32(0.25)
    assert 0.9 * distance < found.failed < found.distance and found.checks <= SMALL.attempts


@pytest.mark.parametrize("distance", AWAY)
def test_the_image_is_the_one_at_that_distance_in_the_range_of_images(distance):
    found, image = on_linear(distance), np.asarray(at_distance(distance))
    assert found.image.dtype == np.float32 and found.image.shape == SHAPE
    assert found.image.min() >= 0 and found.image.max() <= 1
    exact = np.linalg.norm(found.image.astype(float) - image.astype(float))
    assert exact <= found.distance < exact * (1 + 1e-12)
    assert predict(linear, found.image, 0.25, key=jax.random.key(5), n=100_000).prediction == 1


def test_the_counts_show_the_answer_at_a_part_of_alpha_for_each_check():
    found = on_linear(0.3)
    assert found.counts.sum() == 100_000
    assert found.counts[1] >= predict_threshold(100_000, share_of(0.001, SMALL, 1))
    keys = [stream(KEY, CHECK, check) for check in range(int(found.checks))]
    drawn = [predict(linear, found.image, 0.25, key=key, n=100_000).counts.tolist() for key in keys]
    assert drawn.count(found.counts.tolist()) == 1


def test_inside_a_certified_radius_it_fails():
    image = at_distance(0.3)
    certified = certify(linear, image, 0.25, key=KEY, n=1000)
    settings = Attack(attempts=1, restarts=2, steps=10)
    found = attack(linear, image, 0, Smoothed(0.25), radius=certified.radius, key=KEY, settings=settings, n=1000)
    assert found.distance == np.inf and found.prediction == -1 and np.isnan(found.sigma)
    assert found.failed == pytest.approx(0.99 * certified.radius) and found.counts.sum() == 0
    assert (found.image == np.asarray(image)).all()


def test_it_is_a_function_of_its_key():
    a, b = (on_linear.__wrapped__(0.3, n=1000, attempts=3) for _ in range(2))
    assert a.distance == b.distance and (a.image == b.image).all() and (a.counts == b.counts).all()
    image = at_distance(0.3)
    other = attack(
        linear, image, 0, Smoothed(0.25), radius=0.27, key=jax.random.key(1), settings=Attack(3, 1, 10), n=1000
    )
    assert (other.image != a.image).any()


@pytest.mark.slow
def test_another_batch_size_and_two_devices_find_nearly_the_same():
    image = at_distance(0.3)
    options = {"radius": 0.27, "key": KEY, "settings": Attack(4, 1, 10, 40), "n": 20_000}
    one, other = (attack(linear, image, 0, Smoothed(0.25), batch_size=size, **options) for size in (16, 7))
    assert one.distance == pytest.approx(other.distance, rel=1e-3)
    devices = attack(linear, image, 0, Smoothed(0.25), devices=jax.devices(), **options)
    assert devices.distance == pytest.approx(one.distance, rel=1e-3)


def test_the_box_bounds_the_distance():
    """From a corner the image can only move inwards: the boundary is further away than the plane."""
    image = jnp.asarray(np.where(DIRECTION > 0, 1.0, 0.0), jnp.float32)
    plane = float(((np.asarray(image) - 0.5) * DIRECTION).sum())
    outward = jnp.asarray(np.where(np.abs(DIRECTION) > 0.1, 0.5, np.asarray(image)), jnp.float32)
    found = attack(linear, image, 0, Smoothed(0.1), key=KEY, settings=SMALL, n=1000)
    assert found.distance >= plane and found.image.min() >= 0 and found.image.max() <= 1
    assert outward.shape == SHAPE
    wide = attack(linear, image, 0, Smoothed(0.1), key=KEY, settings=SMALL, n=1000, value_range=None)
    assert wide.distance >= plane


@pytest.mark.slow
def test_a_classifier_that_is_told_sigma_and_noise_on_a_grid():
    told = NoiseConditional(lambda images, sigma: linear(images) * jnp.where(sigma > 0.2, 1.0, -1.0)[:, None])
    found = attack(told, at_distance(0.3), 0, Smoothed(0.25), radius=0.27, key=KEY, settings=SMALL, n=10_000)
    assert 0.3 < found.distance < 0.34
    grid = np.round(np.asarray(at_distance(0.3)) * 255).astype(np.float32) / 255
    where = float(((grid - 0.5) * DIRECTION).sum())
    found = attack(
        linear, grid, 0, Smoothed(0.25), radius=0.9 * where, key=KEY, settings=SMALL, n=10_000, noise=GridGaussian()
    )
    assert where - 0.02 < found.distance < where + 0.04  # the image is rounded to the grid first


@pytest.mark.slow
def test_the_rule_that_searches_anew_is_asked_at_the_perturbed_image():
    golden, ddrs = GoldenSection(0.1, 0.9, epsilon=0.2), DDRS(0.1, 0.9, steps=3, draws=20)
    settings = Attack(attempts=4, restarts=1, steps=8, draws=32)
    for search in (golden, ddrs):
        rule = FrozenRule(0.25, search)
        found = attack(linear, at_distance(0.2), 0, rule, radius=0.18, key=KEY, settings=settings, n=5000)
        assert 0.2 < found.distance < 0.3 and found.prediction == 1
        assert 0.1 <= found.sigma <= 0.9


class Constant:
    """An object of the caller's: a classifier that answers 1 wherever the first pixel is above a threshold."""

    method = "constant"

    def parts(self, classify):
        return [(classify, 0.1)]

    def check(self, n, alpha, value_range, noise):
        assert alpha == pytest.approx(0.001 / 3)

    def answer(self, classify, image, key, n, alpha, **program):
        assert {"noise", "batch_size", "devices"} == set(program)
        return Answer(1 if float(image[0, 0, 0]) > 0.6 else 0, 0.1, np.array([0, n]))


@pytest.mark.slow
def test_another_classifier_is_one_class_more():
    def by_pixel(images):
        score = images[:, 0, 0, 0] - 0.55
        return 20 * jnp.stack([-score, score], axis=-1)

    image = jnp.full(SHAPE, 0.5)
    found = attack(by_pixel, image, 0, Constant(), radius=0.04, key=KEY, settings=Attack(3, 1, 10), n=100)
    assert found.prediction == 1 and found.distance > 0.1 and found.image[0, 0, 0] > 0.6


def test_the_distance_is_rounded_up():
    a, b = np.zeros(SHAPE, np.float32), np.zeros(SHAPE, np.float32)
    b[0, 0, 0], b[1, 1, 1] = 0.3, 0.4
    assert distance_between(a, a) == 0
    exact = np.sqrt(float(np.float32(0.3)) ** 2 + float(np.float32(0.4)) ** 2)
    assert exact < distance_between(a, b) < exact * (1 + 1e-14)


def test_arguments_out_of_range_are_refused():
    image, held = at_distance(0.3), Smoothed(0.25)

    def refused(kind=SettingError, image=image, label=0, attacked=held, **options):
        with pytest.raises(kind) as error:
            attack(linear, image, label, attacked, **{"key": KEY, **options})
        return error.value

    assert refused(radius=-1).settings == ("radius",)
    assert refused(radius=np.inf).settings == ("radius",)
    assert refused(alpha=1.5).settings == ("alpha",)
    assert refused(noise=Uniform()).settings == ("noise",)
    assert refused(n=10).settings[:3] == ("attempts", "alpha", "n")
    assert refused(attacked=Smoothed(-1.0)).settings[-1] == "sigma"
    assert "sigma_lower" in refused(attacked=FrozenRule(2.0, GoldenSection(0.1, 0.9))).settings
    with pytest.raises(ValueError, match="one at a time"):
        begin(linear, image[None], 0, held, key=KEY)
    for wrong in (0.25, Smoothed):
        assert "attacked" in str(refused(TypeError, attacked=wrong))
    assert "settings" in str(refused(TypeError, settings=3))
    assert "key must be" in str(refused(TypeError, key=0))
    for name in ("attempts", "restarts", "steps", "draws", "looks"):
        with pytest.raises(SettingError) as error:
            Attack(**{name: 0})
        assert error.value.settings == (name,)
        with pytest.raises(SettingError):
            Attack(**{name: 2**30})
    for inside in (0.0, 1.0, -0.1):
        with pytest.raises(SettingError):
            Attack(inside=inside)
