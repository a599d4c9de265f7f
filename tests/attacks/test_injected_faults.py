"""Faults of the disk, injected into every call of the operating system that a writer makes, one at a time.

After each the error is one that names the file, every line that was acknowledged is there, no line is torn, and the
same work done again ends as one without a fault.
"""

import builtins
import errno
import fcntl
import io
import os
from pathlib import Path

import pytest
from records_made import make_record
from requests_made import certificates

from qcrs_jax.errors import UserError
from qcrs_jax.files import is_partial, write_text
from qcrs_jax.results import writer as writers
from qcrs_jax.results.records import read_run
from qcrs_jax.results.writer import Writer, write_run

REQUEST = certificates() | {"n": 100_000, "n0": 100}
RECORDS = [make_record(i) for i in range(4)]
CALLS = "open fsync replace fstat lstat stat mkdir unlink chmod write"
FAULTS = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO, "EACCES": errno.EACCES, "short": None, "short, then ENOSPC": None}


class Faults:
    """Counts calls of the system, and has one of them fail.

    place: which one; what: an error's name, or "short" of a write that takes half, or half before the next one fails.
    """

    def __init__(self, patch, folder: Path, place: int, what: str):
        self.place, self.what, self.count, self.fails_next, self.struck = place, what, 0, False, False
        self.folder = str(folder)
        for name in CALLS.split():
            patch.setattr(os, name, self._failing(getattr(os, name), name))
        patch.setattr(fcntl, "flock", self._failing(fcntl.flock, "flock"))
        patch.setattr(writers, "open", self._open, raising=False)
        patch.setattr(os, "fdopen", self._fdopen)

    def _failing(self, call, name):
        def called(*args, **options):
            if self._concerns(args[0] if args else None):
                self._turn(name)
            return call(*args, **options)

        return called

    def _concerns(self, target):
        return isinstance(target, int) or hasattr(target, "fileno") or str(target).startswith(self.folder)

    def _turn(self, name):
        self.count += 1
        if self.count - 1 == self.place and not self.what.startswith("short"):
            self.struck = True
            raise OSError(FAULTS[self.what], os.strerror(FAULTS[self.what]))

    def _open(self, path, mode="r", **options):
        self._turn("open")
        file = builtins.open(path, mode, **options)
        return Unreliable(file, self) if "b" in mode and options.get("buffering") == 0 else file

    def _fdopen(self, number, mode="r", **options):
        if mode != "wb":
            return open(number, mode, **options)
        return io.BufferedWriter(Unreliable(io.FileIO(number, mode), self))

    def write(self, file, data):
        if self.fails_next:
            self.fails_next = False
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._turn("write")
        if self.count - 1 == self.place and self.what.startswith("short"):
            self.struck, self.fails_next = True, "then" in self.what
            return file.write(bytes(data)[: max(1, len(data) // 2)])
        return file.write(data)


class Unreliable(io.RawIOBase):
    """A file whose writes and cuts may fail."""

    def __init__(self, file, faults):
        self._file, self._faults = file, faults

    def write(self, data):
        return self._faults.write(self._file, data)

    def truncate(self, size=None):
        self._faults._turn("truncate")
        return self._file.truncate(size)

    def writable(self):
        return True

    def fileno(self):
        return self._file.fileno()

    def close(self):
        self._file.close()
        super().close()


def write_lines(path, acknowledged):
    """Writes what is missing of RECORDS, and finishes."""
    with Writer(path, REQUEST, {}) as writer:
        done = {record.idx for record in writer.done}
        for record in RECORDS:
            if record.idx not in done:
                writer.write(record)
                acknowledged.append(record.idx)
        writer.finish([], "0" * 64)


def contents(path):
    return path.read_bytes(), path.with_name(f"{path.name}.json").read_bytes()


@pytest.fixture
def whole(tmp_path):
    """The bytes of both files of a writer that nothing happens to."""
    write_lines(tmp_path / "whole.tsv", [])
    return contents(tmp_path / "whole.tsv")


def every_place(monkeypatch, folder, what, work, check, limit=500):
    """Has the first call fail, then the second, and so on until `work` makes no more; how often it failed, and was
    done in spite of it."""
    refused = done = 0
    for place in range(limit):
        own = folder / f"{place}"
        own.mkdir()
        with monkeypatch.context() as patch:
            faults = Faults(patch, own, place, what)
            try:
                work(own)
                done += faults.struck
            except UserError as error:
                assert faults.struck and str(own) in str(error), error
                refused += 1
        if faults.count <= place:
            return refused, done
        check(own)
    raise AssertionError("it makes no end of calls")


@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.parametrize("what", FAULTS)
def test_the_writer_of_results(tmp_path, monkeypatch, whole, what, begun, counted):
    acknowledged = []

    def work(folder):
        acknowledged[:] = []
        path = folder / "r.tsv"
        if begun:  # by a run that was killed within a line
            folder.joinpath("r.tsv").write_bytes(whole[0].splitlines(keepends=True)[0] + RECORDS_TEXT[:-20])
            folder.joinpath("r.tsv.json").write_bytes(UNFINISHED)
        write_lines(path, acknowledged)

    with Writer(tmp_path / "begun.tsv", REQUEST, {}):
        pass
    UNFINISHED = (tmp_path / "begun.tsv.json").read_bytes()
    RECORDS_TEXT = b"".join(whole[0].splitlines(keepends=True)[1:3])

    def check(folder):
        path = folder / "r.tsv"
        if path.exists() and (text := path.read_bytes()):
            lines = text[: text.rfind(b"\n") + 1]
            assert whole[0].startswith(lines), "a line is torn or doubled"
            there = [int(line.split(b"\t")[0]) for line in lines.splitlines()[1:]]
            assert set(acknowledged) <= set(there), "a line that was acknowledged is lost"
        write_lines(path, [])
        assert contents(path)[0] == whole[0] and read_run(path).sidecar.keys() >= {"sha256", "left_out"}

    refused, done = every_place(monkeypatch, tmp_path, what, work, check)
    state = "a file that was begun" if begun else "a new file"
    told = f"{refused + done} injected, {refused} told, {done} without effect, lines lost 0"
    counted(f"faults, results ({state}), {what}: {told}")
    assert refused + done > 3


@pytest.mark.parametrize("what", ["ENOSPC", "EIO", "EACCES"])
def test_whole_files(tmp_path, monkeypatch, what, counted):
    def work_table(folder):
        folder.joinpath("table.md").write_text("before")
        try:
            write_text(folder / "table.md", "after")
        except OSError as error:
            raise UserError(f"{folder}: {error}") from error

    def check_table(folder):
        assert (folder / "table.md").read_text() in ("before", "after")
        assert all(file.name == "table.md" or is_partial(file.name) for file in folder.iterdir())

    def work_run(folder):
        write_run(folder / "r.tsv", RECORDS, REQUEST, {})

    def check_run(folder):
        path = folder / "r.tsv"
        if path.exists():
            assert read_run(path).records == RECORDS
        else:
            write_run(path, RECORDS, REQUEST, {})
            assert read_run(path).records == RECORDS

    for name, work, check in (("table", work_table, check_table), ("run", work_run, check_run)):
        (tmp_path / name).mkdir()
        refused, done = every_place(monkeypatch, tmp_path / name, what, work, check)
        told = f"{refused + done} injected, {refused} told, {done} without effect, torn 0"
        counted(f"faults, whole files ({name}), {what}: {told}")
        assert refused > 2
