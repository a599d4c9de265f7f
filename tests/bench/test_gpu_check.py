"""The GPU check, with tiny numbers on a CPU: every part ends, and its files are whole."""

import dataclasses
import json
import os
import subprocess
import sys
import tarfile
import time

import numpy as np
import pytest
from PIL import Image
from places import ROOT

from qcrs_jax.experiments.bench import gpu_check, parts, reference
from qcrs_jax.experiments.bench.report import Report
from qcrs_jax.experiments.bench.sides import Clock


@pytest.mark.slow
def test_every_part_runs_from_a_checkout(tmp_path):
    command = [sys.executable, "-m", "qcrs_jax.experiments.bench.gpu_check"]
    command += ["--out", str(tmp_path), "--quick", "--minutes", "30"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    page, numbers = (tmp_path / "tables.md").read_text(), json.loads((tmp_path / "numbers.json").read_text())
    assert done.returncode == 0, done.stdout + done.stderr + page + (tmp_path / "log.txt").read_text()
    assert {name: part["status"] for name, part in numbers["parts"].items()} == dict.fromkeys(parts.parts(), "passed")
    assert page.startswith("cpu") and "jax " in page.splitlines()[0] and "Traceback" not in page
    for name in parts.parts():
        assert f"## {name}\n" in page and numbers["parts"][name]["texts"]
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "log.txt",
        "numbers.json",
        "results.tar.gz",
        "tables.md",
    ]
    with tarfile.open(tmp_path / "results.tar.gz") as archive:
        assert {"table/cohen.tsv", "table/bisection.tsv"} <= set(archive.getnames())
    sides = numbers["parts"]["benchmark"]["numbers"]["cifar_resnet8"]["sides"]
    assert len(sides) == 3 and all(side["best"] and side["rates"] for side in sides)


def test_parts_that_are_chosen_have_all_of_the_time():
    ends = gpu_check.ends_of(list(parts.parts()), 0.0, 100.0)
    assert list(ends.values()) == sorted(ends.values()) and ends["again"] == pytest.approx(100)
    shares = {name: share for name, (_, share) in parts.parts().items()}
    assert ends == pytest.approx({name: 100 * share for name, share in shares.items()})
    alone = gpu_check.ends_of(["counts", "again"], 0.0, 100.0)
    own, others = shares["counts"] - shares["exact classifier"], shares["again"] - shares["memory"]
    assert alone == pytest.approx({"counts": 100 * own / (own + others), "again": 100})


def arguments(tmp_path, *names):
    return gpu_check.Check(tmp_path, 9.0, None, list(names), None, None, quick=True, count=500)


def test_a_part_that_fails_does_not_stop_the_next(tmp_path, monkeypatch):
    def fails(part):
        part.say("half of it")
        raise KeyError("lost")

    def differs(part):
        part.expect(1 + 1 == 2, "sums")
        part.expect(False, "products differ")

    made = {"counts": (fails, 0.3), "searches": (differs, 0.6), "again": (lambda part: part.say("fine"), 1.0)}
    monkeypatch.setattr(gpu_check, "parts", lambda: made)
    monkeypatch.delenv("QCRS_CHECK_PARTS", raising=False)
    now = time.time()
    gpu_check.run_parts(arguments(tmp_path, *made), now, now + 60, tmp_path)
    state = Report(tmp_path).state
    assert [part["status"] for part in state["parts"].values()] == ["failed", "found 1 differences", "passed"]
    page = (tmp_path / "tables.md").read_text()
    assert "half of it" in page and "KeyError: 'lost'" in page and "- **products differ**" in page and "fine" in page
    assert state["running"] is None


def test_options_of_the_benchmark_reach_it(tmp_path, monkeypatch):
    seen = []
    monkeypatch.setattr(gpu_check, "parts", lambda: {"benchmark": (seen.append, 1.0)})
    monkeypatch.delenv("QCRS_CHECK_PARTS", raising=False)
    args, now = arguments(tmp_path, "benchmark"), time.time()
    args = dataclasses.replace(args, networks=["resnet50"], tries=["joined=none,4x2", "unrolled=no"])
    gpu_check.run_parts(args, now, now + 60, tmp_path)
    assert seen[0].networks == ["resnet50"] and seen[0].axes == {"joined": ((), (4, 2)), "unrolled": (False,)}
    with pytest.raises(SystemExit) as error:
        gpu_check.main(["--out", str(tmp_path), "--try", "joined=many"])
    assert error.value.code == 2


def test_a_part_that_hangs_is_stopped(tmp_path):
    report = Report(tmp_path)
    gpu_check.begin(report, "counts")
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    now = time.time()
    assert gpu_check._wait(child, tmp_path, {"counts": now - 100}, now + 600, 0.1).startswith("stopped")
    assert child.returncode == -9


@pytest.mark.parametrize("dies", [True, False])
def test_a_new_process_continues_after_one_that_dies(tmp_path, monkeypatch, dies):
    """The processes are made up: the first dies in its first part, or before it; the second ends what is left."""
    started = []

    def start(args, waiting, names, began, ends, scratch):
        started.append(list(waiting))
        report = Report(args.out)
        if len(started) == 1:
            if dies:
                gpu_check.begin(report, waiting[0])
            return subprocess.Popen([sys.executable, "-c", "raise SystemExit(7)"])
        for name in waiting:
            report.part(name)["status"] = "passed"
        report.write()
        return subprocess.Popen([sys.executable, "-c", ""])

    monkeypatch.setattr(gpu_check, "_start", start)
    status = gpu_check.main(["--out", str(tmp_path), "--parts", "counts", "again", "--minutes", "1"])
    found = {name: part["status"] for name, part in Report(tmp_path).state["parts"].items()}
    assert status == 1
    if dies:
        assert started == [["counts", "again"], ["again"]] and found["again"] == "passed"
        assert found["counts"].startswith("died with exit status 7")
    else:
        assert len(started) == 1 and all(status.startswith("did not start") for status in found.values())


def test_images_are_packed_spread_over_the_classes(tmp_path):
    rng = np.random.default_rng(0)
    for name, count in (("ape", 5), ("bee", 3), ("cat", 8)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(count):
            pixels = rng.integers(0, 256, (8, 8, 3), np.uint8)
            pixels[0, 0] = i
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{i}.png")
    file = tmp_path / "packed.npz"
    assert gpu_check.main(["--pack-images", str(tmp_path / "images"), str(file), "--count", "7"]) == 0
    with np.load(file) as packed:
        assert packed["class_names"].tolist() == ["ape", "bee", "cat"] and packed["x"].dtype == np.uint8
        assert packed["y"].tolist() == [0, 1, 2, 0, 1, 2, 0]
        assert packed["x"][:, 0, 0, 0].tolist() == [0, 0, 0, 1, 1, 2, 3]


def test_differences_are_judged_by_the_rule_for_near_ties():
    n = 10_000
    committed = np.array([[9900, 100], [9900, 100], [5000, 5000]])
    moved, within = parts.compared(committed + [[1, -1], [-400, 400], [0, 0]], committed, n)
    assert (moved, within) == ([1, 400, 0], 2)
    one = {"sigma": 0.25, "radius": 0.5, "counts0": [9, 1], "counts": [90, 10]}
    other = {"sigma": 0.25, "radius": 0.49, "counts0": [9, 1], "counts": [88, 12]}
    assert parts.differences([other], [one]) == (2, 0.0, pytest.approx(0.02))
    assert parts.differences([{**other, "sigma": 0.26}], [one])[0] == 0  # other copies


def test_the_committed_counts_are_of_every_setting():
    found = reference.read()
    assert set(found["searches"]) == set(reference.settings())
    for name in (reference.LENET, reference.RESNET):
        for n in reference.N.values():
            assert np.sum(found["networks"][name][str(n)], axis=1).tolist() == [n] * reference.IMAGES
    assert np.sum(found["exact"], axis=1).tolist() == [reference.EXACT_N] * 2
    assert Clock().left() == float("inf")
