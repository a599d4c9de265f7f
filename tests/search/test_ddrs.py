"""DDRS: the surrogate and its gradient against closed forms, and the properties of the ascent."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from classifiers import DIRECTION, SHAPE, at_distance, linear, slab
from jax.tree_util import Partial
from places import HELPERS
from reference_noise import reference_noise
from scipy import special, stats

from qcrs_jax import DDRS, certify, sample_counts, search_sigma
from qcrs_jax.sampling.streams import ESTIMATION, SEARCH, SELECTION
from qcrs_jax.search.ddrs import PRESETS, mean_softmax, surrogate_radius

KEY = jax.random.key(5)
QUICK = DDRS(0.05, 2.0, steps=12, draws=20, step_size=0.05)


def noise_along(key, draws):
    """The documented noise of `draws` copies, along DIRECTION."""
    noise = [reference_noise(key, i, SHAPE) for i in range(draws)]
    return np.einsum("bhwc,hwc->b", np.asarray(noise, np.float64), DIRECTION)


def linear_surrogate(d, sigma, z):
    """The surrogate of the linear classifier, whose softmax is sigmoid(2 (d + sigma z)), and its derivative."""
    p = special.expit(2 * (d + sigma * z))
    mean, slope = p.mean(), (2 * z * p * (1 - p)).mean()
    quantile = special.ndtri(mean)
    first = np.sign(quantile)  # the class in front
    return first * sigma * quantile, first * (quantile + sigma * slope / stats.norm.pdf(quantile))


def trace_of(settings, classify=linear, image=None, sigma=0.5, **options):
    return search_sigma(classify, at_distance(0.4) if image is None else image, sigma, settings, key=KEY, **options)


@pytest.mark.slow
@pytest.mark.parametrize("batch_size", [7, 64])
def test_the_gradient_is_the_closed_form_s(batch_size):
    def surrogate(d, sigma):
        p = mean_softmax(linear, 0.5 + d * jnp.asarray(DIRECTION), sigma, KEY, 30, batch_size=batch_size)
        return surrogate_radius(p, sigma, 0.001)

    slope = jax.jit(lambda d, sigma: jax.jvp(lambda s: surrogate(d, s), (sigma,), (jnp.float32(1),)))
    for d, sigma in ((0.4, 0.25), (-0.1, 1.5)):
        ours = slope(jnp.float32(d), jnp.float32(sigma))
        np.testing.assert_allclose(ours, linear_surrogate(d, sigma, noise_along(KEY, 30)), rtol=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("decay", [False, True])
def test_every_step_is_one_of_ascent_on_noise_of_its_own(decay):
    settings = DDRS(0.05, 2.0, steps=5, draws=20, step_size=0.05, decay=decay, start=0.3)
    found, sigma = trace_of(settings), 0.3
    for i in range(5):
        z = noise_along(jax.random.fold_in(jax.random.fold_in(KEY, SEARCH), i), 20)
        value, gradient = linear_surrogate(0.4, sigma, z)
        assert found.surrogates[i] == pytest.approx(value, rel=1e-3)
        sigma += 0.05 * gradient * ((1 + np.cos(np.pi * i / 5)) / 2 if decay else 1)
        assert found.sigmas[i] == pytest.approx(sigma, rel=1e-3)
    assert found.sigma == found.sigmas[-1]


def slab_surrogate(scale, sigma):
    """The surrogate of a slab of half width 1.2 at its middle, by quadrature."""
    z = np.linspace(-8, 8, 4001)
    p = special.expit(2 * scale * (1.2 - np.abs(np.multiply.outer(sigma, z)))) @ (stats.norm.pdf(z) * (z[1] - z[0]))
    return sigma * special.ndtri(p)


def steep_slab(images):
    return 3 * slab(1.2, images)


@pytest.mark.slow
@pytest.mark.parametrize("start", [0.15, 1.4])
def test_the_ascent_ends_near_the_known_optimum_of_a_slab(start):
    sigmas = np.linspace(0.1, 2.0, 400)
    values = slab_surrogate(3, sigmas)
    best = values.max()
    assert 0.2 < sigmas[values.argmax()] < 1.0 and slab_surrogate(3, start) < 0.7 * best
    settings = DDRS(0.05, 2.0, steps=50, draws=200, step_size=0.1)
    image = jnp.zeros(SHAPE)
    ours = certify(steep_slab, image, start, key=KEY, n=4000, search=settings)
    assert slab_surrogate(3, float(ours.sigma)) > 0.97 * best
    assert ours.radius > 1.3 * certify(steep_slab, image, start, key=KEY, n=4000).radius
    jax.tree.map(np.testing.assert_array_equal, ours.search, trace_of(settings, steep_slab, image, start))


@pytest.mark.slow
def test_sigma_stays_within_its_bracket():
    # The surrogate of the linear classifier rises with sigma without end; that of a slab has its top inside, and large
    # steps overshoot it to either end.
    up = trace_of(DDRS(0.1, 0.8, steps=20, draws=50, step_size=1.0))
    assert up.sigma == np.float32(0.8)
    wild = trace_of(DDRS(0.3, 2.0, steps=20, draws=50, step_size=50.0), steep_slab, jnp.zeros(SHAPE), sigma=2.0)
    assert wild.sigmas.min() == np.float32(0.3) and wild.sigmas.max() == np.float32(2.0)


@pytest.mark.slow
def test_the_certificate_s_samples_are_those_of_a_fixed_sigma():
    ours = certify(linear, at_distance(0.4), 0.25, key=KEY, n0=20, n=300, search=QUICK)
    for stage, counts in ((SELECTION, ours.counts0), (ESTIMATION, ours.counts)):
        stream = jax.random.fold_in(jax.random.fold_in(KEY, stage), 0)
        np.testing.assert_array_equal(
            counts, sample_counts(linear, at_distance(0.4), ours.sigma, stream, int(counts.sum()))
        )
    assert ours.radius <= 0.4


@pytest.mark.slow
def test_steps_without_a_finite_gradient_are_skipped():
    @jax.custom_jvp
    def bad_slope(x):
        return x

    bad_slope.defjvp(lambda primals, tangents: (primals[0], tangents[0] * jnp.where(primals[0] > 0.5, jnp.nan, 1.0)))
    found = trace_of(QUICK, lambda x: linear(bad_slope(x)), sigma=0.25)
    assert np.all(np.isfinite(found.sigmas))
    never = trace_of(QUICK, lambda x: jnp.full((len(x), 3), jnp.nan) * x.sum(), sigma=0.25)
    assert np.all(never.sigmas == np.float32(0.25))
    ours = certify(lambda x: jnp.full((len(x), 3), jnp.nan), at_distance(0.4), 0.25, key=KEY, n=100, search=QUICK)
    assert ours.prediction == -1 and ours.sigma == np.float32(0.25)


@pytest.mark.slow
def test_copies_without_finite_logits_count_for_no_class():
    def sometimes(images):
        return jnp.where(images[:, 0, 0, :1] > 0, jnp.nan, linear(images))

    p = mean_softmax(sometimes, jnp.zeros(SHAPE), jnp.float32(0.5), KEY, 200, batch_size=200)
    assert 0.3 < p.sum() < 0.7
    found = trace_of(QUICK, sometimes)
    assert np.all(np.isfinite(found.sigmas)) and found.sigma != 0.5


@pytest.mark.slow
def test_images_together_are_the_images_one_by_one():
    images = jnp.stack([at_distance(d) for d in (0.1, -0.3, 0.4)])
    together = certify(linear, images, 0.25, key=KEY, n=300, search=QUICK)
    for i, image in enumerate(images):
        alone = certify(linear, image, 0.25, key=jax.random.fold_in(KEY, i), n=300, search=QUICK)
        jax.tree.map(lambda a, b, i=i: np.testing.assert_allclose(a[i], b, rtol=1e-5), together, alone)
    assert len(np.unique(together.sigma)) == 3
    again = certify(linear, images, 0.25, key=KEY, n=300, search=QUICK)
    jax.tree.map(np.testing.assert_array_equal, together, again)
    np.testing.assert_allclose(trace_of(QUICK, image=images, sigma=0.25).sigma, together.sigma, rtol=1e-5)


@pytest.mark.slow
def test_it_works_inside_jit_with_weights_as_arguments():
    bound = Partial(lambda scale, images: scale * linear(images), jnp.float32(2.0))
    plain = trace_of(QUICK, lambda images: 2.0 * linear(images))
    inside = jax.jit(lambda classify: trace_of(QUICK, classify))(bound)
    np.testing.assert_allclose(inside.sigmas, plain.sigmas, rtol=1e-5)


DEVICES = """
import sys, jax, numpy as np
sys.path.insert(0, sys.argv[1])
from classifiers import at_distance, linear
from qcrs_jax import DDRS, certify
key, settings = jax.random.key(11), DDRS(0.05, 2.0, steps=10, draws=30, step_size=0.05)
results = [
    certify(linear, at_distance(0.3), 0.25, key=key, n=333, search=settings, batch_size=7, devices=devices)
    for devices in (None, jax.devices()[:3])
]
one, three = results
np.testing.assert_allclose(one.search.sigmas, three.search.sigmas, rtol=1e-5)
np.testing.assert_allclose(one.search.surrogates, three.search.surrogates, rtol=1e-5)
assert abs(one.counts - three.counts).sum() <= 2
print(len(jax.devices()))
"""


@pytest.mark.slow
def test_devices_share_the_copies_and_change_nothing_but_rounding():
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=3", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", DEVICES, str(HELPERS)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert result.stdout.split() == ["3"]


def test_presets_are_settings_and_know_their_cost():
    samples = {name: DDRS(0.1, 0.9, **preset).samples for name, preset in PRESETS.items()}
    assert samples == {"tuned": 3000, "paper": 900, "package": 90_000, "qcrs": 100}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sigma_lower": 0.0}, "0 < sigma_lower"),
        ({"sigma_upper": 0.1}, "sigma_lower < sigma_upper"),
        ({"sigma_upper": np.nan}, "sigma_lower < sigma_upper"),
        ({"steps": 0}, "steps must be at least 1"),
        ({"draws": 0}, "draws must be at least 1"),
        ({"step_size": 0.0}, "step_size must be positive"),
        ({"step_size": np.nan}, "step_size must be positive"),
        ({"start": 1.0}, "start must lie between"),
        ({"clamp": 0.0}, "clamp must be"),
        ({"clamp": 0.5}, "clamp must be"),
    ],
)
def test_impossible_ascents_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        DDRS(**{"sigma_lower": 0.1, "sigma_upper": 0.9, **change})
