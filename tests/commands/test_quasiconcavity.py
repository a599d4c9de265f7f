"""Curves of a data set as a user measures them, and their analysis."""

import json

import numpy as np
import pytest
from kill_runs import cut

from qcrs_jax.analysis.curves import Point, read_all_curves, read_curves, read_points
from qcrs_jax.experiments import cli
from qcrs_jax.experiments.commands import demo
from qcrs_jax.results.records import RecordsError
from qcrs_jax.results.writer import Writer

FLAGS = ["--dataset", "npz", "--data_dir", str(demo.IMAGES), "--sigma", "0.25", "--skip", "2", "--max", "6"]
FLAGS += "--sigmas 0.1 0.8 4 --curve_n 100 --seed 0".split()


def curve(path, *more):
    return cli.main(["curve", str(demo.CHECKPOINT), str(path), *FLAGS, *more])


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    path = tmp_path_factory.mktemp("measured") / "curves.tsv"
    assert curve(path) == 0
    return path


def test_the_curves_of_a_data_set(measured):
    curves = read_curves(measured)
    assert curves.idx.tolist() == [0, 2, 4] and curves.counts.shape == (3, 5, 10)
    assert np.all(curves.counts.sum(axis=-1) == 100) and curves.sigmas[curves.original] == 0.25
    labels = np.load(demo.IMAGES)["y"]
    assert curves.labels.tolist() == labels[:6:2].tolist() and (curves.classes == curves.labels).any()
    request = json.loads(measured.with_name("curves.tsv.json").read_text())["request"]
    assert request["kind"] == "curves" and request["n"] == 100 and request["skip"] == 2


@pytest.mark.slow
def test_shards_of_curves_are_one_run(measured, tmp_path):
    paths = [tmp_path / f"curves{i}.tsv" for i in (1, 2)]
    assert [curve(path, "--shard", f"{i}/2") for i, path in enumerate(paths, start=1)] == [0, 0]
    ((path, whole),) = read_all_curves(paths)
    alone = read_curves(measured)
    assert path.name == "curves*.tsv" and whole.idx.tolist() == [0, 2, 4] and whole.request == alone.request
    np.testing.assert_array_equal(whole.counts, alone.counts)
    paths[0].write_text("".join(paths[0].read_text().splitlines(keepends=True)[:-1]))
    with pytest.raises(RecordsError, match=r"curves1\.tsv: shard 1/2 is not finished: 1 of its 2 images"):
        read_all_curves(paths)


@pytest.mark.parametrize("kept", [0, 3, 5, 9])
def test_a_stopped_run_ends_as_an_unbroken_one(measured, tmp_path, kept, capsys):
    path = tmp_path / "curves.tsv"
    lines = measured.read_text().splitlines(keepends=True)
    path.with_name("curves.tsv.json").write_text(measured.with_name("curves.tsv.json").read_text())
    cut(path, "".join(lines[: 1 + kept]) + (lines[1 + kept][:7] if kept else ""))
    assert curve(path) == 0
    assert path.read_text() == measured.read_text()
    assert ("1 of 3 images are done" in capsys.readouterr().out) == (kept >= 5)
    assert curve(path, "--curve_n", "101") == 2
    assert "n: 100 in the file, 101 now" in capsys.readouterr().err


def test_an_image_s_curve_does_not_depend_on_the_others_nor_a_count_on_the_other_sigmas(measured, tmp_path):
    assert curve(tmp_path / "c.tsv", "--skip", "2", "--max", "1", "--sigmas", "0.1", "0.4", "3") == 0
    ours, theirs = read_curves(tmp_path / "c.tsv"), read_curves(measured)
    both = [(i, theirs.sigmas.tolist().index(s)) for i, s in enumerate(ours.sigmas.tolist()) if s in theirs.sigmas]
    assert len(both) >= 3
    for i, j in both:
        assert (
            np.abs(ours.counts[0, i] - theirs.counts[0, j]).sum() <= 2
        )  # ties within rounding may fall to either side


def write(path, rows, n=1000):
    """Curves of two classes, from counts of class 0 at sigmas 0.1, 0.25, 0.5, 1."""
    sigmas = np.float32([0.1, 0.25, 0.5, 1.0]).tolist()
    request = {"sigma": 0.25, "sigmas": sigmas, "n": n, "dataset": {"name": "made", "class_names": ["cat", "dog"]}}
    with Writer(path, request, {}, Point.columns(), read_points) as writer:
        for i, row in enumerate(rows):
            writer.write(*(Point(i, 0, sigma, (k, n - k)) for sigma, k in zip(sigmas, row)))
    return path


def test_exceptions_are_reported_and_drawn(tmp_path, capsys):
    path = write(tmp_path / "c.tsv", [(999, 990, 600, 500), (999, 800, 500, 900), (300, 510, 400, 200)])
    out = tmp_path / "f.png"
    written = tmp_path / "report.txt"
    assert cli.main(["quasiconcavity", str(path), "--out", str(out), "--report", str(written)]) == 0
    text = capsys.readouterr().out
    assert "3 images of made, 1,000 samples at each of 4 sigmas from 0.1 to 1" in text
    assert text.startswith(written.read_text())
    assert "quasiconcavity: 2 of 3 images (66.7%)" in text and "of these 1 have no radius" in text
    assert "image 1 (cat): R(0.1) >= 0.2" in text and "R(0.5) <= 0.0" in text and "R(1) >= 1.0" in text
    assert out.read_bytes().startswith(b"\x89PNG") and "the 1 deepest dips" in text


def test_without_an_exception_nothing_is_drawn(measured, tmp_path, capsys):
    out = tmp_path / "f.png"
    assert cli.main(["quasiconcavity", str(measured), "--out", str(out)]) == 0
    text = capsys.readouterr().out
    assert "3 of 3 images (100.0%)" in text and "no exception" in text and not out.exists()
    assert "at each image's best (an oracle)" in text


def test_impossible_requests_are_refused(measured, tmp_path, capsys):
    for words, message in (
        (["quasiconcavity", str(measured), "--alpha", "1"], "--alpha"),
        (["quasiconcavity", str(measured), "--out", "f.jpg"], ".png, .pdf or .svg"),
        (["quasiconcavity", str(tmp_path / "none.tsv")], "none.tsv: cannot be read as a file of curves"),
    ):
        assert cli.main(words) == 2
        assert message in capsys.readouterr().err
    for flags, message in (
        (["--sigma", "0"], "--sigma"),
        (["--sigmas", "0.1", "0.8", "2"], "COUNT"),
        (["--curve_n", "0"], "--curve_n"),
        (["--skip", "0"], "--skip"),
    ):
        assert curve(tmp_path / "c.tsv", *flags) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "c.tsv").exists()
