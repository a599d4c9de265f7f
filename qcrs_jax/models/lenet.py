"""LeNet for 28x28 images of one channel, as MACER uses it on MNIST (Zhai et al. 2020)."""

from flax import nnx
from jaxtyping import Array, Float

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
