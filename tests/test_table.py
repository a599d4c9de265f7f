"""Which runs share a table, and what the formats do to names."""

import itertools
import json

import pytest
from qcrs_jax.experiments.table import group_by_images, tables

from qcrs_jax.records import Record, Run


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
