"""The arrays of numbers and of texts in an .npz file. Their sizes are known before an array is made."""

import math
import zipfile
from pathlib import Path
from typing import BinaryIO

import numpy as np

from .limits import Limit

_DIRECTORY = 2**20  # bytes of the list of arrays in the file


class Archive:
    """An .npz file, open for reading: `archive[name]` is the array `name`.

    Sizes are taken from the headers, and compared with the content and with `limit`, before an array is made.

    Attributes:
        files: names of the arrays.
    """

    def __init__(self, stream: BinaryIO, path: Path, limit: Limit):
        """Reads the list of the arrays. Raises ValueError if it is no zip file, or its list is too long."""
        directory = zipfile._EndRecData(stream)  # pyright: ignore[reportAttributeAccessIssue]  (not public)
        if directory is None or directory[5] > _DIRECTORY:
            raise ValueError("no zip file" if directory is None else "it lists too many arrays")
        self._zip, self._path, self._limit = zipfile.ZipFile(stream), path, limit
        self._infos = {info.filename.removesuffix(".npy"): info for info in self._zip.infolist()}
        self.files = list(self._infos)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._zip.close()

    def size(self, key: str) -> int:
        """The bytes that the array takes, by its header."""
        with self._stream(key) as stream:
            shape, _, dtype = self._header(stream)
        return math.prod(shape) * max(dtype.itemsize, 1)

    def __getitem__(self, key: str) -> np.ndarray:
        """The array `key`. Raises DataError if it exceeds the limit, and ValueError if it is damaged."""
        size, info = self.size(key), self._infos[key]
        with self._stream(key) as stream:
            *_, dtype = self._header(stream)
            if dtype.hasobject:
                raise ValueError(f"{key} holds objects of Python, which are not read")
            if size > info.file_size:
                raise ValueError(f"{key} needs {size} bytes and has {info.file_size}")
        self._limit.check(size, self._path)
        with self._stream(key) as stream:
            return np.lib.format.read_array(stream, allow_pickle=False)

    def _stream(self, key):
        info = self._infos[key]
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"{key} is compressed in a way that np.savez_compressed does not use")
        return self._zip.open(info)

    @staticmethod
    def _header(stream):
        if np.lib.format.read_magic(stream) != (1, 0):  # later ones are for headers of more than 65535 bytes
            raise ValueError("it has an array of a format that np.savez does not use for numbers")
        return np.lib.format.read_array_header_1_0(stream)
