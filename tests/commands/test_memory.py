"""`qcrs-jax memory` as a user runs it."""

import hashlib

import numpy as np
import pytest
from program import COHEN_FORMAT, SMALL, qcrs_jax, refused, unwrapped

from qcrs_jax.results.records import read_run

DATA = ["--dataset", "npz", "--data_dir", "data.npz"]


def test_memory_trims_a_run_and_leaves_it_as_it_is(crowded):
    before = (crowded / "run.tsv").read_bytes()
    text = qcrs_jax("memory", "run.tsv", *DATA, "--out", "new/memory.tsv", cwd=crowded).stdout
    assert "of 6 images 1 took the class of an earlier ball, 2 others were trimmed" in text
    assert "Memory-based: inside a ball that it has stored" in unwrapped(text)
    run = read_run(crowded / "new/memory.tsv")
    assert [r.predict for r in run.records] == [0, 0, 1, 0, -1, 0]
    np.testing.assert_allclose([r.radius for r in run.records], [0.3, 0.1, 0.1, 0.1, 0, 0.05], rtol=1e-6)
    assert [r.correct for r in run.records] == [True, False, True, True, False, True]
    assert run.records[0].seconds == 1.5 and run.records[0].counts is None and run.records[0].sigma is None
    source = run.request["stored_balls"]
    assert (source["source"], source["source_sha256"]) == ("run.tsv", hashlib.sha256(before).hexdigest())
    assert (crowded / "run.tsv").read_bytes() == before
    text = qcrs_jax("table", "run.tsv", "new/memory.tsv", cwd=crowded).stdout
    assert "memory-based (memory.tsv)" in text and "different sets" not in text
    qcrs_jax("plot", "run.tsv", "new/memory.tsv", "--out", "p.svg", cwd=crowded)


@pytest.mark.slow
def test_memory_keeps_all_that_a_run_of_ours_has(by, certified):
    before = read_run(by("ddrs"))
    text = qcrs_jax("memory", "ddrs.tsv", *DATA, "--out", "ddrs_memory.tsv", cwd=certified).stdout
    after = read_run(certified / "ddrs_memory.tsv")
    assert after.records == before.records  # random images are far apart
    assert {k: v for k, v in after.request.items() if k != "stored_balls"} == before.request
    assert "DDRS, sigma 0.25, memory-based (ddrs_memory.tsv)" in text
    assert after.sidecar["provenance"]["devices"] == before.sidecar["provenance"]["devices"]
    # It is no run of certify to go on with, and none to replace.
    words = [*SMALL, *"--method ddrs --ddrs_steps 4 --ddrs_draws 10 --ddrs_step_size 0.1 --max 3".split()]
    assert "memory" in refused("certify", "lenet.pth", "ddrs_memory.tsv", *words, cwd=certified)
    content = (certified / "ddrs_memory.tsv").read_bytes()
    for out in ("ddrs_memory.tsv", "ddrs.tsv"):
        assert "exists" in refused("memory", "golden.tsv", *DATA, "--out", out, cwd=certified)
    assert (certified / "ddrs_memory.tsv").read_bytes() == content
    again = refused("memory", "ddrs_memory.tsv", *DATA, "--out", "again.tsv", cwd=certified)
    assert "is already memory-based" in again and not (certified / "again.tsv").exists()


@pytest.mark.slow
def test_memory_refuses_another_data_set(crowded, certified):
    message = refused(
        "memory", "run.tsv", "--dataset", "npz", "--data_dir", certified / "data.npz", "--out", "m.tsv", cwd=crowded
    )
    assert "image 0 has label 0" in message and "label 4" in message
    message = refused("memory", certified / "cohen.tsv", *DATA, "--out", "m.tsv", cwd=crowded)
    assert "cohen.tsv: was made from another data set" in message
    (crowded / "predictions.tsv").write_text("idx\tlabel\tpredict\tcorrect\ttime\n0\t0\t0\t1\t1.5\n")
    assert "have no radii" in refused("memory", "predictions.tsv", *DATA, "--out", "m.tsv", cwd=crowded)
    (crowded / "long.tsv").write_text(COHEN_FORMAT.format("6\t0\t0\t0.1\t1\t1.5\n"))
    assert "there is none" in refused("memory", "long.tsv", *DATA, "--out", "m.tsv", cwd=crowded)
    (crowded / "empty.tsv").write_text(COHEN_FORMAT.format(""))
    assert "holds no results yet" in refused("memory", "empty.tsv", *DATA, "--out", "m.tsv", cwd=crowded)
    assert not list(crowded.glob("m.tsv*"))
