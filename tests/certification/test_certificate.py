"""Certify, predict and QCRS against a NumPy transcription, closed forms and their own promises."""

import dataclasses
import os
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import searches
from classifiers import SHAPE, at_distance, by_sign, linear, slab, slab_probability
from compiled import depths
from jax.tree_util import Partial
from places import HELPERS
from reference_noise import reference_noise
from scipy import special, stats
from searches import SEARCHES

from qcrs_jax import (
    ABSTAIN,
    DDRS,
    Bayesian,
    Fixed,
    GoldenSection,
    GridGaussian,
    Sequential,
    Soft,
    Tolerance,
    certify,
    conclude,
    decide,
    draw,
    draw_counts,
    predict,
    sample_counts,
    search_sigma,
)
from qcrs_jax.bounds import (
    certified_radius,
    clopper_pearson_lower,
    enough_table,
    gap_radius,
    predictive_table,
    smallest_soft_n,
    soft_bounds,
)
from qcrs_jax.certification.certificate import check_request
from qcrs_jax.sampling.counts import SOFT_ONE, soft_votes
from qcrs_jax.sampling.streams import ESTIMATION, SELECTION

KEY = jax.random.key(11)
SETTINGS = GoldenSection(0.08, 0.9, epsilon=0.03)


def certify_numpy(classify, image, sigma, key, n0, n, alpha):
    """CERTIFY of Cohen et al., a line for each of theirs, on the noise that the stages are documented to have."""

    def sample(stage, count):
        stream = jax.random.fold_in(jax.random.fold_in(key, stage), 0)
        counts = np.zeros(4, int)
        for i in range(count):
            noise = reference_noise(stream, i, image.shape)
            counts[int(np.argmax(classify((image + np.float32(sigma) * noise)[None])))] += 1
        return counts

    top = sample(SELECTION, n0).argmax()
    pa_lower = stats.beta.ppf(alpha, (k := sample(ESTIMATION, n)[top]), n - k + 1) if n else 0
    return (ABSTAIN, 0.0) if pa_lower < 0.5 else (top, sigma * stats.norm.ppf(pa_lower))


@pytest.mark.slow_for("0.02")
@pytest.mark.parametrize("level", [0.02, 0.2, 0.6])
def test_certify_is_that_of_cohen(level):
    image = jnp.zeros(SHAPE).at[0, 0, 0].set(level).at[1, 1, 1].set(-level)
    ours = certify(by_sign, image, 0.25, key=KEY, n0=15, n=150, alpha=0.01, value_range=(-1, 1))
    prediction, radius = certify_numpy(by_sign, image, 0.25, KEY, 15, 150, 0.01)
    assert ours.prediction == prediction
    np.testing.assert_allclose(ours.radius, radius, rtol=1e-9)
    assert ours.counts0.sum() == 15 and ours.counts.sum() == 150


def test_radii_are_float64_from_the_counts():
    ours = certify(linear, at_distance(0.2), 0.3, key=KEY, n=1000)
    pa_lower = clopper_pearson_lower(ours.counts[0], 1000, 0.001)
    assert ours.pa_lower == pa_lower and ours.pa_lower.dtype == np.float64
    assert ours.radius == pytest.approx(certified_radius(pa_lower, np.float32(0.3)), rel=1e-15)


def test_the_guarantee_holds_at_its_level():
    # The true radius of the linear classifier is its distance. At alpha = 0.1 some of 300 certificates are wrong,
    # and by the exact binomial distribution hardly ever more than 50.
    images = jnp.broadcast_to(at_distance(0.2), (300, *SHAPE))
    ours = certify(linear, images, 0.25, key=KEY, n0=20, n=200, alpha=0.1)
    wrong = int((ours.radius > 0.2).sum() + (ours.prediction == 1).sum())
    assert 0 < wrong <= stats.binom.isf(1e-6, 300, 0.1)


@pytest.mark.slow_for("bisection", "shrinking", "grid", "bayesian", "golden")
@pytest.mark.parametrize("search", [None, *SEARCHES])
def test_counts_do_not_depend_on_the_batch_size(search):
    image = jnp.full(SHAPE, 0.05)
    settings = search and searches.search(search, epsilon=0.05, search_n=130)
    first, *others = (
        certify(by_sign, image, 0.25, key=KEY, n0=30, n=777, search=settings, batch_size=b) for b in (1000, 64, 7)
    )
    assert first.counts.sum() == 777
    for other in others:
        jax.tree.map(np.testing.assert_array_equal, first, other)


@pytest.mark.slow_for(*SEARCHES)
@pytest.mark.parametrize("search", [None, *SEARCHES])
def test_images_together_are_the_images_one_by_one(search):
    images = jnp.stack([at_distance(d) for d in (0.1, -0.3, 0.0)])
    settings = search and searches.search(search, epsilon=0.1, search_n=100)
    together = certify(linear, images, 0.25, key=KEY, n=500, search=settings)
    for i, image in enumerate(images):
        alone = certify(linear, image, 0.25, key=jax.random.fold_in(KEY, i), n=500, search=settings)
        jax.tree.map(lambda a, b, i=i: np.testing.assert_array_equal(a[i], b), together, alone)


def test_images_together_are_the_images_one_by_one_with_noise_on_the_grid():
    images = jnp.round(255 * jnp.stack([at_distance(d) for d in (0.1, -0.3)])) / 255
    asked = {"n": 500, "search": GoldenSection(0.1, 0.6, epsilon=0.1, search_n=100), "noise": GridGaussian()}
    together = certify(linear, images, 0.25, key=KEY, **asked)
    for i, image in enumerate(images):
        alone = certify(linear, image, 0.25, key=jax.random.fold_in(KEY, i), **asked)
        jax.tree.map(lambda a, b, i=i: np.testing.assert_array_equal(a[i], b), together, alone)


@pytest.mark.parametrize("search", [None, *SEARCHES])
@pytest.mark.slow_for("bisection", "shrinking", "grid", "bayesian")
def test_one_compilation_serves_selection_search_and_estimation(search):
    compilations, traces = [], []

    def classify(images):
        if images.shape[0] == 16:
            traces.append(1)
        return by_sign(images)

    first, other = (
        search and searches.search(search, *bracket, epsilon=tolerance, search_n=100, epsilon_step=step)
        for bracket, tolerance, step in (((0.08, 0.9), 0.05, 0.4), ((0.16, 1.8), 0.07, 0.3))
    )
    image = jnp.full(SHAPE, 0.05)
    for settings in (first, other):
        certify(by_sign, image, 0.25, key=KEY, n=50, search=settings)  # compiles what is not the network's

    def listen(name, *_, **__):
        compilations.append(1) if name.endswith("backend_compile_duration") else None

    jax.monitoring.register_event_duration_secs_listener(listen)
    for n0, n, settings in ((10, 100, first), (50, 333, first), (50, 333, other)):
        certify(classify, image, 0.25, key=KEY, n0=n0, n=n, search=settings, batch_size=16)
    assert len(traces) == len(compilations) == 1


@pytest.mark.slow
def test_another_bracket_compiles_nothing_for_ddrs_either():
    traces = []

    def classify(images):
        traces.append(1)
        return by_sign(images)

    for settings in (DDRS(0.1, 0.9, steps=2, draws=4), DDRS(0.05, 0.7, steps=2, draws=4, step_size=0.1)):
        before = len(traces)
        certify(classify, jnp.full(SHAPE, 0.05), 0.25, key=KEY, n=50, search=settings)
    assert len(traces) == before  # not even traced again


@pytest.mark.slow
def test_certify_works_inside_jit_and_vmap_and_never_overstates():
    images = jnp.stack([at_distance(d) for d in (0.3, -0.1, 0.001)])
    outside = certify(linear, images, 0.25, key=KEY, n=400, search=SETTINGS)
    inside = jax.jit(lambda x: certify(linear, x, 0.25, key=KEY, n=400, search=SETTINGS))(images)
    mapped = jax.vmap(lambda x, i: certify(linear, x, 0.25, key=jax.random.fold_in(KEY, i), n=400, search=SETTINGS))(
        images, jnp.arange(3)
    )
    for other in (inside, mapped):
        np.testing.assert_array_equal(other.prediction, outside.prediction)
        np.testing.assert_array_equal(other.counts, outside.counts)
        np.testing.assert_allclose(other.radius, outside.radius, rtol=1e-6)
        assert np.all(np.asarray(other.radius, np.float64) <= outside.radius)


@pytest.mark.slow_for("shrinking", "grid", "bayesian", "bracket1-golden", "bracket0-bisection", "bracket0-golden")
@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("bracket", [(0.08, 0.9), (0.3, 2.0)])
def test_qcrs_finds_the_known_sigma_of_a_slab(search, bracket):
    # R(s) of a slab has one maximum; its place for the search's own bound follows from exact probabilities.
    width, n = 1.2, 4000
    sigmas = np.linspace(*bracket, 2000)
    k = n * slab_probability(width, sigmas)
    best = np.max(certified_radius(clopper_pearson_lower(k, n, 0.001), sigmas))
    classify = Partial(slab, width)
    settings = searches.search(search, *bracket, epsilon=0.02, search_n=n, epsilon_step=0.2)
    found = search_sigma(classify, jnp.zeros(SHAPE), 0.3, settings, key=KEY, n=n)
    reached = certified_radius(
        clopper_pearson_lower(n * slab_probability(width, float(found.sigma)), n, 0.001), float(found.sigma)
    )
    assert reached > 0.97 * best
    fixed = certify(classify, jnp.zeros(SHAPE), 0.3, key=KEY, n=4000)
    assert certify(classify, jnp.zeros(SHAPE), 0.3, key=KEY, n=4000, search=settings).radius > 1.05 * fixed.radius


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.slow_for("bisection", "shrinking", "grid", "bayesian")
def test_the_linear_classifier_keeps_its_true_radius_at_every_sigma(search):
    # Its radius is |d| at all sigmas, so no choice of sigma can help and none may overstate.
    ours = certify(linear, at_distance(0.25), 0.25, key=KEY, n=20_000, search=searches.search(search, 0.1, 1.0))
    assert ours.prediction == 0 and 0.22 < ours.radius <= 0.25


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["lcb", "predictive"])
def test_the_trace_records_the_search(objective):
    settings = dataclasses.replace(SETTINGS, objective=objective)
    found = search_sigma(linear, at_distance(0.3), 0.25, settings, key=KEY, n=20_000, alpha=0.01)
    m = int(found.evaluations)
    sigmas, successes = np.asarray(found.sigmas)[:m], np.asarray(found.successes)[:m]
    assert m == SETTINGS.evaluations and sigmas[0] == np.float32(0.25) and found.prediction == 0
    assert np.all(found.sigmas[m:] == 0) and np.all(found.radii[m:] == 0) and np.all(found.successes[m:] == 0)
    if objective == "lcb":
        radii = certified_radius(clopper_pearson_lower(successes, 500, 0.001), sigmas)
    else:  # of the certification that it is for
        radii = sigmas * predictive_table(500, 20_000, 0.01)[successes]
    np.testing.assert_allclose(found.radii[:m], radii, rtol=1e-5)
    assert found.sigma == sigmas[np.argmax(found.radii[:m])]
    # Common random numbers: the same noise at every sigma.
    stream = jax.random.fold_in(jax.random.fold_in(KEY, 0), 0)
    for sigma, k in zip(sigmas, successes):
        assert sample_counts(linear, at_distance(0.3), sigma, stream, 500)[0] == k


@pytest.mark.slow
@pytest.mark.parametrize("search", ["bisection", "shrinking", "bayesian"])
def test_these_searches_draw_afresh_each_time(search):
    settings = searches.search(search)
    found = search_sigma(by_sign, jnp.full(SHAPE, 0.05), 0.25, settings, key=KEY)
    m = int(found.evaluations)
    assert m == settings.evaluations
    for number, (sigma, k) in enumerate(zip(found.sigmas[:m], found.successes[:m])):
        stream = jax.random.fold_in(jax.random.fold_in(KEY, 0), number)
        counts = sample_counts(by_sign, jnp.full(SHAPE, 0.05), sigma, stream, 500)
        assert counts[int(found.prediction)] == k
    assert np.all(np.asarray(found.sigmas)[:m] > 0)  # .1447 - .075 and less: never below the floor


@pytest.mark.slow
def test_certification_samples_are_fresh():
    # The same key, seen by search, selection and estimation: no two stages may share a noise vector.
    image = jnp.zeros(SHAPE)
    settings = GoldenSection(0.2, 0.5, epsilon=0.25, search_n=40)
    seen = []

    def spy(images):
        jax.debug.callback(lambda x: seen.append(np.asarray(x).copy()), images, ordered=True)
        return by_sign(images)

    certify(spy, image, 0.25, key=KEY, n0=20, n=40, alpha=0.01, search=settings, batch_size=20)
    jax.effects_barrier()
    batches = np.concatenate(seen).reshape(-1, 20, np.prod(SHAPE))
    directions = batches / np.linalg.norm(batches, axis=-1, keepdims=True)
    search, selection, estimation = directions[:-3], directions[-3:-2], directions[-2:]
    unique = lambda *parts: len(np.unique(np.concatenate(parts).reshape(-1, np.prod(SHAPE)).round(4), axis=0))  # noqa: E731
    assert unique(selection, estimation) == 60
    assert unique(search[:2]) == 40  # one evaluation; the others repeat its noise at other sigmas
    assert unique(search[:2], selection, estimation) == 100


def test_abstains_where_no_class_has_half():
    ours = certify(by_sign, jnp.zeros(SHAPE), 0.25, key=KEY, n=500)
    assert ours.prediction == ABSTAIN and ours.radius == 0 and 0 < ours.pa_lower < 0.5


def test_nan_classifier_abstains():
    ours = certify(
        lambda x: jnp.full((x.shape[0], 3), jnp.nan), jnp.zeros(SHAPE), 0.25, key=KEY, n=100, search=SETTINGS
    )
    assert ours.prediction == ABSTAIN and ours.radius == 0 and ours.counts.sum() == 0


def test_predict_is_the_binomial_test():
    images = jnp.stack([at_distance(d) for d in (0.5, -0.5, 0.05, 0.0)])
    answers, all_counts = predict(linear, images, 0.25, key=KEY, n=200, alpha=0.01)
    for i, (image, answer) in enumerate(zip(images, answers)):
        stream = jax.random.fold_in(jax.random.fold_in(jax.random.fold_in(KEY, i), ESTIMATION), 0)
        counts = np.asarray(sample_counts(linear, image, 0.25, stream, 200))
        np.testing.assert_array_equal(all_counts[i], counts)
        p = stats.binomtest(int(counts.max()), 200, 0.5).pvalue
        assert answer == (ABSTAIN if p > 0.01 else counts.argmax())
    assert answers[0] == 0 and answers[1] == 1 and answers[3] == ABSTAIN
    inside = jax.jit(lambda x: predict(linear, x, 0.25, key=KEY, n=200, alpha=0.01))(images)
    np.testing.assert_array_equal(inside.prediction, answers)


def test_predict_needs_one_sample_more_than_certify():
    # Two-sided: 10 of 10 has p = .00195.
    for n in (9, 10):
        with pytest.raises(ValueError, match="smallest n that could is 11"):
            predict(linear, at_distance(1.0), 0.25, key=KEY, n=n)
    assert predict(linear, at_distance(1.0), 0.25, key=KEY, n=11).prediction == 0


def test_predict_abstains_when_the_two_top_classes_tie():
    # Four equal classes: sorting must not take one class for both.
    assert predict(by_sign, jnp.zeros(SHAPE), 0.25, key=KEY, n=400).prediction == ABSTAIN


@pytest.mark.slow
def test_samples_of_no_class_count_against_the_prediction():
    # An answer must hold whatever the classes of the copies whose logits are not finite.
    def spoilt(images):
        return jnp.where((images[:, 0, 0, 0] > 0.75)[:, None], jnp.nan, linear(images))

    image = at_distance(0.1)
    assert predict(linear, image, 0.25, key=KEY, n=200, alpha=0.01).prediction == 0
    ours = predict(spoilt, image, 0.25, key=KEY, n=200, alpha=0.01)
    top, second = sorted(ours.counts.tolist(), reverse=True)
    assert top + second < 200 and stats.binomtest(top, top + second).pvalue < 0.01  # as if they had not been drawn
    assert stats.binomtest(top, 200).pvalue > 0.01 and ours.prediction == ABSTAIN
    inside = jax.jit(lambda x: predict(spoilt, x, 0.25, key=KEY, n=200, alpha=0.01))(image)
    assert inside.prediction == ABSTAIN
    never = predict(lambda x: jnp.nan * linear(x), image, 0.25, key=KEY, n=200)
    assert never.prediction == ABSTAIN and never.counts.sum() == 0


def test_predict_draws_the_estimation_samples_of_certify():
    image = jnp.full(SHAPE, 0.02)
    counts = certify(by_sign, image, 0.25, key=KEY, n=300).counts
    np.testing.assert_array_equal(predict(by_sign, image, 0.25, key=KEY, n=300).counts, counts)
    assert np.all(predict(by_sign, image, 0.25, key=KEY, n=100).counts <= counts)


def certify_soft(classify, image, sigma=0.25, beta=16.0, **options):
    return certify(classify, image, sigma, key=KEY, estimate=Soft(beta), **options)


@pytest.mark.slow
def test_soft_certificates_follow_from_votes_on_the_documented_noise():
    image, sigma, n0, n, alpha = jnp.full(SHAPE, 0.05), np.float32(0.25), 15, 200, 0.05
    ours = certify_soft(by_sign, image, n0=n0, n=n, alpha=alpha, beta=2.0)

    def votes(stage, count):
        stream = jax.random.fold_in(jax.random.fold_in(KEY, stage), 0)
        noise = jnp.stack([reference_noise(stream, i, SHAPE) for i in range(count)])
        return np.asarray(soft_votes(by_sign(image + sigma * noise), 2.0), np.int64)

    soft0, soft = votes(SELECTION, n0), votes(ESTIMATION, n)
    selected = soft0.sum(0).argmax()
    pa_lower, pb_upper = soft_bounds(selected, soft.sum(0), (soft**2).sum(0), 0, n, alpha, SOFT_ONE)
    np.testing.assert_array_equal(ours.soft.sums0, soft0.sum(0))
    np.testing.assert_array_equal(ours.soft.sums, soft.sum(0))
    np.testing.assert_array_equal(ours.soft.squares, (soft**2).sum(0))
    assert (ours.pa_lower, ours.pb_upper) == (pa_lower, pb_upper)
    assert ours.prediction == (selected if pa_lower > pb_upper else ABSTAIN)
    assert ours.radius == gap_radius(pa_lower, pb_upper, sigma)
    hard = certify(by_sign, image, 0.25, key=KEY, n0=n0, n=n, alpha=alpha)
    np.testing.assert_array_equal(ours.counts, hard.counts)
    np.testing.assert_array_equal(ours.counts0, hard.counts0)


@pytest.mark.slow
def test_soft_is_looser_than_hard_where_votes_are_whole():
    # Two classes and a very cold softmax: the same votes, and Bernstein's bound beside the exact one.
    for d in (0.05, 0.1, 0.3, 1.0):
        soft = certify_soft(linear, at_distance(d), beta=1e9, n=4000)
        hard = certify(linear, at_distance(d), 0.25, key=KEY, n=4000)
        np.testing.assert_array_equal(soft.soft.sums, hard.counts * SOFT_ONE)
        np.testing.assert_array_equal(soft.soft.squares, soft.soft.sums * SOFT_ONE)
        assert 0 < soft.radius < hard.radius and soft.prediction == hard.prediction == 0


@pytest.mark.slow
@pytest.mark.parametrize("beta", [1.0, 16.0])
def test_the_soft_guarantee_holds_on_the_linear_classifier(beta):
    # By symmetry the soft smoothed classifier changes its class on the same plane, at distance 0.2.
    images = jnp.broadcast_to(at_distance(0.2), (100, *SHAPE))
    ours = certify_soft(linear, images, n0=20, n=400, alpha=0.1, beta=beta)
    assert np.all(ours.prediction != 1) and np.all(ours.radius <= 0.2) and ours.radius.max() > 0.02


@pytest.mark.slow
@pytest.mark.parametrize("search", [None, "golden"])
def test_soft_votes_do_not_depend_on_the_batch_nor_on_the_company(search):
    settings = search and searches.search(search, epsilon=0.1, search_n=100)
    images = jnp.stack([jnp.full(SHAPE, level) for level in (0.05, 0.2)])
    first, other = (certify_soft(by_sign, images, n=777, search=settings, beta=1.0, batch_size=b) for b in (500, 7))
    jax.tree.map(np.testing.assert_array_equal, first, other)
    key = jax.random.fold_in(KEY, 1)
    alone = certify(by_sign, images[1], 0.25, key=key, n=777, search=settings, estimate=Soft(1.0))
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[1], b), first, alone)
    if search:  # the search looks at hard counts
        hard = certify(by_sign, images, 0.25, key=KEY, n=777, search=settings)
        jax.tree.map(np.testing.assert_array_equal, first.search, hard.search)


@pytest.mark.slow
def test_copies_without_a_vote_help_no_soft_certificate():
    def spoilt(images):
        return jnp.where(images[:, :1, 0, 0] > 0.9, jnp.nan, 1e6 * linear(images))

    whole, ours = (certify_soft(f, at_distance(0.5), n=2000) for f in (lambda x: 1e6 * linear(x), spoilt))
    lost = 1 - ours.counts.sum() / 2000
    assert 0.01 < lost < 0.3
    assert ours.pb_upper > whole.pb_upper + lost / 2 and ours.pa_lower < whole.pa_lower
    assert 0 < ours.radius < whole.radius
    nothing = certify_soft(lambda x: jnp.full((x.shape[0], 3), jnp.nan), jnp.zeros(SHAPE), n=100)
    assert nothing.prediction == ABSTAIN and nothing.radius == 0 and nothing.pb_upper == 1


def test_soft_is_refused_inside_jit():
    with pytest.raises(ValueError, match="outside jit"):
        jax.jit(lambda x: certify_soft(linear, x).radius)(at_distance(0.2))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"estimate": Soft(), "n": 39}, "smallest n that could is 40"),
        ({"sigma": 0.0}, "sigma"),
        ({"sigma": -0.25}, "sigma"),
        ({"sigma": np.inf}, "sigma"),
        ({"sigma": np.nan}, "sigma"),
        ({"alpha": 1e-310}, "smallest n"),
        ({"alpha": 0.0}, "alpha"),
        ({"alpha": 1.0}, "alpha"),
        ({"n0": 0}, "n0"),
        ({"n": 9}, "smallest n that could is 10"),
        ({"n": 2**31}, "32 bits"),
    ],
)
def test_impossible_requests_are_refused(change, message):
    request = {"sigma": 0.25, "n0": 10, "n": 100, "alpha": 0.001, **change}
    with pytest.raises(ValueError, match=message):
        certify(by_sign, jnp.zeros(SHAPE), request.pop("sigma"), key=KEY, **request)


@pytest.mark.parametrize(
    ("kind", "change", "message"),
    [
        (GoldenSection, {"sigma_lower": 0.9}, "sigma_lower < sigma_upper"),
        (GoldenSection, {"sigma_lower": 0.0}, "0 < sigma_lower"),
        (GoldenSection, {"epsilon": 0.0}, "epsilon must be"),
        (GoldenSection, {"epsilon": 1e-9}, "is too small"),
        (GoldenSection, {"sigma_upper": np.inf}, "inf"),
        (GoldenSection, {"objective": "mean"}, "predictive, lcb"),
        (Bayesian, {"max_evaluations": 1}, "max_evaluations must be at least 2"),
        (GoldenSection, {"search_n": 0}, "search_n must be at least 1"),
        (GoldenSection, {"search_n": 9, "objective": "lcb"}, "smallest"),
        (GoldenSection, {"alpha": 1.0}, "alpha"),
    ],
)
def test_impossible_searches_are_refused(kind, change, message):
    with pytest.raises(ValueError, match=message):
        kind(**{"sigma_lower": 0.1, "sigma_upper": 0.9, **change})


def test_ten_samples_can_certify_and_nine_cannot():
    assert certify(linear, at_distance(1.0), 0.25, key=KEY, n=10).radius == pytest.approx(
        0.25 * special.ndtri(0.001**0.1), rel=1e-6
    )


RESULTS = """
import hashlib, sys, jax, jax.numpy as jnp, numpy as np
sys.path.insert(0, sys.argv[1])
from classifiers import SHAPE, by_sign
from qcrs_jax import GoldenSection, Soft, certify, predict, search_sigma
from qcrs_jax.certification import certificate
from qcrs_jax.sampling.devices import all_agree, join_hosts, place, replicated
if len(sys.argv) > 2:
    join_hosts(sys.argv[2], (int(sys.argv[3]), 2))
key, images = jax.random.key(11), np.full((2, *SHAPE), 0.05, np.float32)
settings = GoldenSection(0.08, 0.9, epsilon=0.1, search_n=130)

def results(devices):
    options = dict(key=key, batch_size=7, devices=devices)
    return jax.tree.map(np.asarray, (
        certify(by_sign, images[0], 0.25, n=777, search=settings, **options),
        certify(by_sign, images, 0.25, n=333, **options),
        predict(by_sign, images, 0.25, n=333, **options),
        certify(by_sign, images, 0.25, n=333, estimate=Soft(1.0), **options),
        search_sigma(by_sign, images, 0.25, settings, **options),
    ))

everywhere = results(jax.devices())
told = hashlib.sha256(b"".join(leaf.tobytes() for leaf in jax.tree.leaves(everywhere))).hexdigest()
print(jax.process_count(), len(jax.devices()), everywhere[0].counts.sum(), told)
"""
DEVICES = """
for devices in (None, *(jax.devices()[:m] for m in (1, 2, 4))):
    jax.tree.map(np.testing.assert_array_equal, everywhere, results(devices))

on_all = replicated(jax.devices())
for last in (0.5, 0.25):  # what hosts bring that read other files
    copies = [jax.device_put(np.float32([1, 2, x]), d) for d, x in zip(jax.devices(), [*[0.5] * 7, last])]
    array = jax.make_array_from_single_device_arrays((3,), on_all, copies)
    assert bool(all_agree((array, place(np.uint32(7), jax.devices())), tuple(jax.devices()))) == (last == 0.5)

def lower(*args, devices, **static):
    global program
    program = draw.program.lower(*place(args, devices), devices=devices, **static)
    return draw(*args, devices=devices, **static)

draw, certificate.draw_votes = certificate.draw_votes, lower
certify(by_sign, images, 0.25, n=777, search=settings, key=key, batch_size=7, devices=jax.devices())
print(program.compile().as_text())
"""


def in_process(program, devices, *arguments):
    """A process of its own with so many devices: their number is fixed when JAX starts."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", program, str(HELPERS), *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, env=environment, **pipes)


def said(process):
    out, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    return out


THREE = """
import sys, jax, numpy as np
sys.path.insert(0, sys.argv[1])
from classifiers import SHAPE, by_sign
from qcrs_jax import GoldenSection, certify
settings = GoldenSection(0.08, 0.9, epsilon=0.1, search_n=130)
one, three = (
    certify(by_sign, np.full(SHAPE, 0.05, np.float32), 0.25, n=777, search=settings, key=jax.random.key(11),
            batch_size=7, devices=devices)
    for devices in (jax.devices()[:1], jax.devices())
)
jax.tree.map(np.testing.assert_array_equal, one, three)
print(len(jax.devices()), three.counts.sum())
"""


@pytest.mark.slow
def test_counts_are_the_same_on_three_devices_as_on_one():
    assert said(in_process(THREE, 3)).split() == ["3", "777"]


@pytest.mark.slow
def test_counts_are_the_same_on_any_number_of_devices_and_of_processes():
    first, text = said(in_process(RESULTS + DEVICES, 8)).split("\n", 1)
    assert first.split()[:3] == ["1", "8", "777"]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    for of_two in [in_process(RESULTS, 2, address, str(number)) for number in (1, 2)]:
        assert said(of_two).splitlines()[-1].split() == ["2", "4", *first.split()[2:]]
    # The search's queries and the certificate's are turns of one loop, and batches of copies of one inside it: the
    # devices add up once a query, and never within it.
    assert max(depths(text, "while")) >= 1 and depths(text, "all-reduce") == [1]


@pytest.mark.slow
def test_each_image_may_have_a_sigma_a_number_of_samples_and_a_label():
    images, keys = jnp.stack([at_distance(d) for d in (0.2, 0.3, 0.4)]), jax.random.split(KEY, 3)
    sigmas, ns = np.float32([0.2, 0.25, 0.3]), np.array([300, 500, 400])
    together = certify(linear, images, sigmas, n=ns, key=keys, labels=np.array([0, 1, 0]))
    assert together.n.tolist() == [300, 0, 400] and together.prediction.tolist() == [0, ABSTAIN, 0]
    assert together.radius[1] == together.pa_lower[1] == together.counts[1].sum() == 0
    for i in (0, 2):
        alone = certify(linear, images[i], float(sigmas[i]), n=int(ns[i]), key=keys[i])
        jax.tree.map(np.testing.assert_array_equal, jax.tree.map(lambda a, i=i: a[i], together), alone)
    for estimate in (Tolerance(0.1), Soft(), Sequential(decide=0.1)):
        with pytest.raises(ValueError, match="takes one n for all images"):
            certify(linear, images, 0.25, n=ns, key=KEY, estimate=estimate)
    for estimate in (Soft(), Sequential(decide=0.1)):
        with pytest.raises(ValueError, match="does not stop where the class is wrong"):
            certify(linear, images, 0.25, n=500, key=KEY, labels=np.array([0, 1, 0]), estimate=estimate)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("search", "estimate"),
    [(None, Sequential(decide=0.1)), (Bayesian(0.08, 0.9, search_n=100), Fixed())],
)
def test_images_in_step_get_the_same_as_alone(search, estimate):
    images = jnp.stack([jnp.full(SHAPE, level) for level in (0.01, 0.3, 0.9)])
    keys = jax.random.split(KEY, 3)
    options = {"n": 500, "search": search, "estimate": estimate, "batch_size": 64}
    together = conclude(draw(by_sign, images, 0.25, key=keys, **options))
    alone = [certify(by_sign, image, 0.25, key=key, **options) for image, key in zip(images, keys)]
    jax.tree.map(lambda both, *each: np.testing.assert_array_equal(both, np.stack(each)), together, *alone)
    waits = together.search.evaluations if search else together.n  # for each other
    assert len(set(waits.tolist())) > 1
    answers = decide(draw_counts(by_sign, images, 0.25, key=keys, n=500), 500)
    np.testing.assert_array_equal(answers.counts[1], predict(by_sign, images[1], 0.25, key=keys[1], n=500).counts)


@pytest.mark.slow
@pytest.mark.parametrize("search", [None, GoldenSection(0.08, 0.9, search_n=100)])
def test_a_tolerance_gives_each_image_the_samples_it_needs(search):
    images = jnp.stack([at_distance(d) for d in (0.02, 0.4, 1.0)])
    arguments = {"key": KEY, "n0": 100, "n": 20_000, "search": search}
    ours, full = (certify(linear, images, 0.25, estimate=e, **arguments) for e in (Tolerance(0.05), Fixed()))
    np.testing.assert_array_equal(ours.counts0, full.counts0)
    np.testing.assert_array_equal(ours.n, enough_table(100, 20_000, 0.001, 0.05)[ours.counts0.max(axis=-1)])
    np.testing.assert_array_equal(ours.counts.sum(axis=-1), ours.n)
    assert np.all(full.n == 20_000) and ours.n.max() <= 20_000 and ours.n.mean() < 15_000
    for i, samples in enumerate(ours.n):
        successes = ours.counts[i, np.argmax(ours.counts0[i])]
        bound = clopper_pearson_lower(successes, samples, 0.001)
        assert ours.pa_lower[i] == bound
        assert ours.radius[i] == pytest.approx(float(certified_radius(bound, ours.sigma[i])) if bound >= 0.5 else 0)
    assert np.all(ours.radius[1:] > 0.85 * full.radius[1:])


def test_estimates_are_refused_inside_jit_and_out_of_range():
    with pytest.raises(ValueError, match="outside jit"):
        jax.jit(lambda x: certify(linear, x, 0.25, key=KEY, n=100, estimate=Tolerance(0.1)).radius)(at_distance(0.3))
    with pytest.raises(ValueError, match=r"must lie in \(0, 1\), not 1.5"):
        Tolerance(1.5)
    for beta in (0.0, np.inf):
        with pytest.raises(ValueError, match="beta"):
            Soft(beta)


ESTIMATES = [Fixed(), Fixed("randomised"), Tolerance(0.05), Sequential(decide=0.1), Soft()]


@pytest.mark.slow
@pytest.mark.parametrize("estimate", ESTIMATES, ids="fixed randomised tolerance sequential soft".split())
def test_samples_drawn_inside_jit_are_concluded_on_the_host(estimate):
    images = jnp.stack([at_distance(d) for d in (0.05, 0.3)])
    arguments = {"key": KEY, "n": 1000, "search": SETTINGS, "estimate": estimate}
    drawn = jax.jit(lambda images: draw(linear, images, 0.25, **arguments))(images)
    jax.tree.map(np.testing.assert_array_equal, conclude(drawn), certify(linear, images, 0.25, **arguments))


@pytest.mark.slow
@pytest.mark.parametrize("several", [False, True])
def test_classifiers_may_be_mapped_too(several):
    images = jnp.stack([at_distance(d) for d in (0.2, 0.3)]) if several else at_distance(0.2)
    shifts, keys = jnp.array([0.0, -0.25]), jax.random.split(KEY, 2)[: 2 if several else 1]
    shifted = lambda shift, images: linear(images) + jnp.stack([shift, -shift])  # noqa: E731

    def counts(shift):
        options = {"key": keys if several else keys[0], "n": 200, "batch_size": 16}
        return certify(Partial(shifted, shift), images, 0.25, **options).counts

    for shift, found in zip(shifts, jax.vmap(counts)(shifts)):
        np.testing.assert_array_equal(found, counts(shift))


def test_requests_of_impossible_numbers():
    for n0, n in ((10, 10.5), (10, float("nan")), (10, float("inf")), (10, np.array([100, 100.5]))):
        with pytest.raises(ValueError, match="must be a whole number"):
            check_request(0.25, n0, n, 0.001)
    for estimate in (Fixed(), Soft()):
        with pytest.raises(ValueError, match="must be at least 1e-300"):
            check_request(0.25, 100, 10**6, 1e-320, estimate)
        check_request(0.25, 100, 10**6, 1e-300, estimate)
    assert smallest_soft_n(1e-320) == 3446
