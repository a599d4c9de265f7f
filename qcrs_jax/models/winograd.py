"""Winograd's convolution: 3x3 convolutions of stride 1 with 4/9 of the multiplications, for inference on a CPU.

An output tile of 2x2 pixels depends on a tile of 4x4. Sums and differences turn that tile and the kernel into 16
numbers each. Their products, summed over the channels, are turned into the output tile. The products of all tiles are
16 matrix products (Lavin and Gray, CVPR 2016: F(2x2, 3x3)). Rounding errors are no larger than those of the plain sum.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

TILE = 4
FEWEST = 32  # channels; with fewer the matrix products are too thin
MOST = 2**21  # bytes of turned tiles at a time, which a core's share of the cache has room for

_KERNEL = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])


def turned_kernel(kernel: Float[np.ndarray, "*n 3 3 c c2"]) -> Float[np.ndarray, "*n 16 c c2"]:
    """The 16 matrices of a kernel, computed in float64."""
    turned = np.einsum("ah,bw,...hwio->...abio", _KERNEL, _KERNEL, np.asarray(kernel, np.float64))
    return turned.reshape(*kernel.shape[:-4], TILE * TILE, *kernel.shape[-2:]).astype(np.float32)


def convolved(
    x: Float[Array, "batch h w c"], turned: Float[Array, "16 c c2"], bias: Float[Array, "c2"] | float = 0.0
) -> Float[Array, "batch h w c2"]:
    """The 3x3 convolution with padding 1 by a `turned_kernel`, of as many images at a time as the cache holds."""
    batch, height, width, channels = x.shape
    if not isinstance(batch, int) or batch == 0:
        return _convolved(x, turned, bias)
    of_one = 4 * TILE * TILE * math.ceil(height / 2) * math.ceil(width / 2) * channels
    count = next(n for n in range(max(1, min(batch, MOST // of_one)), 0, -1) if batch % n == 0)
    if count == batch:
        return _convolved(x, turned, bias)
    parts = jax.lax.map(lambda part: _convolved(part, turned, bias), x.reshape(-1, count, *x.shape[1:]))
    return parts.reshape(batch, height, width, -1)


def _convolved(x, turned, bias):
    batch, height, width, channels = x.shape
    rows, columns = -(-height // 2), -(-width // 2)
    x = jnp.pad(x, ((0, 0), (1, 1 + height % 2), (1, 1 + width % 2), (0, 0)))
    tiles = [tile for row in _inward(_every_second(x, 1, rows)) for tile in _inward(_every_second(row, 2, columns))]
    tiles = jnp.stack(tiles).reshape(TILE * TILE, -1, channels)
    y = jax.lax.dot_general(tiles, turned, (((2,), (1,)), ((0,), (0,))))
    y = y.reshape(TILE, TILE, batch, rows, columns, -1)
    bias = jnp.reshape(jnp.asarray(bias, y.dtype), (1, 1, 1, -1))
    # The number in the middle goes into all four pixels of a tile with weight 1, so the bias is added to it alone.
    y = [[y[i, j] + bias if i == j == 1 else y[i, j] for j in range(TILE)] for i in range(TILE)]
    y = [_outward(row) for row in zip(*[_outward([row[j] for row in y]) for j in range(TILE)])]
    y = jnp.stack([jnp.stack(row, axis=3) for row in y], axis=2)  # (batch, rows, 2, columns, 2, c2)
    return y.reshape(batch, 2 * rows, 2 * columns, -1)[:, :height, :width]


def _every_second(x, axis, count):
    """The 4 arrays of the pixels i, i + 2, i + 4, ... along an axis, `count` of them."""
    return [jax.lax.slice_in_dim(x, i, i + 2 * count - 1, 2, axis) for i in range(TILE)]


def _inward(a):
    return a[0] - a[2], a[1] + a[2], a[2] - a[1], a[1] - a[3]


def _outward(a):
    return a[0] + a[1] + a[2], a[1] - a[2] - a[3]


class Winograd(nnx.Module):
    """A convolution in this form; `kernel` is turned, and may be stacked along a leading axis."""

    def __init__(self, conv: nnx.Conv):
        self.kernel = nnx.Param(jnp.asarray(turned_kernel(np.asarray(conv.kernel[...]))))
        self.bias = None if conv.bias is None else nnx.Param(conv.bias[...])

    def __call__(self, x: Float[Array, "batch h w c"]) -> Float[Array, "batch h w c2"]:
        return convolved(x, self.kernel[...], 0.0 if self.bias is None else self.bias[...])


def use_winograd(model: nnx.Module) -> None:
    """Replaces the convolutions of `model` that are faster in this form, in place. They must compute in float32."""
    found = [
        (module, name, value)
        for _, module in nnx.iter_modules(model)
        for name, value in vars(module).items()
        if isinstance(value, nnx.Conv) and _fits(value)
    ]
    for module, name, conv in found:
        setattr(module, name, Winograd(conv))


def _fits(conv):
    *_, height, width, channels, features = conv.kernel[...].shape
    plain = (conv.strides, conv.input_dilation, conv.kernel_dilation, conv.feature_group_count)
    ones = all(value in (1, (1, 1)) for value in plain)
    around = conv.padding in ("SAME", ((1, 1), (1, 1)))
    return (height, width) == (3, 3) and min(channels, features) >= FEWEST and ones and around
