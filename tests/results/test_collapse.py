"""The rule by which accuracy under noise is lost, and the images of a run beyond it, on counts made by hand."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest
from places import ROOT, SHARED
from scipy import stats

from qcrs_jax.results import sidecar
from qcrs_jax.results.collapse import Beyond, Collapse, Level, beyond, effective_number, limit_of, record_of
from qcrs_jax.results.records import Record, Run, read_run

SIGMAS = [0.25, 0.5, 1.0, 2.0]


def collapse(accuracies, constant=0.1, images=100, sigmas=SIGMAS):
    levels = [Level(s, a, 5.0, 0, 0.2) for s, a in zip(sigmas, accuracies)]
    return Collapse(tuple(levels), constant, images, 5)


@pytest.mark.parametrize(
    "shares", [[0.1] * 10, [1.0, 0.0, 0.0], [0.5, 0.25, 0.25], np.random.default_rng(0).dirichlet([1] * 7)]
)
def test_the_effective_number_is_the_exponential_of_the_entropy(shares):
    assert effective_number(np.array(shares)) == pytest.approx(math.exp(stats.entropy(shares)))
    assert 1 <= effective_number(np.array(shares)) <= len(shares) + 1e-9


def test_figures_of_counts():
    counts = np.zeros((4, 2, 3), int)  # four images, two sigmas, three classes
    counts[:, 0] = [[5, 0, 0], [0, 4, 1], [1, 1, 3], [2, 3, 0]]
    counts[:, 1] = [[5, 0, 0], [3, 2, 0], [4, 0, 1], [0, 0, 0]]  # the last image is in no class
    sigmas, labels = np.array([0.25, 1.0]), np.array([0, 1, 2, 0])
    found = Collapse.of_counts(sigmas, counts, 5, labels)
    low, high = found.levels
    assert low.accuracy == pytest.approx((5 + 4 + 3 + 2) / 20) and high.accuracy == pytest.approx((5 + 2 + 1 + 0) / 20)
    assert low.classes == pytest.approx(math.exp(stats.entropy([0.25, 0.5, 0.25]))) and low.commonest == 1
    assert high == Level(1.0, high.accuracy, 1.0, 0, 1.0)
    assert (found.constant, found.images, found.copies) == (0.5, 4, 5)
    assert Collapse.of_counts(sigmas[::-1], counts[:, ::-1], 5, labels) == found
    unlabelled = Collapse.of_counts(sigmas, counts, 5)
    assert unlabelled.constant is None and [level.accuracy for level in unlabelled.levels] == [None, None]
    assert [level.classes for level in unlabelled.levels] == [level.classes for level in found.levels]


def test_accuracy_is_lost_where_it_is_nearer_to_one_answer_than_to_the_best():
    # The middle of .7 and .1 is .4: between .5 at sigma .5 and .3 at sigma 1, half way over log sigma.
    assert collapse([0.7, 0.5, 0.3, 0.1]).lost_at == math.floor(1000 * math.sqrt(0.5)) / 1000
    assert collapse([0.7, 0.5, 0.3, 0.7]).lost_at == 0.707, "the first loss counts"
    assert collapse([0.7, 0.4, 0.3, 0.1]).lost_at == 0.5, "at the middle itself it is not lost yet"
    assert collapse([0.7, 0.6, 0.5, 0.4]).lost_at is None
    assert collapse([0.1, 0.7, 0.5, 0.1]).lost_at == 1.18, "below the best sigma nothing is looked for"
    assert collapse([0.7, 0.1, 0.1, 0.1]).lost_at < collapse([0.7, 0.1, 0.1, 0.1], constant=0.0).lost_at


def test_nothing_is_lost_by_a_classifier_that_is_nowhere_better_than_one_answer():
    assert collapse([0.2, 0.15, 0.1, 0.1], images=50).reference is None
    assert collapse([0.2, 0.15, 0.1, 0.1], images=50).lost_at is None
    assert collapse([0.2, 0.15, 0.1, 0.1], images=10_000).lost_at == 0.5
    assert collapse([0.9, 0.9, 0.9, 0.9], constant=0.9).lost_at is None


def test_without_labels_the_number_of_classes_takes_the_place_of_accuracy():
    levels = [Level(s, None, k, 0, 0.2) for s, k in zip(SIGMAS, [8.0, 6.0, 2.0, 1.0])]
    # The middle of 8 and 1 is 4.5, three eighths of the way from 6 to 2.
    assert Collapse(tuple(levels), None, 100, 5).lost_at == math.floor(1000 * 0.5 * 2**0.375) / 1000
    constant = [Level(s, None, 1.0, 0, 1.0) for s in SIGMAS]
    assert Collapse(tuple(constant), None, 100, 5).lost_at is None


def test_a_record_is_read_as_it_was_written():
    found = collapse([0.7, 0.5, 0.3, 0.1])
    recorded = json.loads(json.dumps(found.recorded()))
    sidecar.check_collapse(recorded)
    assert Collapse.of(recorded) == found and recorded["lost_at"] == found.lost_at
    request = {"kind": "certificates"}
    text = json.dumps({"format": 2, "request": request, "provenance": {"collapse": recorded}}).encode()
    run = Run(Path("a.tsv"), [], sidecar.parse(text))
    assert record_of(run) == found and limit_of(run) == 0.707 and limit_of(run, 0.5) == 0.5
    assert record_of(Run(Path("a.tsv"), [], {})) is None and limit_of(Run(Path("a.tsv"), [], {})) is None


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"levels": 3}, "collapse.levels is 3"),
        ({"levels": [{"sigma": 0.25}]}, "collapse.levels.accuracy is missing"),
        ({"constant": 1.5}, "collapse.constant is 1.5"),
        ({"lost_at": -1}, "collapse.lost_at is -1"),
        ({"images": 0}, "collapse.images is 0"),
        ({"ends_bracket": 1}, "collapse.ends_bracket is 1"),
        ({"levels": [dataclasses.asdict(Level(0.25, 0.5, math.nan, 0, 0.2))]}, "collapse.levels.classes is NaN"),
    ],
)
def test_a_record_of_another_form_is_refused(change, named):
    recorded = collapse([0.7, 0.5, 0.3, 0.1]).recorded() | change
    with pytest.raises(sidecar.Unfit, match=named.replace(".", r"\.")):
        sidecar.check_collapse(recorded)


def records(*rows):
    return [Record(i, label, predict, radius, label == predict, sigma) for i, (label, predict, radius, sigma) in rows]


def test_the_images_beyond_a_limit():
    rows = enumerate([(0, 0, 1.0, 0.25), (1, 1, 2.0, 0.8), (2, 1, 3.0, 0.9), (1, -1, 0.0, 1.0), (0, 0, 1.0, 0.5)])
    run = Run(Path("a.tsv"), records(*rows), {})
    far = beyond(run, 0.5)
    assert far == Beyond(0.5, [1, 2, 3], 5, {1: 2, -1: 1}, 1, 4 / 5, 2 / 5) and far.share == pytest.approx(0.5)
    assert beyond(run, 1.0) is None and beyond(run, None) is None
    assert beyond(run, float(np.float32(0.8))).places == [2, 3]
    assert beyond(run, 0.8).places == [2, 3], "a float32 of the limit is not beyond it"
    assert beyond(Run(Path("p.tsv"), run.records, {"request": {"kind": "predictions"}}), 0.01) is None
    none = Run(Path("a.tsv"), records((0, (0, 1, 1.0, 0.9))), {})
    assert beyond(none, 0.5).share == 0.0


@pytest.mark.slow
def test_the_published_log():
    log = SHARED / "results" / "qcrs_cifar10_resnet110_sigma0.50.tsv"
    if not log.exists():
        pytest.skip("needs the published log")
    run = read_run(log)
    page = (ROOT / "docs" / "collapse.md").read_text()
    rows = [row.strip("| ").split(" | ") for row in page.splitlines() if row.endswith(" |") and "automobile" in row]
    assert len(rows) == 4
    for limit, images, answer, share, without in rows:
        there = beyond(run, float(limit))
        assert (len(there.places), f"{there.share:.1%}", f"{there.acr_without:.4f}") == (int(images), share, without)
        assert answer == f"automobile ({there.answered[1]})" and next(iter(there.answered)) == 1
    between = [r.predict for r in run.records if 0.8 < r.sigma <= 1]
    assert len(between) == 219 and round(between.count(9) / 219, 2) == 0.47, "truck"
    far = beyond(run, 1.0)
    assert len(far.places) == 393 and far.images == 10_000 and far.answered[1] == 376
    assert (round(far.share, 3), round(far.acr, 4), round(far.acr_without, 4)) == (0.073, 0.6565, 0.6085)
