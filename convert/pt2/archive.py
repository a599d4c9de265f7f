"""The archive of `torch.export.save`, since torch 2.9: a zip archive of JSON and of raw numbers.

No pickle is opened, and nothing is evaluated. Sizes are checked before memory is taken: the JSON may have JSON_LIMIT
bytes, and an array must lie within its record.

Source: torch/export/pt2_archive of PyTorch 2.9 to 2.14.
"""

import json
import mmap
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from qcrs_jax.models.checkpoint import CheckpointError

from ..files.stand_ins import stand_in
from ..files.tensor import Storage, Tensor
from ..files.zip_archive import Archive

JSON_LIMIT = 24 * 2**20  # bytes; a graph of 1,500 nodes with the metadata of its exporter takes 5 MiB
EXTRA_LIMIT = 2**20  # bytes of each of the user's extra files
AGAIN = "export the model again with torch 2.9 or later"
DTYPES = {
    1: np.dtype(np.uint8),
    2: np.dtype(np.int8),
    3: np.dtype(np.int16),
    4: np.dtype(np.int32),
    5: np.dtype(np.int64),
    6: np.dtype(np.float16),
    7: np.dtype(np.float32),
    8: np.dtype(np.float64),
    10: np.dtype(np.complex64),
    12: np.dtype(np.bool_),
    13: np.dtype(ml_dtypes.bfloat16),
}
"""The supported number formats, by their codes in the file."""
STRIDED = 7  # the code of the layout of ordinary tensors


def is_exported(path: Path) -> bool:
    """Whether the file `path` is an exported program, by its content or its name."""
    if path.suffix == ".pt2":
        return path.is_file()
    try:
        with open(path, "rb") as file:
            if file.read(4) != b"PK\x03\x04":
                return False
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return any(name.endswith(_PROGRAMS) for name in Archive(data).records)
    except (OSError, ValueError):
        return False


_PROGRAMS = ("/models/model.json", "serialized_exported_program.json")


class ExportArchive:
    """The records of an exported program.

    Raises:
        CheckpointError: truncated, damaged, of another program or version. The message has the remedy, but not the
            file.
    """

    def __init__(self, path: Path):
        with open(path, "rb") as file:
            self._data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else b""
        if not self._data:
            raise CheckpointError("the file is empty; copy it again")
        if self._data[:4] != b"PK\x03\x04":
            raise CheckpointError(stand_in(self._data) or f"is not an archive of torch.export.save; {AGAIN}")
        self._archive = Archive(self._data)
        self.names = list(self._archive.records)
        self._root = self._found_root()
        if self._has("byteorder") and bytes(self._read("byteorder", 64)).strip() != b"little":
            raise CheckpointError("was written on a big-endian machine; export it on another")
        document = self.json("models/model.json")
        self.document: dict[str, Any] = document

    def _found_root(self):
        if any(name.endswith("serialized_exported_program.json") for name in self.names):
            raise CheckpointError(f"was written by torch 2.8 or earlier, with pickles; {AGAIN}")
        models = [name for name in self.names if name.endswith("/models/model.json") and name.count("/") == 2]
        if len(models) != 1:
            raise CheckpointError(f"does not hold one exported program, but {len(models)}; {AGAIN}")
        root = models[0].removesuffix("models/model.json")
        if stray := [name for name in self.names if not name.startswith(root)]:
            raise CheckpointError(f"damaged: the record {stray[0][:100]!r} is outside {root!r}; copy the file again")
        if self._in(root, "data/weights/model.pt") or self._in(root, "data/constants/model.pt"):
            raise CheckpointError(f"has its weights in pickles, as torch 2.8 writes them; {AGAIN}")
        return root

    def _in(self, root, name):
        return root + name in self._archive.records

    def _has(self, name):
        return self._in(self._root, name)

    def _read(self, name, most):
        if self._has(name) and self._archive.records[self._root + name].size > most:
            raise CheckpointError(f"the record {name[:100]!r} has more than {most >> 20} MiB, and is not read")
        return self._archive.read(self._root + name)

    def json(self, name: str) -> dict:
        """The JSON object in the record `name`."""
        content = bytes(self._read(name, JSON_LIMIT))
        try:
            found = json.loads(content, parse_constant=_refuse_constant)
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"damaged: {name} is no JSON of such a file ({str(error)[:100]})") from error
        if not isinstance(found, dict):
            raise CheckpointError(f"damaged: {name} is no JSON object; {AGAIN}")
        return found

    def extra(self) -> dict[str, str]:
        """The texts of the user's extra files by their names; long ones, and those that are no text, are left out."""
        found = {}
        for name in self.names:
            if name.startswith(start := self._root + "extra/") and self._archive.records[name].size <= EXTRA_LIMIT:
                try:
                    found[name.removeprefix(start)] = bytes(self._archive.read(name)).decode()
                except UnicodeDecodeError:
                    continue
        return found

    def tensors(self, kind: str) -> "Tensors":
        """The arrays of the folder data/`kind`: "weights" or "constants"."""
        name = f"data/{kind}/model_{kind}_config.json"
        config = self.json(name).get("config") if self._has(name) else {}
        if not isinstance(config, dict):
            raise CheckpointError(f"damaged: {name} has no table of tensors; {AGAIN}")
        return Tensors(self, kind, config)

    def record(self, name: str) -> memoryview:
        """The bytes of a record, in the file."""
        return self._archive.read(self._root + name)


class Tensors:
    """Arrays of an archive by the names of parameters, buffers and constants. Tied ones are one array."""

    def __init__(self, archive: ExportArchive, kind: str, config: dict):
        self._archive, self._kind, self._config = archive, kind, config
        self._arrays: dict[tuple, np.ndarray] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        """The array `name`, in memory of its own.

        Raises:
            CheckpointError: it is missing, pickled, of a format that is not known, or outside its record.
        """
        told = f"the tensor {name[:100]!r}"
        if not isinstance(payload := self._config.get(name), dict):
            raise CheckpointError(f"truncated or damaged: {told} is not in the archive; copy it again")
        if payload.get("use_pickle") is not False:
            raise CheckpointError(
                f"{told} is stored as a pickle, which is not opened; export a model of plain tensors (no quantised or "
                "distributed ones)"
            )
        file, meta = payload.get("path_name"), payload.get("tensor_meta")
        if not isinstance(file, str) or "/" in file or "\\" in file or not isinstance(meta, dict):
            raise CheckpointError(f"damaged: {told} has no place in the archive; copy the file again")
        dtype = dtype_of(meta.get("dtype"), told)
        if meta.get("layout") != STRIDED:
            raise CheckpointError(f"{told} is sparse, or of another layout that is not read; export a dense one")
        shape, strides = (
            tuple(_whole(size, told) for size in _list(meta.get(field), told)) for field in ("sizes", "strides")
        )
        key = (file, dtype, offset := _whole(meta.get("storage_offset"), told), shape, strides)
        if key not in self._arrays:
            data = self._archive.record(f"data/{self._kind}/{file}")
            storage = Storage(dtype, file, len(data) // dtype.itemsize)
            if 0 not in shape:
                storage.find(data)
            self._arrays[key] = _narrowed(Tensor(storage, offset, shape, strides).numpy(), told)
        return self._arrays[key]


def dtype_of(code, what: str) -> np.dtype:
    """The number format of a code in the file."""
    if type(code) is not int or code not in DTYPES:
        raise CheckpointError(f"{what} is of a number format (code {str(code)[:20]}) that is not supported")
    return DTYPES[code]


def _narrowed(array, told):
    """Whole numbers of 64 bits in 32 bits, as JAX computes them."""
    if array.dtype == np.int64:
        if array.size and not -(2**31) <= array.min() <= array.max() < 2**31:
            raise CheckpointError(f"{told} has whole numbers of more than 32 bits, which are not supported")
        return array.astype(np.int32)
    return array.astype(np.float32) if array.dtype == np.float64 else array


def _list(value, told):
    if not isinstance(value, list) or len(value) > 64:
        raise CheckpointError(f"damaged: {told} has no sizes or strides; copy the file again")
    return value


def _whole(value, told):
    number = value.get("as_int") if isinstance(value, dict) and len(value) == 1 else None
    if type(number) is not int or not 0 <= number < 2**63:
        raise CheckpointError(f"damaged: {told} has an invalid size, stride or offset; copy the file again")
    return number


def _refuse_constant(text):
    raise ValueError(f"{text} is no number of JSON")
