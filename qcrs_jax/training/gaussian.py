"""Gaussian augmentation (Cohen, Rosenfeld and Kolter, ICML 2019)."""

import dataclasses

from .levels import draw_noise
from .method import Method, Recipe
from .probabilities import cross_entropy


@dataclasses.dataclass(frozen=True)
class Gaussian(Method):
    """Gaussian augmentation: cross-entropy of one noisy copy of each image (Cohen et al. 2019).

    Attributes:
        sigma: standard deviation of the noise, in units of pixels in [0, 1], or a range of them.
    """

    name = "gaussian"

    def recipe(self, schedule):
        return Recipe(90, 256, 0.1, 1e-4) if schedule == "step" else Recipe(14, 128, 0.2, 5e-4)

    def loss(self, network, batch, key):
        noise, _ = draw_noise(batch.images, self.sigma, 1, key)
        logits = network.learn(batch.images[:, None] + noise)
        return cross_entropy(logits, batch.labels).mean(), logits
