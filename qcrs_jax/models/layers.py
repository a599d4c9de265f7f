"""Layers shared by the network families, with PyTorch's conventions for padding."""

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float


class ConvNorm(nnx.Module):
    """A convolution without bias, and batch normalisation. `folded` turns the two into a convolution with bias.

    Padding is kernel // 2 on every side, also with strides: "SAME" would shift strided convolutions.
    """

    def __init__(self, features_in: int, features: int, kernel: int, stride: int = 1, *, rngs: nnx.Rngs):
        self.conv = nnx.Conv(
            features_in,
            features,
            (kernel, kernel),
            strides=(stride, stride),
            padding=[(kernel // 2, kernel // 2)] * 2,
            use_bias=False,
            kernel_init=nnx.initializers.variance_scaling(2.0, "fan_out", "normal"),
            rngs=rngs,
        )
        self.norm = nnx.BatchNorm(features, momentum=0.9, epsilon=1e-5, rngs=rngs)

    def __call__(self, x: Float[Array, "batch h w c"]) -> Float[Array, "batch h2 w2 c2"]:
        x = self.conv(x)
        return x if self.norm is None else self.norm(x)


def fold_norms(model: nnx.Module) -> None:
    """Folds every batch normalisation of `model` into the convolution before it, in place, for inference.

    Computes in float64 on the host; works on single blocks and on blocks stacked along a leading axis.
    """
    import numpy as np

    for _, unit in nnx.iter_modules(model):
        if not isinstance(unit, ConvNorm) or unit.norm is None:
            continue
        norm, conv = unit.norm, unit.conv
        scale, bias, mean, var = (
            np.asarray(leaf[...], np.float64) for leaf in (norm.scale, norm.bias, norm.mean, norm.var)
        )
        factor = scale / np.sqrt(var + norm.epsilon)
        kernel = np.asarray(conv.kernel[...], np.float64) * factor[..., None, None, None, :]
        conv.kernel = nnx.Param(jnp.asarray(kernel, jnp.float32))
        conv.bias = nnx.Param(jnp.asarray(bias - mean * factor, jnp.float32))
        conv.use_bias = True
        unit.norm = None


def stack(make, count: int, rngs: nnx.Rngs) -> nnx.Module:
    """`count` modules made by `make(rngs)`, their variables stacked along a new leading axis."""
    return nnx.vmap(make, in_axes=0, out_axes=0)(rngs.fork(split=count))


def scan_blocks(blocks: nnx.Module, x: Float[Array, "..."]) -> Float[Array, "..."]:
    """x after stacked `blocks`, one after another, compiled as one block under `lax.scan`."""
    return nnx.scan(lambda x, block: block(x), in_axes=(nnx.Carry, 0), out_axes=nnx.Carry)(x, blocks)


def max_pool(x: Float[Array, "batch h w c"]) -> Float[Array, "batch h2 w2 c"]:
    """2x2 max pooling with stride 2, without padding."""
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
