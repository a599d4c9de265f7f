"""LeNet for 28x28 images of one channel, as MACER uses it on MNIST (Zhai et al. 2020)."""

from flax import nnx
from jaxtyping import Array, Float

from .family import CONV, LINEAR, Family, Layout, Network, Part
from .layers import max_pool


class LeNet(nnx.Module):
    """Two 5x5 convolutions without padding (20 and 50 channels), each pooled, and layers of 500 and num_classes."""

    def __init__(self, channels: int, num_classes: int, *, rngs: nnx.Rngs):
        self.conv1 = nnx.Conv(channels, 20, (5, 5), padding="VALID", rngs=rngs)
        self.conv2 = nnx.Conv(20, 50, (5, 5), padding="VALID", rngs=rngs)
        self.fc1 = nnx.Linear(4 * 4 * 50, 500, rngs=rngs)
        self.fc2 = nnx.Linear(500, num_classes, rngs=rngs)

    def __call__(self, x: Float[Array, "batch 28 28 c"]) -> Float[Array, "batch num_classes"]:
        x = max_pool(nnx.relu(self.conv1(x)))
        x = max_pool(nnx.relu(self.conv2(x)))
        x = x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1)  # PyTorch's order: channels first
        return self.fc2(nnx.relu(self.fc1(x)))


class LeNetFamily(Family):
    """MACER's LeNet, which its authors' files hold in a field `net`, for images that are not normalised."""

    title = "LeNet"
    architectures = {"lenet": LeNet}
    parts = (
        Part("conv1", "conv1", CONV),
        Part("conv2", "conv2", CONV),
        Part("fc1", "fc1", LINEAR),
        Part("fc2", "fc2", LINEAR),
    )
    arch_names = "lenet"
    one_size = "its layer fc1 has a weight for every pixel of them"

    def recognise(self, shapes):
        if "fc2.weight" not in shapes:
            return None
        width, channels, size, _ = shapes["conv1.weight"]
        if (width, size) != (20, 5):
            raise ValueError(f"conv1.weight has {width} filters of size {size}")
        return Network("lenet", shapes["fc2.weight"][0], (28, 28, channels), {})

    def layout(self, file, network):
        macer = (file.field, file.prefix) == ("net", "") and "acc" not in file.entries
        return Layout("MACER", "none") if macer else None

    def exported(self, options, image_shape):
        return "net", ""


LENET = LeNetFamily()
