"""Writes results files and their sidecars: line by line, each whole or not at all; and resumes a run that stopped."""

import contextlib
import errno
import functools
import json
import os
import secrets
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from ..errors import setting, text_of
from ..files import is_there, lock, replacing, writing
from . import sidecar
from .records import (
    COLUMNS,
    WHEN_FINISHED,
    Record,
    RecordsError,
    checksum,
    differences,
    guarantee_texts,
    read_run,
    read_sidecar,
    sidecar_checksum,
    sidecar_path,
    whole_sidecar,
)
from .seeds import is_chosen, is_committed


class Writer:
    """Appends records to a results file, and resumes one that was cut short.

    A rerun with the same request continues after the last whole line. A torn last line is removed and computed again.
    Every line is flushed to the disk.

    Two runs cannot write to one file, because it is locked. The locks of some network file systems have no effect.
    There the sidecar of an unfinished file names the run that writes to it, and a run that finds another name stops.

    Attributes:
        done: records that the file already had.
        finished: content of the sidecar if the file was finished before, until more is appended; else {}.
    """

    def __init__(
        self,
        path: str | Path,
        request: dict,
        provenance: dict,
        columns: tuple[str, ...] = COLUMNS,
        read: Callable[[Path], list] = lambda path: read_run(path).records,
    ):
        """Opens `path` to append lines of `columns`; `read` returns the records that it already has.

        Raises:
            RecordsError: the file has another request, is not one of ours, or is being written by another run.
        """
        path = Path(path)
        self._path, self._columns = path, columns
        self._header = "\t".join(columns) + "\n"
        self._request, self._provenance = json.loads(json.dumps(request)), provenance
        self._owner, self.finished = secrets.token_hex(8), {}
        with _writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists() and not path.is_file():
                raise RecordsError(f"{path}: is not a regular file, so no results can be written to it; choose another")
            self._file = open(path, "ab", buffering=0)
            try:
                lock(
                    self._file,
                    f"{path}: another run is writing to it; wait for it, or choose another file",
                    RecordsError,
                )
                self.done = self._begin(read)
            except BaseException:
                self._file.close()
                raise

    def _begin(self, read):
        """Prepares the file for more lines. Returns the records that it already has."""
        path = self._path
        if _is_new(path, self._header):
            self._file.truncate(0)
            self._claim()
            self._write(self._header)
            return []
        self._check(path, self._request, self._header)
        content = read_sidecar(path)
        self._provenance = content["provenance"]
        self.finished = _when_finished(content)
        if not self.finished:
            self._claim()  # before its lines are read: from now on no other run appends
        _cut_torn_line(path)
        return self._records(path, read)

    def _claim(self):
        _write_sidecar(self._path, self._request, self._provenance, owner=self._owner)

    @staticmethod
    def _records(path, read):
        try:
            return read(path)
        except RecordsError as error:
            raise RecordsError(
                f"{text_of(error)}. Nothing is appended to this file. Mend the line, or delete it: the same command "
                "then computes that image again"
            ) from error

    @staticmethod
    def _check(path, request, header):
        content = read_sidecar(path)
        if not content:
            raise RecordsError(
                f"{path}: exists, without the sidecar {sidecar_path(path).name} that records its request; nothing is "
                "appended to it. Choose another file, or move it away"
            )
        if changed := differences(content["request"], request):
            raise RecordsError(
                f"{path}: holds results of another configuration; nothing is appended to it. Choose another file, or "
                "move it away. The differences are\n  "
                + "\n  ".join([*map(_with_setting, changed), *_about_the_seed(content["request"], request)])
            )
        if content.get("sha256") not in (None, checksum(path)):
            raise RecordsError(
                f"{path}: was changed after the run was finished; nothing is appended to it. Restore it; or delete the "
                f"lines that are not of the run, and all hashes in {sidecar_path(path).name} (..._sha256): the same "
                "command then computes the missing images"
            )
        with open(path, "rb") as file:
            if file.readline().rstrip(b"\r\n") != header.rstrip("\n").encode():
                raise RecordsError(
                    f"{path}: its first line was changed; it should be {header.split()}. Mend it, or choose another "
                    "file"
                )

    def write(self, *records) -> None:
        """Appends records, any objects with a `line(columns)`, and flushes them to the disk."""
        if self.finished:  # until now
            self.finished = {}
            with _writing(self._path):
                self._claim()
        self._write("".join(record.line(self._columns) for record in records))

    def finish(self, left_out: Sequence[int], pixels_sha256: str) -> None:
        """Marks the run as finished.

        Args:
            left_out: indices of images that could not be read.
            pixels_sha256: hash of the pixels of the file's images.
        """
        with _writing(self._path):
            self._check_owner()
            hashes = {"sha256": checksum(self._path), "pixels_sha256": pixels_sha256}
            self.finished = {"left_out": list(left_out), **hashes}
            _write_sidecar(self._path, self._request, self._provenance, self.finished)

    def _write(self, text):
        """Appends all of `text` or, if that fails, nothing."""
        self._check_owner()
        rest = memoryview(text.encode())
        with _writing(self._path):
            end = os.fstat(self._file.fileno()).st_size
            try:
                while rest:
                    rest = rest[self._file.write(rest) :]
                os.fsync(self._file.fileno())
            except OSError:
                with contextlib.suppress(OSError):
                    self._file.truncate(end)
                raise

    def _check_owner(self):
        if not self.finished and whole_sidecar(self._path).get("owner") != self._owner:
            raise RecordsError(
                f"{self._path}: another run has begun to write to it, by its sidecar; this one stops. Locks have no "
                "effect on this file system: give each run a file of its own"
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()


def _with_setting(difference):
    """A line of `differences` with its name marked as that of a setting."""
    name, _, rest = difference.partition(": ")
    own = "." not in name or name.startswith(("search.", "estimate."))
    return f"{setting(name)}: {rest}" if own else difference


def _about_the_seed(before, now):
    """Yields how a run can continue with the seed of its file, if that seed is of another kind or for other images."""
    if is_chosen(before) and is_committed(now):
        yield f"The run was started with a chosen seed; {setting('seed')} {before['seed']} continues it"
    elif is_committed(before) and is_committed(now) and before["seed"]["images"] != now["seed"]["images"]:
        yield (
            f"A committed seed is for all images of its run, which cannot be extended. A run that is started with "
            f"{setting('seed')} can"
        )


class Preview:
    """The view of a file that `Writer` would get, with the same errors. Nothing is written, made or locked.

    A torn last line is not counted. A file that another run is writing to is read as it is.

    Attributes:
        done, finished: as for `Writer`.
    """

    def __init__(
        self,
        path: str | Path,
        request: dict,
        provenance: dict,
        columns: tuple[str, ...] = COLUMNS,
        read: Callable[[Path], list] = lambda path: read_run(path).records,
    ):
        """Looks at `path`. Arguments and errors are those of `Writer`, but for the lock."""
        path, header = Path(path), "\t".join(columns) + "\n"
        request = json.loads(json.dumps(request))
        self.done, self.finished = [], {}
        with _writing(path):
            if path.exists() and not path.is_file():
                raise RecordsError(f"{path}: is not a regular file, so no results can be written to it; choose another")
            _check_writable(path)
            if not path.exists() or _is_new(path, header):
                _sidecar_text(path, request, provenance)
                return
            Writer._check(path, request, header)
            self.done = Writer._records(path, lambda path: _read_whole_lines(path, read))
            self.finished = _when_finished(read_sidecar(path))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def _is_new(path, header):
    """Whether a file has no results: it is new, or was stopped before its first one."""
    return header.encode().startswith(path.read_bytes())


def _when_finished(sidecar):
    return {name: sidecar[name] for name in WHEN_FINISHED if name in sidecar}


def _check_writable(path):
    """Raises the OSError that writing `path` would raise."""
    there = next(place for place in (path, *path.absolute().parents) if place.exists())
    if there != path and not there.is_dir():
        wrong = errno.EEXIST if there == path.absolute().parent else errno.ENOTDIR
    elif not os.access(there, os.W_OK):
        wrong = errno.EACCES
    else:
        return
    raise OSError(wrong, os.strerror(wrong), str(there))


def _read_whole_lines(path, read):
    """The result of `read` for a file without its torn last line, read from a copy elsewhere."""
    content = path.read_bytes()
    if content.endswith(b"\n"):
        return read(path)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / path.name
        copy.write_bytes(content[: content.rfind(b"\n") + 1])
        sidecar_path(copy).write_bytes(sidecar_path(path).read_bytes())
        try:
            return read(copy)
        except RecordsError as error:
            raise RecordsError(text_of(error).replace(str(copy), str(path))) from error


def check_new(path: str | Path, request: dict | None = None) -> None:
    """Raises RecordsError if `path` or its sidecar exists.

    A sidecar without its file may be left by an interrupted write of the same `request`. It is accepted.
    """
    path = Path(path)
    for file in (path, sidecar_path(path)):
        with _writing(path):
            exists = is_there(file)
        if exists and not (file != path and request is not None and _has_request(path, request)):
            raise RecordsError(f"{file}: already exists, and is not replaced; choose another file, or move it away")


def _has_request(path, request):
    """Whether the sidecar of `path` has this request."""
    try:
        return read_sidecar(path).get("request") == json.loads(json.dumps(request))
    except RecordsError:
        return False


def write_run(path: str | Path, records: list[Record], request: dict, provenance: dict) -> None:
    """Writes a whole run, and its sidecar, to a new file.

    The sidecar is written first: a file without a sidecar would be read as one of another program.

    Raises:
        RecordsError: `path` or its sidecar exists; neither is touched.
    """
    path = Path(path)
    check_new(path, request)
    known = {name for record in records for name, value in vars(record).items() if value is not None}
    columns = Record.columns(known)
    text = "\t".join(columns) + "\n" + "".join(record.line(columns) for record in records)
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _write_sidecar(path, request, provenance)
        with replacing(path) as file:
            file.write(text.encode())


def _write_sidecar(path, request, provenance, more=None, owner=None):
    text = _sidecar_text(path, request, provenance, more, owner)
    with replacing(sidecar_path(path)) as file:
        file.write(text)


def _sidecar_text(path, request, provenance, more=None, owner=None):
    """The content of the sidecar. Raises RecordsError if no reader would accept it."""
    content = {
        "format": sidecar.FORMAT,
        **guarantee_texts(request),
        "request": request,
        "provenance": provenance,
        **(more or {}),
    }
    if owner:
        content["owner"] = owner
    if more:
        content["sidecar_sha256"] = sidecar_checksum(json.loads(json.dumps(content)))
    text = (json.dumps(content, indent=2) + "\n").encode()
    try:
        sidecar.parse(text)
    except sidecar.Unfit as error:  # before anything is computed for it
        raise RecordsError(f"{sidecar_path(path)}: such a run cannot be recorded: {error}") from error
    return text


_writing = functools.partial(
    writing, error=RecordsError, again="give the same command again: it continues after the last whole line"
)


def _cut_torn_line(path):
    with open(path, "rb+") as file:
        content = file.read()
        end = content.rfind(b"\n") + 1
        if end < len(content):
            file.truncate(end)
