"""ResNets for 32x32 images: three stages of basic blocks with 16, 32 and 64 channels (He et al. 2016, section 4.2).

Each stage is its first block, which may stride and widen, and the rest, stacked and scanned.
"""

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from .layers import ConvNorm, fold_norms, join_columns, scan_blocks, stack

WIDTHS = (16, 32, 64)


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions and a shortcut: the identity, a 1x1 projection, or option A (slice and pad)."""

    def __init__(self, features_in: int, features: int, stride: int, shortcut: str, *, rngs: nnx.Rngs):
        self.conv1 = ConvNorm(features_in, features, 3, stride, rngs=rngs)
        self.conv2 = ConvNorm(features, features, 3, rngs=rngs)
        self.features_in, self.stride, self.columns = features_in, stride, 1
        self.widens = features - features_in
        projects = shortcut == "projection" and (stride > 1 or self.widens > 0)
        self.shortcut = ConvNorm(features_in, features, 1, stride, rngs=rngs) if projects else None

    def __call__(self, x: Float[Array, "batch h w c"]) -> Float[Array, "batch h2 w2 c2"]:
        x = x.reshape(*x.shape[:2], -1, self.features_in * self.columns)
        out = self.conv2(nnx.relu(self.conv1(x)))
        if self.shortcut is not None:
            x = self.shortcut(x)
        elif self.stride > 1 or self.widens > 0:
            before = self.widens // 2
            x = x[:, :: self.stride, :: self.stride]
            x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (before, self.widens - before)))
        return nnx.relu(out + x)


class Stage(nnx.Module):
    """`depth` basic blocks, the first of which strides and widens."""

    def __init__(self, features_in, features, stride, depth, shortcut, *, rngs: nnx.Rngs):
        self.first = BasicBlock(features_in, features, stride, shortcut, rngs=rngs)
        self.rest = stack(lambda r: BasicBlock(features, features, 1, shortcut, rngs=r), depth - 1, rngs)

    def __call__(self, x: Float[Array, "batch h w c"]) -> Float[Array, "batch h2 w2 c2"]:
        return scan_blocks(self.rest, self.first(x))


class CifarResNet(nnx.Module):
    """ResNet of `depth` = 6 k + 2 layers; `shortcut` is "projection" (Cohen, MACER) or "option_a" (He et al.)."""

    def __init__(self, depth: int, channels: int, num_classes: int, shortcut: str = "projection", *, rngs: nnx.Rngs):
        if depth < 14 or (depth - 2) % 6:
            raise ValueError(f"a CIFAR ResNet has 6 k + 2 layers with k at least 2, not {depth}")
        self.conv1 = ConvNorm(channels, WIDTHS[0], 3, rngs=rngs)
        blocks = (depth - 2) // 6
        self.layer1 = Stage(WIDTHS[0], WIDTHS[0], 1, blocks, shortcut, rngs=rngs)
        self.layer2 = Stage(WIDTHS[0], WIDTHS[1], 2, blocks, shortcut, rngs=rngs)
        self.layer3 = Stage(WIDTHS[1], WIDTHS[2], 2, blocks, shortcut, rngs=rngs)
        self.fc = nnx.Linear(WIDTHS[2], num_classes, rngs=rngs)

    def prepare_inference(self) -> None:
        """Folds batch normalisation and joins the columns of the stages with few channels, in place."""
        fold_norms(self)
        join_columns(self.conv1, 4)
        for block in (self.layer1.first, self.layer1.rest):
            join_columns(block.conv1, 2)
            join_columns(block.conv2, 2)
            block.columns = 2

    def __call__(self, x: Float[Array, "batch h w c"]) -> Float[Array, "batch num_classes"]:
        x = nnx.relu(self.conv1(x))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(x.mean(axis=(1, 2)))
