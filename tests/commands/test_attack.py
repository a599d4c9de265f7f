"""`qcrs-jax attack`: upper bounds of the radii of a finished run, beside them in tables and figures."""

import csv
import json
import math
import shutil

import numpy as np
import pytest
from program import qcrs_jax, refused, unwrapped

from qcrs_jax.experiments.commands import demo
from qcrs_jax.results.attacks import AttackRecord, read_attack_records, read_runs_and_attacks
from qcrs_jax.results.records import RecordsError, read_run

DATA = f"--dataset npz --data_dir {demo.IMAGES} --sigma 0.25 --skip 50 --n0 30 --n 300 --seed 0".split()
CHECKPOINT = "zoo:fashion_mnist-lenet-sigma0.25"
SMALL = "--attempts 3 --restarts 1 --steps 4 --draws 16 --seed 1".split()
RUNS = {
    "cohen": "--method cohen --max 101",
    "golden": "--left 0.1 --right 0.6 --epsilon 0.2 --search_n 50 --no-collapse --max 101",
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Runs over three images, of which one is not classified correctly, and attacks on them."""
    root = tmp_path_factory.mktemp("runs")
    for name, words in RUNS.items():
        qcrs_jax("certify", CHECKPOINT, f"{name}.tsv", *DATA, *words.split(), cwd=root)
    for name, words in {
        "attacks": "golden.tsv attacks.tsv",
        "frozen": "golden.tsv frozen.tsv --method frozen",
    }.items():
        done = qcrs_jax("attack", *words.split(), *SMALL, cwd=root)
        (root / f"{name}.out").write_text(done.stdout)
    return root


@pytest.fixture
def copy(runs, tmp_path):
    """A copy of them, to be damaged."""
    for file in runs.glob("*.tsv*"):
        shutil.copy(file, tmp_path)
    return tmp_path


def edited(file, change):
    """Rewrites a sidecar."""
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "source"), [("attacks", "golden"), ("frozen", "golden")])
def test_each_image_has_its_certificate_and_an_upper_bound(runs, name, source):
    certified, records = read_run(runs / f"{source}.tsv").records, read_attack_records(runs / f"{name}.tsv")
    assert any(record.distance for record in records) and not all(record.correct for record in certified)
    for ours, theirs in zip(records, certified, strict=True):
        assert (ours.idx, ours.label, ours.predict) == (theirs.idx, theirs.label, theirs.predict)
        assert (ours.radius, ours.sigma) == (theirs.radius, theirs.sigma)
        if not theirs.correct:
            assert ours.distance is None and ours.checks == 0
        elif ours.distance is not None:
            assert ours.answer not in (-1, ours.label) and ours.failed < ours.distance
            assert sum(ours.counts) == 300 and int(np.argmax(ours.counts)) == ours.answer
            assert len(ours.image_sha256) == 64 and 1 <= ours.checks <= 3 * (1 + (name == "frozen"))
            if name != "frozen":
                assert ours.distance >= ours.radius and ours.answer_sigma == ours.sigma
    sidecar = json.loads((runs / f"{name}.tsv.json").read_text())
    assert sidecar["request"]["kind"] == "attacks" and "upper bound" in sidecar["guarantee"]
    assert sidecar["request"]["attack"]["source"] == f"{source}.tsv"
    assert ("search" in sidecar["request"]) == (name == "frozen")


@pytest.mark.slow
def test_it_prints_the_gap(runs):
    text = (runs / "attacks.out").read_text()
    assert "attacked, cohen (attacks.tsv)" in text and "upper bound" in text
    assert "not thereby robust" in unwrapped(text) and "rule that searches sigma anew" not in unwrapped(text)
    assert "rule that searches sigma anew" in unwrapped((runs / "frozen.out").read_text())


@pytest.mark.slow
def test_a_rerun_continues_with_the_same_numbers(copy):
    whole = read_attack_records(copy / "attacks.tsv")
    lines = (copy / "attacks.tsv").read_text().splitlines(keepends=True)
    (copy / "attacks.tsv").write_text("".join(lines[:3]) + lines[3][:20])
    gone = ("left_out", "sha256", "pixels_sha256", "sidecar_sha256")
    edited(copy / "attacks.tsv.json", lambda content: [content.pop(name) for name in gone])
    assert "is not finished" in refused("table", "golden.tsv", "attacks.tsv", cwd=copy)
    done = qcrs_jax("attack", "golden.tsv", "attacks.tsv", *SMALL, cwd=copy)
    assert "2 of 3 images are done" in done.stdout
    again = read_attack_records(copy / "attacks.tsv")
    columns = [name for name in AttackRecord.columns() if name != "time"]
    assert [record.line(columns) for record in again] == [record.line(columns) for record in whole]
    assert "another configuration" in refused("attack", "golden.tsv", "attacks.tsv", *SMALL, "--steps", 5, cwd=copy)


@pytest.mark.slow
def test_a_table_shows_the_gap(runs):
    plain = qcrs_jax("table", "golden.tsv", cwd=runs).stdout
    both = qcrs_jax("table", "golden.tsv", "attacks.tsv", "frozen.tsv", cwd=runs).stdout
    assert both.startswith(plain.split("\n\n")[0]) and plain.split("\n\n")[1] in both and "attack" not in plain
    for name in ("attacked, cohen (attacks.tsv)", "attacked, frozen (frozen.tsv)", "inside"):
        assert name in both
    radii = ["--radii", "0", "0.5", "--format"]
    for layout in ("markdown", "latex"):
        text = qcrs_jax("table", "golden.tsv", "attacks.tsv", *radii, layout, cwd=runs).stdout
        assert "upper bound" in text and "cohen" in text


@pytest.mark.slow
def test_csv_has_the_gap_in_columns(runs):
    text = qcrs_jax("table", "golden.tsv", "cohen.tsv", "attacks.tsv", "--format", "csv", cwd=runs).stdout
    row, other = csv.DictReader(text.splitlines())
    records = [record for record in read_attack_records(runs / "attacks.tsv") if record.distance is not None]
    assert float(row["cohen_upper_bound"]) == pytest.approx(np.mean([record.distance for record in records]))
    assert float(row["cohen_radius"]) == pytest.approx(np.mean([record.radius for record in records]))
    assert int(row["cohen_changed"]) == len(records) and int(row["cohen_inside"]) == 0
    assert float(row["cohen_accuracy_0.25"]) >= float(row["certified_accuracy_0.25"])
    assert other["cohen_attacked"] == ""


@pytest.mark.slow
def test_accuracies_count_an_image_up_to_its_distance(runs):
    (run,), ((found,),) = read_runs_and_attacks([runs / "golden.tsv", runs / "attacks.tsv"])
    changed = next(record for record in found.records if record.distance is not None)
    at = np.array([0.0, changed.distance, math.nextafter(changed.distance, 0)])
    none, there, before = found.accuracy(at)
    assert none == np.mean([record.correct for record in run.records])
    assert before == pytest.approx(there + 1 / len(run.records))
    correct = np.array([record.correct for record in run.records])
    radius = np.array([record.radius for record in run.records])
    for r in np.linspace(0, 1, 7):
        assert found.accuracy(np.array([r]))[0] >= np.mean(correct & (radius >= r))


@pytest.mark.slow
def test_a_plot_shows_the_gap(runs, tmp_path):
    out = tmp_path / "gap.svg"
    qcrs_jax("plot", "golden.tsv", "attacks.tsv", "frozen.tsv", "--out", out, cwd=runs)
    plain = tmp_path / "plain.svg"
    qcrs_jax("plot", "golden.tsv", "--out", plain, cwd=runs)
    assert "attacked by frozen" in out.read_text() and "attacked" not in plain.read_text()


@pytest.mark.slow
def test_verify_makes_the_attack_again(runs):
    for name in ("attacks", "frozen"):
        text = qcrs_jax("verify", f"{name}.tsv", "--recount", "all", cwd=runs).stdout
        assert text.count("drawn again: the same") == 3
        assert "golden.tsv were not drawn again" in text and "consistent" in text
    assert "nothing was opened" in qcrs_jax("verify", "attacks.tsv", "--recount", 0, cwd=runs).stdout


CHANGES = {
    "predict": lambda row: row | {"predict": "3"},
    "radius": lambda row: row | {"radius": "0.001"},
    "distance": lambda row: row | {"distance": "5.5"},
    "answer": lambda row: row | {"answer": str((int(row["answer"]) + 1) % 10)},
    "answer_sigma": lambda row: row | {"answer_sigma": "0.4"},
    "counts": lambda row: row | {"counts": ",".join(["30"] * 10)},
    "checks": lambda row: row | {"checks": "99"},
    "failed": lambda row: row | {"failed": "7.0"},
    "image_sha256": lambda row: row | {"image_sha256": ""},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANGES)
def test_verify_finds_a_changed_field(copy, name):
    """By the line itself where that is possible; also without the hash of the file, by the attack made again."""
    header, *lines = (copy / "attacks.tsv").read_text().splitlines()
    rows = [dict(zip(header.split("\t"), line.split("\t"))) for line in lines]
    place = next(i for i, row in enumerate(rows) if row["distance"])
    rows[place] = CHANGES[name](rows[place])
    (copy / "attacks.tsv").write_text("\n".join([header, *("\t".join(row.values()) for row in rows)]) + "\n")
    recount = "all" if name == "distance" else 0
    text = refused("verify", "attacks.tsv", "--recount", recount, cwd=copy)
    wrong = [
        line for line in text.splitlines() if "its hash differs" not in line and ("image" in line or "line 2" in line)
    ]
    assert wrong, text


@pytest.mark.slow
def test_verify_compares_the_request_with_the_run(copy):
    def change(content):
        content["request"]["attack"]["method"] = "frozen"

    edited(copy / "attacks.tsv.json", change)
    assert "search" in refused("verify", "attacks.tsv", "--recount", 0, cwd=copy)
    edited(copy / "frozen.tsv.json", lambda content: content["request"]["attack"].update(rule_n=400))
    assert "rule_n" in refused("verify", "frozen.tsv", "--recount", 0, cwd=copy)
    huge = {"attempts": 1000, "restarts": 1000, "steps": 2**20}
    edited(copy / "frozen.tsv.json", lambda content: content["request"]["attack"].update(huge))
    assert "not drawn again" in refused("verify", "frozen.tsv", "--recount", 1, cwd=copy)


@pytest.mark.slow
def test_a_file_of_attacks_needs_the_run_that_it_attacked(copy):
    assert "give that file beside it" in refused("table", "attacks.tsv", cwd=copy)
    assert "give that file beside it" in refused("plot", "cohen.tsv", "attacks.tsv", "--out", "p.png", cwd=copy)
    shutil.copy(copy / "attacks.tsv", copy / "twice.tsv")
    shutil.copy(copy / "attacks.tsv.json", copy / "twice.tsv.json")
    words = ["golden.tsv", "attacks.tsv", "twice.tsv"]
    assert "give one of them" in refused("table", *words, cwd=copy)
    for flags in (["--classes"], ["--per_image", "--format", "csv"]):
        assert "leave them out" in refused("table", "golden.tsv", "attacks.tsv", *flags, cwd=copy)
    (copy / "golden.tsv").write_text((copy / "golden.tsv").read_text().replace("\t0.", "\t0.0", 1))
    assert "its hash differs" in refused("verify", "attacks.tsv", "--recount", 0, cwd=copy)
    (copy / "golden.tsv").unlink()
    assert "put it in the same folder" in refused("verify", "attacks.tsv", "--recount", 0, cwd=copy)


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        "compare golden.tsv attacks.tsv",
        "report attacks.tsv --out r.html",
        "rebound attacks.tsv --bound classes --out b.tsv",
        "attack attacks.tsv b.tsv",
        "quasiconcavity attacks.tsv",
    ],
    ids=lambda words: words.split()[0],
)
def test_other_commands_refuse_a_file_of_attacks(copy, words):
    text = refused(*words.split(), cwd=copy)
    assert "holds attacks, not results" in text or words.startswith("quasi")
    with pytest.raises(RecordsError, match="holds attacks"):
        read_run(copy / "attacks.tsv")
    (copy / "attacks.tsv.json").unlink()  # by its columns alone
    with pytest.raises(RecordsError, match="holds attacks"):
        read_run(copy / "attacks.tsv")


@pytest.mark.slow
def test_runs_that_cannot_be_attacked_are_refused(copy):
    def said(name, *words):
        return refused("attack", name, "out.tsv", *words, cwd=copy)

    whole = (copy / "golden.tsv.json").read_text()
    for words, change in {
        "soft certificates": lambda request: request["estimate"].update(name="soft"),
        "radii of L1": lambda request: request.update(smoothing={"name": "uniform", "norm": "L1"}),
        "made by `qcrs-jax memory`": lambda request: request.update(stored_balls={}),
        "has no sidecar that records": lambda request: request.update(kind="predictions"),
        "cannot be attacked": lambda request: request["search"].update(name="another"),
    }.items():
        edited(copy / "golden.tsv.json", lambda content, change=change: change(content["request"]))
        assert words in said("golden.tsv")
        (copy / "golden.tsv.json").write_text(whole)
    assert "has one sigma for all images" in said("cohen.tsv", "--method", "frozen")
    assert "--n" in said("cohen.tsv", "--n", 10) and "--attempts" in said("cohen.tsv", "--n", 10)
    assert "--alpha" in said("cohen.tsv", "--alpha", 2)
    assert "--steps" in said("cohen.tsv", "--steps", 0) and "--inside" in said("cohen.tsv", "--inside", 1)
    (copy / "log.tsv").write_text("idx\tlabel\tpredict\tradius\tcorrect\ttime\n0\t0\t0\t0.5\t1\t1.5\n")
    assert "has no sidecar" in said("log.tsv")
    assert "is the file that is attacked" in refused("attack", "cohen.tsv", "cohen.tsv", cwd=copy)
    (copy / "cohen.tsv").write_text((copy / "cohen.tsv").read_text() + "\n")
    assert "its hash differs" in said("cohen.tsv")
    gone = ("left_out", "sha256", "pixels_sha256", "sidecar_sha256")
    edited(copy / "golden.tsv.json", lambda content: [content.pop(name) for name in gone])
    assert "is not finished" in said("golden.tsv")
    assert not (copy / "out.tsv").exists()


@pytest.mark.slow
def test_another_network_or_other_pixels_are_refused(copy):
    words = ["attack", "golden.tsv", "out.tsv", *SMALL]
    other = "zoo:fashion_mnist-lenet-macer-sigma0.25"
    assert "of another classifier or data set" in refused(*words, "--checkpoint", other, cwd=copy)
    edited(copy / "golden.tsv.json", lambda content: content.update(pixels_sha256=64 * "0"))
    assert "the pixels of its images have changed" in refused(*words, cwd=copy)
    edited(copy / "golden.tsv.json", lambda content: content["provenance"]["settings"]["data"].update(data_dir="/"))
    text = refused(*words, cwd=copy)
    assert "--data_dir, or --trust_paths" in text and "--recount" not in text
    assert not (copy / "out.tsv").exists()
