"""Which runs share a table, and what the formats do to names."""

import csv
import dataclasses
import io
import itertools
import json

import pytest
from qcrs_jax.experiments.table import class_tables, group_by_images, tables

from qcrs_jax.records import EARLIER_VERSION, Record, RecordsError, Run


def make_run(tmp_path, name, fingerprint=None, radius=0.5):
    request = {"dataset": {"name": "d", "split": "test", "fingerprint": fingerprint}} if fingerprint else {}
    if request:
        request |= {"method": "cohen", "sigma": 0.25, "alpha": 0.001}
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
def test_latex_escapes_what_it_would_read(tmp_path, name):
    text = tables([make_run(tmp_path, name)], "latex")
    row = next(line for line in text.splitlines() if line.startswith(name[0]) and "0.5000" in line)
    escaped = json.dumps(row.split(" & ")[0])
    assert all(f"\\\\{c}" in escaped for c in name if c in "_&%#$")


@pytest.fixture
def pets(tmp_path):
    """A run over four cats, one dog and no cow."""
    answers = [(0, 0, 1.0), (0, 2, 0.5), (0, 2, 0.1), (0, -1, 0.0), (1, 1, 0.25)]
    records = [
        Record(i, label, answer, radius, label == answer, seconds=1.0, counts0=(1, 0, 0), counts=(9, 0, 0))
        for i, (label, answer, radius) in enumerate(answers)
    ]
    dataset = {"name": "pets", "split": "test", "fingerprint": "A", "class_names": ["cat", "dog_1", "cow"]}
    request = {"method": "cohen", "sigma": 0.25, "alpha": 0.001, "dataset": dataset}
    return Run(tmp_path / "r.tsv", records, {"request": request})


def test_a_row_for_each_class_by_its_name(pets):
    lines = class_tables([pets], "terminal", [0.0, 0.5]).splitlines()
    assert lines[0] == "Cohen, sigma 0.25 (r.tsv): 5 images of pets (test), 0 to 4"
    assert lines[2].split("  ")[0] == "class"
    assert [line.split() for line in lines[4:7]] == [
        ["cat", "4", "0.2500", "0.250", "0.250", "0.250", "cow", "(2)"],
        ["dog_1", "1", "0.2500", "1.000", "0.000", "0.000", "-"],
        ["all", "5", "0.2500", "0.400", "0.200", "0.200", "-"],
    ]
    assert "| cat | 4 | 0.2500 | 0.250 | 0.250 | 0.250 | cow (2) |" in class_tables([pets], "markdown", [0.0, 0.5])
    assert r"dog\_1 & 1 & 0.2500" in class_tables([pets], "latex", [0.0, 0.5])


def test_classes_in_csv_and_without_names(pets, tmp_path):
    other = make_run(tmp_path, "log")
    rows = list(csv.DictReader(io.StringIO(class_tables([pets, other], "csv", [0.5]))))
    assert [row["class"] for row in rows] == ["cat", "dog_1", "all", "1", "all"]
    assert rows[0]["mistaken_for"] == "cow (2)" and float(rows[0]["certified_accuracy_0.5"]) == 0.25
    assert float(rows[2]["acr"]) == pytest.approx(0.25) and rows[3]["images"] == "2"


def predictions(tmp_path, n, answers, counts=None, **request):
    """A run of PREDICT over four images of the classes 0, 0, 1, 1."""
    request = {"method": "predict", "sigma": 0.25, "alpha": 0.001, "n": n, "classifier": {"arch": "a"}} | request
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
    request = {"method": "cohen", "sigma": 0.25, "alpha": 0.001, "sequential": {"decide": 0.3}}
    text = tables([Run(tmp_path / "r.tsv", records, {"request": request})], "markdown")
    assert "3 robust at 0.3, 1 not, 1 undecided; robust and right are 2 of 5 images, robust and wrong 1" in text
    other = Run(tmp_path / "log", records, {})  # of another program, whose column robust is something else
    assert "robust" not in tables([other], "markdown")


@pytest.mark.parametrize(
    "provenance, earlier", [({"versions": {}}, True), ({"versions": {}, "arguments": {}}, False), ({}, False)]
)
def test_a_file_of_an_earlier_version_says_so(tmp_path, provenance, earlier):
    run = make_run(tmp_path, "a", "A")
    run.sidecar["provenance"] = provenance
    assert (
        f"Cohen, sigma 0.25 (a): {EARLIER_VERSION}" in tables([run, make_run(tmp_path, "b", "A")], "markdown")
    ) == earlier
