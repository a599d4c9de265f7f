"""`qcrs-jax certify` as a user runs it: searches, seeds, shards, resuming, refusals."""

import json
import re

import numpy as np
import pytest
from format_1 import as_format_1
from kill_runs import cut, lines
from program import METHODS, SMALL, assert_certificates, qcrs_jax, refused

from qcrs_jax.results.records import read_run
from qcrs_jax.results.sidecar import present


@pytest.mark.slow_for("bisection", "shrinking", "grid", "bayesian")
@pytest.mark.parametrize("name", ["cohen", "golden", "bisection", "shrinking", "grid", "bayesian", "ddrs"])
def test_certify(by, name):
    path = by(name)
    header = path.read_text().split("\n")[0].split("\t")
    assert header[:8] == "idx label predict radius correct best_sigma pABar time".split()
    run = read_run(path)
    assert [(r.idx, r.label) for r in run.records] == [(0, 4), (1, 1), (2, 4)]
    assert_certificates(path)
    assert any(r.radius > 0 for r in run.records)
    for record in run.records:
        assert sum(record.counts0) == 20
        if name == "cohen":
            assert record.sigma == 0.25 and record.search_samples == 0
        else:
            reach = 4.001 if name == "bayesian" else 1
            assert record.sigma == 0.25 or 0.25 / 4 / reach <= record.sigma <= 3.5 * 0.25 * reach + 1e-6
            assert record.search_samples == 40 if name == "ddrs" else record.search_samples % 50 == 0
            assert record.search_samples > 0
    if name != "cohen":
        assert len({r.sigma for r in run.records}) > 1 and run.input_specific
    if name == "ddrs":
        assert run.request["search"]["method"] == "ddrs" and run.request["search"]["draws"] == 10
        text = path.with_suffix(".out").read_text()
        assert "DDRS, sigma 0.25 (ddrs.tsv)" in text and "Samples of DDRS's search are differentiated" in text
    elif name != "cohen":
        assert run.request["search"]["name"] == name
    if name == "bayesian":
        above = sum(r.sigma > 3.5 * 0.25 + 1e-6 for r in run.records)
        assert f"above it for {above} of 3 images" in path.with_suffix(".out").read_text()


def test_certify_ends_with_the_table(certified):
    acr = np.mean([r.correct * r.radius for r in read_run(certified / "golden.tsv").records])
    text = (certified / "golden.out").read_text()
    assert f"{acr:.4f}" in text and "QCRS golden, sigma 0.25 (golden.tsv)" in text


def test_the_same_seed_gives_the_same_file_and_another_another(certified):
    flags = [*SMALL, "--method", "cohen", "--max", 3]
    qcrs_jax("certify", "lenet.pth", "same.tsv", *flags, cwd=certified)
    assert lines(certified / "same.tsv") == lines(certified / "cohen.tsv")
    qcrs_jax("certify", "lenet.pth", "other.tsv", *flags, "--seed", 1, cwd=certified)
    ours, theirs = (read_run(certified / f"{name}.tsv").records for name in ("cohen", "other"))
    assert [r.counts for r in ours] != [r.counts for r in theirs]


@pytest.mark.slow
def test_another_batch_size_gives_the_same_counts(certified):
    for size, name in ((7, "batch"), ("auto", "auto")):
        flags = [*SMALL, "--method", "cohen", "--max", 3, "--batch", size]
        done = qcrs_jax("certify", "lenet.pth", f"{name}.tsv", *flags, cwd=certified)
        ours, theirs = (read_run(certified / f"{file}.tsv").records for file in ("cohen", name))
        for a, b in zip(ours, theirs, strict=True):
            # A sample whose two best logits tie within rounding may fall to either side.
            assert np.abs(np.subtract(a.counts, b.counts)).sum() <= 2
            assert np.abs(np.subtract(a.counts0, b.counts0)).sum() <= 2
    chosen = re.search(r"--batch_size auto: (\d+); samples a second: .* at \1\b", done.stdout)[1]
    assert json.loads((certified / "auto.tsv.json").read_text())["provenance"]["batch"] == int(chosen)


def test_images_have_noise_of_their_own(certified):
    # The same image at three places: only the noise tells them apart.
    x = np.load(certified / "data.npz")["x"]
    np.savez(certified / "same.npz", x=x[[0, 0, 0]], y=[4, 4, 4], class_names=[str(i) for i in range(10)])
    flags = [*SMALL, "--method", "cohen", "--data_dir", "same.npz", "--N", 400]
    qcrs_jax("certify", "lenet.pth", "noise.tsv", *flags, cwd=certified)
    assert len({r.counts for r in read_run(certified / "noise.tsv").records}) > 1


def test_skip_and_max(here):
    flags = [*SMALL, "--method", "cohen", "--skip", 2, "--max", 4]
    qcrs_jax("certify", "lenet.pth", "r.tsv", *flags, cwd=here)
    assert [r.idx for r in read_run(here / "r.tsv").records] == [0, 2]
    # An image's result does not depend on which others are certified.
    qcrs_jax("certify", "lenet.pth", "one.tsv", *SMALL, "--method", "cohen", "--skip", 2, "--max", 1, cwd=here)
    assert lines(here / "one.tsv") == lines(here / "r.tsv")[:2]


@pytest.mark.slow
def test_images_in_step_and_shards_are_the_run_of_one_image_at_a_time(certified):
    flags = [*SMALL, "--search", "golden", "--max", 3]
    qcrs_jax("certify", "lenet.pth", "step.tsv", *flags, "--images", 2, "--devices", 3, cwd=certified)
    assert lines(certified / "step.tsv") == lines(certified / "golden.tsv")
    assert read_run(certified / "step.tsv").sidecar["provenance"]["images"] == 2
    for i in (1, 2):
        done = qcrs_jax("certify", "lenet.pth", f"part{i}.tsv", *flags, "--shard", f"{i}/2", cwd=certified)
        assert f"{3 - i} of 6 images" in done.stdout and f"shard {i}/2" in done.stdout
    table = qcrs_jax("table", "golden.tsv", "part1.tsv", "part2.tsv", cwd=certified).stdout
    ours, theirs = (next(line for line in table.splitlines() if name in line) for name in ("golden.tsv", "part*.tsv"))
    assert ours.split(")")[1].split()[:-1] == theirs.split(")")[1].split()[:-1]
    assert "part1.tsv: of the 2 shards of this run, number 2 is missing" in refused("table", "part1.tsv", cwd=certified)
    cut(certified / "step.tsv", (certified / "step.tsv").read_text().replace("\n2\t", "\n77\t"))
    message = refused("certify", "lenet.pth", "step.tsv", *flags, cwd=certified)
    assert "step.tsv: its line of image 77" in message and "delete it" in message


def test_a_changed_configuration_is_refused_and_changes_nothing(certified):
    before = (certified / "cohen.tsv").read_bytes()
    for flags, named in (
        (["--N", 201], "--N: 200 in the file, 201 now"),
        (["--seed", 1], "seed: 0 in the file, 1 now"),
        (["--sigma", 0.5], "sigma: 0.25 in the file, 0.5 now"),
        (["--normalization", "0.5/0.5"], "classifier"),
        (["--dtype", "bfloat16"], "dtype: 'float32' in the file, 'bfloat16' now"),
        (["--prng", "rbg"], "noise: "),
    ):
        words = [*SMALL, "--method", "cohen", "--max", 3, *flags]
        assert named in refused("certify", "lenet.pth", "cohen.tsv", *words, cwd=certified)
    assert (certified / "cohen.tsv").read_bytes() == before


def test_a_file_of_another_program_is_not_appended_to(here):
    (here / "r.tsv").write_text("idx\tlabel\tpredict\tradius\tcorrect\ttime\n")
    assert "sidecar" in refused("certify", "lenet.pth", "r.tsv", *SMALL, cwd=here)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--alpha", "0"], "alpha"),
        (["--alpha", "1"], "alpha"),
        (["--left", "0.9", "--right", "0.9"], "0.9"),
        (["--left", "0.9", "--right", "0.1"], "0.9 and 0.1"),
        (["--left", "-0.1"], "-0.1"),
        (["--sigma", "0"], "sigma"),
        (["--sigma", "-0.25"], "sigma"),
        (["--sigma", "nan"], "sigma"),
        (["--N", "9"], "smallest n that could is 10"),
        (["--gradient_n", "9", "--objective", "lcb"], "is 10"),
        (["--gradient_n", "0"], "--gradient_n must be at least 1"),
        (["--search", "bayesian", "--evaluations", "1"], "--evaluations must be at least 2"),
        (["--N0", "0"], "--N0 = 0"),
        (["--N", "3000000000"], "at most 1073741824"),
        (["--epsilon", "0"], "positive"),
        (["--search", "bisection", "--epsilon_step", "0"], "--epsilon_step must be"),
        (["--skip", "0"], "--skip"),
        (["--batch", "0"], "--batch"),
        (["--seed", "-1"], "--seed"),
        (["--macer", "--normalization", "cifar10"], "--macer"),
        (["--search", "newton"], "newton"),
        (["--tolerance", "150%"], "tolerance is a share of the radius and must lie in (0, 1), not 1.5"),
        (["--tolerance", "1%", "--certificate", "soft"], "--certificate soft are different ways to certify"),
        (["--budget", "500", "--tolerance", "1%"], "--budget decides an image's samples"),
        (["--budget", "5"], "The smallest n that could is 10"),
        (["--stop_when_wrong", "--certificate", "soft"], "does not stop where the class is wrong"),
        (["--decide", "1", "--precision", "5%"], "not both"),
        (["--look_every", "10"], "give one"),
        (["--beta", "4"], "--certificate soft"),
        (["--certificate", "soft", "--N", "39"], "smallest n that could is 40"),
        (["--certificate", "soft", "--batch", "40000"], "--batch 40000"),
        (["--method", "ddrs", "--ddrs_steps", "0"], "--ddrs_steps must be at least 1 and"),
        (["--method", "ddrs", "--ddrs_draws", "0"], "--ddrs_draws must be"),
        (["--method", "ddrs", "--ddrs_step_size", "-1"], "--ddrs_step_size must be"),
        (["--method", "ddrs", "--ddrs_start", "5"], "--ddrs_start must lie between --sigma_lower"),
        (["--method", "ddrs", "--ddrs_clamp", "0.5"], "--ddrs_clamp must be"),
        (["--method", "ddrs", "--left", "0"], "--left"),
        (["--method", "ddrs", "--ddrs_preset", "best"], "best"),
    ],
)
def test_impossible_numbers_are_refused_before_the_checkpoint_is_read(tmp_path, flags, message):
    # Neither the checkpoint nor the data exist: a message about them would come too early.
    words = ["certify", "no.pth", "new/r.tsv", *SMALL, *flags]
    text = refused(*words, cwd=tmp_path)
    assert message in text and "no.pth" not in text
    assert not (tmp_path / "new").exists()


def test_a_results_file_that_cannot_be_written(here):
    (here / "file").write_text("not a folder")
    assert "file" in refused("certify", "lenet.pth", "file/r.tsv", *SMALL, "--max", 1, cwd=here)


@pytest.mark.slow_for("bayesian")
@pytest.mark.parametrize("name", ["cohen", "golden", "bayesian", "ddrs"])
def test_a_run_of_format_1_continues_and_is_finished_in_format_2(by, name):
    new = by(name)
    old = new.with_name(f"old_{name}.tsv")
    old.write_bytes(new.read_bytes())
    content = json.loads(new.with_name(f"{name}.tsv.json").read_text())
    before = as_format_1(content)
    sidecar = old.with_name(f"{old.name}.json")
    sidecar.write_text(json.dumps(before))
    assert present(before)["request"] == content["request"] and "format" not in before
    words = ["certify", "lenet.pth", old.name, *SMALL, *METHODS[name]]
    assert "3 of 3 images are done" in qcrs_jax(*words, "--max", 3, cwd=new.parent).stdout
    finished = json.loads(sidecar.read_text())
    assert finished["format"] == 2 and finished["request"] == content["request"]
    assert "alpha" in refused(*words, "--max", 3, "--alpha", 0.1, cwd=new.parent)


def test_another_ascent_is_another_configuration(by):
    words = [*SMALL, *"--method ddrs --ddrs_steps 5 --ddrs_draws 10 --ddrs_step_size 0.1 --max 3".split()]
    assert "--ddrs_steps (search.steps): 4 in the file, 5 now" in refused(
        "certify", "lenet.pth", "ddrs.tsv", *words, cwd=by("ddrs").parent
    )
