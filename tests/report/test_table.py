"""Groups of runs that share a table, and names in all formats."""

import csv
import dataclasses
import io
import itertools
import json

import numpy as np
import pytest
from requests_made import certificates
from scipy import stats

from qcrs_jax.experiments.report.table import class_tables, tables
from qcrs_jax.experiments.report.words import group_by_images
from qcrs_jax.results.metrics import acr_interval, columns
from qcrs_jax.results.records import EARLIER_VERSION, Record, RecordsError, Run


def make_run(tmp_path, name, fingerprint=None, radius=0.5):
    request = {"dataset": {"name": "d", "split": "test", "fingerprint": fingerprint}} if fingerprint else {}
    if request:
        request |= certificates(sigma=0.25, alpha=0.001)
    records = [Record(i, 1, 1, radius, True) for i in range(2)]
    return Run(tmp_path / name, records, {"request": request} if request else {})


def test_runs_over_different_images_never_share_a_table_whatever_the_order(tmp_path):
    runs = [make_run(tmp_path, "log"), make_run(tmp_path, "a", "A"), make_run(tmp_path, "b", "B")]
    for order in itertools.permutations(runs):
        groups = group_by_images(list(order))
        assert len(groups) == 2 and sorted(map(len, groups)) == [1, 2]
        assert not any({"A", "B"} <= {run.images[1] for run in group} for group in groups)


def test_different_indices_or_labels_are_different_images(tmp_path):
    one, other = make_run(tmp_path, "a"), make_run(tmp_path, "b")
    other.records[1] = Record(1, 2, 2, 0.5, True)
    assert len(group_by_images([one, other])) == 2


@pytest.mark.parametrize("name", ["a_b.tsv", "a&b", "100%", "x#1$"])
def test_latex_special_characters_are_escaped(tmp_path, name):
    text = tables([make_run(tmp_path, name)], "latex")
    row = next(line for line in text.splitlines() if line.startswith(name[0]) and "0.5000" in line)
    escaped = json.dumps(row.split(" & ")[0])
    assert all(f"\\\\{c}" in escaped for c in name if c in "_&%#$")


BELOW = ["for", "images", "like", "these", "(95%)"]


@pytest.fixture
def pets(tmp_path):
    """A run over four cats, one dog and no cow."""
    answers = [(0, 0, 1.0), (0, 2, 0.5), (0, 2, 0.1), (0, -1, 0.0), (1, 1, 0.25)]
    records = [
        Record(i, label, answer, radius, label == answer, seconds=1.0, counts0=(1, 0, 0), counts=(9, 0, 0))
        for i, (label, answer, radius) in enumerate(answers)
    ]
    dataset = {"name": "pets", "split": "test", "fingerprint": "A", "class_names": ["cat", "dog_1", "cow"]}
    request = certificates(sigma=0.25, alpha=0.001, dataset=dataset)
    return Run(tmp_path / "r.tsv", records, {"request": request})


def test_a_row_for_each_class_by_its_name(pets):
    lines = class_tables([pets], "terminal", [0.0, 0.5]).splitlines()
    assert lines[0] == "Cohen, sigma 0.25 (r.tsv): 5 images of pets (test), 0 to 4"
    assert lines[2].split("  ")[0] == "class"
    assert [line.split() for line in lines[4:10:2]] == [
        ["cat", "4", "0.2500", "0.250", "0.250", "0.250", "cow", "(2)"],
        ["dog_1", "1", "0.2500", "1.000", "0.000", "0.000", "-"],
        ["all", "5", "0.2500", "0.400", "0.200", "0.200", "-"],
    ]
    # Of 1, 1, 0, 2 and 1 images of 4, 1 and 5, by Clopper and Pearson; of the ACR of so few nothing is known.
    assert [line.split() for line in lines[5:10:2]] == [
        [*BELOW, "-", ".00-.81", ".00-.81"],
        [*BELOW, "-", ".02-1.00", ".00-.98"],
        [*BELOW, "-", ".05-.86", ".00-.72"],
    ]
    assert "| cat | 4 | 0.2500 | 0.250 | 0.250 | 0.250 | cow (2) |" in class_tables([pets], "markdown", [0.0, 0.5])
    assert r"dog\_1 & 1 & 0.2500" in class_tables([pets], "latex", [0.0, 0.5])


def test_classes_in_csv_and_without_names(pets, tmp_path):
    other = make_run(tmp_path, "log")
    rows = list(csv.DictReader(io.StringIO(class_tables([pets, other], "csv", [0.5]))))
    assert [row["class"] for row in rows] == ["cat", "dog_1", "all", "1", "all"]
    assert rows[0]["mistaken_for"] == "cow (2)" and float(rows[0]["certified_accuracy_0.5"]) == 0.25
    low, high = (float(rows[0][f"certified_accuracy_0.5_{end}"]) for end in ("low", "high"))
    assert (low, high) == pytest.approx(stats.binomtest(1, 4).proportion_ci(method="exact"))
    assert rows[0]["acr_low"] == "nan" and rows[0]["seconds"] == "1.0"
    assert float(rows[2]["acr"]) == pytest.approx(0.25) and rows[3]["images"] == "2"


def many(tmp_path, name, m, seed=0):
    """A run over m images of one class; every third is wrong."""
    radii = np.random.default_rng(seed).uniform(0, 1, m)
    records = [Record(i, 1, 1 if i % 3 else 0, radius, bool(i % 3)) for i, radius in enumerate(radii)]
    return Run(tmp_path / name, records, {})


@pytest.mark.parametrize(("m", "digits"), [(60, 2), (1000, 3)])
def test_below_a_run_stand_the_intervals_of_its_figures(tmp_path, m, digits):
    runs = [many(tmp_path, "a.tsv", m), many(tmp_path, "b.tsv", m, seed=1)]
    lines = tables(runs, radii=[0.0, 0.5]).splitlines()
    assert [line.split()[0] for line in lines[4:8]] == ["a.tsv", "for", "b.tsv", "for"]
    rows = list(csv.DictReader(io.StringIO(tables(runs, "csv", [0.0, 0.5]))))
    for run, line, row in zip(runs, lines[5::2], rows):
        exact = [acr_interval(*columns(run))]
        correct, radius = columns(run)
        for key, r in (("certified_accuracy_0", 0), ("certified_accuracy_0.5", 0.5), ("accuracy", 0)):
            k = int((correct & (radius >= r)).sum())
            exact.append(tuple(stats.binomtest(k, m).proportion_ci(method="exact")))
            assert (float(row[f"{key}_low"]), float(row[f"{key}_high"])) == pytest.approx(exact[-1])
        assert (float(row["acr_low"]), float(row["acr_high"])) == exact[0]
        assert line.split()[:5] == BELOW
        for text, (low, high) in zip(line.split()[5:], exact[:3], strict=True):
            ends = [float(end) for end in text.split("-")]
            assert all(len(end) == digits + 1 for end in text.split("-"))
            assert ends[0] <= low < ends[0] + 10.0**-digits and ends[1] - 10.0**-digits < high <= ends[1]
    text = " ".join(lines)
    for said in ("Clopper-Pearson", "bootstrap (BCa)", "drawn from it at random", "alpha is about the noise"):
        assert said in " ".join(text.split())


def test_the_intervals_are_in_all_formats(tmp_path):
    runs = [many(tmp_path, "a.tsv", 60), many(tmp_path, "b.tsv", 60)]
    (below,) = {line for line in tables(runs, radii=[0.0]).splitlines() if "for images like these (95%)" in line}
    interval = below.split()[5:]
    assert len(interval) == 2
    first, *_ = (line for line in tables(runs, "markdown", [0.0]).splitlines() if "like these (" in line)
    assert [cell.strip() for cell in first.split("|")[2:6]] == ["", *interval, ""]
    first, *_ = (line for line in tables(runs, "latex", [0.0]).splitlines() if r"like these (95\%)" in line)
    assert [cell.strip() for cell in first.split("&")[1:5]] == ["", *interval, ""]


def test_runs_without_intervals_have_no_row_of_them(tmp_path):
    equal = Run(tmp_path / "equal.tsv", [Record(i, 1, 1, 0.5, True) for i in range(30)], {})
    below = tables([equal], radii=[0.0, 1.0]).splitlines()[5]
    assert below.split() == [*BELOW, "-", ".88-1.00", ".00-.12"]
    text = tables([predictions(tmp_path, 11, (0, 0, 1, 1))])
    assert "like these" not in text, "predictions have no radii"


def test_a_run_whose_images_depend_on_each_other_has_none(tmp_path):
    run = many(tmp_path, "m.tsv", 60)
    plain = tables([run])
    assert "memory-based run" not in plain and "--budget" not in plain
    run.sidecar["request"] = {"stored_balls": {}}
    text = tables([run], radii=[0.0])
    assert text.splitlines()[5].split() == [*BELOW, "-", "-"]
    assert "run has no such intervals (-): its answers depend" in " ".join(text.split())
    run.sidecar["request"] = {"budget": 500}
    assert "depend a little on the other images" in " ".join(tables([run]).split())


def predictions(tmp_path, n, answers, counts=None, **request):
    """A run of PREDICT over four images of the classes 0, 0, 1, 1."""
    request = {"kind": "predictions", "sigma": 0.25, "alpha": 0.001, "n": n, "classifier": {"arch": "a"}} | request
    records = [
        Record(i, label, answer, None, answer == label, seconds=1.0, counts=counts and counts[i])
        for i, (label, answer) in enumerate(zip((0, 0, 1, 1), answers))
    ]
    return Run(tmp_path / f"p{n}.tsv", records, {"request": request} if n else {})


REFERENCE = [(900, 100), (400, 600), (501, 499), (0, 1000)]  # the top classes are 0, 1, 0, 1


def test_agreement_is_with_the_top_class_of_the_largest_run(tmp_path):
    small = predictions(tmp_path, 11, (-1, 0, 0, 1))
    large = predictions(tmp_path, 1000, (0, 1, -1, 1), REFERENCE)
    cohens = predictions(tmp_path, None, (0, 1, 1, -1))
    rows = list(csv.DictReader(io.StringIO(tables([small, cohens, large], "csv"))))
    shares = ("correct", "incorrect", "abstention", "agrees", "differs")
    assert [float(rows[0][name]) for name in shares] == [0.5, 0.25, 0.25, 0.5, 0.25]
    assert [float(rows[1][name]) for name in shares] == [0.5, 0.25, 0.25, 0.5, 0.25]
    assert [rows[2][name] for name in shares] == ["0.5", "0.25", "0.25", "nan", "nan"]
    assert [row["n"] for row in rows] == ["11", "nan", "1000"]
    text = tables([small, cohens, large])
    assert "largest N" in text and "Each prediction fails" in text
    assert next(line for line in text.splitlines() if "p1000" in line).split()[-3:] == ["-", "-", "1.00"]


def test_predictions_without_counts_agree_with_none(tmp_path):
    text = tables([predictions(tmp_path, None, (0, 1, 1, -1))])
    assert text.splitlines()[4].split() == ["pNone.tsv", "-", "0.500", "0.250", "0.250", "-", "-", "1.00"]


@pytest.mark.parametrize("change", [{"sigma": 0.5}, {"classifier": {"arch": "b"}}])
def test_predictions_of_different_classifiers_are_not_compared(tmp_path, change):
    runs = [predictions(tmp_path, 11, (0, 0, 1, 1), **change), predictions(tmp_path, 1000, (0, 0, 1, 1), REFERENCE)]
    with pytest.raises(RecordsError, match=f"p11.tsv and .*p1000.tsv have different {next(iter(change))}"):
        tables(runs)


def test_robust_and_right_apart_from_robust_and_wrong(tmp_path):
    answers = [(0, 0, 1), (0, 1, 1), (0, -1, 1), (1, 1, 0), (1, -1, -1)]  # label, predict, robust
    records = [
        Record(i, label, predict, 0.1, label == predict, counts0=(9, 1) if i == 2 else (0, 9), robust=robust)
        for i, (label, predict, robust) in enumerate(answers)
    ]
    records[0] = dataclasses.replace(records[0], counts0=(9, 0))
    request = certificates(estimate={"name": "sequential", "decide": 0.3}, sigma=0.25, alpha=0.001)
    text = tables([Run(tmp_path / "r.tsv", records, {"request": request})], "markdown")
    assert "3 robust at 0.3, 1 not, 1 undecided; robust and right are 2 of 5 images, robust and wrong 1" in text
    other = Run(tmp_path / "log", records, {})  # of another program, whose column robust is something else
    assert "robust" not in tables([other], "markdown")


@pytest.mark.parametrize(
    "provenance, earlier", [({"versions": {}}, True), ({"versions": {}, "settings": {}}, False), ({}, False)]
)
def test_a_file_of_an_earlier_version_says_so(tmp_path, provenance, earlier):
    run = make_run(tmp_path, "a", "A")
    run.sidecar["provenance"] = provenance
    assert (
        f"Cohen, sigma 0.25 (a): {EARLIER_VERSION}" in tables([run, make_run(tmp_path, "b", "A")], "markdown")
    ) == earlier
