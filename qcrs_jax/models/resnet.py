"""ResNets (He et al. 2016): those for 32x32 images with 16, 32 and 64 channels, and those of ImageNet.

Each stage is its first block, which may stride and widen, and the rest, stacked and scanned.
"""

import functools
import math
import re
from typing import NamedTuple

import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from .family import CONV, LINEAR, NORM, Family, Layout, Network, Part
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
from .winograd import FEWEST, Phases, Winograd, on_phases


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

    def on_phases(self, x: Phases) -> Phases:
        """The same for phases, of a block whose convolutions are Winograd's."""
        conv1, conv2 = self.conv1.conv, self.conv2.conv
        assert isinstance(conv1, Winograd) and isinstance(conv2, Winograd)
        out = conv2.on_phases(tuple(nnx.relu(phase) for phase in conv1.on_phases(x)))
        return tuple(nnx.relu(phase + of_x) for phase, of_x in zip(out, x))


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
        self.features = features
        self.slice_first = self.unrolled = False  # see scan_blocks
        self.beside = 1  # see put_beside

    def __call__(self, x: Float[Array, "batch h w c"]) -> Float[Array, "batch h2 w2 c2"]:
        if self.beside == 1:
            return self._run_rest(self.first(x))
        batch, features_in = x.shape[0], self.first.features_in
        beside = math.gcd(batch, self.beside) if isinstance(batch, int) else 1  # a symbol may be any number
        x = x.reshape(*x.shape[:2], -1, features_in)  # undoes join_columns of the stem
        if self.first.stride > 1:  # a strided convolution needs the images apart
            x = put_beside(self.first(x), beside)
        else:
            x = self.first(put_beside(x, beside))
        return put_apart(self._run_rest(x))

    def _run_rest(self, x):
        if self.rest is None:
            return x
        run = functools.partial(scan_blocks, slice_first=self.slice_first, unrolled=self.unrolled)
        winograd = isinstance(self.rest, BasicBlock) and isinstance(self.rest.conv1.conv, Winograd)
        if not winograd or x.shape[1] % 2 or x.shape[2] % 2:
            return run(self.rest, x)
        graph, weights = nnx.split(self.rest)  # merged again inside the loop of on_phases
        return on_phases(lambda x: run(nnx.merge(graph, weights, copy=True), x, apply=BasicBlock.on_phases), x)

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
        channels, num_classes: number of channels of the images, and length of the logits.
        blocks: number of blocks in each stage, at least 2.
        width: channels of the first stage. Each later stage strides by 2 and has twice as many.
        stem: "3x3" (stride 1; 32x32 images) or "7x7" (stride 2; ImageNet).
        stem_norm: whether batch normalisation follows the stem, as everywhere but in DDRS's ResNets.
        max_pool: whether a 3x3 max pool of stride 2 follows the stem; by default only behind a 7x7 stem.
        bottleneck: None for basic blocks; else blocks of 4 times the width, whose 3x3 has `bottleneck` times the width.
        shortcut: shortcut of basic blocks, "projection" or "option_a".
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

        Columns are joined if the network has few channels, and the `width` of the images is a multiple of four. Images
        stand side by side if their `height` is one, too.
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
                if not form.winograd or stage.features < FEWEST:
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


class Shape(NamedTuple):
    """The shape of a ResNet that an architecture has, as the arguments of that name."""

    blocks: tuple[int, ...]
    width: int
    stem: str
    bottleneck: int | None


def _cifar(depth):
    return Shape(((depth - 2) // 6,) * 3, 16, "3x3", None)


SHAPES = {
    **{f"cifar_resnet{depth}": _cifar(depth) for depth in (20, 32, 44, 56, 110)},
    "resnet18": Shape((2, 2, 2, 2), 64, "7x7", None),
    "resnet34": Shape((3, 4, 6, 3), 64, "7x7", None),
    "resnet50": Shape((3, 4, 6, 3), 64, "7x7", 1),
    "resnet101": Shape((3, 4, 23, 3), 64, "7x7", 1),
    "resnet152": Shape((3, 8, 36, 3), 64, "7x7", 1),
    "wide_resnet50_2": Shape((3, 4, 6, 3), 64, "7x7", 2),
    "wide_resnet101_2": Shape((3, 4, 23, 3), 64, "7x7", 2),
}


def _shape(arch):
    """The shape of an architecture that is listed, or of cifar_resnetD; None for another."""
    depth = re.fullmatch(r"cifar_resnet([1-9]\d{0,3})", arch)
    if arch not in SHAPES and depth and int(depth[1]) >= 8 and int(depth[1]) % 6 == 2:
        return _cifar(int(depth[1]))
    return SHAPES.get(arch)


def _known_shape(arch):
    """The shape of an architecture of this family."""
    shape = _shape(arch)
    assert shape is not None
    return shape


_BLOCK = (
    ("conv1/conv", "conv1", CONV),
    ("conv1/norm", "bn1", NORM),
    ("conv2/conv", "conv2", CONV),
    ("conv2/norm", "bn2", NORM),
    ("conv3/conv", "conv3", CONV),
    ("conv3/norm", "bn3", NORM),
    ("shortcut/conv", "downsample.0", CONV),
    ("shortcut/norm", "downsample.1", NORM),
)


class ResNetFamily(Family):
    """ResNets with the names of torchvision, which those of CIFAR have too, or with those of Kuangliu's programs."""

    title = "ResNets of CIFAR and of ImageNet"
    architectures = {arch: functools.partial(ResNet, **shape._asdict()) for arch, shape in SHAPES.items()}
    others = "cifar_resnetD of any depth D = 6n + 2"
    parts = (
        Part("conv1/conv", "conv1", CONV),
        Part("conv1/norm", "bn1", NORM),
        *(
            Part(f"layer{i}/*/{ours}", f"layer{i}.*.{theirs}", leaves)
            for i in (1, 2, 3, 4)
            for ours, theirs, leaves in _BLOCK
        ),
        Part("fc", "fc", LINEAR),
    )
    spellings = {"fc": "linear", "downsample": "shortcut"}
    arch_names = r"(cifar_)?resnet\d+"

    def make(self, arch):
        shape = _shape(arch)
        return shape and functools.partial(ResNet, **shape._asdict())

    def names_of(self, arch):
        return (arch, arch.removeprefix("cifar_"))  # in CIFAR's programs `resnet32` is a CIFAR network of depth 32

    def max_pool(self, arch, options):
        return options.get("max_pool", options.get("stem", _known_shape(arch).stem) == "7x7")

    def recognise(self, shapes):
        width, channels, size, _ = shapes["conv1.weight"]
        blocks = tuple(len({k.split(".")[1] for k in shapes if k.startswith(f"layer{i}.")}) for i in (1, 2, 3, 4))
        inner, inputs = shapes["layer1.0.conv2.weight"][:2]
        if inputs < inner:
            raise ValueError("layer1.0.conv2 is a convolution in groups, as those of ResNeXt are")
        bottleneck = inner // width if "layer1.0.bn3.weight" in shapes else None
        arch = _arch(blocks, width, bottleneck)
        stem = f"{size}x{size}"
        options: dict = {} if stem == _known_shape(arch).stem else {"stem": stem}
        if bottleneck is None and not any(f".{name}." in key for key in shapes for name in ("downsample", "shortcut")):
            options["shortcut"] = "option_a"
        side = 224 if stem == "7x7" else 32
        if stem == "7x7" and not any(key.startswith("bn1.") for key in shapes):
            # DDRS's network of CIFAR-10; the softmax at its end is left out, as it changes no answer
            options["stem_norm"], side = False, 32
        head = "linear.weight" if "linear.weight" in shapes else "fc.weight"
        return Network(arch, shapes[head][0], (side, side, channels), options)

    def layout(self, file, network):
        of_imagenet = network.image_shape[0] == 224
        if file.field == "net":
            macer = file.prefix == "" and "acc" not in file.entries and network.arch.startswith("cifar_resnet")
            return Layout("MACER", "none") if macer else None
        if not network.options.get("stem_norm", True):
            return Layout("DDRS", "cifar10")
        if file.field == "state_dict" and "optimizer_param" in file.entries:
            # DDRS's own networks of ImageNet are normalised, or centred alone
            return Layout("ANCER", "none") if file.prefix == "module." and of_imagenet else None
        if file.prefix == "module." and _option_a(network) and "linear.weight" in file.tensors:
            own = "best_prec1" in file.entries and "arch" not in file.entries and network.num_classes == 10
            return Layout("Idelbayev", "imagenet") if own else Layout("state_dict", None)
        return Layout("torchvision", "imagenet") if of_imagenet and file.field is None else None

    def possible_normalizations(self, network):
        if _option_a(network):
            return {"imagenet": "Idelbayev's own files", "cifar10": "long-tail papers that build on them"}
        return {}

    def exported(self, options, image_shape):
        if not options.get("stem_norm", True):
            return "state_dict", ""  # as DDRS's
        return "state_dict", "1.module." if image_shape[0] == 224 else "1."


def _arch(blocks, width, bottleneck):
    """The architecture with these numbers of blocks, width of the stem and bottleneck. Raises ValueError for none."""
    if width == 16 and bottleneck is None and blocks[3] == 0 and len({*blocks[:3]}) == 1 and blocks[0]:
        arch = f"cifar_resnet{6 * blocks[0] + 2}"
        if _shape(arch):
            return arch
    for arch, shape in SHAPES.items():
        if ((*shape.blocks, 0)[:4], shape.width, shape.bottleneck) == (blocks, width, bottleneck):
            return arch
    raise ValueError(f"the stem has {width} filters, the layers {blocks} blocks")


def _option_a(network):
    return network.options.get("shortcut") == "option_a"


RESNET = ResNetFamily()
