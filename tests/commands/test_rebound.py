"""`qcrs-jax rebound`: another bound for the counts of a finished run."""

import json

import numpy as np
import pytest

from qcrs_jax.experiments import cli
from qcrs_jax.experiments.commands import demo
from qcrs_jax.results.records import read_run

DATA = f"--dataset npz --data_dir {demo.IMAGES} --sigma 0.25 --skip 60 --max 300 --n 400".split()
CHECKPOINT = "zoo:fashion_mnist-lenet-sigma0.25"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("runs")
    for name, words in {
        "cohen": "--method cohen",
        "classes": "--method cohen --bound classes",
        "tolerance": "--method cohen --tolerance 10%",
        "decide": "--method cohen --decide 0.3 --alpha 0.01",
        "wrong": "--method cohen --tolerance 10% --stop_when_wrong --skip 20 --n0 30",
    }.items():
        seed = ["--seed", "0"]  # so that two runs draw the same numbers
        assert cli.main(["certify", CHECKPOINT, str(root / f"{name}.tsv"), *DATA, *seed, *words.split()]) == 0
    return root


def rebound(runs, name, out, bound="classes"):
    return cli.main(["rebound", str(runs / f"{name}.tsv"), "--bound", bound, "--out", str(out)])


@pytest.mark.slow
def test_it_gives_the_certificates_of_a_run_with_that_bound(runs, capsys):
    out = runs / "again.tsv"
    assert rebound(runs, "cohen", out) == 0
    text = capsys.readouterr().out
    assert "radii" in text and "bound over classes" in text and "chosen before anyone looked" in " ".join(text.split())
    ours, theirs, old = (read_run(runs / f"{name}.tsv") for name in ("again", "classes", "cohen"))
    for a, b, before in zip(ours.records, theirs.records, old.records, strict=True):
        assert (a.radius, a.predict, a.pa_lower, a.pb_upper) == (b.radius, b.predict, b.pa_lower, b.pb_upper)
        assert (a.counts, a.counts0, a.seconds, a.file) == (before.counts, before.counts0, before.seconds, before.file)
    assert ours.request["estimate"] == theirs.request["estimate"] and ours.request["rebound"]["bound"] != "classes"
    assert "one half of alpha" in ours.sidecar["said"]["account"]

    # And back.
    (runs / "classes_copy.tsv").write_bytes((runs / "classes.tsv").read_bytes())
    (runs / "classes_copy.tsv.json").write_bytes((runs / "classes.tsv.json").read_bytes())
    assert rebound(runs, "classes_copy", runs / "back.tsv", "clopper-pearson") == 0
    for a, before in zip(read_run(runs / "back.tsv").records, old.records, strict=True):
        assert (a.radius, a.predict, a.pa_lower, a.pb_upper) == (before.radius, before.predict, before.pa_lower, None)


@pytest.mark.slow
def test_samples_that_a_tolerance_chose_stay(runs):
    assert rebound(runs, "tolerance", runs / "fewer.tsv") == 0
    ours, old = read_run(runs / "fewer.tsv"), read_run(runs / "tolerance.tsv")
    assert [record.n for record in ours.records] == [record.n for record in old.records]
    assert all(record.pb_upper is not None for record in ours.records)


@pytest.mark.slow
def test_images_of_a_wrong_class_keep_their_n_of_0(runs, capsys):
    old = read_run(runs / "wrong.tsv")
    assert {record.n for record in old.records} > {0}
    assert cli.main(["verify", str(runs / "wrong.tsv"), "--recount", "0"]) == 0
    assert rebound(runs, "wrong", runs / "right.tsv") == 0
    assert [record.n for record in read_run(runs / "right.tsv").records] == [record.n for record in old.records]
    assert cli.main(["verify", str(runs / "right.tsv"), "--recount", "0"]) == 0
    assert "count for no class" not in capsys.readouterr().out


@pytest.mark.slow
def test_a_run_that_is_not_finished_or_was_changed_is_refused(runs, tmp_path, capsys):
    lines = (runs / "cohen.tsv").read_text().splitlines(keepends=True)
    sidecar = json.loads((runs / "cohen.tsv.json").read_text())
    (tmp_path / "cohen.tsv").write_text("".join(lines[:-1]))
    for words, gone in (
        ("its hash differs", ()),
        ("is not finished", ("left_out", "sha256", "pixels_sha256", "sidecar_sha256")),
    ):
        content = {name: value for name, value in sidecar.items() if name not in gone}
        (tmp_path / "cohen.tsv.json").write_text(json.dumps(content))
        assert rebound(tmp_path, "cohen", tmp_path / "new.tsv") != 0
        assert words in capsys.readouterr().err and not (tmp_path / "new.tsv").exists()
    (tmp_path / "cohen.tsv").write_text("".join(lines))
    for name in ("n0", "alpha", "estimate"):
        content = {**sidecar, "request": {k: v for k, v in sidecar["request"].items() if k != name}}
        (tmp_path / "cohen.tsv.json").write_text(json.dumps(content))
        assert rebound(tmp_path, "cohen", tmp_path / "new.tsv") != 0
        assert f"lacks request.{name}" in capsys.readouterr().err


@pytest.mark.slow
def test_verify_makes_it_again_and_verifies_its_source(runs, tmp_path, capsys):
    for name in ("cohen.tsv", "cohen.tsv.json"):
        (tmp_path / name).write_bytes((runs / name).read_bytes())
    assert rebound(tmp_path, "cohen", tmp_path / "new.tsv") == 0
    assert cli.main(["verify", str(tmp_path / "new.tsv"), "--recount", "all"]) == 0
    text = capsys.readouterr().out
    assert "it equals the result of `qcrs-jax rebound` on cohen.tsv; there," in text and "verified" in text
    assert cli.main(["verify", str(tmp_path / "new.tsv"), "--recount", "0"]) == 0
    assert "verified" not in capsys.readouterr().out.splitlines()[-1]

    content = json.loads((tmp_path / "new.tsv.json").read_text())
    for forged in (
        {"provenance": {**content["provenance"], "devices": "8 x TPU"}},
        {"left_out": [1]},
        {"sha256": 64 * "0"},
    ):
        (tmp_path / "new.tsv.json").write_text(json.dumps({**content, **forged}))
        assert cli.main(["verify", str(tmp_path / "new.tsv"), "--recount", "0"]) != 0
        assert "it differs from the result" in capsys.readouterr().err
    for name in ("source", "source_sha256", "bound"):
        made = {key: value for key, value in content["request"]["rebound"].items() if key != name}
        changed = {**content, "request": {**content["request"], "rebound": made}}
        (tmp_path / "new.tsv.json").write_text(json.dumps(changed))
        assert cli.main(["verify", str(tmp_path / "new.tsv"), "--recount", "0"]) != 0
        assert f"rebound.{name}" in capsys.readouterr().err
    (tmp_path / "new.tsv.json").write_text(json.dumps(content, indent=2) + "\n")

    lines = (tmp_path / "new.tsv").read_text().splitlines()
    row = lines[1].split("\t")
    row[3] = str(float(row[3]) + 0.125)
    (tmp_path / "new.tsv").write_text("\n".join([lines[0], "\t".join(row), *lines[2:]]) + "\n")
    assert cli.main(["verify", str(tmp_path / "new.tsv"), "--recount", "0"]) != 0
    assert "it differs from the result of `qcrs-jax rebound` on cohen.tsv" in capsys.readouterr().err
    (tmp_path / "cohen.tsv").write_bytes((tmp_path / "cohen.tsv").read_bytes().replace(b"\t1\t", b"\t0\t", 1))
    assert cli.main(["verify", str(tmp_path / "new.tsv"), "--recount", "0"]) != 0
    assert "is not the file that it was made from" in capsys.readouterr().err
    (tmp_path / "cohen.tsv").unlink()
    assert cli.main(["verify", str(tmp_path / "new.tsv"), "--recount", "0"]) != 0
    assert "was made from cohen.tsv, which is missing; put it in the same folder" in capsys.readouterr().err


@pytest.mark.slow
def test_runs_that_cannot_have_another_bound_are_refused(runs, tmp_path, capsys):
    def refused(name, bound="classes", out=tmp_path / "out.tsv"):
        assert rebound(runs, name, out, bound) != 0
        return capsys.readouterr().err

    assert "has bounds of its own" in refused("decide")
    assert "has the bound 'classes' already" in refused("classes")
    assert "unknown --bound 'clases'; known are" in refused("cohen", "clases")
    assert "needs random numbers" in refused("cohen", "randomised")
    assert "exists" in refused("cohen", out=runs / "classes.tsv")
    if not (runs / "again.tsv").exists():
        rebound(runs, "cohen", runs / "again.tsv")
        capsys.readouterr()
    assert "was made by `qcrs-jax rebound`" in refused("again", "clopper-pearson")
    log = "idx\tlabel\tpredict\tradius\tcorrect\ttime\n0\t0\t0\t0.5\t1\t1.5\n"
    (runs / "log.tsv").write_text(log)
    assert "has no counts of certificates" in refused("log")
    (runs / "empty.tsv").write_text(log.split("\n")[0] + "\n")
    assert "holds no results yet" in refused("empty")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_it_is_no_run_to_go_on_with(runs, tmp_path, capsys):
    for name in ("cohen.tsv", "cohen.tsv.json"):
        (tmp_path / name).write_bytes((runs / name).read_bytes())
    assert rebound(tmp_path, "cohen", tmp_path / "new.tsv") == 0
    words = [*DATA, "--seed", "0", "--method", "cohen", "--bound", "classes"]
    assert cli.main(["certify", CHECKPOINT, str(tmp_path / "new.tsv"), *words]) != 0
    assert "rebound" in capsys.readouterr().err
    assert "rebound" in json.loads((tmp_path / "new.tsv.json").read_text())["request"]
    assert np.isfinite([record.radius for record in read_run(tmp_path / "new.tsv").records]).all()
