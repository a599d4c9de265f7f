"""Metrics: cases counted by hand, the published figures, and a property."""

import json
import math
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from places import ROOT, SHARED
from scipy import stats

from qcrs_jax.results.account import account, most_wrong, wrong_share
from qcrs_jax.results.metrics import (
    FEWEST,
    acr_interval,
    average_certified_radius,
    certified_accuracy,
    certified_accuracy_interval,
    certified_accuracy_lower,
    columns,
    paired_gain,
    share_interval,
    summarise,
)
from qcrs_jax.results.records import Record, Run, guarantee_texts, read_run
from qcrs_jax.results.sidecar import present

RESULTS = SHARED / "results"

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


def test_a_run_without_images_has_no_summary():
    with pytest.raises(ValueError, match=r"run\.tsv: holds no results yet"):
        summarise(make_run([]))


@pytest.mark.parametrize(
    ("m", "alpha", "rho", "k"),
    [
        (20, 0.001, 0.001, 1),  # 1 - .999^20 = .0198; of two or more .000187
        (500, 0.001, 0.001, 4),  # mean .5: P(> 3) = .0017, P(> 4) = .00017
        (1, 0.001, 0.001, 0),
        (1, 0.01, 0.001, 1),
        (3, 0.4, 0.001, 3),
    ],
)
def test_how_many_may_be_wrong_by_hand(m, alpha, rho, k):
    assert most_wrong(m, alpha, rho) == k
    assert certified_accuracy_lower(0.652, m, alpha, rho) == pytest.approx(0.652 - k / m)


@pytest.mark.parametrize("m", [1, 20, 500, 10_000, 1_000_000])
@pytest.mark.parametrize("alpha", [1e-6, 0.001, 0.05])
@pytest.mark.parametrize("rho", [0.001, 0.1])
def test_the_lower_bound_fails_at_most_at_its_rate(m, alpha, rho):
    # Worst case: every certificate fails with probability alpha. The bound is wrong when more fail than it subtracts.
    subtracted = 1 - certified_accuracy_lower(1.0, m, alpha, rho)
    k = round(m * subtracted)
    assert m * subtracted == pytest.approx(k, abs=1e-6)
    assert stats.binom.sf(k, m, alpha) <= rho * (1 + 1e-9)
    assert k == 0 or stats.binom.sf(k - 1, m, alpha) > rho, "none smaller holds"


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.floats(0.001, 0.4), st.floats(1e-4, 0.2))
def test_certificates_that_fail_less_often_are_no_worse(shares, alpha, rho):
    # The exact law of the number of failures, each with a probability of its own of at most alpha.
    law = np.ones(1)
    for share in shares:
        p = alpha * share
        law = np.convolve(law, [1 - p, p])
    assert law[most_wrong(len(shares), alpha, rho) + 1 :].sum() <= rho + 1e-12


def binomial(k, m, p):
    return stats.binom.pmf(k, m, p)


@pytest.mark.parametrize("m", [1, 2, 10, 50])
def test_the_interval_of_a_share_covers_every_share_as_often_as_it_says(m):
    low, high = share_interval(np.arange(m + 1), m)
    assert low[0] == 0 and high[-1] == 1 and np.all(np.diff(low) > 0) and np.all(np.diff(high) > 0)
    for p in np.linspace(0, 1, 401):
        chances = binomial(np.arange(m + 1), m, p)
        assert chances[low > p].sum() <= 0.025 + 1e-12 and chances[high < p].sum() <= 0.025 + 1e-12


def test_the_interval_of_a_share_against_scipy():
    for k, m, level in [(12, 20, 0.95), (0, 20, 0.95), (20, 20, 0.9), (3, 500, 0.99), (1, 1, 0.95)]:
        expected = stats.binomtest(k, m).proportion_ci(level, "exact")
        np.testing.assert_allclose(share_interval(np.array(k), m, level), expected, rtol=1e-9)


def test_the_interval_of_the_certified_accuracy_is_that_of_its_count():
    at = np.array([0.0, 0.25, 0.5, 0.75, 1.5])
    low, high = certified_accuracy_interval(CORRECT, RADIUS, at)
    expected = share_interval(np.array([3, 2, 2, 1, 0]), 4)
    np.testing.assert_array_equal((low, high), expected)
    # 60%, 39% to 78% of 20 images: 12 of them
    low, high = certified_accuracy_interval(np.arange(20) < 12, np.ones(20), np.zeros(1))
    assert (round(low[0], 2), round(high[0], 2)) == (0.36, 0.81)


@pytest.mark.slow_for("60", "200")
@pytest.mark.parametrize("m", [20, 60, 200])
def test_the_interval_of_the_acr_covers_it_about_as_often_as_it_says(m):
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        correct, radius = rng.random(m) < 0.7, rng.gamma(2.0, 0.3, m)
        low, high = acr_interval(correct, radius)
        assert low <= average_certified_radius(correct, radius) <= high
        covered += low <= 0.7 * 0.6 <= high
    assert (0.86 if m == 20 else 0.9) <= covered / 200 <= 0.99


def test_the_interval_of_the_acr_is_one_and_the_same_each_time_and_in_parts(monkeypatch):
    rng = np.random.default_rng(1)
    correct, radius = rng.random(300) < 0.7, rng.exponential(size=300)
    found = acr_interval(correct, radius)
    assert acr_interval(correct, radius) == found != acr_interval(correct, radius, seed=1)
    wide = acr_interval(correct, radius, level=0.999)
    assert wide[0] < found[0] < found[1] < wide[1]
    large = acr_interval(np.ones(10_001, bool), rng.exponential(size=10_001))
    assert 0.95 < large[0] < large[1] < 1.05


@pytest.mark.parametrize(
    ("correct", "radius"),
    [
        (np.zeros(50, bool), np.linspace(0, 1, 50)),  # none is right
        (np.ones(50, bool), np.full(50, 0.5)),
        (np.ones(1, bool), np.ones(1)),
        (np.ones(FEWEST - 1, bool), np.linspace(0, 1, FEWEST - 1)),
    ],
)
def test_the_acr_has_no_interval_for_few_or_equal_radii(correct, radius):
    assert all(map(math.isnan, acr_interval(correct, radius)))


@given(st.lists(st.sampled_from([0.0, 0.5, 1.0, 1.0 + 1e-12]), min_size=1, max_size=30), st.data())
def test_ties_give_an_interval_or_none_and_no_warning(radii, data):
    other = np.array(data.draw(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=len(radii), max_size=len(radii))))
    radii, sure = np.array(radii), np.ones(len(radii), bool)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        low, high = acr_interval(sure, radii)
        gain, *ends = paired_gain((sure, radii), (sure, other), resamples=200)
    assert math.isnan(low) == math.isnan(high) == (len(radii) < FEWEST or np.ptp(radii) == 0)
    assert all(map(math.isnan, ends)) or ends[0] <= gain + 1e-12 and gain - 1e-12 <= ends[1]
    assert np.ptp(radii - other) == 0 or not math.isnan(ends[0])


@given(
    st.lists(st.tuples(st.booleans(), st.floats(0, 4)), min_size=1, max_size=30),
    st.lists(st.floats(0, 5), min_size=2, max_size=20),
)
def test_certified_accuracy_never_grows_with_the_radius(images, at):
    correct, radius = (np.array(column) for column in zip(*images, strict=True))
    found = certified_accuracy(correct, radius, np.sort(at))
    assert np.all(np.diff(found) <= 0)
    assert np.all(found >= 0) and np.all(found <= correct.mean())


@pytest.mark.slow_for("qcrs_cifar10_resnet110_sigma0.50")
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


@pytest.mark.parametrize(
    ("m", "said"),
    [
        (20, "At most 1 of these 20 certificates is wrong, with probability 0.999: at all radii the true certified "
         "accuracy of these images is at least what is shown less 0.05."),
        (500, "At most 4 of these 500 certificates are wrong, with probability 0.999: at all radii the true certified "
         "accuracy of these images is at least what is shown less 0.008."),
        (7000, "At most 16 of these 7000 certificates are wrong, with probability 0.999: at all radii the true "
         "certified accuracy of these images is at least what is shown less 0.0023."),  # 16 / 7000 = .00229
    ],
)  # fmt: skip
def test_the_account_states_how_many_may_be_wrong(m, said):
    text = account({"alpha": 0.001}, m)
    assert text.endswith(said) and f"over {m} images expect up to {m * 0.001:.2g} wrong ones" in text
    assert wrong_share(m, 0.001) == most_wrong(m, 0.001) / m


def test_the_account_is_silent_without_alpha():
    assert "of these" not in account({"alpha": 0.001}, 1)
    assert "of these" not in account({"alpha": 0.4}, 3)  # all may be wrong
    assert "None of these 5 certificates is wrong, with probability 0.999: at all" in account({"alpha": 1e-6}, 5)
    predictions = account({"alpha": 0.001, "kind": "predictions"}, 20)
    assert predictions.endswith("At most 1 of these 20 predictions is wrong, with probability 0.999.")


def test_a_shared_alpha_keeps_its_own_words():
    request = {"alpha": 0.001 / 20, "simultaneous": {"alpha": 0.001, "images": 20}}
    for images in (None, 20, 15):  # some may have been left out
        text = account(request, images)
        assert "all certificates of these 20 images hold at once with probability at least 0.999" in text
        assert "At most" not in text and "None of" not in text


def test_the_account_in_a_sidecar_is_that_of_earlier_versions():
    folder = ROOT / "experiments/results"
    sidecars = [json.loads(file.read_text()) for file in sorted(folder.rglob("*.tsv.json"))]
    told = [sidecar for sidecar in sidecars if "account" in sidecar]
    assert told
    for sidecar in told:
        assert guarantee_texts(present(sidecar)["request"])["account"] == sidecar["account"]
    assert account({"alpha": 0.001}) == (
        "Each certificate fails with probability at most alpha = 0.001. Of M images expect up to 0.001 M wrong ones; "
        "all M hold at once with probability at least 1 - 0.001 M."
    )
