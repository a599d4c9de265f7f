"""Metrics: cases counted by hand, the published figures, and a property."""

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from qcrs_jax.metrics import (
    average_certified_radius,
    certified_accuracy,
    certified_accuracy_lower,
    columns,
    summarise,
)
from qcrs_jax.records import Record, Run, read_run

RESULTS = Path(__file__).parents[2] / "shared/results"

PUBLISHED = {
    "qcrs_cifar10_resnet110_sigma0.50": (0.6565, [0.685, 0.540, 0.310, 0.106]),
    "cohen_cifar10_resnet110_sigma0.25": (0.4289, None),
    "cohen_cifar10_resnet110_sigma0.50": (0.5375, [0.652, 0.414, 0.234, 0.094]),
    "cohen_imagenet_resnet50_sigma0.50": (0.7325, [0.572, 0.458, 0.372, 0.286]),
}

CORRECT = np.array([True, True, False, True])
RADIUS = np.array([0.5, 0.0, 2.0, 1.0])


def test_certified_accuracy_counts_right_images_at_least_as_robust():
    found = certified_accuracy(CORRECT, RADIUS, np.array([0.0, 0.25, 0.5, 0.75, 1.0, 1.5]))
    np.testing.assert_array_equal(found, [0.75, 0.5, 0.5, 0.25, 0.25, 0.0])


def test_acr_is_over_all_images():
    assert average_certified_radius(CORRECT, RADIUS) == (0.5 + 1.0) / 4


def make_run(records):
    return Run(Path("run.tsv"), records, {})


def test_summary():
    counts = dict(counts0=(1, 2), counts=(3, 4))
    run = make_run(
        [
            Record(0, 1, 1, 0.5, True, seconds=2.0, search_samples=10, **counts),
            Record(1, 1, 0, 1.0, False, seconds=4.0, search_samples=0, **counts),
            Record(2, 1, -1, 0.0, False, seconds=6.0, search_samples=0, **counts),
            Record(3, 0, 0, 0.3, True, seconds=0.0, search_samples=10, **counts),
        ]
    )
    summary = summarise(run)
    assert summary.images == 4
    assert summary.acr == pytest.approx(0.2)
    assert (summary.accuracy, summary.abstention, summary.seconds, summary.samples) == (0.5, 0.25, 3.0, 15.0)


def test_summary_of_a_file_without_counts_or_times():
    summary = summarise(make_run([Record(0, 1, 1, 0.5, True)]))
    assert math.isnan(summary.samples) and math.isnan(summary.seconds) and summary.acr == 0.5


def test_no_images_have_no_summary():
    with pytest.raises(ValueError, match=r"run\.tsv: holds no results yet"):
        summarise(make_run([]))


def test_the_lower_bound_against_the_formula_by_hand():
    # alpha = .001, rho = .001, m = 500, ln(1 / rho) = 6.907755:
    # .652 - .001 - sqrt(2 * .001 * .999 * 6.907755 / 500) - 6.907755 / 1500 = .651 - .00525389 - .00460517
    assert certified_accuracy_lower(0.652, 500, 0.001) == pytest.approx(0.64114094, abs=1e-8)
    # alpha = 0.1, rho = 1 / e, m = 4: .5 - .1 - sqrt(.18 / 4) - 1 / 12
    assert certified_accuracy_lower(0.5, 4, 0.1, rho=math.exp(-1)) == pytest.approx(0.4 - 0.045**0.5 - 1 / 12)


@pytest.mark.parametrize("m", [500, 10_000, 1_000_000])
@pytest.mark.parametrize("alpha", [0.001, 0.05])
@pytest.mark.parametrize("rho", [0.001, 0.1])
def test_the_lower_bound_fails_at_most_at_its_rate(m, alpha, rho):
    # Worst case: every certificate fails with probability alpha. The bound is wrong when more fail than it subtracts.
    subtracted = 1 - certified_accuracy_lower(1.0, m, alpha, rho)
    assert stats.binom.sf(np.floor(m * subtracted), m, alpha) <= rho


@given(
    st.lists(st.tuples(st.booleans(), st.floats(0, 4)), min_size=1, max_size=30),
    st.lists(st.floats(0, 5), min_size=2, max_size=20),
)
def test_certified_accuracy_never_grows_with_the_radius(images, at):
    correct, radius = (np.array(column) for column in zip(*images, strict=True))
    found = certified_accuracy(correct, radius, np.sort(at))
    assert np.all(np.diff(found) <= 0)
    assert np.all(found >= 0) and np.all(found <= correct.mean())


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_figures(name):
    path = RESULTS / f"{name}.tsv"
    if not path.exists():
        pytest.skip("the published results are not here")
    acr, accuracies = PUBLISHED[name]
    run = read_run(path)
    assert round(summarise(run).acr, 4) == acr
    if accuracies is not None:
        found = certified_accuracy(*columns(run), np.array([0, 0.5, 1, 1.5]))
        np.testing.assert_array_equal(np.round(found, 3), accuracies)
        assert summarise(run).accuracy == found[0]
