"""Consistency regularisation (Jeong and Shin, NeurIPS 2020)."""

import dataclasses

import jax
from jaxtyping import Array, Float, Int

from .levels import draw_noise
from .method import Method, Recipe
from .probabilities import cross_entropy, divergence, entropy


@dataclasses.dataclass(frozen=True)
class Consistency(Method):
    """Consistency: cross-entropy of noisy copies, which have to agree with their mean and be certain of it.

    loss = mean CE(F(x + noise), y) + lbd mean KL(mean F || F(x + noise)) + eta H(mean F), F the softmax.

    Attributes:
        copies: number of noisy copies of each image (the paper's m).
        lbd: weight of the divergence of the copies from their mean, lambda.
        eta: weight of the entropy of their mean.
    """

    copies: int = 2
    lbd: float = 10.0
    eta: float = 0.5

    name = "consistency"
    positive = ("copies",)
    nonnegative = ("lbd", "eta")

    @classmethod
    def published(cls, sigma):
        return {"lbd": 20.0 if sigma < 0.5 else 10.0}

    def recipe(self, schedule):
        return Recipe(150, max(1, 256 // self.copies), 0.1, 1e-4) if schedule == "step" else Recipe(6, 64, 0.05, 5e-4)

    def loss(self, network, batch, key):
        noise, _ = draw_noise(batch.images, self.sigma, self.copies, key)
        logits = network.learn(batch.images[:, None] + noise)
        return self.of_logits(logits, batch.labels), logits

    def of_logits(
        self, logits: Float[Array, "batch copies num_classes"], labels: Int[Array, "batch"]
    ) -> Float[Array, ""]:
        """The loss of the logits of noisy copies, a mean over the batch. The gradient also flows through the mean."""
        mean = jax.nn.softmax(logits).mean(axis=1)
        apart = divergence(mean[:, None], logits).mean(axis=1)
        return (cross_entropy(logits, labels).mean(axis=1) + self.lbd * apart + self.eta * entropy(mean)).mean()
