"""Names of runs: the settings in which they differ."""

from pathlib import Path

import pytest
from requests_made import certificates

from qcrs_jax.errors import UserError
from qcrs_jax.experiments.report.names import names_of, row_names
from qcrs_jax.experiments.report.words import data_name
from qcrs_jax.results.records import Record, Run


def made(file, method="qcrs", search=None, checkpoint="net.pth", **request):
    known = certificates(method)
    known["search"] = known["search"] | (search or {})
    known |= {"sigma": 0.25, "n": 1000, "alpha": 0.001, "classifier": {"weights_sha256": "ab" * 32}} | request
    records = [Record(0, 1, 1, 0.5, True)]
    return Run(Path(file), records, {"request": known, "provenance": {"checkpoint": checkpoint}})


def test_runs_of_different_methods_are_called_by_them():
    cohen, golden = made("a.tsv", "cohen"), made("b.tsv", search={"name": "golden"})
    assert names_of([cohen, golden]) == ["Cohen, sigma 0.25", "QCRS golden, sigma 0.25"]
    assert row_names([cohen, golden]) == ["Cohen, sigma 0.25 (a.tsv)", "QCRS golden, sigma 0.25 (b.tsv)"]


@pytest.mark.parametrize(
    ("one", "other", "names"),
    [
        ({"search": {"epsilon": 0.03}}, {"search": {"epsilon": 0.1}}, ["epsilon 0.03", "epsilon 0.1"]),
        ({"n": 1000}, {"n": 10_000}, ["N 1000", "N 10000"]),
        ({"seed": 0}, {"seed": 1}, ["seed 0", "seed 1"]),
        ({"checkpoint": "x/a.pth"}, {"checkpoint": "x/b.pth"}, ["a.pth", "b.pth"]),
        ({"dtype": "float32"}, {"dtype": "bfloat16"}, ["dtype float32", "dtype bfloat16"]),
    ],
)
def test_runs_of_one_method_are_named_by_their_differences(one, other, names):
    runs = [made("a.tsv", **one), made("b.tsv", **other), made("c.tsv", "cohen")]
    found = names_of(runs)
    assert [name.split(", ")[-1] for name in found[:2]] == names and found[2] == "Cohen, sigma 0.25"


def test_runs_that_differ_in_nothing_are_called_by_their_files():
    assert names_of([made("a.tsv", "cohen"), made("b.tsv", "cohen")]) == [
        "Cohen, sigma 0.25 (a.tsv)",
        "Cohen, sigma 0.25 (b.tsv)",
    ]
    logs = [Run(Path(name), [Record(0, 1, 1, 0.5, True)], {}) for name in ("x", "y")]
    assert names_of(logs) == row_names(logs) == ["x", "y"]


def test_given_names_are_taken_as_they_are():
    runs = [made("a.tsv"), made("b.tsv")]
    assert names_of(runs, ["one", "two"]) == row_names(runs, ["one", "two"]) == ["one", "two"]
    with pytest.raises(UserError, match="--names has 1 entries for 2 runs"):
        names_of(runs, ["one"])


def test_a_folder_is_called_by_its_name():
    run = made("a.tsv", dataset={"name": "folder", "split": "test"})
    assert data_name(run) == "folder (test)"
    run.sidecar["provenance"]["settings"] = {"data": {"data_dir": "images/pets"}}
    assert data_name(run) == "pets (test)"
    assert data_name(Run(Path("x"), [], {})) is None
