"""Remembers the order and the labels of a split of TFDS. Otherwise all of it is parsed before the first image."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..files import replacing
from .dataset import digest

NAME = "qcrs_jax_order_{}.npz"


def remembered(
    folder: Path, split: str, files: Sequence[str | os.PathLike], rows: Sequence, keep: bool = True
) -> tuple[np.ndarray, np.ndarray]:
    """(rows in the original order, the labels in that order) of a split. It is parsed once for the present files.

    They are stored in `folder` or, if that cannot be written, in the user's folder of caches.

    Args:
        files: files of the split.
        keep: whether they may be written to disk.
        rows: examples of the split by index. TFDS shuffles them, and may store the original place as an id or a file
            name.
    """
    key = _key(split, files)
    places = [folder / NAME.format(split), _caches() / f"{key[:32]}.npz"] if key else []
    for place in places:
        if (found := _read(place, key, len(rows))) is not None:
            return found
    keys = [(row.get("id", row.get("file_name", b"")), row["label"]) for row in rows]
    order = np.array(sorted(range(len(keys)), key=lambda i: keys[i][0]), np.int64)
    labels = np.array([keys[i][1] for i in order], np.int64)
    for place in places if keep else ():
        with contextlib.suppress(OSError):
            _write(place, key, order, labels)
            break
    return order, labels


def _key(split, files):
    """The names, sizes and times of the files, which change when they do. None if they are not on a file system."""
    try:
        stats = [(os.path.basename(file), os.stat(file)) for file in files]
    except OSError:
        return None
    return digest(repr((split, [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats])).encode())


def _caches():
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "qcrs_jax"


def _sum(key, order, labels):
    return digest(key.encode(), order.tobytes(), labels.tobytes())


def _read(place, key, count):
    """The content of `place` for `key`; None if it has nothing, something else, or is damaged."""
    if not place.is_file():
        return None
    try:
        with open(place, "rb") as file, np.load(file) as kept:
            order, labels = kept["order"].astype(np.int64), kept["labels"].astype(np.int64)
            whole = str(kept["key"]) == key and str(kept["sum"]) == _sum(key, order, labels)
    except Exception:  # damaged in whatever way: it is made again
        return None
    return (order, labels) if whole and len(order) == len(labels) == count else None


def _write(place, key, order, labels):
    """Writes the file as a whole or not at all. Several processes may do so at once."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with replacing(place) as file:
        np.savez(file, key=key, order=order, labels=labels, sum=_sum(key, order, labels))
