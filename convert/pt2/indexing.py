"""Operations that index, scatter and sort."""

import jax
import jax.numpy as jnp
import numpy as np

from qcrs_jax.models.checkpoint import CheckpointError

from .registry import check_size, operation
from .shapes import axis_of, piece, select


def _is_mask(index):
    return index is not None and jnp.issubdtype(jnp.result_type(index), jnp.bool_)


def _places(indices):
    """The NumPy index for PyTorch indices, where None is a whole axis."""
    if any(map(_is_mask, indices)):
        raise CheckpointError("an index of truth values gives a tensor whose size depends on the values")
    return tuple(slice(None) if x is None else x for x in indices)


@operation("index", "_unsafe_index")
def index(self, indices):
    return jnp.asarray(self)[_places(indices)]


@operation("index_put", "_unsafe_index_put")
def index_put(self, indices, values, accumulate=False):
    if len(indices) == 1 and _is_mask(indices[0]) and not jnp.ndim(values):
        mask = jnp.reshape(indices[0], indices[0].shape + (1,) * (self.ndim - indices[0].ndim))
        return jnp.where(mask, self + values if accumulate else jnp.asarray(values, self.dtype), self)
    place = jnp.asarray(self).at[_places(indices)]
    values = jnp.asarray(values, self.dtype)
    return place.add(values) if accumulate else place.set(values)


@operation("index_select")
def index_select(self, dim, index):
    return jnp.take(self, jnp.atleast_1d(index), axis_of(dim, self.ndim), mode="clip")


@operation("embedding")
def embedding(weight, indices, padding_idx=-1, scale_grad_by_freq=False, sparse=False):
    return jnp.take(weight, indices, 0, mode="clip")


def _along(self, dim, index):
    """The part of `self` that `index` reads along an axis, and that axis."""
    axis = axis_of(dim, self.ndim)
    for other in range(self.ndim):
        if other != axis:
            self = piece(self, other, 0, index.shape[other])
    return self, axis


@operation("gather")
def gather(self, dim, index, sparse_grad=False):
    if not self.ndim:
        return jnp.broadcast_to(self, jnp.shape(index))
    part, axis = _along(self, dim, index)
    return jnp.take_along_axis(part, index, axis, mode="clip")


@operation("take_along_dim")
def take_along_dim(self, indices, dim=None):
    if dim is None:
        return jnp.take(jnp.reshape(self, -1), jnp.reshape(indices, -1), mode="clip")
    axis = axis_of(dim, self.ndim)
    shape = list(np.broadcast_shapes(*(s[:axis] + (1,) + s[axis + 1 :] for s in (self.shape, indices.shape))))
    self = jnp.broadcast_to(self, (*shape[:axis], self.shape[axis], *shape[axis + 1 :]))
    indices = jnp.broadcast_to(indices, (*shape[:axis], indices.shape[axis], *shape[axis + 1 :]))
    return jnp.take_along_axis(self, indices, axis, mode="clip")


def _scattered(self, dim, index):
    axis = axis_of(dim, self.ndim)
    grid = list(jnp.meshgrid(*(jnp.arange(size) for size in index.shape), indexing="ij", sparse=True))
    grid[axis] = index
    return jnp.asarray(self).at[tuple(grid)]


def _source(index, src, value, dtype):
    if src is None:
        return jnp.asarray(value, dtype)
    for axis, size in enumerate(index.shape):
        src = piece(src, axis, 0, size)
    return src.astype(dtype)


@operation("scatter")
def scatter(self, dim, index, src=None, value=None, reduce=None):
    place, source = _scattered(self, dim, index), _source(index, src, value, self.dtype)
    if reduce is None:
        return place.set(source)
    return {"add": place.add, "multiply": place.multiply}[reduce](source)


@operation("scatter_add")
def scatter_add(self, dim, index, src):
    return _scattered(self, dim, index).add(_source(index, src, None, self.dtype))


@operation("slice_scatter")
def slice_scatter(self, src, dim=0, start=None, end=None, step=1):
    axis = axis_of(dim, self.ndim)
    part = piece(jnp.arange(self.shape[axis]), 0, start, end, step)
    where = (slice(None),) * axis + (part,)
    return jnp.asarray(self).at[where].set(jnp.asarray(src, self.dtype))


@operation("select_scatter")
def select_scatter(self, src, dim, index):
    axis = axis_of(dim, self.ndim)
    select(self, dim, index)  # refuses an invalid index
    return jnp.asarray(self).at[(slice(None),) * axis + (index,)].set(jnp.asarray(src, self.dtype))


@operation("searchsorted")
def searchsorted(sorted_sequence, self, out_int32=False, right=False, side=None, sorter=None):
    if sorter is not None:
        raise CheckpointError("searchsorted with a sorter is not supported")
    side = side or ("right" if right else "left")
    find = lambda row, values: jnp.searchsorted(row, values, side=side)  # noqa: E731
    rows = jnp.asarray(sorted_sequence)
    if rows.ndim == 1:
        return find(rows, self)
    values = jnp.asarray(self)
    flat = jax.vmap(find)(jnp.reshape(rows, (-1, rows.shape[-1])), jnp.reshape(values, (-1, values.shape[-1])))
    return jnp.reshape(flat, values.shape)


@operation("bucketize")
def bucketize(self, boundaries, out_int32=False, right=False):
    return jnp.searchsorted(boundaries, self, side="right" if right else "left")


@operation("argsort")
def argsort(self, dim=-1, descending=False, stable=False):
    if not self.ndim:
        return jnp.zeros((), jnp.int32)
    return jnp.argsort(self, axis=axis_of(dim, self.ndim), stable=True, descending=descending)


@operation("sort")
def sort(self, dim=-1, descending=False, stable=False):
    order = argsort(self, dim, descending)
    return (jnp.take_along_axis(self, order, axis_of(dim, self.ndim)) if self.ndim else self), order


@operation("topk")
def topk(self, k, dim=-1, largest=True, sorted=True):
    values, order = sort(self, dim, largest)
    if not self.ndim:
        return values, order
    axis = axis_of(dim, self.ndim)
    return piece(values, axis, 0, k), piece(order, axis, 0, k)


@operation("cumsum")
def cumsum(self, dim, dtype=None):
    return jnp.cumsum(self, axis_of(dim, self.ndim)) if self.ndim else self


@operation("cumprod")
def cumprod(self, dim, dtype=None):
    return jnp.cumprod(self, axis_of(dim, self.ndim)) if self.ndim else self


@operation("tril_indices")
def tril_indices(row, col, offset=0, dtype=None):
    check_size(row * col, "tril_indices")
    return np.stack(np.tril_indices(row, offset, col)).astype(np.int32)


@operation("triu_indices")
def triu_indices(row, col, offset=0, dtype=None):
    check_size(row * col, "triu_indices")
    return np.stack(np.triu_indices(row, offset, col)).astype(np.int32)
