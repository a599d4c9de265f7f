"""Writes files of `torch.save`, as its zip archives, without PyTorch."""

import io
import pickle
import sys
import zipfile
from collections import OrderedDict
from pathlib import Path

import numpy as np

from qcrs_jax.files import output


def save(content, path: Path) -> None:
    """Writes a file that `torch.load` reads as `content`, with a tensor for every NumPy array (float32 or int64)."""
    storages, stream = [], io.BytesIO()
    _Pickler(stream, storages).dump(content)
    root = path.name.split(".")[0].encode(errors="replace").decode() or "archive"
    with output(path) as file, zipfile.ZipFile(file, "w") as archive:
        archive.writestr(f"{root}/data.pkl", stream.getvalue())
        archive.writestr(f"{root}/byteorder", sys.byteorder)
        for key, array in enumerate(storages):
            archive.writestr(f"{root}/data/{key}", array.tobytes())
        archive.writestr(f"{root}/version", "3\n")


_STORAGES = {np.dtype(np.float32): "FloatStorage", np.dtype(np.int64): "LongStorage"}


class _Global:
    """A name in PyTorch, written as such without importing it."""

    def __init__(self, module, name):
        self.module, self.name = module, name

    def __call__(self):
        """Never called. An object that is pickled as a constructor must be callable."""


_REBUILD = _Global("torch._utils", "_rebuild_tensor_v2")


class _Storage:
    def __init__(self, kind, key, size):
        self.kind, self.key, self.size = kind, key, size


class _Pickler(pickle._Pickler):
    """Python's own pickler, which can write names of PyTorch where it is not installed."""

    dispatch = dict(pickle._Pickler.dispatch)

    def __init__(self, file, storages):
        super().__init__(file, protocol=2)
        self.storages = storages

    def persistent_id(self, obj):
        if isinstance(obj, _Storage):
            return "storage", _Global("torch", obj.kind), str(obj.key), "cpu", obj.size
        return None

    def reducer_override(self, obj):
        if not isinstance(obj, np.ndarray):
            return NotImplemented
        array = np.ascontiguousarray(obj)
        self.storages.append(array)
        storage = _Storage(_STORAGES[array.dtype], len(self.storages) - 1, array.size)
        strides = tuple(stride // array.itemsize for stride in array.strides)
        return _REBUILD, (storage, 0, array.shape, strides, False, OrderedDict())

    def save_torch_name(self, obj):
        self.write(pickle.GLOBAL + f"{obj.module}\n{obj.name}\n".encode())

    dispatch[_Global] = save_torch_name
