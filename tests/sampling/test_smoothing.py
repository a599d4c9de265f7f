"""Kinds of noise: their laws and radii, exactly."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mpmath import erfc, mp, mpf
from scipy import special, stats

from qcrs_jax import Bayesian, GoldenSection, Sequential, Soft, certify, sample_counts
from qcrs_jax.errors import SettingError
from qcrs_jax.sampling import thresholds
from qcrs_jax.sampling.noise import magnitude_words, normal_magnitude, threefry2x32
from qcrs_jax.sampling.smoothing import (
    GAUSSIAN,
    NOISES,
    Gaussian,
    GridGaussian,
    Uniform,
    _rounded,
    noise_of,
    recorded_noise,
)
from qcrs_jax.search import DDRS

mp.prec = 160
KEY = jax.random.key(5)
IMAGE = jnp.asarray(np.random.default_rng(1).integers(0, 256, (6, 5, 3)) / 255, jnp.float32)
_thresholds = jax.jit(thresholds.thresholds, static_argnums=1)


def exact(sigma, steps, i):
    """2**62 Q((i - 1/2) / (sigma steps)), in 160 bits."""
    t = (mpf(2 * i - 1) / 2) / (mpf(float(np.float32(sigma))) * steps)
    return erfc(t / mp.sqrt(2)) * mpf(2) ** 62


def whole_thresholds(sigma, steps):
    """The thresholds as Python's whole numbers."""
    upper, lower = map(np.asarray, _thresholds(jnp.float32(sigma), steps))
    assert upper.max() < 2**31 and lower.max() < 2**31
    return [int(u) * 2**31 + int(v) for u, v in zip(upper, lower)]


@pytest.mark.slow_for("0.3333-100", "3.5-1", "3.5-255", "3.5-100")
@pytest.mark.parametrize("steps", [255, 100, 1])
@pytest.mark.parametrize("sigma", [3.5, 0.3333, 0.25, 0.01, 0.0011, 1e-30])
def test_thresholds_are_those_of_a_normal_number(sigma, steps):
    found = whole_thresholds(sigma, steps)
    assert all(a >= b - 16 for a, b in zip(found, found[1:]))
    for i in [*range(1, 40), *range(40, thresholds.COUNT + 1, 201)]:
        least = exact(sigma, steps, i)
        wider = erfc((mpf(2 * i - 1) / 2) / (mpf(float(np.float32(sigma))) * (1 + mpf(2) ** -33) * steps) / mp.sqrt(2))
        assert least - 8 <= found[i - 1] <= wider * mpf(2) ** 62 + 8


def test_thresholds_are_computed_in_whole_numbers_alone():
    jaxpr = jax.make_jaxpr(lambda sigma: thresholds.thresholds(sigma, 255))(jnp.float32(0.25))
    floats = [eqn for eqn in jaxpr.jaxpr.eqns for v in eqn.outvars if jnp.issubdtype(v.aval.dtype, jnp.floating)]
    assert not floats


def hard_words(sigma, steps):
    """Pairs of words at and beside each threshold, and the smallest magnitudes of all."""
    ks = [k for t in whole_thresholds(sigma, steps) for k in (t - 1, t, t + 1) if 0 <= k < 2**62]
    ks = np.array([*ks, *range(3000), *(2**62 - 1 - np.arange(100))], dtype=object)
    first = np.array([int(k) >> 31 for k in ks], np.uint32)
    second = np.array([(int(k) & (2**31 - 1)) << 1 for k in ks], np.uint32)
    return ks, first, second


@pytest.mark.parametrize(("sigma", "steps"), [(0.25, 255), (3.52, 255), (0.07, 255), (1.3, 100), (890.0, 1)])
def test_every_magnitude_is_rounded_as_the_thresholds_have_it(sigma, steps):
    ks, first, second = hard_words(sigma, steps)
    words = np.random.default_rng(0).integers(0, 2**32, (2, 200_000), dtype=np.uint32)
    first, second = (np.concatenate(pair) for pair in zip((first, second), words))
    k0, k1 = map(np.asarray, magnitude_words(first, second))
    found = jax.jit(_rounded)(first, second, *GridGaussian(steps).level(jnp.float32(sigma)))
    limits = np.array(whole_thresholds(sigma, steps)[::-1], np.uint64)
    k = k0.astype(np.uint64) * np.uint64(2**31) + k1.astype(np.uint64)
    expected = len(limits) - np.searchsorted(limits, k, side="right")
    exactly = k >= 4096  # the others, of which a number is one with probability 2**-50, are lost
    np.testing.assert_array_equal(np.abs(found)[exactly], expected[exactly])
    assert abs(np.abs(found) - expected).max() < 0.1 * steps * sigma
    assert np.all((np.asarray(found) < 0) == ((first >= 2**31) & (expected > 0)))


def test_the_law_of_the_steps_is_that_of_rounded_normal_numbers():
    sigma, n = 0.01, 400_000
    words = threefry2x32(jnp.uint32(1), jnp.uint32(2), jnp.uint32(3), jnp.arange(n, dtype=jnp.uint32))
    found = np.asarray(jax.jit(_rounded)(*words, *GridGaussian().level(jnp.float32(sigma))))
    ends = np.arange(-9, 10)
    shares = np.diff(special.ndtr((2 * ends - 1) / (510 * sigma)))
    counts = np.array([(found == end).sum() for end in ends[:-1]])
    assert (
        stats.chisquare(
            counts[counts > 5], n * shares[counts > 5] / shares[counts > 5].sum() * counts[counts > 5].sum() / n
        ).pvalue
        > 1e-4
    )


@pytest.mark.slow_for("0.0", "0.02", "1.0")
@pytest.mark.parametrize("sigma", [0.0, 0.02, 0.25, 1.0])
def test_noisy_images_lie_on_the_grid_and_move_with_the_image(sigma):
    noise, index = GridGaussian(), jnp.arange(7)
    add = jax.jit(lambda image: noise.add(image, noise.level(jnp.float32(sigma)), KEY, index))
    found = np.asarray(add(IMAGE), float) * 255
    whole = np.round(found)
    np.testing.assert_allclose(found, whole, atol=1e-4 * (1 + abs(whole).max()) / 10)
    moved = np.asarray(add(IMAGE + 3 / 255), float) * 255
    np.testing.assert_array_equal(np.round(moved), whole + 3)
    for copies in (jnp.arange(3), jnp.array([6, 2])):
        some = noise.add(IMAGE, noise.level(jnp.float32(sigma)), KEY, copies)
        np.testing.assert_array_equal(some, np.asarray(add(IMAGE))[np.asarray(copies)])


@pytest.mark.slow
def test_the_grid_takes_the_quantile_of_the_float_noise():
    float_noise = np.asarray(Gaussian().add(jnp.zeros((20, 20, 3)), 0.25, KEY, jnp.arange(20)))
    grid_noise = np.asarray(
        GridGaussian().add(jnp.zeros((20, 20, 3)), GridGaussian().level(jnp.float32(0.25)), KEY, jnp.arange(20))
    )
    assert abs(255 * (grid_noise - float_noise)).max() < 0.501


@pytest.mark.parametrize("prng", ["threefry2x32", "rbg"])
@pytest.mark.parametrize("noise", [Gaussian(), GridGaussian(), Uniform()])
def test_noise_has_the_standard_deviation_sigma_and_no_mean(noise, prng):
    sigma, key = 0.2, jax.random.key(4, impl=prng)
    found = np.asarray(noise.add(jnp.zeros((100, 100, 1)), noise.level(jnp.float32(sigma)), key, jnp.arange(50)), float)
    deviation = math.sqrt(sigma**2 + (1 / 12 / 255**2 if noise.name == "grid" else 0))
    assert abs(found.mean()) < 5 * deviation / math.sqrt(found.size)
    assert abs(found.std() / deviation - 1) < 0.006
    if noise.name == "uniform":
        assert abs(found).max() <= sigma * math.sqrt(3) * (1 + 1e-6)
        assert stats.kstest(found.ravel()[:20000], stats.uniform(-sigma * 3**0.5, 2 * sigma * 3**0.5).cdf).pvalue > 1e-4


@pytest.mark.parametrize("noise", [Gaussian(), GridGaussian(), Uniform()])
def test_unit_radii_are_odd_and_rise(noise):
    p = np.linspace(0.01, 0.99, 99)
    radii = noise.unit_radius(p)
    np.testing.assert_allclose(radii, -noise.unit_radius(1 - p), atol=1e-12)
    assert np.all(np.diff(radii) > 0) and abs(radii[49]) < 1e-12


def test_a_certificate_of_uniform_noise_is_of_l1():
    """By one pixel: its smoothed probability is piecewise linear, and the L1 radius of an interval exact."""
    sigma = 0.3
    half = sigma * math.sqrt(3)

    def classify(images):
        inside = images[:, 0, 0, 0] < 0.7
        return jnp.stack([inside, ~inside], axis=1).astype(jnp.float32)

    image = jnp.full((1, 1, 1), 0.5)
    made = certify(classify, image, sigma, key=KEY, n=20_000, noise=Uniform())
    p = (half + 0.2) / (2 * half)
    assert made.prediction == 0
    assert made.radius == pytest.approx(sigma * math.sqrt(3) * (2 * made.pa_lower - 1))
    assert half * (2 * p - 1) - 0.03 < made.radius <= 0.2 + 1e-9  # the class changes at a distance of 0.2


@pytest.mark.slow
@pytest.mark.parametrize("search", [GoldenSection(0.05, 1.0), Bayesian(0.05, 1.0, max_evaluations=8)])
def test_a_search_with_uniform_noise_finds_a_larger_l1_radius(search):
    """Class 0 in a slab |x| < 0.4 of one of many coordinates: R(sigma) = 0.4 as long as h covers no other end."""

    def classify(images):
        inside = jnp.abs(images[:, 0, 0, 0] - 0.5) < 0.4
        return jnp.stack([inside, ~inside], axis=1).astype(jnp.float32)

    image = jnp.full((2, 2, 1), 0.5)
    fixed = certify(classify, image, 0.06, key=KEY, n=5_000, noise=Uniform())
    found = certify(classify, image, 0.06, key=KEY, n=5_000, search=search, noise=Uniform())
    assert fixed.radius == pytest.approx(0.06 * math.sqrt(3), rel=0.01)
    assert 0.18 < found.radius <= 0.4
    assert found.sigma > 0.1


@pytest.mark.slow_for("estimate1-noise0", "estimate0-noise0", "estimate2-noise0", "estimate2-noise1")
@pytest.mark.parametrize("noise", [GridGaussian(), Uniform()])
@pytest.mark.parametrize("estimate", [Sequential(decide=0.02), Sequential(precision=0.1), Soft()])
def test_every_estimate_concludes_by_the_radius_of_the_noise(noise, estimate):
    def classify(images):
        inside = images[:, 0, 0, 0] < 0.9
        return 10 * jnp.stack([inside, ~inside], axis=1).astype(jnp.float32)

    image = jnp.full((2, 2, 1), 128 / 255)
    made = certify(classify, image, 0.1, key=KEY, n=2_000, estimate=estimate, noise=noise)
    pb = made.pb_upper if made.pb_upper is not None else 1 - made.pa_lower
    radius = 0.1 / 2 * (noise.unit_radius(made.pa_lower) - noise.unit_radius(pb))
    assert made.radius == pytest.approx(radius, rel=1e-6) and made.radius > 0


@pytest.mark.slow
def test_bounds_are_lowered_by_the_lost_probability():
    class Coarse(GridGaussian):
        lost = 0.01

    classify = lambda images: jnp.stack([images[:, 0, 0, 0] < 2, images[:, 0, 0, 0] >= 2], 1).astype(float)  # noqa: E731
    usual, coarse = (certify(classify, IMAGE, 0.1, key=KEY, n=1000, noise=noise) for noise in (GAUSSIAN, Coarse()))
    assert coarse.pa_lower == pytest.approx(usual.pa_lower - 0.01)
    inside = jax.jit(lambda image: certify(classify, image, 0.1, key=KEY, n=1000, noise=Coarse()))(IMAGE)
    assert inside.pa_lower <= coarse.pa_lower and inside.radius <= coarse.radius


def test_grid_noise_refuses_unfit_images_and_sigmas():
    classify = lambda images: images.mean((1, 2))  # noqa: E731
    with pytest.raises(SettingError, match="whole multiples of 1 / 255"):
        certify(classify, IMAGE + 0.3 / 255, 0.25, key=KEY, n=100, noise=GridGaussian())
    with pytest.raises(SettingError, match="can be drawn up to 3.53"):
        certify(classify, IMAGE, 4.0, key=KEY, n=100, noise=GridGaussian())
    with pytest.raises(SettingError, match="sigma_upper.*can be drawn up to"):
        certify(classify, IMAGE, 1.0, key=KEY, n=100, search=GoldenSection(0.5, 5.0), noise=GridGaussian())
    with pytest.raises(SettingError, match="at most 1048576 numbers"):
        GridGaussian().check_images(np.zeros((1024, 1024, 3), np.float32))
    for scale in (np.float32(1 / 255), np.float64(1) / 255):  # both ways to make floats of 8-bit images
        GridGaussian().check_images((np.arange(256).reshape(16, 16, 1) * scale).astype(np.float32))
    with pytest.raises(SettingError, match="whole multiples"):
        GridGaussian().check_images(np.full((2, 2, 1), 0.4 + 1e-3 / 255, np.float32))
    for steps in (0, 256):
        with pytest.raises(SettingError, match="steps"):
            GridGaussian(steps)
    with pytest.raises(SettingError, match="ascends radii of normal noise"):
        certify(classify, IMAGE, 0.25, key=KEY, n=100, search=DDRS(0.1, 0.9), noise=Uniform())


@pytest.mark.slow
def test_no_copy_counts_at_a_sigma_beyond_the_grids():
    counts = jax.jit(
        lambda sigma: sample_counts(lambda images: images.mean((1, 2)), IMAGE, sigma, KEY, 50, noise=GridGaussian())
    )
    assert counts(jnp.float32(5)).sum() == 0 and counts(jnp.float32(3)).sum() == 50


@pytest.mark.slow
def test_counts_of_a_grid_do_not_depend_on_the_batch():
    classify = lambda images: images.mean((1, 2))  # noqa: E731
    found = [
        sample_counts(classify, IMAGE, 0.25, KEY, 300, noise=GridGaussian(), batch_size=size) for size in (1, 16, 64)
    ]
    assert all((counts == found[0]).all() for counts in found)


@pytest.mark.parametrize("noise", [GridGaussian(), GridGaussian(100), Uniform()])
def test_a_request_records_its_noise(noise):
    assert noise_of(recorded_noise(noise)) == noise
    assert recorded_noise(GAUSSIAN) == {} and noise_of({}) == GAUSSIAN
    assert NOISES[noise.name] is type(noise)
    with pytest.raises(SettingError, match="known are gaussian, grid, uniform"):
        noise_of({"smoothing": {"name": "laplace"}})
    with pytest.raises(SettingError, match="other settings"):
        noise_of({"smoothing": {"name": "uniform", "steps": 3}})


def test_the_quantile_is_near_enough_for_every_grid():
    """Less than half a step off at the largest scale, out to the smallest magnitude there is."""
    scale = thresholds.largest_sigma(1)
    for first in (np.arange(3000, dtype=np.uint32), np.geomspace(1, 2**31 - 1, 3000).astype(np.uint32)):
        for second in (first[:1], np.array([2**31 - 1], np.uint32)):
            k0, k1 = map(np.asarray, magnitude_words(first, np.resize(second << np.uint32(1), first.shape)))
            tail = (k0.astype(np.float64) * 2.0**31 + k1 + 0.5) / 2.0**62
            ours = np.asarray(jax.jit(normal_magnitude)(k0, k1), float)
            assert np.abs(scale * (ours + special.ndtri(tail / 2))).max() < 0.4


def test_tables_are_made_once_for_all_objects_of_a_noise():
    for kind in (Gaussian, GridGaussian, Uniform):
        assert kind().unit_radius is kind().unit_radius
    request = recorded_noise(GridGaussian(100))
    assert noise_of(request) is noise_of(request) and noise_of({}) is GAUSSIAN
