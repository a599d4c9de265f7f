"""Resizing of images, by matrices of weights for rows and columns; and sampling at a grid of places.

Source: aten/src/ATen/native/UpSample.h and GridSampler.h of PyTorch.
"""

import jax.numpy as jnp
import numpy as np

from qcrs_jax.models.checkpoint import CheckpointError

from .channels_last import of_images
from .registry import check_size, operation


def _scale(size, count, scale, align):
    """The number of input pixels in one step of the output, in float32."""
    if align:
        return np.float32((size - 1) / (count - 1)) if count > 1 else np.float32(0)
    return np.float32(1 / scale) if scale is not None and scale > 0 else np.float32(size) / np.float32(count)


def _counts(sizes, output_size, scales):
    """The number of pixels of each axis of the output."""
    if output_size is not None:
        counts = list(output_size)
    else:
        counts = [int(size * scale) for size, scale in zip(sizes, scales)]
    for count in counts:
        check_size(count, "a larger image")
    return counts


def _scaled(*scales):
    """One scale for each axis, from either of the two forms of the argument."""
    factors, *single = scales
    return list(factors) if factors is not None else single


def _nearest(size, count, scale, exact):
    ratio = _scale(size, count, scale, False)
    places = np.arange(count, dtype=np.float32)
    places = (places + np.float32(0.5)) * ratio if exact else places * ratio
    return np.minimum(np.floor(places).astype(np.int64), size - 1)


def _linear(size, count, scale, align):
    """The matrix (count, size) of linear interpolation."""
    check_size(size * count, "interpolation")
    ratio, steps = _scale(size, count, scale, align), np.arange(count, dtype=np.float32)
    places = steps * ratio if align else np.maximum((steps + np.float32(0.5)) * ratio - np.float32(0.5), 0)
    low = np.minimum(places.astype(np.int64), size - 1)
    high, part = np.minimum(low + 1, size - 1), (places - low).astype(np.float32)
    matrix = np.zeros((count, size), np.float32)
    np.add.at(matrix, (np.arange(count), low), 1 - part)
    np.add.at(matrix, (np.arange(count), high), part)
    return matrix


def _cubic(t, a):
    """The weights of the four pixels around a place at a distance `t` after the second."""

    def near(x):
        return ((a + 2) * x - (a + 3)) * x * x + 1

    def far(x):
        return ((a * x - 5 * a) * x + 8 * a) * x - 4 * a

    return np.stack([far(t + 1), near(t), near(1 - t), far(2 - t)], -1)


def _bicubic(size, count, scale, align):
    check_size(size * count, "interpolation")
    ratio, steps = _scale(size, count, scale, align), np.arange(count, dtype=np.float32)
    places = steps * ratio if align else (steps + np.float32(0.5)) * ratio - np.float32(0.5)
    low = np.floor(places).astype(np.int64)
    weights = _cubic((places - low).astype(np.float64), -0.75)
    matrix = np.zeros((count, size), np.float32)
    for i in range(4):
        np.add.at(matrix, (np.arange(count), np.clip(low - 1 + i, 0, size - 1)), weights[:, i])
    return matrix


def _antialiased(reach, weight):
    """The matrix of a filter as wide as one step of the output."""

    def matrix(size, count, scale, align):
        check_size(size * count, "interpolation")
        ratio = float(_scale(size, count, scale, align))
        support = reach * max(ratio, 1.0)
        result = np.zeros((count, size), np.float32)
        for i in range(count):
            centre = ratio * (i + 0.5)
            first, end = max(int(centre - support + 0.5), 0), min(int(centre + support + 0.5), size)
            weights = weight((np.arange(first, end) - centre + 0.5) / max(ratio, 1.0))
            result[i, first:end] = weights / (weights.sum() or 1)
        return result

    return matrix


def _triangle(x):
    return np.maximum(1 - np.abs(x), 0)


def _keys(x, a=-0.5):
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0))


def _weighted(x, matrices):
    """An image (batch, *sizes, c) under a matrix for each of its axes."""
    kept = x.dtype
    x = x.astype(jnp.float32)
    for axis, matrix in enumerate(matrices, 1):
        x = jnp.moveaxis(jnp.tensordot(matrix, x, (1, axis)), 0, axis)
    return x.astype(kept)


def _resized(make):
    def compute(x, output_size, align_corners, scales):
        sizes = x.shape[1:-1]
        counts = _counts(sizes, output_size, scales)
        return _weighted(x, [make(*each, align_corners) for each in zip(sizes, counts, scales)])

    return compute


def _taken(x, output_size, scales, exact):
    counts = _counts(x.shape[1:-1], output_size, scales)
    for axis, (count, scale) in enumerate(zip(counts, scales), 1):
        places = _nearest(x.shape[axis], count, scale, exact)
        times = count // x.shape[axis]
        if count == times * x.shape[axis] and (places == np.arange(count) // times).all():
            x = jnp.repeat(x, times, axis)
        else:
            x = jnp.take(x, places, axis)
    return x


def _flat(function):
    """Makes a function of (batch, *sizes, c) one of (batch, c, *sizes)."""

    def compute(x, *args):
        return jnp.moveaxis(function(jnp.moveaxis(x, 1, -1), *args), -1, 1)

    return compute


def _register_nearest(name, count, exact):
    turned = of_images(_taken) if count == 2 else _flat(_taken)

    def compute(
        self=None,
        output_size=None,
        scales=None,
        scales_d=None,
        scales_h=None,
        scales_w=None,
        input=None,
        scale_factors=None,
    ):
        single = {1: (scales,), 2: (scales_h, scales_w), 3: (scales_d, scales_h, scales_w)}[count]
        return turned(input if self is None else self, output_size, _scaled(scale_factors, *single), exact)

    operation(name, lasting=count == 2)(compute)


def _register_weighted(name, count, make):
    turned = of_images(_resized(make)) if count == 2 else _flat(_resized(make))

    def compute(
        self=None,
        output_size=None,
        align_corners=False,
        scales=None,
        scales_d=None,
        scales_h=None,
        scales_w=None,
        input=None,
        scale_factors=None,
    ):
        single = {1: (scales,), 2: (scales_h, scales_w), 3: (scales_d, scales_h, scales_w)}[count]
        return turned(input if self is None else self, output_size, align_corners, _scaled(scale_factors, *single))

    operation(name, lasting=count == 2)(compute)


for _count in (1, 2, 3):
    _register_nearest(f"upsample_nearest{_count}d", _count, False)
    _register_nearest(f"_upsample_nearest_exact{_count}d", _count, True)
_register_weighted("upsample_linear1d", 1, _linear)
_register_weighted("upsample_bilinear2d", 2, _linear)
_register_weighted("upsample_trilinear3d", 3, _linear)
_register_weighted("upsample_bicubic2d", 2, _bicubic)
_register_weighted("_upsample_bilinear2d_aa", 2, _antialiased(1.0, _triangle))
_register_weighted("_upsample_bicubic2d_aa", 2, _antialiased(2.0, _keys))


@operation("affine_grid_generator")
def affine_grid(theta, size, align_corners):
    *_, h, w = size
    if len(size) != 4:
        raise CheckpointError("affine_grid of volumes is not supported")
    check_size(h * w, "affine_grid")
    rows, columns = (np.linspace(-1, 1, n) if n > 1 else np.zeros(1) for n in (h, w))
    if not align_corners:
        rows, columns = rows * (h - 1) / h, columns * (w - 1) / w
    x, y = np.meshgrid(columns, rows)
    base = np.stack([x, y, np.ones_like(x)], -1).astype(np.float32)
    return jnp.einsum("hwk,nik->nhwi", base, theta)


@operation("grid_sampler", "grid_sampler_2d", lasting=True)
def grid_sampler(input, grid, interpolation_mode=0, padding_mode=0, align_corners=False):
    if grid.ndim != 4 or interpolation_mode not in (0, 1) or padding_mode not in (0, 1, 2):
        raise CheckpointError("grid_sample of volumes, or bicubic, is not supported")
    return _sampled(input, grid, interpolation_mode, padding_mode, align_corners)


def _reflected(place, size, align):
    low, span = (0.0, size - 1.0) if align else (-0.5, float(size))
    if span == 0:
        return jnp.zeros_like(place)
    place = jnp.abs(place - low)
    turns, rest = jnp.floor(place / span), place % span
    return jnp.where(turns % 2 == 0, rest, span - rest) + low


@of_images
def _sampled(image, grid, mode, padding, align):
    batch, h, w, _ = image.shape
    kept, places = image.dtype, []
    image, grid = (x.astype(jnp.float32) for x in (image, grid))
    for axis, size in ((1, h), (0, w)):
        at = grid[..., axis]
        at = (at + 1) / 2 * (size - 1) if align else ((at + 1) * size - 1) / 2
        if padding == 2:
            at = _reflected(at, size, align)
        places.append(at if padding == 0 else jnp.clip(at, 0, size - 1))
    rows, columns = places
    each = jnp.arange(batch)[:, None, None]

    def pixel(i, j):
        inside = (i >= 0) & (i < h) & (j >= 0) & (j < w)
        i, j = (jnp.clip(k, 0, size - 1).astype(jnp.int32) for k, size in ((i, h), (j, w)))
        return jnp.where(inside[..., None], image[each, i, j], 0)

    if mode == 1:
        return pixel(jnp.round(rows), jnp.round(columns)).astype(kept)
    top, left = jnp.floor(rows), jnp.floor(columns)
    below, right = (rows - top)[..., None], (columns - left)[..., None]
    result = (
        pixel(top, left) * (1 - below) * (1 - right)
        + pixel(top, left + 1) * (1 - below) * right
        + pixel(top + 1, left) * below * (1 - right)
        + pixel(top + 1, left + 1) * below * right
    )
    return result.astype(kept)
