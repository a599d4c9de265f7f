"""Tests every part once on a GPU, in a few minutes, and writes tables of the findings.

Needs a checkout, and a Python with JAX for CUDA, Flax and SciPy. It installs nothing and downloads nothing. PyTorch is
included in the comparison if it is installed. From the root of the checkout:

  python -m qcrs_jax.experiments.bench.gpu_check --out gpu_check --minutes 9 --images cifar10_500.npz

--images holds CIFAR-10's test images, for a table at the papers' scale: a folder of CLASS/IMAGE, or a file that

  python -m qcrs_jax.experiments.bench.gpu_check --pack-images FOLDER cifar10_500.npz --count 500

made of one, spread over the classes. Without it the table is of the images of Fashion-MNIST that come with the package.

DIR then has tables.md, numbers.json, log.txt and results.tar.gz. They are updated after every part. Parts run one
after another in a process of their own; if it dies or hangs, a new one continues with the next part. --parts chooses
some of the parts, which then share all of the time. Exit status: 0, or 1 if a part found a difference or failed.

--write-reference computes the reference counts on a CPU, and writes them into the checkout.
"""

import argparse
import dataclasses
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

from qcrs_jax.errors import UserError

from .gpu import axes_of
from .networks import NETWORKS
from .parts import machine, parts, python_path
from .report import FILES, LOG, NUMBERS, TABLES, Part, Report
from .sides import Clock

GRACE = 0.06  # share of all the time after which a late part is stopped
ENDING = 6.0  # seconds reserved for the end


@dataclasses.dataclass(frozen=True)
class Check:
    """The settings of a check: folder, time, images, parts, networks, and thoroughness."""

    out: Path
    minutes: float
    images: Path | None
    parts: list[str]
    networks: list[str] | None
    tries: list[str] | None
    quick: bool
    count: int


def main(argv: list[str] | None = None) -> int:
    """Runs the check, or the other task of the flags. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="gpu_check", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--out", type=Path, metavar="DIR", help="folder to write")
    add("--minutes", type=float, default=9.0, help="time limit (default: 9)")
    add("--images", type=Path, help="CIFAR-10's test images: a folder of CLASS/IMAGE, or an .npz")
    add("--parts", nargs="+", choices=list(parts()), default=list(parts()), help="default: all")
    add("--networks", nargs="+", choices=list(NETWORKS), help="of the benchmark (default: all)")
    add(
        "--try",
        dest="tries",
        nargs="+",
        metavar="OPTION=VALUES",
        help="of the benchmark, as `qcrs-jax benchmark` has it",
    )
    add("--quick", action="store_true", help="tiny numbers, which measure nothing, to test this script")
    add("--pack-images", nargs=2, type=Path, metavar=("FOLDER", "FILE"), help="makes an .npz of a folder of images")
    add("--count", type=int, default=500, help="images to pack (default: 500)")
    add("--write-reference", action="store_true", help="computes the committed counts of a CPU anew")
    add("--child", nargs=3, metavar=("BEGAN", "ENDS", "SCRATCH"), help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.pack_images:
        return pack_images(*args.pack_images, args.count)
    if args.write_reference:
        from . import reference

        reference.write()
        return 0
    if args.out is None:
        parser.error("--out DIR is needed")
    try:
        axes_of(args.tries or [])
    except UserError as error:
        parser.error(str(error))
    asked = Check(args.out, args.minutes, args.images, args.parts, args.networks, args.tries, args.quick, args.count)
    if args.child:
        began, ends, scratch = args.child
        return run_parts(asked, float(began), float(ends), Path(scratch))
    if threading.current_thread() is not threading.main_thread():
        return watch(asked)
    before = signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # and end its child process
    try:
        return watch(asked)
    finally:
        signal.signal(signal.SIGTERM, before)


def ends_of(names, began: float, ends: float) -> dict[str, float]:
    """The end of each of the parts `names`, in seconds of time.time. Unused time goes to the next part."""
    shares, last = {}, 0.0
    for name, (_, share) in parts().items():
        shares[name], last = share - last, share
    whole, passed, found = sum(shares[name] for name in names), 0.0, {}
    for name in names:
        passed += shares[name] / whole
        found[name] = began + passed * (ends - began)
    return found


def watch(asked: Check) -> int:
    """Runs the parts in a child process. Stops it if it hangs, and continues with the next part if it died."""
    asked.out.mkdir(parents=True, exist_ok=True)
    for old in asked.out.iterdir():
        if old.name in (TABLES, NUMBERS, LOG, FILES):
            old.unlink()
    began = time.time()
    ends = began + 60 * asked.minutes - ENDING
    names = [name for name in parts() if name in asked.parts]
    report = Report(asked.out)
    for name in names:
        report.part(name)
    report.write()
    waiting, until = list(names), ends_of(names, began, ends)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        if asked.images and asked.images.is_dir():
            packed = Path(scratch) / "images.npz"
            pack_images(asked.images, packed, asked.count)
            asked = dataclasses.replace(asked, images=packed)
        while waiting and time.time() < ends:
            child = _start(asked, waiting, names, began, ends, Path(scratch))
            try:
                stopped = _wait(child, asked.out, until, ends, asked.minutes)
            finally:
                if child.poll() is None:  # this process is being ended
                    os.killpg(child.pid, signal.SIGKILL)
            report = Report(asked.out)
            running = report.state["running"]
            done = [name for name in waiting if report.part(name)["status"] not in ("not begun", "under way")]
            if running:
                part = report.part(running)
                part["status"] = stopped or f"died with exit status {child.returncode}; see the end of {LOG}"
                part["seconds"] = time.time() - report.state["running_since"]
                report.state["running"] = None
                done.append(running)
            elif not done:  # before the first part, or between two
                for name in waiting:
                    report.part(name)["status"] = stopped or f"did not start; see the end of {LOG}"
                done = list(waiting)
            waiting = [name for name in waiting if name not in done]
            report.write()
        for name in waiting:
            report.part(name)["status"] = "left out: no time"
        report.state["seconds"] = time.time() - began
        report.write()
    for name in names:
        print(f"{name}: {report.part(name)['status']}")
    print(f"{asked.out / 'tables.md'}, after {report.state['seconds']:.0f} s")
    return int(any(not report.part(name)["status"].startswith(("passed", "left out")) for name in names))


def _start(asked, waiting, names, began, ends, scratch):
    """The process that runs the parts `waiting`, in a group of its own."""
    environment = {
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",  # PyTorch and child processes need memory
        "JAX_COMPILATION_CACHE_DIR": str(scratch / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.5",
        **os.environ,
        **python_path(),
    }
    words = ["--out", str(asked.out), "--parts", *waiting, "--child", str(began), str(ends), str(scratch)]
    words += ["--images", str(asked.images)] if asked.images else []
    words += ["--quick"] if asked.quick else []
    words += ["--networks", *asked.networks] if asked.networks else []
    words += ["--try", *asked.tries] if asked.tries else []
    environment["QCRS_CHECK_PARTS"] = json.dumps(names)
    with open(asked.out / LOG, "a") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "qcrs_jax.experiments.bench.gpu_check", *words],
            env=environment,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def _wait(child, out, until, ends, minutes) -> str | None:
    """Waits for the process. Returns the reason why it was stopped; None if it ended by itself."""
    while child.poll() is None:
        running = Report(out).state["running"]
        end = min(ends, until[running] + GRACE * 60 * minutes) if running else ends
        if time.time() > end:
            os.killpg(child.pid, signal.SIGKILL)  # and its children
            child.wait()
            return "stopped: it took longer than its time"
        time.sleep(0.2)
    return None


def run_parts(asked: Check, began: float, ends: float, scratch: Path) -> int:
    """Runs the parts in this process. An error in one does not stop the others."""
    report = Report(asked.out)
    names = json.loads(os.environ.get("QCRS_CHECK_PARTS", "null")) or asked.parts
    until = ends_of(names, began, ends)
    for name in asked.parts:
        begin(report, name)
        started, found = time.monotonic(), report.part(name)
        try:
            if report.state["machine"].startswith("the machine"):
                report.state["machine"] = machine()
            left = until[name] - time.time()
            if left < (0 if asked.quick else 5):
                found["status"] = "left out: no time"
            else:
                part = Part(
                    name,
                    report,
                    Clock(left),
                    asked.quick,
                    asked.images,
                    scratch,
                    asked.networks,
                    axes_of(asked.tries or []),
                )
                parts()[name][0](part)
                troubles = len(found["troubles"])
                found["status"] = f"found {troubles} differences" if troubles else "passed"
        except BaseException:
            found["status"] = "failed"
            found["texts"]["traceback"] = f"```\n{traceback.format_exc()[-4000:]}\n```"
            if not isinstance(sys.exc_info()[1], Exception):
                raise
        finally:
            found["seconds"] = time.monotonic() - started
            report.state["running"] = None
            report.write()
    return 0


def begin(report: Report, name: str) -> None:
    """Records that a part has started."""
    report.state |= {"running": name, "running_since": time.time()}
    report.part(name)["status"] = "under way"
    report.write()


def pack_images(folder: Path, file: Path, count: int) -> int:
    """Writes `count` images of a folder of CLASS/IMAGE to an .npz: x (uint8), y and class_names.

    They are spread evenly over the classes, and so is every beginning of the file.
    """
    import numpy as np

    from qcrs_jax.data.load import load_dataset

    dataset = load_dataset("folder", folder, "test")
    places = [np.flatnonzero(np.asarray(dataset.labels) == label) for label in range(len(dataset.class_names))]
    places = [of_class for of_class in places if len(of_class)]
    each = -(-count // len(places))
    chosen = [of_class[np.arange(min(each, len(of_class))) * len(of_class) // each] for of_class in places]
    in_turn = [int(one[turn]) for turn in range(each) for one in chosen if turn < len(one)][:count]
    x = np.stack([np.rint(255 * np.asarray(dataset[index][0])).astype(np.uint8) for index in in_turn])
    y = np.array([dataset[index][1] for index in in_turn])
    np.savez_compressed(file, x=x, y=y, class_names=np.array(dataset.class_names))
    print(f"{file}: {len(x)} images of {folder}, {file.stat().st_size / 2**20:.1f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
