"""Operations that make tensors out of numbers."""

import math

import jax.numpy as jnp
import numpy as np

from qcrs_jax.models.checkpoint import CheckpointError

from .elementwise import narrow
from .registry import check_size, operation


@operation("arange")
def arange(end, start=0, step=1, dtype=None):
    whole = not any(isinstance(value, float) for value in (start, end, step))
    dtype = narrow(dtype if dtype is not None else np.int64 if whole else np.float32)
    if not all(isinstance(value, int | float) for value in (start, end, step)):
        return jnp.arange(start, end, step, dtype)  # computed from a symbolic size
    count = math.ceil((end - start) / step)
    check_size(count, "arange")
    return (start + np.arange(max(count, 0)) * step).astype(dtype)


@operation("linspace")
def linspace(start, end, steps, dtype=None):
    check_size(steps, "linspace")
    return jnp.linspace(start, end, steps, dtype=narrow(dtype or np.float32))


@operation("eye")
def eye(n, m=None, dtype=None):
    m = n if m is None else m
    check_size(n * m, "eye")
    return jnp.eye(n, m, dtype=narrow(dtype or np.float32))


def _made(size, value, dtype):
    check_size(math.prod(s for s in size if isinstance(s, int)), "full")
    return jnp.full(tuple(size), value, dtype=narrow(dtype))


@operation("full")
def full(size, fill_value, dtype=None):
    kinds = {bool: np.bool_, int: np.int64}
    return _made(size, fill_value, dtype or kinds.get(type(fill_value), np.float32))


@operation("zeros", "empty")
def zeros(size, dtype=None):
    return _made(size, 0, dtype or np.float32)


@operation("ones")
def ones(size, dtype=None):
    return _made(size, 1, dtype or np.float32)


@operation("new_zeros", "new_empty")
def new_zeros(self, size, dtype=None):
    return _made(size, 0, dtype or self.dtype)


@operation("new_ones")
def new_ones(self, size, dtype=None):
    return _made(size, 1, dtype or self.dtype)


@operation("new_full")
def new_full(self, size, fill_value, dtype=None):
    return _made(size, fill_value, dtype or self.dtype)


@operation("scalar_tensor")
def scalar_tensor(s, dtype=None):
    return jnp.asarray(s, narrow(dtype or np.float32))


@operation("meshgrid")
def meshgrid(tensors, indexing="ij"):
    grids = [jnp.atleast_1d(jnp.asarray(x)) for x in tensors]
    check_size(math.prod(x.size for x in grids), "meshgrid")
    return list(jnp.meshgrid(*grids, indexing=indexing))


@operation("one_hot")
def one_hot(self, num_classes=-1):
    if not isinstance(num_classes, int) or num_classes < 0:
        raise CheckpointError("one_hot without a number of classes has a size that depends on the values")
    return (jnp.asarray(self)[..., None] == np.arange(num_classes)).astype(jnp.int32)
