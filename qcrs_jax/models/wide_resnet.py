"""Wide ResNets for 32x32 images (Zagoruyko and Komodakis 2016), which normalise before they convolve."""

from flax import nnx
from jaxtyping import Array, Float

from .family import CONV, LINEAR, NORM, Family, Layout, Network, Part
from .layers import ConvNorm, Form, batch_norm, conv, fold_norms
from .resnet import Stage


class PreActivationBlock(nnx.Module):
    """Batch normalisation, ReLU and a 3x3 convolution, twice, and a shortcut.

    The shortcut of a block that widens is a 1x1 convolution of the activations. That of the others is the unchanged
    input.
    """

    def __init__(self, features_in: int, features: int, stride: int, *, rngs: nnx.Rngs):
        self.norm = batch_norm(features_in, rngs=rngs)  # not folded: a ReLU stands between it and the convolutions
        self.conv1 = ConvNorm(features_in, features, 3, stride, rngs=rngs)
        self.conv2 = conv(features, features, 3, rngs=rngs)
        self.shortcut = conv(features_in, features, 1, stride, rngs=rngs) if features != features_in else None

    def __call__(self, x: Float[Array, "batch h w c"]) -> Float[Array, "batch h2 w2 c2"]:
        active = nnx.relu(self.norm(x))
        out = self.conv2(nnx.relu(self.conv1(active)))
        return out + (x if self.shortcut is None else self.shortcut(active))


class WideResNet(nnx.Module):
    """A WideResNet-depth-widen: a stem of 16 channels and three stages of 16, 32 and 64 times `widen`.

    Args:
        channels, num_classes: number of channels of the images, and length of the logits.
        depth: 6 n + 4 for stages of n blocks; 40 in DDRS and ANCER.
        widen: factor of the channels; 2 in DDRS and ANCER.
    """

    def __init__(self, channels: int, num_classes: int, *, depth: int = 40, widen: int = 2, rngs: nnx.Rngs):
        if depth < 10 or depth % 6 != 4 or widen < 1:
            raise ValueError(f"a wide ResNet has a depth of 10, 16, 22, ... and is widened, not {depth} and {widen}")
        blocks = (depth - 4) // 6
        self.conv1 = conv(channels, 16, 3, rngs=rngs)
        self.block1 = Stage(PreActivationBlock, 16, 16 * widen, 1, blocks, rngs=rngs)
        self.block2 = Stage(PreActivationBlock, 16 * widen, 32 * widen, 2, blocks, rngs=rngs)
        self.block3 = Stage(PreActivationBlock, 32 * widen, 64 * widen, 2, blocks, rngs=rngs)
        self.norm = batch_norm(64 * widen, rngs=rngs)
        self.fc = nnx.Linear(64 * widen, num_classes, rngs=rngs)

    def prepare_inference(self, platform: str | Form, height: int = 32, width: int = 32) -> None:
        """Folds the batch normalisation that follows a convolution, one of the two in every block, in place."""
        fold_norms(self)
        for stage in (self.block1, self.block2, self.block3):
            stage.write_as(Form.of(platform))

    def __call__(self, x: Float[Array, "batch h w c"]) -> Float[Array, "batch num_classes"]:
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        return self.fc(nnx.relu(self.norm(x)).mean(axis=(1, 2)))


_BLOCK = (  # normalisation comes before the convolution of its number
    ("norm", "bn1", NORM),
    ("conv1/conv", "conv1", CONV),
    ("conv1/norm", "bn2", NORM),
    ("conv2", "conv2", CONV),
    ("shortcut", "convShortcut", CONV),
)


class WideResNetFamily(Family):
    """The wide ResNets of TRADES, RST, DDRS and ANCER."""

    title = "wide ResNets of CIFAR"
    architectures = {"cifar_wide_resnet": WideResNet}
    parts = (
        Part("conv1", "conv1", CONV),
        *(
            Part(f"block{i}/*/{ours}", f"block{i}.layer.*.{theirs}", leaves)
            for i in (1, 2, 3)
            for ours, theirs, leaves in _BLOCK
        ),
        Part("norm", "bn1", NORM),
        Part("fc", "fc", LINEAR),
    )
    never_run = {"sub_block1": "block1"}  # of TRADES

    def recognise(self, shapes):
        if "block1.layer.0.conv1.weight" not in shapes:
            return None
        _, channels, _, _ = shapes["conv1.weight"]
        blocks = [len({k.split(".")[2] for k in shapes if k.startswith(f"block{i}.layer.")}) for i in (1, 2, 3)]
        width = shapes["block1.layer.0.conv1.weight"][0]
        if len(set(blocks)) > 1 or width < 16 or width % 16:
            raise ValueError(f"a wide ResNet with {blocks} blocks, whose first stage has {width} channels")
        options = {"depth": 6 * blocks[0] + 4, "widen": width // 16}
        return Network("cifar_wide_resnet", shapes["fc.weight"][0], (32, 32, channels), options)

    def layout(self, file, network):
        if file.field == "state_dict" and file.prefix == "" and "optimizer_param" in file.entries:
            return Layout("DDRS", "cifar10")
        return None

    def exported(self, options, image_shape):
        return "state_dict", ""


WIDE_RESNET = WideResNetFamily()
