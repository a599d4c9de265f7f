"""The column of a results file with the names of the images' files, if the images are files."""

import dataclasses
import io
from pathlib import Path

from qcrs_jax.printable import printable
from qcrs_jax.results.records import Record

COLUMN = "file"


def name_of(dataset, index: int) -> str | None:
    """The file of an image below the folder of its data set, in printable characters; None if it has no file."""
    if not dataset.files:
        return None
    file = Path(dataset.files[index])
    below = (
        file.relative_to(dataset.source) if file.is_relative_to(dataset.source) else Path(file.parent.name, file.name)
    )
    return printable(below.as_posix()).strip() or None


def with_names(file: dict, request: dict, dataset, path: Path) -> dict:
    """A task's `file`, with the column of names if the images have files.

    A file that was started without the column continues without it.
    """
    columns = file.get("columns")
    if request.get("kind") != "certificates" or not dataset.files or columns is None:
        return file
    if _first_line(path) == "\t".join(columns).encode():
        return file
    return {**file, "columns": (*columns, COLUMN)}


def _first_line(path):
    """The first line of a file; empty if it cannot be read, which the writer will report."""
    try:
        with open(path, "rb") if path.is_file() else io.BytesIO() as file:
            return file.readline(2**16).rstrip(b"\r\n")
    except OSError:
        return b""


def named(records: list, dataset, index: int) -> list:
    """The records of an image, those of certificates with the name of its file."""
    name = name_of(dataset, index)
    return [dataclasses.replace(each, file=name) if isinstance(each, Record) else each for each in records]


def name_troubles(lines: dict, dataset):
    """The names of images in `lines`, as of `lines_of`, that differ from those of the data set."""
    for index, rows in lines.items():
        due = (name_of(dataset, index) or "") if index < len(dataset) else None
        for row in rows:
            if row.get(COLUMN, due) != due and due is not None:
                yield f"image {index}: its file is {row[COLUMN]!r}, but {due!r} in the data set"
