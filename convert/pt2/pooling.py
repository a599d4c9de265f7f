"""Pooling, of images with channels last, and of tensors with one or three axes."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from .channels_last import of_images
from .convolution import numbers
from .registry import check_size, operation


def _geometry(size, kernel, stride, padding, dilation, ceil_mode):
    """(number of windows, padding at the end) along an axis."""
    reach = dilation * (kernel - 1) + 1
    room = size + 2 * padding - reach
    count = (-(-room // stride) if ceil_mode else room // stride) + 1
    if ceil_mode and (count - 1) * stride >= size + padding:
        count -= 1
    return count, (count - 1) * stride + reach - size - padding


def _windows(x, axes, kernel, stride, padding, dilation, ceil_mode, start, combine):
    """A reduction over windows along `axes`."""
    kernel = numbers(kernel, len(axes))
    stride = numbers(stride, len(axes)) if stride not in (None, [], ()) else kernel
    padding, dilation = numbers(padding, len(axes)), numbers(dilation, len(axes))
    check_size(math.prod(kernel), "a pool")
    sizes, steps, spread = [1] * x.ndim, [1] * x.ndim, [1] * x.ndim
    pads, counts = [(0, 0, 0)] * x.ndim, {}
    for i, axis in enumerate(axes):
        counts[axis], behind = _geometry(x.shape[axis], kernel[i], stride[i], padding[i], dilation[i], ceil_mode)
        sizes[axis], steps[axis], spread[axis] = kernel[i], stride[i], dilation[i]
        pads[axis] = (padding[i], behind, 0)
    x = jax.lax.pad(x, start, pads)
    y = jax.lax.reduce_window(x, start, combine, sizes, steps, "VALID", window_dilation=spread)
    return y, (counts, kernel, stride, padding)


def _max(x, kernel_size, stride=(), padding=0, dilation=1, ceil_mode=False, *, axes):
    low = -jnp.inf if jnp.issubdtype(x.dtype, jnp.inexact) else jnp.iinfo(x.dtype).min
    start = np.asarray(low, x.dtype)
    return _windows(x, axes, kernel_size, stride, padding, dilation, ceil_mode, start, jax.lax.max)[0]


def _average(
    x, kernel_size, stride=(), padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None, *, axes
):
    wide = x.astype(jnp.float32)
    zero = np.zeros((), np.float32)
    total, (counts, kernel, stride, padding) = _windows(
        wide, axes, kernel_size, stride, padding, 1, ceil_mode, zero, jax.lax.add
    )
    divisor = np.ones((1,) * x.ndim, np.float32)
    for i, axis in enumerate(axes):
        starts = np.arange(counts[axis]) * stride[i] - padding[i]
        size, pad = x.shape[axis], padding[i]
        first, end = starts, np.minimum(starts + kernel[i], size + pad)
        if not count_include_pad:
            first, end = np.maximum(starts, 0), np.minimum(end, size)
        shape = [1] * x.ndim
        shape[axis] = -1
        divisor = divisor * (end - first).reshape(shape).astype(np.float32)
    return (total / (divisor if divisor_override is None else divisor_override)).astype(x.dtype)


def _bins(size, count):
    """(first, end) of each of `count` bins of an axis."""
    return [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]


def _adaptive(x, output_size, axes, reduce):
    """`reduce(x, axis)` over the bins of each axis."""
    output = [output_size] * len(axes) if isinstance(output_size, int) else output_size
    if len(output) == 1:
        output = list(output) * len(axes)
    for axis, count in zip(axes, output):
        size = x.shape[axis]
        if count is None or count == size:
            continue
        check_size(count, "a pool")
        if count and size % count == 0:
            parts = jnp.reshape(x, (*x.shape[:axis], count, size // count, *x.shape[axis + 1 :]))
            x = reduce(parts, axis + 1)
        else:
            cuts = [jax.lax.slice_in_dim(x, first, end, axis=axis) for first, end in _bins(size, count)]
            x = jnp.stack([reduce(cut, axis) for cut in cuts], axis)
    return x


def _adaptive_average(x, output_size, *, axes):
    return _adaptive(x.astype(jnp.float32), output_size, axes, jnp.mean).astype(x.dtype)


def _adaptive_max(x, output_size, *, axes):
    return _adaptive(x, output_size, axes, jnp.max)


def _register(name, function, count, results=1):
    """Registers an operation over `count` axes: the last axes of a tensor, or the axes of images."""
    if count == 2:
        image = of_images(lambda x, *args, **kwargs: function(x, *args, **kwargs, axes=(1, 2)))

        def compute(self, *args, **kwargs):
            return image(self, *args, **kwargs)
    else:

        def compute(self, *args, **kwargs):
            return function(self, *args, **kwargs, axes=tuple(range(self.ndim - count, self.ndim)))

    def with_places(self, *args, **kwargs):
        return compute(self, *args, **kwargs), None  # the places of the maxima are not computed

    operation(name, lasting=count == 2)(compute if results == 1 else with_places)


for _count in (1, 2, 3):
    _register(f"max_pool{_count}d", _max, _count)
    _register(f"max_pool{_count}d_with_indices", _max, _count, results=2)
    _register(f"avg_pool{_count}d", _average, _count)
    _register(f"adaptive_avg_pool{_count}d", _adaptive_average, _count)
    _register(f"adaptive_max_pool{_count}d", _adaptive_max, _count, results=2)
    if _count > 1:
        _register(f"_adaptive_avg_pool{_count}d", _adaptive_average, _count)
