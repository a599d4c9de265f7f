"""How often certificates are wrong, at alpha = 0.05, of a classifier whose true radius is known.

Between two half spaces an image at distance d from the boundary has the radius d at every sigma, of hard and of soft
votes. A certificate is wrong where its class is not the image's, or its radius larger than d. Each rate has its exact
interval of 99.9%, whose lower end must not lie above what is allowed.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from classifiers import SHAPE, at_distance, linear
from scipy import stats
from searches import SEARCHES, search

from qcrs_jax import DDRS, Fixed, Sequential, Soft, Tolerance, certify, predict
from qcrs_jax.certification.sequential import SEQUENCES

ALPHA, IMAGES = 0.05, 1000
FEW = 80  # of the bayesian search, which takes longer
DISTANCES = (0.001, 0.05, 0.2, 0.35)
OPTIONS = {"n0": 20, "n": 200, "alpha": ALPHA, "batch_size": 100}
ESTIMATES = {
    "fixed": (Fixed(), ALPHA),
    "randomised": (Fixed("randomised"), ALPHA),
    "tolerance": (Tolerance(0.1), ALPHA),
    "randomised tolerance": (Tolerance(0.1, "randomised"), ALPHA),
    "soft": (Soft(), ALPHA),
    "softer": (Soft(2.0), ALPHA),
}
RULES = {name: search(name, epsilon=0.2, search_n=30, max_evaluations=5) for name in SEARCHES}
RULES["ddrs"] = DDRS(0.08, 0.9, steps=5, draws=20)
RULES["objective of bounds"] = search("golden", epsilon=0.2, search_n=100, objective="lcb")


def images(distance, count=IMAGES):
    return jnp.broadcast_to(at_distance(distance), (count, *SHAPE))


def interval(wrong, of):
    """The exact interval of a rate, of 99.9%."""
    found = stats.binomtest(int(wrong), of).proportion_ci(0.999, method="exact")
    return float(found.low), float(found.high)


@pytest.fixture
def check(counted):
    """A function of (name, wrong, of, allowed) that fails where a rate is surely above what is allowed."""
    found = []

    def check(name, wrong, of, allowed):
        low, high = interval(wrong, of)
        found.append((wrong / of, f"{name}: {wrong} of {of} wrong, {low:.4f} to {high:.4f}, allowed {allowed:g}"))
        assert low <= allowed, found[-1][1]

    yield check
    if found:
        counted(f"{len(found)} error rates, the largest of {max(found)[1]}")


def wrong_ones(made, distance):
    return int(((made.prediction == 1) | (made.radius > distance)).sum())


@pytest.mark.parametrize("name", ESTIMATES)
def test_certificates_at_a_fixed_sigma(name, check):
    estimate, allowed = ESTIMATES[name]
    most = 0
    for place, distance in enumerate(DISTANCES):
        made = certify(linear, images(distance), 0.25, key=jax.random.key(place), estimate=estimate, **OPTIONS)
        wrong = wrong_ones(made, distance)
        check(f"{name}, distance {distance:g}", wrong, IMAGES, allowed)
        most = max(most, wrong)
    if "soft" not in name:  # whose bounds are wider
        assert most > 0.3 * ALPHA * IMAGES, "hardly any is wrong: nothing is tested"


@pytest.mark.parametrize("estimate", ["fixed", "soft"])
@pytest.mark.parametrize("name", RULES)
def test_certificates_at_a_sigma_that_was_searched_for(name, estimate, check):
    of = FEW if name == "bayesian" else IMAGES
    for place, distance in enumerate(DISTANCES[1:3]):
        options = {"search": RULES[name], "estimate": ESTIMATES[estimate][0], **OPTIONS}
        made = certify(linear, images(distance, of), 0.25, key=jax.random.key(100 + place), **options)
        assert len(set(np.asarray(made.sigma).tolist())) > 1
        check(f"{name} and {estimate}, distance {distance:g}", wrong_ones(made, distance), of, ALPHA)


@pytest.mark.parametrize("sequence", SEQUENCES)
def test_sequential_estimates(sequence, check):
    more = {"look_every": 20, "alpha_upper": ALPHA, "sequence": sequence}
    for place, (distance, asked) in enumerate([(0.2, 0.201), (0.2, 0.199), (0.1, 0.15), (0.3, 0.25)]):
        estimate = Sequential(decide=asked, **more)
        made = certify(linear, images(distance), 0.25, key=jax.random.key(200 + place), estimate=estimate, **OPTIONS)
        name = f"decide {asked:g} ({sequence}), distance {distance:g}"
        check(name, wrong_ones(made, distance), IMAGES, ALPHA)
        false = made.robust == (1 if asked > distance else 0)
        check(f"{name}, its claims", int((false & (made.counts0.argmax(-1) == 0)).sum()), IMAGES, ALPHA)
    for place, precision in enumerate((0.05, 0.2)):
        estimate = Sequential(precision=precision, **more)
        made = certify(linear, images(0.2), 0.25, key=jax.random.key(300 + place), estimate=estimate, **OPTIONS)
        outside = (made.radius > 0.2) | (made.radius_upper < 0.2)
        check(f"precision {precision:g} ({sequence}), its intervals", int(outside.sum()), IMAGES, 2 * ALPHA)


def test_predictions(check):
    for place, distance in enumerate((0.0001, 0.02)):
        keys = jax.random.key(400 + place)
        made = predict(linear, images(distance), 0.25, key=keys, n=200, alpha=ALPHA, batch_size=100)
        check(f"predictions, distance {distance:g}", int((made.prediction == 1).sum()), IMAGES, ALPHA)


def test_all_certificates_of_a_run_at_once(check):
    of, runs = 10, 400
    numbers = {**OPTIONS, "alpha": ALPHA / of}
    made = certify(
        linear, images(0.2, of * runs), 0.25, key=jax.random.key(500), estimate=Fixed("randomised"), **numbers
    )
    wrong = ((made.prediction == 1) | (made.radius > 0.2)).reshape(runs, of).any(axis=1)
    check(f"all {of} certificates of a run at once", int(wrong.sum()), runs, ALPHA)


def test_the_best_of_several_seeds_is_no_certificate(counted):
    """Why a seed is committed: who keeps the largest of twenty radii of an image is wrong far more often."""
    seeds, of = 20, 200
    made = [certify(linear, images(0.2, of), 0.25, key=jax.random.key(600 + seed), **OPTIONS) for seed in range(seeds)]
    best = np.max([np.where(one.prediction == 0, one.radius, 0) for one in made], axis=0)
    low, high = interval(int((best > 0.2).sum()), of)
    counted(
        f"the best of {seeds} seeds for each image is wrong with probability {low:.2f} to {high:.2f}, not {ALPHA:g}"
    )
    assert low > 5 * ALPHA
