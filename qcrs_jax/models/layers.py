"""Layers shared by the network families, with PyTorch's conventions for padding."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float


@dataclasses.dataclass(frozen=True)
class Form:
    """How a network is written for inference. All forms of a network compute the same function, but for rounding.

    Attributes:
        joined: of the stages, from the first, how many columns are joined (`join_columns`), the stem's with them; ()
            for none. Only networks with few channels have such stages.
        unrolled: whether the blocks of a stage are written out one after another; otherwise they are one block in a
            loop, which compiles faster.
        slice_first: see `scan_blocks`.
        packed: whether a 7x7 stem takes squares of four pixels at a time (`pack_pixels`).
        beside: how many images stand side by side in the stages (`put_beside`); 1 for none. Rows are joined then, not
            columns. Only networks with few channels have such stages.
        winograd: whether 3x3 convolutions of many channels are computed by Winograd's algorithm (`use_winograd`), in
            float32. They do not stand side by side.
    """

    joined: tuple[int, ...] = (2,)
    unrolled: bool = False
    slice_first: bool = False
    packed: bool = False
    beside: int = 1
    winograd: bool = False

    @classmethod
    def of(cls, platform: "str | Form", jax_version: tuple[int, ...] = jax.__version_info__) -> "Form":
        """The form for `platform`, a name of JAX's; a form is kept as it is.

        Those of a CPU and of a GPU (an H100) were the fastest of those measured there. That of a TPU is by its
        compiler's estimates. On a CPU the form depends on the version of JAX: since 0.11 XLA computes a convolution
        row by row of each image, at a cost for each row, and long rows are faster.
        """
        if isinstance(platform, cls):
            return platform
        if platform == "tpu":
            return cls(joined=(2, 2), slice_first=True)
        if platform == "cpu":
            return cls(beside=16 if jax_version >= (0, 11) else 1, winograd=True)
        return cls(joined=(4, 2), unrolled=True, packed=True)


def conv(features_in: int, features: int, kernel: int, stride: int = 1, *, rngs: nnx.Rngs) -> nnx.Conv:
    """A convolution without bias, padded by kernel // 2 on every side, also with strides.

    "SAME" would shift strided convolutions.
    """
    return nnx.Conv(
        features_in,
        features,
        (kernel, kernel),
        strides=(stride, stride),
        padding=((kernel // 2, kernel // 2),) * 2,
        use_bias=False,
        kernel_init=nnx.initializers.variance_scaling(2.0, "fan_out", "normal"),
        rngs=rngs,
    )


def batch_norm(features: int, *, rngs: nnx.Rngs) -> nnx.BatchNorm:
    """Batch normalisation with PyTorch's constants."""
    return nnx.BatchNorm(features, momentum=0.9, epsilon=1e-5, rngs=rngs)


class ConvNorm(nnx.Module):
    """A convolution, and batch normalisation, which `fold_norms` folds into it; without the latter if not `normed`."""

    def __init__(
        self, features_in: int, features: int, kernel: int, stride: int = 1, normed: bool = True, *, rngs: nnx.Rngs
    ):
        self.conv = conv(features_in, features, kernel, stride, rngs=rngs)
        self.norm = batch_norm(features, rngs=rngs) if normed else None
        self.features_in = features_in
        self.columns = self.rows = 1  # see join_columns, join_rows
        self.packed = False  # see pack_pixels

    def __call__(self, x: Float[Array, "batch h w *beside c"]) -> Float[Array, "batch h2 w2 *beside c2"]:
        if x.ndim == 5:
            bias = None if self.conv.bias is None else self.conv.bias[...]
            return conv_beside(x, self.conv.kernel[...], bias, self.rows)
        if self.packed:
            return self.conv(_squares(x, self.conv.kernel.shape[-2]))
        x = x.reshape(*x.shape[:2], -1, self.features_in)  # undoes join_columns of the layer before
        if x.shape[2] % self.columns:
            raise ValueError(
                f"images of this width ({x.shape[2]} columns in a layer that takes {self.columns} at a time)"
            )
        x = self.conv(x)
        return x if self.norm is None else self.norm(x)


def fold_norms(model: nnx.Module) -> None:
    """Folds the batch normalisation of every ConvNorm of `model` into its convolution, in place, for inference.

    Computes in float64 on the host; works on single blocks and on blocks stacked along a leading axis.
    """
    for _, unit in nnx.iter_modules(model):
        if not isinstance(unit, ConvNorm) or unit.norm is None:
            continue
        norm, conv = unit.norm, unit.conv
        assert norm.scale is not None and norm.bias is not None
        scale, bias, mean, var = (
            np.asarray(leaf[...], np.float64) for leaf in (norm.scale, norm.bias, norm.mean, norm.var)
        )
        factor = scale / np.sqrt(var + norm.epsilon)
        kernel = np.asarray(conv.kernel[...], np.float64) * factor[..., None, None, None, :]
        conv.kernel = nnx.Param(jnp.asarray(kernel, jnp.float32))
        conv.bias = nnx.Param(jnp.asarray(bias - mean * factor, jnp.float32))
        conv.use_bias = True
        unit.norm = None


def compute_in(model: nnx.Module, dtype) -> None:
    """Makes the layers of `model` compute in `dtype`, in place, their weights rounded to it.

    Batch normalisation that is not folded keeps its statistics and weights in float32, and rounds its output.
    """
    for _, layer in nnx.iter_modules(model):
        if isinstance(layer, (nnx.Conv, nnx.Linear, nnx.BatchNorm)):
            layer.dtype = dtype
        if isinstance(layer, (nnx.Conv, nnx.Linear)):
            layer.kernel = nnx.Param(layer.kernel[...].astype(dtype))
            if layer.bias is not None:
                layer.bias = nnx.Param(layer.bias[...].astype(dtype))


def join_columns(unit: ConvNorm, columns: int) -> None:
    """Makes a folded 3x3 convolution of stride 1 compute `columns` neighbouring columns at a time, in place.

    Its output (h, w, c) then comes as (h, w / columns, columns * c), the same numbers in the same order: a reshape
    undoes it at no cost. With 16 channels a convolution leaves most of a vector unit idle; two columns at a time
    cost 4/3 of the operations and are yet faster by a third. Works on stacked kernels too.
    """
    _join(unit, columns, axis=-3)
    unit.columns = columns


def join_rows(unit: ConvNorm, rows: int) -> None:
    """Makes a folded 3x3 convolution of stride 1 compute `rows` neighbouring rows at a time, in place.

    As `join_columns`, for images side by side (`put_beside`), whose neighbouring columns are apart. The rows have to
    be brought into order again, which costs a copy.
    """
    _join(unit, rows, axis=-4)
    unit.rows = rows


def _join(unit, count, axis):
    """Makes the kernel of `unit` give `count` neighbours along `axis`, -4 for rows or -3 for columns."""
    joined = joined_kernel(np.asarray(unit.conv.kernel[...]), count, axis)
    unit.conv.kernel = nnx.Param(jnp.asarray(joined))
    unit.conv.bias = nnx.Param(jnp.asarray(np.tile(np.asarray(unit.conv.bias[...]), count)))
    unit.conv.kernel_size = joined.shape[-4:-2]
    unit.conv.strides = (count, 1) if axis == -4 else (1, count)


def joined_kernel(kernel: np.ndarray, count: int, axis: int) -> np.ndarray:
    """The kernel (h, w, c, count c2) that gives `count` neighbours along `axis`, -4 for rows or -3 for columns."""
    kernel = np.moveaxis(kernel, axis, 0)
    joined = np.zeros((len(kernel) + count - 1, *kernel.shape[1:-1], count, kernel.shape[-1]), kernel.dtype)
    for j in range(count):
        joined[j : j + len(kernel), ..., j, :] = kernel
    return np.moveaxis(joined.reshape(*joined.shape[:-2], -1), 0, axis)


def put_beside(x: Float[Array, "batch h w c"], count: int) -> Float[Array, "batch2 h w count c"]:
    """The images with `count` of them side by side: the first column of each, then the second of each, and so on.

    A row is `count` times as long so. The neighbours of a pixel are `count` pixels away, and belong to its own image.
    """
    batch, h, w, c = x.shape
    return x.reshape(batch // count, count, h, w, c).transpose(0, 2, 3, 1, 4)


def put_apart(x: Float[Array, "batch2 h w count c"]) -> Float[Array, "batch h w c"]:
    """Undoes `put_beside`."""
    x = x.transpose(0, 3, 1, 2, 4)
    return x.reshape(-1, *x.shape[2:])


def conv_beside(
    x: Float[Array, "batch2 h w beside c"],
    kernel: Float[Array, "kh kw c c3"],
    bias: Float[Array, "c3"] | None,
    rows: int,
) -> Float[Array, "batch2 h w beside c2"]:
    """A 3x3 convolution of stride 1 on images side by side, with as many `rows` joined in its kernel and its bias."""
    batch, h, w, beside, c = x.shape
    y = jax.lax.conv_general_dilated(
        x.reshape(batch, h, w * beside, c),
        kernel,
        (rows, 1),
        ((1, 1), (beside, beside)),
        rhs_dilation=(1, beside),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    y = y if bias is None else y + bias.reshape(1, 1, 1, -1)
    return y.reshape(batch, h // rows, w * beside, rows, -1).swapaxes(2, 3).reshape(batch, h, w, beside, -1)


def pack_pixels(unit: ConvNorm) -> None:
    """Makes a folded 7x7 convolution of stride 2 a 4x4 one of stride 1 over squares of 2x2 pixels, in place.

    The channels of the four pixels stand side by side, filled up with zeros to a multiple of 8. Three channels leave
    the matrix units of a GPU idle; so the stem of ResNet-50 took a fifth of its time.
    """
    kernel = np.asarray(unit.conv.kernel[...])
    kernel = np.pad(kernel, ((1, 0), (1, 0), (0, 0), (0, 0)))  # 8x8, from 4 before the centre to 3 behind it
    channels, features = kernel.shape[2:]
    kernel = kernel.reshape(4, 2, 4, 2, channels, features).transpose(0, 2, 1, 3, 4, 5)
    kernel = kernel.reshape(4, 4, 4 * channels, features)
    kernel = np.pad(kernel, ((0, 0), (0, 0), (0, -4 * channels % 8), (0, 0)))
    unit.conv.kernel = nnx.Param(jnp.asarray(kernel))
    unit.conv.kernel_size, unit.conv.strides, unit.conv.padding = (4, 4), (1, 1), ((2, 1), (2, 1))
    unit.packed = True


def _squares(x, features):
    """(batch, h, w, c) as (batch, h / 2, w / 2, features), zeros behind the last row, column and channel."""
    x = jnp.pad(x, ((0, 0), (0, x.shape[1] % 2), (0, x.shape[2] % 2), (0, 0)))
    batch, h, w, c = x.shape
    x = x.reshape(batch, h // 2, 2, w // 2, 2, c).transpose(0, 1, 3, 2, 4, 5).reshape(batch, h // 2, w // 2, 4 * c)
    return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (0, features - 4 * c)))


def stack(make, count: int, rngs: nnx.Rngs) -> Any:
    """`count` modules made by `make(rngs)`, their variables stacked along a new leading axis."""
    return nnx.vmap(make, in_axes=0, out_axes=0)(rngs.split(count))


def scan_blocks(
    blocks: nnx.Module, x: Any, slice_first: bool = False, unrolled: bool = False, apply=lambda block, x: block(x)
) -> Any:
    """x after stacked `blocks`, one after another, compiled as one block under `lax.scan`, or each if `unrolled`.

    x is an array, or what else `apply` takes and gives.

    With `slice_first` a block's weights are cut from the stack before it begins. A TPU's compiler would cut them inside
    each convolution instead, where they lie in slower memory and cannot be brought into the order that it likes best.

    Training on a CPU unrolls them: there the gradient of a convolution's kernel is 40 times slower inside a loop.
    """
    training = any(
        not norm.use_running_average for _, norm in nnx.iter_modules(blocks) if isinstance(norm, nnx.BatchNorm)
    )
    unroll = unrolled or training and jax.default_backend() == "cpu"

    def step(x, block):
        if slice_first:
            graph, weights = nnx.split(block)
            block = nnx.merge(graph, jax.lax.optimization_barrier(weights))
        return apply(block, x)

    run = nnx.scan(step, in_axes=(nnx.Carry, 0), out_axes=nnx.Carry, unroll=unroll)
    return run(x, blocks)


def max_pool(x: Float[Array, "batch h w c"], size: int = 2, padding: int = 0) -> Float[Array, "batch h2 w2 c"]:
    """Max pooling with stride 2 over windows of size x size, padded on every side."""
    pads = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, size, size, 1), (1, 2, 2, 1), pads)
