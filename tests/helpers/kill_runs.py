"""Kills processes that write results, at random moments, and checks that nothing is lost, doubled or torn.

    python tests/helpers/kill_runs.py writer 120     a process that only writes lines, one after another
    python tests/helpers/kill_runs.py files 100      processes that write whole files, again and again
    python tests/helpers/kill_runs.py classifier 20  processes that replace a converted classifier, again and again
    python tests/helpers/kill_runs.py run 100        `qcrs-jax certify`, on images of the package; some minutes

Finished work is compared with that of an uninterrupted process, and then started again.
"""

import argparse
import itertools
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from places import ROOT
from requests_made import certificates

from qcrs_jax.files import is_partial, write_text
from qcrs_jax.results.records import Record, read_run, sidecar_path
from qcrs_jax.results.writer import Writer, write_run

REQUEST = certificates() | {"n": 100, "n0": 10}
RECORDS = [Record(i, 1, 1, 0.1 + i / 3, True, 0.25, 2 / 3, 0.0, 0, (0, 10), (1, 99)) for i in range(40)]


def cut(path: Path, text: str) -> None:
    """Leaves `text` in a results file, unfinished, as a run that was killed there would."""
    path.write_text(text)
    sidecar = sidecar_path(path)
    content = json.loads(sidecar.read_text())
    kept = {name: content[name] for name in ("format", "request", "provenance") if name in content}
    sidecar.write_text(json.dumps(kept))


def lines(path: Path) -> list[list[str]]:
    """The fields of each line of a results file, without the time. A torn last line has fewer."""
    rows = [line.split("\t") for line in path.read_text().splitlines()]
    column = rows[0].index("time")
    return [row[:column] + row[column + 1 :] for row in rows]


def check_broken(path: Path, whole: list[list[str]]) -> int:
    """The number of results in the file of a killed process. Each must be that of an uninterrupted process."""
    if not path.exists() or not path.read_bytes().count(b"\n"):
        return 0
    done = path.read_bytes().count(b"\n")
    assert lines(path)[:done] == whole[:done], f"{path}: is not a beginning of the file of an uninterrupted run"
    return done - 1


def write_slowly(path: Path) -> None:
    """Writes the missing lines of RECORDS, with pauses."""
    with Writer(path, REQUEST, {}) as writer:
        done = {record.idx for record in writer.done}
        for record in RECORDS:
            if record.idx not in done:
                writer.write(record)
                time.sleep(random.expovariate(1 / 0.0005))


def kill_writers(kills: int, folder: Path) -> None:
    """Kills `kills` processes of `write_slowly`; each continues where the last one ended."""
    write_slowly(folder / "whole.tsv")
    whole, path = lines(folder / "whole.tsv"), folder / "killed.tsv"
    killed = finished = before = 0
    while killed < kills:
        if (child := os.fork()) == 0:
            try:
                write_slowly(path)
                os._exit(0)
            finally:
                os._exit(1)
        time.sleep(random.uniform(0, 0.02))
        os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        if os.WIFSIGNALED(status):
            killed += 1
            done = check_broken(path, whole)
            assert done >= before, f"{before - done} results are lost"
            before = done
        else:
            assert os.WEXITSTATUS(status) == 0
            assert lines(path) == whole
            finished += 1
            before = 0
            path.unlink()
    write_slowly(path)
    assert lines(path) == whole
    assert [record.idx for record in read_run(path).records] == [record.idx for record in RECORDS]
    print(f"{killed} writers killed; {finished + 1} times the file was finished, and was that of an unbroken one")


def kill_while(kills: int, work, check) -> None:
    """Kills `kills` processes of `work`, a function without end, each after it has written to the pipe that it gets.

    check: function that is called after each kill.
    """
    for _ in range(kills):
        reads, writes = os.pipe()
        if (child := os.fork()) == 0:
            try:
                os.close(reads)
                work(writes)
            finally:
                os._exit(1)
        os.close(writes)
        assert os.read(reads, 1) == b".", "it ended before it was killed"
        time.sleep(random.uniform(0, 0.05))
        os.kill(child, signal.SIGKILL)
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
        os.close(reads)
        check()


def only_partial(folder: Path, *names: str) -> list[Path]:
    """The files in `folder` besides `names`. All of them have to be remains of interrupted writes."""
    others = [file for file in folder.iterdir() if file.name not in names]
    assert all(is_partial(file.name) for file in others), others
    return others


def kill_file_writers(kills: int, folder: Path) -> None:
    """Kills processes that replace a file, and others that write a whole run to a new one."""
    texts, left = ("a" * 3_000_000, "b" * 2_000_000), 0

    def replace(pipe):
        for turn in itertools.count():
            write_text(folder / "table.md", texts[turn % 2])
            os.write(pipe, b"." * (turn == 0))

    def check_text():
        nonlocal left
        assert (folder / "table.md").read_text() in texts, "the file is not whole"
        for file in only_partial(folder, "table.md"):
            left += 1
            file.unlink()

    kill_while(kills, replace, check_text)
    (folder / "table.md").unlink()

    def write_new(pipe):
        os.write(pipe, b".")
        for turn in itertools.count():
            write_run(folder / f"{os.getpid()}-{turn}.tsv", RECORDS, REQUEST, {})

    def check_runs():
        nonlocal left
        for file in folder.iterdir():
            if file.name.endswith(".tsv.json") and not file.with_suffix("").exists():
                write_run(file.with_suffix(""), RECORDS, REQUEST, {})  # the same command continues
                left += 1
            if is_partial(file.name):
                left += 1
                file.unlink()
        files = [file for file in folder.iterdir() if file.suffix == ".tsv"]
        for file in random.sample(files, min(5, len(files))):
            assert read_run(file).records == RECORDS
        for file in folder.iterdir():
            file.unlink()

    kill_while(kills, write_new, check_runs)
    print(f"{2 * kills} processes killed that wrote whole files: none was torn, {left} were cut off")


def kill_conversions(kills: int, folder: Path) -> None:
    """Kills processes that replace a classifier by another. Either the one or the other can then be opened, whole."""
    from safetensors.numpy import load_file

    from qcrs_jax.models import Classifier, Spec, build
    from qcrs_jax.models.checkpoint import FILE, save_classifier

    def weights(name):
        return {key: value.tobytes() for key, value in load_file(folder / name / FILE).items()}

    def save(pipe):
        spec = Spec("lenet", 10, (28, 28, 1), (0.0,), (1.0,))
        nets = [Classifier(spec, build(spec, seed)) for seed in (0, 1)]
        for net, name in zip(nets, ("one", "other")):
            save_classifier(net, folder / name, overwrite=True)
        for turn in itertools.count():
            save_classifier(nets[turn % 2], folder / "net", overwrite=True)
            os.write(pipe, b"." * (turn == 0))

    def check():
        whole = [weights(name) for name in ("one", "other")]
        assert whole[0] != whole[1] and weights("net") in whole, "the classifier is not whole"
        only_partial(folder / "net", FILE)

    kill_while(kills, save, check)
    print(f"{kills} processes killed that replaced a classifier: it was whole each time")


def kill_runs(kills: int, command: list[str], folder: Path, signals=(signal.SIGKILL,)) -> None:
    """Kills `kills` runs of `command`, which gets the results file as argument; each continues the last one."""

    def start(path):
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        return subprocess.Popen([*command, str(path)], cwd=folder, **quiet)

    began = time.perf_counter()
    assert start(folder / "whole.tsv").wait() == 0
    takes = time.perf_counter() - began
    whole, path = lines(folder / "whole.tsv"), folder / "killed.tsv"
    killed = finished = before = 0
    inside = set()  # how many results there were at the kills
    while killed < kills:
        process = start(path)
        try:
            status = process.wait(random.uniform(0, takes))
        except subprocess.TimeoutExpired:
            number = random.choice(signals)
            process.send_signal(number)
            status = process.wait()
            if status != 0:
                assert status in (-number, 128 + number), status
        if status == 0:
            assert lines(path) == whole
            finished += 1
            before = 0
            path.unlink()
            continue
        killed += 1
        done = check_broken(path, whole)
        assert done >= before, f"{before - done} results are lost"
        inside.add(done)
        before = done
    assert start(path).wait() == 0
    assert lines(path) == whole
    print(
        f"{killed} runs killed, with {min(inside)} to {max(inside)} of {len(whole) - 1} results there; "
        f"{finished + 1} times the file was finished, and was that of an unbroken one"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["writer", "files", "classifier", "run"])
    parser.add_argument("kills", type=int)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    random.seed(args.seed)
    with tempfile.TemporaryDirectory() as name:
        if args.what == "writer":
            kill_writers(args.kills, Path(name))
        elif args.what == "files":
            kill_file_writers(args.kills, Path(name))
        elif args.what == "classifier":
            kill_conversions(args.kills, Path(name))
        else:
            images = ROOT / "experiments" / "assets" / "fashion_mnist_test_500.npz"
            words = f"certify zoo:fashion_mnist-lenet-sigma0.25 --dataset npz --data_dir {images} --sigma 0.25 --N 500"
            program = str(Path(sys.executable).with_name("qcrs-jax"))
            both = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM)
            words += " --method cohen --max 240"
            kill_runs(args.kills, [program, *words.split()], Path(name), both)
