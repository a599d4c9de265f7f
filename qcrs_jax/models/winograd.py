"""Winograd's convolution: 3x3 convolutions of stride 1 with 4/9 of the multiplications, for inference on a CPU.

An output tile of 2x2 pixels depends on a tile of 4x4. Sums and differences turn that tile and the kernel into 16
numbers each. Their products, summed over the channels, are turned into the output tile. The products of all tiles are
16 matrix products (Lavin and Gray, CVPR 2016: F(2x2, 3x3)). Rounding errors are no larger than those of the plain sum.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

TILE = 4
FEWEST = 32  # channels; with fewer the matrix products are too thin
MOST = 2**21  # bytes of turned tiles at a time, which a core's share of the cache has room for

_CORNERS = (0, 0), (0, 1), (1, 0), (1, 1)
_KERNEL = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])


def turned_kernel(kernel: Float[np.ndarray, "*n 3 3 c c2"]) -> Float[np.ndarray, "*n 16 c c2"]:
    """The 16 matrices of a kernel, computed in float64."""
    turned = np.einsum("ah,bw,...hwio->...abio", _KERNEL, _KERNEL, np.asarray(kernel, np.float64))
    return turned.reshape(*kernel.shape[:-4], TILE * TILE, *kernel.shape[-2:]).astype(np.float32)


Phases = tuple[Float[Array, "batch rows columns _"], ...]
"""The pixels of images as four arrays: of even rows those in even and in odd columns, then of odd rows. A tile of 2x2
pixels has one in each, so tiles are made of whole arrays, and no pixel has to be picked out of a row."""


def split(x: Float[Array, "batch h w c"]) -> Phases:
    """The phases of images of even height and width."""
    return tuple(jax.lax.slice(x, (0, row, column, 0), x.shape, (1, 2, 2, 1)) for row, column in _CORNERS)


def merged(phases: Sequence[Float[Array, "batch rows columns c"]]) -> Float[Array, "batch h w c"]:
    """Undoes `split`."""
    batch, rows, columns, channels = phases[0].shape
    rows_of_two = [jnp.stack(phases[i : i + 2], axis=3) for i in (0, 2)]
    return jnp.stack(rows_of_two, axis=2).reshape(batch, 2 * rows, 2 * columns, channels)


def on_phases(run, x: Float[Array, "batch h w c"]) -> Float[Array, "batch h w c2"]:
    """The images that `run`, from phases to phases, makes of x. Height and width must be even."""
    return _in_groups(lambda part: merged(run(split(part))), x)


def convolved_phases(x: Phases, turned: Float[Array, "16 c c2"], bias: Float[Array, "c2"] | float = 0.0) -> Phases:
    """The phases of `convolved`. The products stay apart, so that each number of the tiles is one whole array."""
    # The first pixel of a tile of 4 is the last of the tile of 2 before it: its phase is odd, and begins with a zero.
    padded = [
        jnp.pad(phase, ((0, 0), (row, 1 - row), (column, 1 - column), (0, 0)))
        for phase, (row, column) in zip(x, _CORNERS)
    ]
    padded = jax.lax.optimization_barrier(padded)
    batch, rows, columns, channels = x[0].shape

    def pixel(i, j):
        (down, row), (right, column) = divmod(i, 2), divmod(j, 2)
        phase = padded[2 * (1 - row) + 1 - column]
        return jax.lax.slice(phase, (0, down, right, 0), (batch, down + rows, right + columns, channels))

    tiles = _tiles(pixel)
    products = [jnp.matmul(tiles[i].reshape(-1, channels), turned[i]) for i in range(TILE * TILE)]
    return tuple(phase.reshape(batch, rows, columns, -1) for phase in _pixels(products, bias))


def convolved(
    x: Float[Array, "batch h w c"], turned: Float[Array, "16 c c2"], bias: Float[Array, "c2"] | float = 0.0
) -> Float[Array, "batch h w c2"]:
    """The 3x3 convolution with padding 1 by a `turned_kernel`."""
    return _in_groups(lambda part: _convolved(part, turned, bias), x)


def _convolved(x, turned, bias):
    batch, height, width, channels = x.shape
    rows, columns = -(-height // 2), -(-width // 2)
    x = jnp.pad(x, ((0, 0), (1, 1 + height % 2), (1, 1 + width % 2), (0, 0)))

    def pixel(i, j):
        return jax.lax.slice(x, (0, i, j, 0), (batch, i + 2 * rows - 1, j + 2 * columns - 1, channels), (1, 2, 2, 1))

    products = jnp.matmul(jnp.stack(_tiles(pixel)).reshape(TILE * TILE, -1, channels), turned)
    products = products.reshape(TILE * TILE, batch, rows, columns, -1)
    return merged(_pixels(list(products), bias))[:, :height, :width]


def _in_groups(run, x):
    """`run` on as many images at a time as the cache holds."""
    batch, height, width, channels = x.shape
    if not isinstance(batch, int) or batch == 0:  # a symbol
        return run(x)
    of_one = 4 * TILE * TILE * -(-height // 2) * -(-width // 2) * channels
    count = next(n for n in range(max(1, min(batch, MOST // of_one)), 0, -1) if batch % n == 0)
    if count == batch:
        return run(x)
    parts = jax.lax.map(run, x.reshape(-1, count, *x.shape[1:]))
    return parts.reshape(batch, *parts.shape[2:])


def _tiles(pixel):
    """The 16 numbers of the tiles, whose pixels in row i and column j are `pixel(i, j)`."""
    columns = [_inward([pixel(i, j) for i in range(TILE)]) for j in range(TILE)]
    return [number for row in zip(*columns) for number in _inward(row)]


def _pixels(products, bias):
    """The four pixels of the output tiles."""
    # The number in the middle goes into all four pixels of a tile with weight 1, so the bias is added to it alone.
    middle = products[TILE + 1]
    bias = jnp.asarray(bias, middle.dtype).reshape((1,) * (middle.ndim - 1) + (-1,))
    products = [*products[: TILE + 1], middle + bias, *products[TILE + 2 :]]
    columns = [_outward(products[j::TILE]) for j in range(TILE)]
    return [pixel for row in zip(*columns) for pixel in _outward(row)]


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

    def on_phases(self, x: Phases) -> Phases:
        """The same for phases."""
        return convolved_phases(x, self.kernel[...], 0.0 if self.bias is None else self.bias[...])


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
