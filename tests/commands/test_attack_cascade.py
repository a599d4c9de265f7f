"""`qcrs-jax attack` on a run of a cascade."""

import json

import pytest
from program import qcrs_jax, refused

from qcrs_jax.experiments.commands import demo
from qcrs_jax.results.attacks import read_attack_records
from qcrs_jax.results.records import read_run

DATA = f"--dataset npz --data_dir {demo.IMAGES} --skip 125 --max 126 --n0 30 --n 300 --seed 0".split()
CHECKPOINT = "zoo:fashion_mnist-lenet-sigma0.25"
SMALL = "--attempts 3 --restarts 1 --steps 4 --draws 16 --seed 1".split()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("attacked")
    qcrs_jax("certify", CHECKPOINT, "a.tsv", *DATA, "--method", "cascade", "--sigmas", "0.3,0.15", cwd=folder)
    qcrs_jax("attack", "a.tsv", "attacks.tsv", *SMALL, cwd=folder)
    return folder


@pytest.mark.slow
def test_inside_the_radius_it_fails_and_the_file_is_verified(folder):
    certified, records = read_run(folder / "a.tsv").records, read_attack_records(folder / "attacks.tsv")
    assert any(record.distance for record in records)
    for ours, theirs in zip(records, certified, strict=True):
        if ours.distance is not None:
            assert theirs.radius < ours.distance and ours.answer != ours.label
            assert len(ours.counts) == 2 * 2 * 10
    request = json.loads((folder / "attacks.tsv.json").read_text())["request"]
    assert request["attack"]["method"] == "cascade" and request["search"]["sigmas"] == [0.3, 0.15]
    said = qcrs_jax("verify", "attacks.tsv", "--recount", "1", cwd=folder).stdout
    assert "drawn again: the same" in said or "ended at the same image" in said
    text = qcrs_jax("table", "a.tsv", "attacks.tsv", cwd=folder).stdout
    assert "cascade 0.3, 0.15" in text


@pytest.mark.slow
def test_verify_finds_an_answer_that_does_not_follow_from_the_counts(folder):
    lines = [line.split("\t") for line in (folder / "attacks.tsv").read_text().splitlines()]
    row = next(line for line in lines[1:] if line[lines[0].index("counts")])
    place = lines[0].index("counts")
    row[place] = ",".join(reversed(row[place].split(",")))
    (folder / "b.tsv").write_text("".join("\t".join(line) + "\n" for line in lines))
    (folder / "b.tsv.json").write_text((folder / "attacks.tsv.json").read_text())
    assert f"image {row[0]}: " in refused("verify", "b.tsv", "--recount", "0", cwd=folder)


@pytest.mark.slow
def test_a_run_is_attacked_by_the_method_that_its_certificates_are_about(folder):
    words = ["attack", "a.tsv", "x.tsv", *SMALL, "--method"]
    assert "attack it with --method cascade" in refused(*words, "cohen", cwd=folder)
    assert "attack it with --method cascade" in refused(*words, "frozen", cwd=folder)
    qcrs_jax("certify", CHECKPOINT, "cohen.tsv", *DATA, "--method", "cohen", "--sigma", "0.25", cwd=folder)
    words[1] = "cohen.tsv"
    assert "no run of a cascade" in refused(*words, "cascade", cwd=folder)
