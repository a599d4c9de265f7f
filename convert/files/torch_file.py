"""Reads files of `torch.save` without PyTorch: zip archives (since 1.6) and the legacy sequence of pickles. Also
`.safetensors`, with the library of that name.

Reading a file runs nothing in it, whatever it holds, and always ends: in the tensors, or in a CheckpointError that
names the file. Tensors, plain containers, numbers and texts are read. Everything else in a pickle is dropped, and an
Unused takes its place.

The file is mapped. Reading takes at most 512 MiB of memory beside it, and a few MiB for a sound file. For this the
descriptions of tensors (the pickles, a zip archive's directory, the header of safetensors) may take at most LIMIT
bytes, 4 MiB: some 40 times the size for a ResNet-110 and its optimizer. Checksums of zip archives are checked. The
other two formats have none, so damage among their numbers cannot be seen.

Source: torch/serialization.py and torch/_utils.py of PyTorch, for the layout of both formats.
"""

import io
import mmap
import sys
from collections import OrderedDict
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from qcrs_jax.models.checkpoint import CheckpointError

from .safetensors_file import load_safetensors
from .stand_ins import WEIGHTS, stand_in
from .tensor import Storage, Tensor
from .unpickle import LIMIT, SAVE_WEIGHTS_ALONE, Unused, set_items, unpickle
from .zip_archive import Archive

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_DTYPES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
    "ComplexFloatStorage": np.complex64,
    "ComplexDoubleStorage": np.complex128,
}


def load(path: str | Path) -> Any:
    """The object that `torch.save`, or safetensors, wrote to `path`, with a `Tensor` for every tensor.

    Anything else than a tensor, a plain container, a number or a text is an `Unused` there.

    Raises:
        CheckpointError: there is no such file, or it is of another kind, truncated or damaged.
    """
    path = Path(path)
    if path.exists() and not path.is_file():  # opening a pipe would wait for ever
        raise CheckpointError(f"{path}: cannot be read: not a file")
    try:
        with open(path, "rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if path.stat().st_size else b""
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from error
    if not data:
        raise CheckpointError(f"{path}: the file is empty; copy it again")
    if path.suffix == ".safetensors":
        known = data[:4] == b"PK\x03\x04" or data[8:9] == b"{"
    else:
        known = data[:4] == b"PK\x03\x04" or (data[:1] == b"\x80" and data[4:8] != bytes(4))
    if not known and (words := stand_in(data)):
        raise CheckpointError(f"{path}: {words}")
    try:
        if path.suffix == ".safetensors" and data[:4] != b"PK\x03\x04":
            return load_safetensors(path, data)
        return _load_zip(Archive(data)) if data[:4] == b"PK\x03\x04" else _load_legacy(data)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    except Exception as error:  # a damaged file can fail in any way
        raise CheckpointError(
            f"{path}: truncated or damaged ({type(error).__name__}: {str(error)[:200]}); copy it again"
        ) from error


def _storage_reader(storages):
    """Converts the persistent ids of a pickle to storages, and stores them in the dict `storages` by their keys."""

    def read(saved):
        if type(saved) is tuple and len(saved) == 4 and saved[0] == "module" and type(saved[1]) is Unused:
            return saved[1]  # the class of a whole module in a legacy file
        kind, dtype, key, _, size, *view = saved
        if kind == "storage" and type(dtype) is Unused:
            return dtype  # numbers of a kind that no network here has
        if kind != "storage" or type(key) is not str or not isinstance(dtype, np.dtype) or view not in ([], [None]):
            raise CheckpointError(f"the pickle refers to a storage in a form unknown here; {SAVE_WEIGHTS_ALONE}")
        storage = storages.setdefault(key, Storage(dtype, key, size))
        if type(size) is not int or not 0 <= size < 2**60 or (storage.dtype, storage.size) != (dtype, size):
            raise CheckpointError(
                f"damaged: storage {key[:100]!r} has two types or sizes, or none; copy the file again"
            )
        return storage

    return read


def _rebuild_tensor(storage, offset, shape, strides, *_):
    if type(storage) is Unused:
        return storage
    if not isinstance(storage, Storage):
        raise ValueError("a tensor without a storage")
    return Tensor(storage, offset, shape, strides)


def _rebuild_parameter(data, *_):
    if type(data) is Unused:
        return data
    if not isinstance(data, Tensor):
        raise ValueError("a parameter without a tensor")
    return data


def _size(shape):
    if type(shape) is not tuple:
        raise ValueError("a size that is no tuple")
    return shape


def _ordered_dict(pairs=()):  # Python 2 gives the pairs, 3 sets them later
    content = OrderedDict()
    set_items(content, pairs)
    return content


_NAMES = {
    ("collections", "OrderedDict"): _ordered_dict,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch._utils", "_rebuild_parameter_with_state"): _rebuild_parameter,
    ("torch", "Size"): _size,
    **{(module, name): np.dtype(kind) for module in ("torch", "torch.cuda") for name, kind in _DTYPES.items()},
}


def _load_zip(archive):
    pickles = [name for name in archive.records if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise CheckpointError(_other_zip(archive.records))
    root = pickles[0].removesuffix("data.pkl")
    if root + "constants.pkl" in archive.records:
        raise CheckpointError("a TorchScript archive; save the model's state_dict with torch.save instead")
    if root + "byteorder" in archive.records and archive.read(root + "byteorder") != sys.byteorder.encode():
        raise CheckpointError("written with another byte order than this machine's; save it again on this machine")
    storages = {}
    stream = io.BytesIO(archive.read(pickles[0])[:LIMIT])
    content = unpickle(stream, _NAMES, _storage_reader(storages))
    for key, storage in storages.items():
        storage.find(archive.read(f"{root}data/{key}"))
    return content


def _other_zip(names):
    """A sentence on a zip archive without the one pickle of torch.save."""
    found = [name for name in names if name.endswith(WEIGHTS)]
    if found:
        return f"a zip archive, but not of torch.save: it holds {', '.join(found[:3])[:300]}; unpack it and open that"
    if any(name.endswith(".npy") for name in names):
        return "a zip archive of NumPy's (.npz), but not of torch.save; save the model's state_dict with torch.save"
    return (
        "a zip archive, but not of torch.save: it does not hold one data.pkl (a TorchScript archive or another "
        "kind of zip?); save the model's state_dict with torch.save"
    )


def _load_legacy(data):
    if data[:1] != b"\x80":
        raise CheckpointError("not a PyTorch checkpoint: neither a zip archive nor a pickle; save one with torch.save")
    storages = {}
    stream = io.BytesIO(data[:LIMIT])
    if unpickle(stream, _NAMES, _storage_reader({})) != _LEGACY_MAGIC:
        raise CheckpointError(
            "not a PyTorch checkpoint: a pickle without PyTorch's magic number; save one with torch.save"
        )
    version = unpickle(stream, _NAMES, _storage_reader({}))
    if type(version) is not int or version != 1001:
        raise CheckpointError("a legacy PyTorch file, but not of version 1001, the only one known; save it again")
    system = unpickle(stream, _NAMES, _storage_reader({}))
    if type(system) is dict and system.get("little_endian") is False:
        raise CheckpointError("written on a big-endian machine; open it with PyTorch and save it again")
    content = unpickle(stream, _NAMES, _storage_reader(storages))
    keys = unpickle(stream, _NAMES, _storage_reader({}))
    if type(keys) is not list or not all(type(key) is str for key in keys) or sorted(keys) != sorted(storages):
        raise CheckpointError("damaged: the storages that it lists are not those of its tensors; copy it again")
    position = stream.tell()
    for key in keys:
        storage = storages[key]
        size = int.from_bytes(data[position : position + 8], "little")
        if size != storage.size:
            raise CheckpointError(f"truncated or damaged: storage {key[:100]!r} has another size; copy it again")
        start = position + 8
        position = start + size * storage.dtype.itemsize
        storage.find(memoryview(data)[start:position])
    if position != len(data):
        raise CheckpointError(f"damaged: {len(data) - position} bytes after the last storage; copy it again")
    return content
