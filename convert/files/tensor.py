"""Tensors in a file: views of its numbers."""

import dataclasses
import math

import numpy as np

from qcrs_jax.models.checkpoint import CheckpointError

_COPIES = 2**20  # values that a tensor may have although its storage has fewer, as those of `expand` do


@dataclasses.dataclass(eq=False, slots=True)
class Storage:
    """A run of `size` numbers. `data` are its bytes in the file, once they have been found."""

    dtype: np.dtype
    key: str
    size: int
    data: memoryview | None = None

    def find(self, data: memoryview) -> None:
        if len(data) != self.size * self.dtype.itemsize:
            raise CheckpointError(
                f"damaged: storage {self.key[:100]!r} has {len(data)} bytes instead of "
                f"{self.size * self.dtype.itemsize}; copy the file again"
            )
        self.data = data


@dataclasses.dataclass(eq=False, slots=True)
class Tensor:
    """A tensor in the file: a strided view of a storage, which lies within it.

    Raises:
        CheckpointError: the view exceeds the storage.
    """

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def __post_init__(self):
        tuples = type(self.shape) is type(self.strides) is tuple and len(self.shape) == len(self.strides) <= 64
        if not (tuples and all(type(v) is int and 0 <= v < 2**63 for v in (self.offset, *self.shape, *self.strides))):
            raise CheckpointError("damaged: a tensor whose shape, strides or offset are no such; copy the file again")
        last = self.offset + sum((size - 1) * stride for size, stride in zip(self.shape, self.strides))
        if math.prod(size or 1 for size in self.shape) > max(self.storage.size, _COPIES) or (
            last >= self.storage.size and 0 not in self.shape
        ):
            raise CheckpointError(
                f"damaged: a tensor of shape {str(self.shape)[:100]}, strides {str(self.strides)[:100]} and offset "
                f"{self.offset} does not fit its storage of {self.storage.size}; copy the file again"
            )

    @property
    def dtype(self) -> np.dtype:
        return self.storage.dtype

    def view(self) -> np.ndarray:
        """The values in the file: read-only, and lost when the file changes. Copy values that must stay."""
        if 0 in self.shape:
            return np.zeros(self.shape, self.dtype)
        strides = [stride * self.dtype.itemsize for stride in self.strides]
        values = np.frombuffer(self.storage.data, self.dtype)[self.offset :]
        return np.lib.stride_tricks.as_strided(values, self.shape, strides, writeable=False)

    def numpy(self) -> np.ndarray:
        """The values, in a new array of this shape."""
        return self.view().copy()
