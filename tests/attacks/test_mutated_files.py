"""Files damaged in thousands: each is refused in one message, or opens; none crashes, waits, or opens as another.

PyTorch's files have a suite of their own, in tests/convert/test_hostile_files.py.
"""

import contextlib
import copy
import io
import json
import random
import struct
import subprocess
import sys

import numpy as np
import pytest
from classifiers import at_distance, linear
from damage import EXTREMES, damage_bytes
from places import HELPERS

import qcrs_jax
from qcrs_jax import Fixed
from qcrs_jax.experiments import cli
from qcrs_jax.models import Classifier, Spec, build
from qcrs_jax.models.checkpoint import FILE, CheckpointError, restore_classifier, save_classifier
from qcrs_jax.results.records import RecordsError, checksum, read_run, sidecar_checksum

LINUX = pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")


@LINUX
def test_data_sets(tmp_path, counted):
    done = subprocess.run(
        [sys.executable, HELPERS / "mutate.py", str(tmp_path), "1500"], capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout[-1000:] + done.stderr[-3000:]
    for name, found in json.loads(done.stdout).items():
        told = f"refused {found['refused']}, opened equal {found['equal']}, as other data {found['other']}, crashed 0"
        counted(f"files mutated, {name}: {sum(found.values())}, {told}")
        assert found["refused"] > 100, name


def test_converted_classifiers(tmp_path, counted):
    spec = Spec("lenet", 10, (28, 28, 1), (0.0,), (1.0,))
    whole = Classifier(spec, build(spec, 0))
    save_classifier(whole, tmp_path / "net")
    file = tmp_path / "net" / FILE
    data, refused, equal, count = file.read_bytes(), 0, 0, 300
    head = 8 + struct.unpack("<Q", data[:8])[0]  # of which a random place in the whole file is hardly ever one
    for seed in range(count):
        rng = random.Random(seed)
        if seed % 2:
            file.write_bytes(damage_bytes(data, rng))
        else:
            file.write_bytes(damage_bytes(data[:head], rng) + data[head:])
        try:
            found = restore_classifier(tmp_path / "net")
        except CheckpointError as error:
            assert len(str(error)) < 1000
            refused += 1
            continue
        assert found.fingerprint() == whole.fingerprint() and found.spec == whole.spec
        equal += 1
    counted(f"files mutated, converted classifiers: {count}, refused {refused}, opened equal {equal}, crashed 0")
    assert refused > count / 2


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished run: its file, and the texts of both files."""
    path = tmp_path_factory.mktemp("made") / "r.tsv"
    images = [at_distance(d) for d in (0.1, 0.2, 0.3, -0.1)]
    data = np.stack(images), np.array([0, 0, 0, 1])
    qcrs_jax.run(linear, data, path, 0.25, n0=20, n=300, estimate=Fixed("randomised"))
    return path, path.read_bytes(), path.with_name("r.tsv.json").read_bytes()


@pytest.fixture
def run(made, tmp_path):
    path = tmp_path / "r.tsv"
    path.write_bytes(made[1])
    path.with_name("r.tsv.json").write_bytes(made[2])
    return path


def command(*words):
    """The exit status of a command, and what it said; whatever it raises is a crash."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        status = cli.main([*map(str, words)])
    assert len(said.getvalue()) < 20_000
    return status or 0, said.getvalue()


@pytest.mark.parametrize("ending", ["", ".json"])
def test_results_files_and_sidecars(made, run, ending, counted):
    file = run.with_name(f"{run.name}{ending}")
    data, whole = file.read_bytes(), read_run(run)
    counts = dict.fromkeys(("refused", "opened equal"), 0)
    for seed in range(400):
        file.write_bytes(damage_bytes(data, random.Random(seed)))
        status, said = command("verify", run, "--recount", 0)
        assert status in (0, 2) and ("error:" in said) == (status == 2)
        if status == 0:
            found = read_run(run)
            assert found.records == whole.records and found.sidecar == whole.sidecar
        counts["refused" if status else "opened equal"] += 1
        status, said = command("table", run, "--format", "csv")
        assert status in (0, 2) and (status == 0 or said.startswith("qcrs-jax: error: "))
    name = "sidecars" if ending else "results files"
    told = ", ".join(f"{key} {count}" for key, count in counts.items())
    counted(f"files mutated, {name}: {sum(counts.values())}, {told}, crashed 0")
    assert counts["refused"] > 300


ODD = (
    *EXTREMES,
    -1,
    0.5,
    1e308,
    -0.0,
    True,
    None,
    "",
    "x" * 300,
    "\x1b[2J",
    "../..",
    "/dev/zero",
    [],
    {},
    [[]],
    [0] * 50,
)


def places(value, path=()):
    """The ways to all values inside JSON."""
    yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, inner in inside:
        yield from places(inner, (*path, name))


def changed(content, rng):
    """A sidecar with some of its values odd, moved to another place, missing, or others' names."""
    content = copy.deepcopy(content)
    for _ in range(rng.randint(1, 3)):
        ways = [way for way in places(content) if way]
        way, other = rng.choice(ways), rng.choice(ways)
        inner = content
        for name in way[:-1]:
            inner = inner[name]
        value = content
        for name in other:
            value = value[name]
        match rng.randrange(4):
            case 0:
                del inner[way[-1]]
            case 1:
                inner[way[-1]] = copy.deepcopy(value)
            case _:
                inner[way[-1]] = rng.choice(ODD)
    return content


def test_sidecars_whose_sums_fit(made, run, counted):
    content, counts = json.loads(made[2]), {"refused": 0, "consistent": 0}
    for seed in range(500):
        forged = changed(content, random.Random(seed))
        if isinstance(forged, dict) and "sidecar_sha256" in forged:
            forged["sha256"] = checksum(run)
            forged["sidecar_sha256"] = sidecar_checksum(forged)
        run.with_name("r.tsv.json").write_text(json.dumps(forged))
        status, said = command("verify", run, "--recount", 0)
        assert status in (0, 2) and "\x1b" not in said and "verified" not in said, said
        counts["refused" if status else "consistent"] += 1
        for words in (["table", run], ["table", run, "--format", "csv"], ["verify", run, "--recount", 1]):
            status, said = command(*words)
            assert status in (0, 2) and "\x1b" not in said
    told = ", ".join(f"{key} {count}" for key, count in counts.items())
    counted(f"files mutated, sidecars with sums that fit: {sum(counts.values())}, {told}, crashed 0")


def test_logs_of_other_programs(tmp_path, counted):
    path, counts = tmp_path / "log.tsv", {"refused": 0, "opened": 0}
    lines = ["idx\tlabel\tpredict\tradius\tcorrect\ttime", "0\t3\t3\t0.2\t1\t0:00:01.5", "20\t8\t-1\t0.0\t0\t0:00:01.5"]
    data = ("\n".join(lines) + "\n").encode()
    for seed in range(3000):
        path.write_bytes(damage_bytes(data, random.Random(seed)))
        try:
            read_run(path)
            counts["opened"] += 1
        except RecordsError as error:
            assert len(str(error)) < 2000
            counts["refused"] += 1
    counted(
        f"files mutated, logs without sums: 3000, refused {counts['refused']}, opened {counts['opened']}, crashed 0"
    )
