"""The networks that are timed, with random weights: in PyTorch, and in our form, converted from it."""

import contextlib
import dataclasses
import re
import tempfile
from pathlib import Path

SIGMA = 0.25
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


@dataclasses.dataclass(frozen=True)
class Network:
    """A network to time.

    arch: our name of it: cifar_resnetD or resnet50.
    classes, shape: number of classes, and (h, w, c) of the images.
    batches: batch sizes to try, in order.
    """

    arch: str
    classes: int
    shape: tuple[int, int, int]
    batches: tuple[int, ...]

    def torch(self):
        """The network in PyTorch, in evaluation mode; the same each time."""
        import torch

        from .torch_nets import CifarResNet, ResNet, randomise

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            depth = re.fullmatch(r"cifar_resnet(\d+)", self.arch)
            return randomise(CifarResNet(int(depth[1])) if depth else ResNet((3, 4, 6, 3), bottleneck=1))

    @contextlib.contextmanager
    def file(self):
        """A context with a PyTorch file of the network."""
        import torch

        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "checkpoint.pth.tar"
            weights = {f"1.module.{name}": value for name, value in self.torch().state_dict().items()}
            torch.save({"arch": self.arch, "state_dict": weights}, file)
            yield file

    def classifier(self):
        """Our Classifier of it; with other weights if PyTorch is not installed."""
        from qcrs_jax.convert.load import load_classifier
        from qcrs_jax.models import Classifier, Spec, build

        try:
            import torch  # noqa: F401
        except ImportError:
            spec = Spec(self.arch, self.classes, self.shape, MEAN, STD)
            return Classifier(spec, build(spec))
        with self.file() as file:
            return load_classifier(file)

    def image(self):
        """An image in [0, 1], float32."""
        import numpy as np

        return np.random.default_rng(0).uniform(size=self.shape).astype(np.float32)


NETWORKS = {
    "cifar_resnet110": Network("cifar_resnet110", 10, (32, 32, 3), (2048, 4096, 8192, 1024, 512)),
    "resnet50": Network("resnet50", 1000, (224, 224, 3), (512, 1024, 256, 128)),
}
