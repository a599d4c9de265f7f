"""Operations that rearrange the numbers of tensors."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from qcrs_jax.models.checkpoint import CheckpointError

from .channels_last import Last, last
from .elementwise import sigmoid
from .registry import check_size, operation

HUGE = 2**62  # ends of slices that mean the end


def axis_of(dim, count: int) -> int:
    """The axis `dim` of `count`, which may count from the back."""
    if not isinstance(dim, int) or not -max(count, 1) <= dim < max(count, 1):
        raise ValueError(f"there is no axis {dim} of {count}")
    return dim % max(count, 1)


@operation("view", "_unsafe_view", view=True)
def view(self, size=None, dtype=None):
    if dtype is not None:
        raise CheckpointError("view.dtype reinterprets the bits of numbers, which is not supported")
    return jnp.reshape(self, tuple(size))


@operation("reshape", view=True)
def reshape(self, shape):
    return jnp.reshape(self, tuple(shape))


@operation("view_as", "reshape_as", view=True)
def reshape_as(self, other):
    return jnp.reshape(self, other.shape)


@operation("flatten", view=True)
def flatten(self, start_dim=0, end_dim=-1):
    if not self.ndim:
        return jnp.reshape(self, (1,))
    first, end = axis_of(start_dim, self.ndim), axis_of(end_dim, self.ndim)
    return jnp.reshape(self, (*self.shape[:first], math.prod(self.shape[first : end + 1]), *self.shape[end + 1 :]))


@operation("unflatten", view=True)
def unflatten(self, dim, sizes):
    axis = axis_of(dim, self.ndim)
    sizes = list(sizes)
    if -1 in sizes:
        sizes[sizes.index(-1)] = self.shape[axis] // math.prod(size for size in sizes if size != -1)
    return jnp.reshape(self, (*self.shape[:axis], *sizes, *self.shape[axis + 1 :]))


@operation("permute", lasting=True, view=True)
def permute(self, dims):
    dims = [axis_of(dim, self.ndim) for dim in dims]
    if isinstance(self, Last):
        if dims == [0, 2, 3, 1]:
            return self.array
        self = self.plain()
    return Last(self) if dims == [0, 3, 1, 2] else jnp.transpose(self, dims)


@operation("transpose", "swapaxes", "swapdims", view=True)
def transpose(self, dim0=None, dim1=None, axis0=None, axis1=None):
    first, second = (dim0, dim1) if axis0 is None else (axis0, axis1)
    if not self.ndim:
        return self
    return jnp.swapaxes(self, axis_of(first, self.ndim), axis_of(second, self.ndim))


@operation("t", "mT", "numpy_T", view=True)
def t(self):
    return jnp.swapaxes(self, -1, -2) if self.ndim > 1 else self


@operation("movedim", "moveaxis", view=True)
def movedim(self, source, destination):
    return jnp.moveaxis(self, source, destination)


@operation("unsqueeze", view=True)
def unsqueeze(self, dim):
    return jnp.expand_dims(self, axis_of(dim, self.ndim + 1))


@operation("squeeze", view=True)
def squeeze(self, dim=None):
    dims = range(self.ndim) if dim is None else [dim] if isinstance(dim, int) else dim
    axes = {axis_of(d, self.ndim) for d in dims} if self.ndim else set()
    kept = [size for axis, size in enumerate(self.shape) if axis not in axes or not _is_one(size)]
    return jnp.reshape(self, kept)


def _is_one(size):
    return isinstance(size, int) and size == 1


@operation("expand", "broadcast_to", view=True)
def expand(self, size, implicit=False):
    new = len(size) - self.ndim
    sizes = [self.shape[i - new] if _is_minus_one(size[i]) else size[i] for i in range(len(size))]
    return jnp.broadcast_to(self, tuple(sizes))


def _is_minus_one(size):
    return isinstance(size, int) and size == -1


@operation("expand_as", view=True)
def expand_as(self, other):
    return jnp.broadcast_to(self, other.shape)


@operation("repeat")
def repeat(self, repeats):
    self = jnp.reshape(self, (1,) * (len(repeats) - self.ndim) + tuple(self.shape))
    if all(_is_one(r) for r in repeats):
        return self
    spread = [1, 1] * self.ndim
    spread[1::2] = self.shape
    shape = [part for r, size in zip(repeats, self.shape) for part in (r, size)]
    return jnp.reshape(
        jnp.broadcast_to(jnp.reshape(self, spread), shape), [r * size for r, size in zip(repeats, self.shape)]
    )


@operation("tile")
def tile(self, dims):
    return repeat(self, [1] * (self.ndim - len(dims)) + list(dims))


@operation("repeat_interleave")
def repeat_interleave(self, repeats, dim=None, output_size=None):
    if not isinstance(repeats, int):
        raise CheckpointError("repeat_interleave by a tensor has a size that depends on the values")
    if dim is None:
        self, dim = jnp.reshape(self, -1), 0
    return jnp.repeat(self, repeats, axis_of(dim, self.ndim))


@operation("cat", "concat", "concatenate", lasting=True)
def cat(tensors, dim=0):
    tensors = [x for x in tensors if tuple(x.shape) != (0,)] or tensors[:1]
    axis = axis_of(dim, tensors[0].ndim)
    if any(isinstance(x, Last) for x in tensors) and all(x.ndim == 4 for x in tensors):
        return Last(jnp.concatenate([last(x).array for x in tensors], LAST_AXIS[axis]))
    return jnp.concatenate([jnp.asarray(x) for x in tensors], axis)


LAST_AXIS = (0, 3, 1, 2)
"""The place of an axis of (batch, c, h, w) in (batch, h, w, c)."""


@operation("stack")
def stack(tensors, dim=0):
    return jnp.stack([jnp.asarray(x) for x in tensors], axis_of(dim, tensors[0].ndim + 1))


def piece(x, axis, start, end, step=1):
    """x[start:end:step] along an axis, with Python's rules; x itself if that is all of it."""
    size = x.shape[axis]
    start, end = 0 if start is None else start, size if end is None else end
    if isinstance(end, int) and end >= HUGE:
        end = size
    if step < 1:
        raise ValueError("a step that is not positive")
    if isinstance(start, int) and start == 0 and end is size and step == 1:
        return x
    if isinstance(size, int) and isinstance(start, int) and isinstance(end, int):
        start, end, _ = slice(start, end).indices(size)
        end = max(start, end)
    elif isinstance(start, int) and start == 0 and step == 1 and end == size:
        return x
    elif isinstance(start, int) and start < 0:
        start = size + start
    elif isinstance(end, int) and end < 0:
        end = size + end
    if isinstance(x, Last):
        return Last(jax.lax.slice_in_dim(x.array, start, end, step, LAST_AXIS[axis]))
    return jax.lax.slice_in_dim(jnp.asarray(x), start, end, step, axis)


@operation("slice", lasting=True, view=True)
def slice_(self, dim=0, start=None, end=None, step=1):
    return piece(self, axis_of(dim, self.ndim), start, end, step)


@operation("narrow", lasting=True, view=True)
def narrow_(self, dim, start, length):
    return piece(self, axis_of(dim, self.ndim), start, start + length)


@operation("select", view=True)
def select(self, dim, index):
    axis = axis_of(dim, self.ndim)
    if not isinstance(index, int):
        return jnp.take(self, index, axis, mode="clip")
    return jax.lax.index_in_dim(jnp.asarray(self), _place(index, self.shape[axis]), axis, keepdims=False)


def _place(index, size):
    if isinstance(size, int) and not -size <= index < size:
        raise ValueError(f"there is no index {index} of {size}")
    return index if index >= 0 else size + index


@operation("split", "split_with_sizes", "split_copy", lasting=True, view=True)
def split(self, split_size=None, dim=0, split_sizes=None):
    axis = axis_of(dim, self.ndim)
    sizes = split_sizes if split_sizes is not None else split_size
    if isinstance(sizes, int):
        if sizes < 1:
            raise ValueError("pieces of no length")
        check_size(pieces := -(-self.shape[axis] // sizes), "split")
        sizes = [sizes] * pieces
        sizes[-1] = self.shape[axis] - sum(sizes[:-1])
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    if ends[-1] != self.shape[axis]:
        raise ValueError("pieces of another length than the whole")
    return [piece(self, axis, end - size, end) for size, end in zip(sizes, ends)]


@operation("chunk", lasting=True, view=True)
def chunk(self, chunks, dim=0):
    size = self.shape[axis_of(dim, self.ndim)]
    return split(self, max(-(-size // chunks), 1), dim)


@operation("tensor_split", lasting=True, view=True)
def tensor_split(self, sections=None, dim=0, indices=None):
    size = self.shape[axis_of(dim, self.ndim)]
    if indices is None:
        check_size(sections, "tensor_split")
        return split(self, None, dim, [size // sections + (i < size % sections) for i in range(sections)])
    ends = [slice(0, i).indices(size)[1] for i in indices] + [size]
    return [piece(self, axis_of(dim, self.ndim), start, max(start, end)) for start, end in zip([0, *ends], ends)]


@operation("glu")
def glu(self, dim=-1):
    axis = axis_of(dim, self.ndim)
    half = self.shape[axis] // 2
    gate = sigmoid(piece(self, axis, half, None))
    return piece(self, axis, 0, half) * gate


@operation("prelu", "_prelu_kernel")
def prelu(self, weight):
    if self.ndim > 1 and jnp.ndim(weight) == 1:
        weight = jnp.reshape(weight, (-1,) + (1,) * (self.ndim - 2))
    return jnp.where(self > 0, self, self * weight)


@operation("unbind", view=True)
def unbind(self, dim=0):
    axis = axis_of(dim, self.ndim)
    return [select(self, axis, i) for i in range(self.shape[axis])]


@operation("pad", "constant_pad_nd", lasting=True)
def pad(self, pad, mode="constant", value=None):
    """`pad` has two numbers for the last axis, two for the one before, and so on; negative ones cut."""
    if len(pad) % 2 or len(pad) > 2 * self.ndim:
        raise ValueError("an invalid padding")
    widths = [(0, 0)] * (self.ndim - len(pad) // 2) + [(pad[i], pad[i + 1]) for i in range(len(pad) - 2, -1, -2)]
    if isinstance(self, Last):
        return Last(_padded(self.array, [widths[i] for i in (0, 2, 3, 1)], mode, value))
    return _padded(self, widths, mode, value)


def _padded(x, widths, mode, value):
    x = jnp.asarray(x)
    for width in (*widths,):
        check_size(max(map(abs, width)), "pad")
    if mode == "constant":
        fill = jnp.asarray(0 if value is None else value, x.dtype)
        return jax.lax.pad(x, fill, [(low, high, 0) for low, high in widths])
    modes = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}
    for axis, (low, high) in enumerate(widths):
        size = x.shape[axis]
        if mode == "reflect" and max(low, high) >= size or mode == "circular" and max(low, high) > size:
            raise ValueError("a padding as long as the axis")
    grown = jnp.pad(x, [(max(low, 0), max(high, 0)) for low, high in widths], mode=modes[mode])
    cut = [(min(low, 0), min(high, 0), 0) for low, high in widths]
    return jax.lax.pad(grown, jnp.asarray(0, x.dtype), cut) if any(low or high for low, high, _ in cut) else grown


for _name, _mode in {"reflection": "reflect", "replication": "replicate"}.items():
    for _kind in ("1d", "2d", "3d"):
        operation(f"{_name}_pad{_kind}", lasting=True)(lambda self, padding, m=_mode: pad(self, padding, m))


@operation("roll")
def roll(self, shifts, dims=()):
    if not dims:
        return jnp.reshape(jnp.roll(jnp.reshape(self, -1), shifts[0]), self.shape)
    return jnp.roll(self, tuple(shifts), tuple(dims))


@operation("flip")
def flip(self, dims):
    return jnp.flip(self, [axis_of(dim, self.ndim) for dim in dims])


@operation("rot90")
def rot90(self, k=1, dims=(0, 1)):
    return jnp.rot90(self, k, tuple(dims))


@operation("tril")
def tril(self, diagonal=0):
    return jnp.tril(self, diagonal)


@operation("triu")
def triu(self, diagonal=0):
    return jnp.triu(self, diagonal)


@operation("diagonal", view=True)
def diagonal(self, offset=0, dim1=0, dim2=1):
    return jnp.diagonal(self, offset, dim1, dim2)


@operation("pixel_shuffle")
def pixel_shuffle(self, upscale_factor):
    *outer, c, h, w = self.shape
    r = upscale_factor
    x = jnp.reshape(self, (*outer, c // r**2, r, r, h, w))
    n = len(outer)
    x = jnp.transpose(x, (*range(n), n, n + 3, n + 1, n + 4, n + 2))
    return jnp.reshape(x, (*outer, c // r**2, h * r, w * r))


@operation("pixel_unshuffle")
def pixel_unshuffle(self, downscale_factor):
    *outer, c, h, w = self.shape
    r = downscale_factor
    x = jnp.reshape(self, (*outer, c, h // r, r, w // r, r))
    n = len(outer)
    x = jnp.transpose(x, (*range(n), n, n + 2, n + 4, n + 1, n + 3))
    return jnp.reshape(x, (*outer, c * r**2, h // r, w // r))


@operation("channel_shuffle", "native_channel_shuffle")
def channel_shuffle(self, groups):
    batch, c, *rest = self.shape
    x = jnp.reshape(self, (batch, groups, c // groups, *rest))
    return jnp.reshape(jnp.swapaxes(x, 1, 2), self.shape)


@operation("unfold", view=True)
def unfold(self, dimension, size, step):
    axis = axis_of(dimension, self.ndim)
    count = (self.shape[axis] - size) // step + 1
    check_size(count * size, "unfold")
    windows = np.arange(count)[:, None] * step + np.arange(size)
    return jnp.moveaxis(jnp.take(self, windows, axis), axis + 1, -1)


@operation("im2col")
def im2col(self, kernel_size, dilation, padding, stride):
    batch, c = self.shape[:2]
    x = jnp.pad(self, ((0, 0), (0, 0), *((p, p) for p in padding)))
    counts = [(x.shape[2 + i] - dilation[i] * (kernel_size[i] - 1) - 1) // stride[i] + 1 for i in range(2)]
    check_size(math.prod(counts) * math.prod(kernel_size), "im2col")
    rows, columns = (
        np.arange(kernel_size[i])[:, None] * dilation[i] + np.arange(counts[i]) * stride[i] for i in range(2)
    )
    x = x[:, :, rows[:, None, :, None], columns[None, :, None, :]]
    return jnp.reshape(x, (batch, c * math.prod(kernel_size), math.prod(counts)))


@operation("as_strided", view=True)
def as_strided(self, size, stride, storage_offset=None):
    check_size(math.prod(s for s in size if isinstance(s, int)), "as_strided")
    places = np.full((), storage_offset or 0)
    for length, step in zip(size, stride):
        places = places[..., None] + np.arange(length) * step
    if places.size and places.max() >= self.size:
        raise ValueError("a view that is outside its tensor")
    return jnp.reshape(self, -1)[places]


@operation("broadcast_tensors", view=True)
def broadcast_tensors(tensors):
    return list(jnp.broadcast_arrays(*tensors))
