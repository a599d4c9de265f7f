"""Curves of R(sigma): files, confidence bands, and the test of quasiconcavity."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from classifiers import DIRECTION, SHAPE, linear, slab, slab_probability
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from jax.tree_util import Partial
from scipy import special, stats

from qcrs_jax import sample_counts, sample_curve
from qcrs_jax.analysis.curves import (
    Band,
    Point,
    dips,
    oracle,
    radius_band,
    read_curves,
    read_points,
    sigma_grid,
)
from qcrs_jax.results.records import RecordsError
from qcrs_jax.results.writer import Writer
from qcrs_jax.sampling.streams import CURVE

KEY = jax.random.key(3)
SIGMAS = np.array(sigma_grid(0.1, 2.0, 9, 0.25))


def test_the_grid_is_even_in_log_sigma_and_holds_the_original():
    grid = sigma_grid(0.08, 0.9, 4, 0.25)
    assert grid == sorted(grid) and len(grid) == 5 and float(np.float32(0.25)) in grid
    assert all(s == np.float32(s) for s in grid)
    np.testing.assert_allclose(np.diff(np.log([s for s in grid if s != 0.25])), np.log(0.9 / 0.08) / 3, rtol=1e-5)
    assert len(sigma_grid(0.25, 0.5, 2, 0.25)) == 2


@pytest.mark.slow
def test_the_noise_is_the_same_at_all_sigmas_and_the_curve_s_own():
    image = jnp.full(SHAPE, 0.05)
    counts = sample_curve(linear, image, SIGMAS, key=KEY, n=150)
    stream = jax.random.fold_in(jax.random.fold_in(KEY, CURVE), 0)
    alone = jax.jit(lambda sigma: sample_counts(linear, image, sigma, stream, 150))
    for sigma, row in zip(SIGMAS, counts):
        np.testing.assert_array_equal(row, alone(sigma))


@pytest.mark.slow
def test_curves_of_images_together_are_those_one_by_one():
    images = jnp.stack([jnp.full(SHAPE, v) for v in (0.05, 0.02)])
    together = sample_curve(linear, images, SIGMAS[:3], key=KEY, n=130, devices=jax.devices()[:1], batch_size=64)
    assert together.shape == (2, 3, 2)
    for i, image in enumerate(images):
        alone = sample_curve(linear, image, SIGMAS[:3], key=jax.random.fold_in(KEY, i), n=130)
        np.testing.assert_array_equal(together[i], alone)


def test_the_band_is_clopper_pearson_shared_among_the_sigmas():
    k, n, alpha = np.array([[300, 480, 500], [0, 250, 400]]), 500, 0.01
    band = radius_band(k, n, SIGMAS[:3], alpha)
    for i, j in np.ndindex(k.shape):
        interval = stats.binomtest(int(k[i, j]), n).proportion_ci(1 - alpha / 3, "exact")
        lower, upper = (SIGMAS[j] * max(special.ndtri(p), 0) for p in (interval.low, interval.high))
        assert band.lower[i, j] == pytest.approx(lower, rel=1e-6)
        assert band.upper[i, j] == pytest.approx(upper, rel=1e-6)
    assert np.isinf(band.upper[0, 2])


@pytest.mark.parametrize("p", [0.3, 0.55, 0.9, 0.999])
def test_the_band_misses_at_most_as_often_as_stated(p):
    n, alpha, k = 200, 0.05, np.arange(201)
    chance = stats.binom.pmf(k, n, p)
    truth = max(special.ndtri(p), 0)
    lower, upper = radius_band(np.repeat(k[:, None], 5, axis=1), n, np.ones(5), alpha)
    assert chance[(lower[:, 0] > truth) | (upper[:, 0] < truth)].sum() <= alpha / 5


def deepest(lower, upper):
    """The definition, triple by triple."""
    s = len(lower)
    triples = [(i, j, k) for j in range(s) for i in range(j + 1) for k in range(j, s)]
    return max(min(lower[i], lower[k]) - upper[j] for i, j, k in triples)


@settings(deadline=None)
@given(hnp.arrays(float, (2, 7), elements=st.integers(0, 9).map(float)))
def test_dips_are_those_of_the_definition(ends):
    band = Band(ends.min(axis=0), ends.max(axis=0))
    found = dips(band)
    assert found.depth == deepest(*band)
    i, j, k = found.triple
    if not found.consistent:
        assert i < j < k and min(band.lower[i], band.lower[k]) - band.upper[j] == found.depth
    several = dips(Band(np.stack([band.lower] * 2), np.stack([band.upper] * 2)))
    assert several.depth.tolist() == [found.depth] * 2 and several.triple.shape == (2, 3)


@settings(deadline=None)
@given(hnp.arrays(float, (3, 8), elements=st.floats(0, 9)))
def test_a_band_about_a_quasiconcave_curve_is_consistent_and_some_curve_fits_wherever_it_is(values):
    up, below, above = values
    curve = np.concatenate([np.sort(up[:4]), np.sort(up[4:])[::-1]])
    curve = np.minimum(np.maximum.accumulate(curve), np.maximum.accumulate(curve[::-1])[::-1])  # one hump
    assert dips(Band(curve - below, curve + above)).consistent
    band = Band(np.minimum(below, above), np.maximum(below, above))
    hump = np.minimum(np.maximum.accumulate(band.lower), np.maximum.accumulate(band.lower[::-1])[::-1])
    fits = bool(np.all((band.lower <= hump) & (hump <= band.upper)))
    assert bool(dips(band).consistent) == fits


def two_humps(images):
    """Class 0 near the origin and again far from it: R(sigma) rises, falls to 0, and rises again."""
    t = jnp.abs(jnp.einsum("bhwc,hwc->b", images, jnp.asarray(DIRECTION, jnp.float32)))
    inside = (t < 0.3) | ((t > 1) & (t < 30))
    return jnp.stack([inside, ~inside], axis=-1).astype(jnp.float32)


def test_a_slab_is_consistent_and_two_humps_are_not():
    sigmas, image = np.geomspace(0.05, 8.0, 12), jnp.zeros(SHAPE)
    for classify, expected in ((Partial(slab, 1.2), True), (two_humps, False)):
        successes = np.asarray(sample_curve(classify, image, sigmas, key=KEY, n=500))[:, 0]
        found = dips(radius_band(successes, 500, sigmas))
        assert found.consistent == expected
    first, at, last = sigmas[found.triple]
    assert first < 0.3 < at < 1 < last and found.depth > 0


def test_the_oracle_finds_the_best_sigma_of_a_slab():
    n, sigmas = 4000, np.geomspace(0.1, 3, 30)
    k = np.rint(n * slab_probability(1.2, sigmas)).astype(int)
    best = oracle(k, n, sigmas)
    radii = sigmas * np.maximum(special.ndtri(stats.beta.ppf(0.001, k, n - k + 1)), 0)
    assert best.radius == pytest.approx(radii.max()) and best.sigma == sigmas[radii.argmax()]
    assert oracle(np.stack([k, 0 * k]), n, sigmas).radius.tolist() == pytest.approx([radii.max(), 0])


REQUEST = {"sigma": 0.25, "sigmas": sigma_grid(0.1, 1.0, 3, 0.25), "n": 10}


def write(path, points, request=REQUEST):
    with Writer(path, request, {}, Point.columns(), read_points) as writer:
        writer.write(*points)
    return writer.done


def image_points(idx, label=1):
    return [Point(idx, label, s, (10 - i, i)) for i, s in enumerate(REQUEST["sigmas"])]


def test_a_file_of_curves_comes_back(tmp_path):
    path = tmp_path / "curves.tsv"
    assert write(path, image_points(7)) == []
    assert write(path, image_points(3, label=0)) == image_points(7)
    curves = read_curves(path)
    assert curves.idx.tolist() == [7, 3] and curves.labels.tolist() == [1, 0] and curves.n == 10
    assert curves.sigmas.tolist() == REQUEST["sigmas"] and curves.sigmas[curves.original] == 0.25
    assert curves.counts.shape == (2, 4, 2) and curves.counts.sum() == 80
    assert curves.classes.tolist() == [0, 0] and curves.successes[0].tolist() == [10, 9, 8, 7]


def test_an_unfinished_image_is_left_out(tmp_path):
    path = tmp_path / "curves.tsv"
    write(path, image_points(0) + image_points(1)[:2])
    with open(path, "a") as file:
        file.write("1\t1\t0.4")  # as if it had died within a write
    assert len(write(path, [])) == 6  # the torn line is cut off
    assert read_curves(path).idx.tolist() == [0]
    with pytest.raises(RecordsError, match="no finished image"):
        write(tmp_path / "other.tsv", image_points(0)[:3])
        read_curves(tmp_path / "other.tsv")


def test_damaged_files_of_curves_are_named(tmp_path):
    path = tmp_path / "curves.tsv"
    write(path, image_points(0))
    text = path.read_text()
    for content, message in (
        (text.replace("10,0", "10,x"), "curves.tsv, line 2"),
        (text + text.splitlines()[1] + "\n", "line 6: image 0 is listed twice at sigma 0.1"),
        ("idx\tlabel\n", "no column counts, sigma"),
    ):
        path.write_text(content)
        with pytest.raises(RecordsError, match=message):
            read_curves(path)
    path.write_text(text)
    (tmp_path / "curves.tsv.json").write_text(json.dumps({"request": {"sigma": 0.25}, "provenance": {}}))
    with pytest.raises(RecordsError, match="sidecar"):
        read_curves(path)
