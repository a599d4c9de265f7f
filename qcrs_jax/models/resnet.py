"""ResNets (He et al. 2016): those for 32x32 images with 16, 32 and 64 channels, and those of ImageNet.

Each stage is its first block, which may stride and widen, and the rest, stacked and scanned.
"""

import math

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from .layers import (
    ConvNorm,
    Form,
    fold_norms,
    join_columns,
    join_rows,
    max_pool,
    pack_pixels,
    put_apart,
    put_beside,
    scan_blocks,
    stack,
)


class BasicBlock(nnx.Module):
    """Two 3x3 convolutions and a shortcut: the identity, a 1x1 projection, or option A (slice and pad)."""

    def __init__(self, features_in: int, features: int, stride: int, shortcut: str, *, rngs: nnx.Rngs):
        self.conv1 = ConvNorm(features_in, features, 3, stride, rngs=rngs)
        self.conv2 = ConvNorm(features, features, 3, rngs=rngs)
        self.features_in, self.stride = features_in, stride
        self.widens = features - features_in
        projects = shortcut == "projection" and (stride > 1 or self.widens > 0)
        self.shortcut = ConvNorm(features_in, features, 1, stride, rngs=rngs) if projects else None

    def __call__(self, x: Float[Array, "batch h w *beside c"]) -> Float[Array, "batch h2 w2 *beside c2"]:
        out = self.conv2(nnx.relu(self.conv1(x)))
        if self.shortcut is not None:
            x = self.shortcut(x)
        elif self.stride > 1 or self.widens > 0:
            before = self.widens // 2
            x = x.reshape(*x.shape[:2], -1, self.features_in)[:, :: self.stride, :: self.stride]
            x = jnp.pad(x, ((0, 0), (0, 0), (0, 0), (before, self.widens - before)))
        return nnx.relu(out + x.reshape(out.shape))


class Bottleneck(nnx.Module):
    """1x1, 3x3 and 1x1 convolutions, the stride on the 3x3, and a shortcut: the identity or a 1x1 projection.

    `inner` is the width of the 3x3; with `shortcut` "projection" a block that strides or widens projects.
    """

    def __init__(self, features_in: int, features: int, stride: int, inner: int, *, rngs: nnx.Rngs):
        self.conv1 = ConvNorm(features_in, inner, 1, rngs=rngs)
        self.conv2 = ConvNorm(inner, inner, 3, stride, rngs=rngs)
        self.conv3 = ConvNorm(inner, features, 1, rngs=rngs)
        projects = stride > 1 or features != features_in
        self.shortcut = ConvNorm(features_in, features, 1, stride, rngs=rngs) if projects else None

    def __call__(self, x: Float[Array, "batch h w c"]) -> Float[Array, "batch h2 w2 c2"]:
        out = self.conv3(nnx.relu(self.conv2(nnx.relu(self.conv1(x)))))
        return nnx.relu(out + (x if self.shortcut is None else self.shortcut(x)))


class Stage(nnx.Module):
    """`depth` blocks, the first of which strides and widens. `block` makes one of (features_in, features, stride)."""

    def __init__(self, block, features_in: int, features: int, stride: int, depth: int, *, rngs: nnx.Rngs):
        self.first = block(features_in, features, stride, rngs=rngs)
        self.rest = stack(lambda r: block(features, features, 1, rngs=r), depth - 1, rngs) if depth > 1 else None
        self.slice_first = self.unrolled = False  # see scan_blocks
        self.beside = 1  # see put_beside

    def __call__(self, x: Float[Array, "batch h w c"]) -> Float[Array, "batch h2 w2 c2"]:
        if self.beside == 1:
            return self._run_rest(self.first(x))
        beside, features_in = math.gcd(len(x), self.beside), self.first.features_in
        x = x.reshape(*x.shape[:2], -1, features_in)  # undoes join_columns of the stem
        if self.first.stride > 1:  # what strides takes the images apart
            x = put_beside(self.first(x), beside)
        else:
            x = self.first(put_beside(x, beside))
        return put_apart(self._run_rest(x))

    def _run_rest(self, x):
        return x if self.rest is None else scan_blocks(self.rest, x, self.slice_first, self.unrolled)

    def write_as(self, form: Form) -> None:
        """Sets how the blocks are run."""
        self.slice_first, self.unrolled = form.slice_first, form.unrolled

    def join(self, count: int) -> None:
        """Joins `count` columns of the convolutions of stride 1; rows of those on images side by side."""
        for block in filter(None, (self.first, self.rest)):
            if self.beside == 1:
                units, join = (block.conv1, block.conv2) if block.stride == 1 else (block.conv2,), join_columns
            else:
                units, join = (block.conv1, block.conv2) if block.stride == 1 else (), join_rows
            for unit in units:
                join(unit, count)


class ResNet(nnx.Module):
    """A ResNet of any of the family's shapes.

    Args:
        channels, num_classes: of the images, and of the logits.
        blocks: blocks of each stage, at least 2.
        width: channels of the first stage; each later stage strides by 2 and has twice as many.
        stem: "3x3" (stride 1; 32x32 images) or "7x7" (stride 2; ImageNet).
        stem_norm: whether batch normalisation follows the stem, as everywhere but in DDRS's ResNets.
        max_pool: whether a 3x3 max pool of stride 2 follows it; by default behind a 7x7 stem alone.
        bottleneck: None for basic blocks; else blocks of 4 times the width, whose 3x3 has `bottleneck` times it.
        shortcut: of basic blocks, "projection" or "option_a".
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        *,
        blocks: tuple[int, ...],
        width: int,
        stem: str,
        stem_norm: bool = True,
        max_pool: bool | None = None,
        bottleneck: int | None = None,
        shortcut: str = "projection",
        rngs: nnx.Rngs,
    ):
        self.width, self.stem, self.max_pool = width, stem, stem == "7x7" if max_pool is None else max_pool
        self.conv1 = ConvNorm(channels, width, *{"3x3": (3, 1), "7x7": (7, 2)}[stem], stem_norm, rngs=rngs)
        features_in = width
        for i, depth in enumerate(blocks):
            inner = width * 2**i
            features = inner if bottleneck is None else 4 * inner

            def block(features_in, features, stride, *, rngs, inner=inner):
                if bottleneck is None:
                    return BasicBlock(features_in, features, stride, shortcut, rngs=rngs)
                return Bottleneck(features_in, features, stride, bottleneck * inner, rngs=rngs)

            stage = Stage(block, features_in, features, 2 if i else 1, depth, rngs=rngs)
            setattr(self, f"layer{i + 1}", stage)
            features_in = features
        self.stages = len(blocks)
        self.fc = nnx.Linear(features_in, num_classes, rngs=rngs)

    def prepare_inference(self, platform: str | Form, height: int = 32, width: int = 32) -> None:
        """Folds batch normalisation, and takes the form for `platform`, in place.

        Columns are joined where the network has few channels, and the `width` of the images is a multiple of four;
        images stand side by side where their `height` is one, too.
        """
        form = Form.of(platform)
        fold_norms(self)
        stages = [getattr(self, f"layer{i + 1}") for i in range(self.stages)]
        for stage in stages:
            stage.write_as(form)
        if form.packed and self.stem == "7x7":
            pack_pixels(self.conv1)
        if self.width > 16 or self.max_pool or width % 4:
            return
        if height % 4 == 0:
            for stage in stages:
                stage.beside = form.beside
        if form.joined:
            join_columns(self.conv1, 4)
        for stage, columns in zip(stages, form.joined):
            stage.join(columns)

    def __call__(self, x: Float[Array, "batch h w c"]) -> Float[Array, "batch num_classes"]:
        x = nnx.relu(self.conv1(x))
        if self.max_pool:
            x = max_pool(x, 3, padding=1)
        for i in range(self.stages):
            x = getattr(self, f"layer{i + 1}")(x)
        return self.fc(x.mean(axis=(1, 2)))
