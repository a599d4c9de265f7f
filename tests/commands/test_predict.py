"""`qcrs-jax predict` as a user runs it."""

import csv
import io

import numpy as np
import pytest
from kill_runs import cut, lines
from program import PREDICT, RADII, SMALL, qcrs_jax, refused
from scipy import stats

from qcrs_jax.results.records import read_run


def test_predict(predicted):
    nested = np.zeros((3, 10), int)
    for n in (11, 60, 200):
        path = predicted / f"p{n}.tsv"
        assert path.read_text().split("\n")[0].split("\t") == "idx label predict correct time counts".split()
        run = read_run(path)
        assert [(r.idx, r.label) for r in run.records] == [(0, 4), (1, 1), (2, 4)]
        counts = np.array([r.counts for r in run.records])
        assert np.all(counts.sum(1) == n) and np.all(counts >= nested)
        nested = counts
        for record in run.records:
            second, top = sorted(record.counts)[-2:]
            p = stats.binomtest(top, top + second, 0.5).pvalue
            assert record.predict == (-1 if p > 0.001 else np.argmax(record.counts))
            assert record.correct == (record.predict == record.label) and record.radius is None
    assert {-1} < {r.predict for n in (11, 200) for r in read_run(predicted / f"p{n}.tsv").records}
    # The same seed, sigma and N: the samples that certify draws.
    assert [r.counts for r in run.records] == [r.counts for r in read_run(predicted / "cohen.tsv").records]
    assert "PREDICT, sigma 0.25 (p200.tsv)" in (predicted / "p200.out").read_text()


def test_predict_continues_where_it_stopped_and_nothing_is_mixed(predicted):
    words = [*PREDICT, "--N", 60, "--max", 3]
    path = predicted / "stopped.tsv"
    qcrs_jax("predict", "lenet.pth", "stopped.tsv", *PREDICT, "--N", 60, "--max", 2, cwd=predicted)
    cut(path, path.read_text() + "2\t4\t")
    assert "2 of 3 images are done" in qcrs_jax("predict", "lenet.pth", "stopped.tsv", *words, cwd=predicted).stdout
    assert lines(path) == lines(predicted / "p60.tsv")
    before = path.read_bytes()
    assert "--N: 60 in the file, 61 now" in refused(
        "predict", "lenet.pth", "stopped.tsv", *PREDICT, "--N", 61, cwd=predicted
    )
    assert "kind: 'predictions' in the file" in refused("certify", "lenet.pth", "stopped.tsv", *SMALL, cwd=predicted)
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--N", 10], "smallest n that could is 11"),
        (["--sigma", 0], "sigma"),
        (["--skip", 0], "--skip"),
    ],
)
def test_impossible_predictions_are_refused_before_the_checkpoint_is_read(tmp_path, flags, message):
    text = refused("predict", "no.pth", "new/r.tsv", *PREDICT, *flags, cwd=tmp_path)
    assert message in text and "no.pth" not in text
    assert not (tmp_path / "new").exists()


def test_the_table_of_predictions_is_that_of_agreement(predicted):
    text = qcrs_jax("table", "p11.tsv", "p60.tsv", "cohen.tsv", "--format", "csv", cwd=predicted).stdout
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [r["n"] for r in rows] == ["11", "60", "200"]
    top = [int(np.argmax(r.counts)) for r in read_run(predicted / "cohen.tsv").records]
    for n, row in zip((11, 60), rows):
        answers = [r.predict for r in read_run(predicted / f"p{n}.tsv").records]
        assert float(row["abstention"]) == np.mean([a == -1 for a in answers])
        assert float(row["agrees"]) == np.mean([a == t for a, t in zip(answers, top)])
    assert "predictions, which have no radii" in refused("plot", "p11.tsv", "--out", "p.png", cwd=predicted)
    assert "--radii" in refused("table", "p11.tsv", *RADII, cwd=predicted)
    words = ["--out", "m.tsv", "--dataset", "npz", "--data_dir", "data.npz"]
    assert "predictions, which have no radii" in refused("memory", "p11.tsv", *words, cwd=predicted)
    assert "another sigma for each input" in refused("table", "p11.tsv", "golden.tsv", cwd=predicted)
