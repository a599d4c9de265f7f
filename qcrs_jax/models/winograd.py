"""Winograd's convolution: 3x3 convolutions of stride 1 with 4/9 of the multiplications, for inference on a CPU.

An output tile of 2x2 pixels depends on a tile of 4x4. Sums and differences turn that tile and the kernel into 16
numbers each. Their products, summed over the channels, are turned into the output tile. The products of all tiles are
16 matrix products (Lavin and Gray, CVPR 2016: F(2x2, 3x3)). Rounding errors are no larger than those of the plain sum.
"""

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


def merged(phases: Phases) -> Float[Array, "batch h w c"]:
    """Undoes `split`."""
    batch, rows, columns, channels = phases[0].shape
    rows_of_two = [jnp.stack(phases[i : i + 2], axis=3) for i in (0, 2)]
    return jnp.stack(rows_of_two, axis=2).reshape(batch, 2 * rows, 2 * columns, channels)


def on_phases(run, x: Float[Array, "batch h w c"]) -> Float[Array, "batch h w c2"]:
    """`run`, from phases to phases, on as many images at a time as the cache holds. Height and width must be even."""
    batch, height, width, channels = x.shape
    count = batch
    if isinstance(batch, int) and batch:  # a number, not a symbol
        most = MOST // (4 * TILE * TILE * (height // 2) * (width // 2) * channels)
        count = next(n for n in range(max(1, min(batch, most)), 0, -1) if batch % n == 0)
    if count == batch:
        return merged(run(split(x)))
    parts = jax.lax.map(lambda part: merged(run(split(part))), x.reshape(-1, count, *x.shape[1:]))
    return parts.reshape(batch, height, width, -1)


def convolved(
    x: Float[Array, "batch h w c"], turned: Float[Array, "16 c c2"], bias: Float[Array, "c2"] | float = 0.0
) -> Float[Array, "batch h w c2"]:
    """The 3x3 convolution with padding 1 by a `turned_kernel`."""
    _, height, width, _ = x.shape
    x = jnp.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
    return on_phases(lambda phases: convolved_phases(phases, turned, bias), x)[:, :height, :width]


def convolved_phases(x: Phases, turned: Float[Array, "16 c c2"], bias: Float[Array, "c2"] | float = 0.0) -> Phases:
    """The phases of `convolved`."""
    shape = x[0].shape
    tile = _pixels(x)
    tile = [_inward(column) for column in zip(*[_inward(row) for row in tile])]
    tile = [number.reshape(-1, shape[-1]) for row in zip(*tile) for number in row]
    y = [jnp.matmul(number, turned[i]) for i, number in enumerate(tile)]
    # The number in the middle goes into all four pixels of a tile with weight 1, so the bias is added to it alone.
    middle = TILE + 1
    y[middle] += jnp.reshape(jnp.asarray(bias, y[middle].dtype), (1, -1))
    rows = [_outward(y[i : i + TILE]) for i in range(0, TILE * TILE, TILE)]
    return tuple(pixel.reshape(*shape[:-1], -1) for row in zip(*[_outward(c) for c in zip(*rows)]) for pixel in row)


def _pixels(x):
    """Rows of the 4x4 arrays of the pixels that the tiles have in the same place, zeros beyond the edges."""
    # The first pixel of a tile of 4 is the last of the tile of 2 before it: its phase is odd, and begins with a zero.
    padded = [
        jnp.pad(x[2 * row + column], ((0, 0), (row, 1 - row), (column, 1 - column), (0, 0))) for row, column in _CORNERS
    ]
    padded = jax.lax.optimization_barrier(padded)
    batch, rows, columns, channels = x[0].shape

    def pixel(i, j):
        (down, row), (right, column) = divmod(i, 2), divmod(j, 2)
        phase = padded[2 * (1 - row) + 1 - column]
        return jax.lax.slice(phase, (0, down, right, 0), (batch, down + rows, right + columns, channels))

    return [[pixel(i, j) for j in range(TILE)] for i in range(TILE)]


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
