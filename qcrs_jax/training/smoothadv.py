"""SmoothAdv (Salman et al., NeurIPS 2019): adversarial training of the smoothed classifier."""

import dataclasses

import jax.numpy as jnp

from .attack import ascend, into_ball
from .levels import draw_noise
from .method import Method, Recipe
from .probabilities import cross_entropy, soft_cross_entropy


@dataclasses.dataclass(frozen=True)
class SmoothAdv(Method):
    """SmoothAdv: cross-entropy of noisy copies of an image that was moved against the soft smoothed classifier.

    The attack is projected gradient ascent of -log mean F(x + noise)[y] in L2, F the softmax. Its noise is that of the
    copies which are then learned, all of them.

    Attributes:
        copies: number of noisy copies of each image (the paper's m_train).
        epsilon: largest L2 norm of the perturbation, pixels in [0, 1].
        steps: steps of the attack; each is 2 epsilon / steps long.
        warmup: number of epochs over which epsilon grows to its value.
    """

    copies: int = 4
    epsilon: float = 1.0
    steps: int = 10
    warmup: int = 10

    name = "smoothadv"
    positive = ("copies", "steps", "warmup")
    nonnegative = ("epsilon",)

    @classmethod
    def published(cls, sigma):
        if sigma < 0.5:
            return {"copies": 4, "epsilon": 1.0}
        return {"copies": 8, "epsilon": 1.0} if sigma < 1 else {"copies": 2, "epsilon": 2.0}

    def recipe(self, schedule):
        return Recipe(150, max(1, 256 // self.copies), 0.1, 1e-4) if schedule == "step" else Recipe(6, 64, 0.05, 5e-4)

    def loss(self, network, batch, key):
        noise, _ = draw_noise(batch.images, self.sigma, self.copies, key)
        moved = self.attack(network, batch, noise)
        logits = network.learn(moved[:, None] + noise)
        return cross_entropy(logits, batch.labels).mean(), logits

    def attack(self, network, batch, noise):
        """The adversarial images (batch, h, w, c), in [0, 1] and within epsilon of `batch.images`."""
        images = batch.images
        epsilon = self.epsilon * jnp.minimum(1.0, (batch.epoch + 1) / self.warmup)

        def objective(moved):
            return soft_cross_entropy(network.probe(moved[:, None] + noise), batch.labels).sum()

        def project(moved):
            return images + into_ball(jnp.clip(moved, 0.0, 1.0) - images, epsilon)

        return ascend(objective, images, steps=self.steps, step_size=2 * epsilon / self.steps, project=project)
