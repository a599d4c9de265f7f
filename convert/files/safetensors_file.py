"""Reads `.safetensors` with the library of that name."""

import math
import mmap
import struct
from pathlib import Path

import ml_dtypes
import numpy as np
import safetensors

from qcrs_jax.models.checkpoint import CheckpointError

from .tensor import Storage, Tensor
from .unpickle import LIMIT, set_items

_KINDS = {
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


def load_safetensors(path: Path, data: mmap.mmap) -> dict[str, Tensor]:
    """The tensors of the safetensors file `path`, whose bytes are `data`.

    Raises:
        CheckpointError: the header is too long, or a tensor has a type that no network here has. The library raises
            other errors.
    """
    (length,) = struct.unpack_from("<Q", data)
    if length > LIMIT:
        raise CheckpointError(f"damaged, or a header of more than {LIMIT >> 20} MiB; copy it again")
    content, position = {}, 8 + length
    with safetensors.safe_open(path, framework="numpy") as file:
        for name in file.offset_keys():  # the library has checked that they follow one another without a gap
            part = file.get_slice(name)
            kind, shape = part.get_dtype(), tuple(part.get_shape())
            if len(name) > 1000:
                raise CheckpointError(f"the name of a tensor is too long: {name[:100]!r}...; save it under another")
            if kind not in _KINDS:
                raise CheckpointError(f"tensor {name[:100]!r} is of type {kind}; save it as F32")
            storage = Storage(np.dtype(_KINDS[kind]), name, math.prod(shape))
            start, position = position, position + storage.size * storage.dtype.itemsize
            storage.find(memoryview(data)[start:position])
            strides = tuple(math.prod(shape[i + 1 :]) for i in range(len(shape)))
            set_items(content, [(name, Tensor(storage, 0, shape, strides))])
    if position != len(data):
        raise CheckpointError(f"damaged: {len(data) - position} bytes after the last tensor; copy it again")
    return content
