"""Reads files of `torch.save` without PyTorch: zip archives (since 1.6) and the legacy sequence of pickles. Also
`.safetensors`, with the library of that name.

Pickles can run code. Only the few names below are let through, each of them builds plain data, and no attribute of
what they build can be set.

Source: torch/serialization.py and torch/_utils.py of PyTorch, for the layout of both formats.
"""

import dataclasses
import io
import math
import mmap
import os
import pickle
import struct
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors

from qcrs_jax.checkpoint import CheckpointError

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
}


class TorchFileError(CheckpointError):
    """A file that is not a readable PyTorch checkpoint; the message names the file and what is wrong."""


@dataclasses.dataclass(eq=False)
class _Storage:
    """A typed run of numbers in the file, read when a tensor asks for it."""

    dtype: np.dtype
    key: str
    size: int
    read: Any = None

    def array(self):
        data = self.read()
        if len(data) != self.size * self.dtype.itemsize:
            raise ValueError(f"storage {self.key} has {len(data)} bytes instead of {self.size * self.dtype.itemsize}")
        return np.frombuffer(data, self.dtype)


@dataclasses.dataclass(eq=False)
class Tensor:
    """A tensor of the file, not yet read: a strided view of a storage."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype:
        return self.storage.dtype

    def numpy(self) -> np.ndarray:
        """The values, in a fresh array of this shape.

        Raises:
            ValueError: shape, strides or offset reach outside the storage.
        """
        numbers = (self.offset, *self.shape, *self.strides)
        if not all(type(v) is int and v >= 0 for v in numbers) or len(self.shape) != len(self.strides):
            raise ValueError(f"tensor with shape {self.shape}, strides {self.strides}, offset {self.offset}")
        last = self.offset + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides))
        if 0 in self.shape:
            return np.zeros(self.shape, self.dtype)
        if last >= self.storage.size or math.prod(self.shape) > self.storage.size:
            raise ValueError(f"tensor of shape {self.shape} reaches outside storage {self.storage.key}")
        strides = [stride * self.dtype.itemsize for stride in self.strides]
        view = np.lib.stride_tricks.as_strided(self.storage.array()[self.offset :], self.shape, strides)
        return view.copy()


def load(path: str | Path) -> Any:
    """What `torch.save`, or safetensors, wrote to `path`, with a `Tensor` for every tensor.

    The file is mapped, and a tensor's numbers are read when it is asked for them.

    Raises:
        TorchFileError: no such file, not such a file, truncated, or a pickle that names anything but tensors and
            plain containers. Nothing in the file is executed.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if os.fstat(file.fileno()).st_size else b""
    except OSError as error:
        raise TorchFileError(f"{path}: cannot be read: {error.strerror}") from error
    if not data:
        raise TorchFileError(f"{path}: the file is empty")
    try:
        if path.suffix == ".safetensors":
            return _load_safetensors(data)
        return _load_zip(path) if data[:4] == b"PK\x03\x04" else _load_legacy(data)
    except TorchFileError as error:
        raise TorchFileError(f"{path}: {error}") from error
    except RecursionError as error:
        raise TorchFileError(f"{path}: the pickle is nested too deeply") from error
    except zipfile.BadZipFile as error:
        raise TorchFileError(f"{path}: truncated or damaged zip archive ({error}); copy it again") from error
    except Exception as error:  # a damaged pickle can fail in any way
        raise TorchFileError(
            f"{path}: not a PyTorch checkpoint, or a truncated or damaged one ({type(error).__name__}: {error})"
        ) from error


class _Unpickler(pickle._Unpickler):
    """Python's own unpickler: in the compiled one a few damaged bytes can ask for a memo of gigabytes.

    The opcode that sets attributes is read and dropped: no object here needs it, and it could make a tensor point
    outside its storage.
    """

    dispatch = {**pickle._Unpickler.dispatch, pickle.BUILD[0]: lambda self: self.stack.pop()}

    def __init__(self, file, storages):
        super().__init__(file, encoding="utf-8")
        self.storages = storages

    def find_class(self, module, name):
        if module in ("torch", "torch.cuda") and name in _DTYPES:
            return _StorageType(name)
        try:
            return _ALLOWED[module, name]
        except KeyError:
            raise TorchFileError(
                f"the pickle names {module}.{name}, which a checkpoint of weights does not need; nothing of it was "
                "run. If you trust the file, open it with PyTorch and save its state_dict alone"
            ) from None

    def persistent_load(self, saved):
        kind, storage_type, key, _, size, *view = saved
        if kind != "storage" or not isinstance(storage_type, _StorageType) or (view and view[0] is not None):
            raise TorchFileError(f"the pickle refers to {kind!r} in a form that no known PyTorch writes")
        dtype = np.dtype(_DTYPES[storage_type.name])
        if type(size) is not int or size < 0:
            raise TorchFileError(f"storage {key!r} has size {size!r}")
        storage = self.storages.setdefault(str(key), _Storage(dtype, str(key), size))
        if (storage.dtype, storage.size) != (dtype, size):
            raise TorchFileError(f"storage {key!r} is referred to with two types or sizes")
        return storage


@dataclasses.dataclass(frozen=True)
class _StorageType:
    name: str


def _rebuild_tensor(storage, offset, size, stride, *_):
    if not isinstance(storage, _Storage):
        raise TorchFileError("the pickle builds a tensor from something else than a storage")
    return Tensor(storage, offset, tuple(size), tuple(stride))


def _rebuild_parameter(data, *_):
    return data


class _Namespace:
    """Stands in for argparse.Namespace, which training scripts save beside the weights."""


def _numpy_scalar(dtype, data=b""):
    return None


def _numpy_dtype(*_):
    return _NumpyDtype()


class _NumpyDtype:
    """Stands in for the type of a NumPy scalar."""


_ALLOWED = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor"): _rebuild_tensor,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch", "Size"): tuple,
    ("argparse", "Namespace"): _Namespace,
    # A best accuracy is often a NumPy scalar. Its value is not used.
    ("numpy.core.multiarray", "scalar"): _numpy_scalar,
    ("numpy._core.multiarray", "scalar"): _numpy_scalar,
    ("numpy", "dtype"): _numpy_dtype,
    ("_codecs", "encode"): lambda text, encoding="": None,
}


_SAFETENSORS = {
    "F64": np.float64,
    "F32": np.float32,
    "F16": np.float16,
    "BF16": ml_dtypes.bfloat16,
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


def _load_safetensors(data):
    content = {}
    for name, part in safetensors.deserialize(bytes(data)):
        dtype, shape, values = np.dtype(_SAFETENSORS[part["dtype"]]), tuple(part["shape"]), part["data"]
        strides = tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
        storage = _Storage(dtype, name, math.prod(shape), read=lambda values=values: values)
        content[name] = Tensor(storage, 0, shape, strides)
    return content


def _load_zip(path):
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        if any(info.compress_type != zipfile.ZIP_STORED for info in archive.infolist()):
            raise TorchFileError("a compressed zip archive; torch.save writes uncompressed ones")
        pickles = [name for name in names if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise TorchFileError(
                "a zip archive, but not of torch.save: it holds no data.pkl (a TorchScript archive or another "
                "kind of zip?)"
            )
        root = pickles[0].removesuffix("data.pkl")
        if root + "constants.pkl" in names:
            raise TorchFileError("a TorchScript archive; save the model's state_dict with torch.save instead")
        byteorder = root + "byteorder"
        if byteorder in names and archive.read(byteorder) != sys.byteorder.encode():
            raise TorchFileError(f"written with byte order {archive.read(byteorder)!r}, which is not this machine's")
        storages = {}
        content = _Unpickler(io.BytesIO(archive.read(pickles[0])), storages).load()
    for storage in storages.values():
        storage.read = _zip_reader(path, f"{root}data/{storage.key}")
    return content


def _zip_reader(path, name):
    def read():
        try:
            with zipfile.ZipFile(path) as archive:
                return archive.read(name)
        except Exception as error:  # zipfile raises many kinds
            raise ValueError(f"{name} cannot be read from the zip archive: {error}") from error

    return read


def _load_legacy(file):
    if file[257:262] == b"ustar":
        raise TorchFileError("PyTorch's tar format of before 2017 is not supported; open and save it with PyTorch")
    if file[:1] != pickle.PROTO:
        raise TorchFileError("not a PyTorch checkpoint: neither a zip archive nor a pickle")
    storages = {}
    if _Unpickler(file, {}).load() != _LEGACY_MAGIC:
        raise TorchFileError("not a PyTorch checkpoint: a pickle without PyTorch's magic number")
    version = _Unpickler(file, {}).load()
    if version != 1001:
        raise TorchFileError(f"legacy PyTorch format of version {version!r}; only 1001 is known")
    system = _Unpickler(file, {}).load()
    if isinstance(system, dict) and system.get("little_endian") is False:
        raise TorchFileError("written on a big-endian machine")
    content = _Unpickler(file, storages).load()
    for key in _Unpickler(file, {}).load():
        if str(key) not in storages:
            raise TorchFileError(f"holds a storage {key!r} that no tensor uses")
        storage = storages[str(key)]
        (size,) = struct.unpack("<q", file.read(8))
        length = storage.size * storage.dtype.itemsize
        start = file.tell()
        if size != storage.size or start + length > len(file):
            raise TorchFileError(f"truncated or damaged in storage {key!r}; copy it again")
        storage.read = lambda start=start, length=length: memoryview(file)[start : start + length]
        file.seek(length, os.SEEK_CUR)
    missing = [key for key, storage in storages.items() if storage.read is None]
    if missing:
        raise TorchFileError(f"truncated: storage {missing[0]!r} is missing")
    return content
