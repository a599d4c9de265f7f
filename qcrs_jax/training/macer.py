"""MACER (Zhai et al., ICLR 2020): training that maximises the radius of the soft smoothed classifier."""

import dataclasses

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtri
from jaxtyping import Array, Float, Int

from .levels import draw_noise
from .method import Method, Recipe


@dataclasses.dataclass(frozen=True)
class Macer(Method):
    """MACER: cross-entropy of the soft smoothed classifier, and a hinge on its radius (Zhai et al. 2020).

    Attributes:
        sigma: standard deviation of the noise, in units of pixels in [0, 1], or a range of them. All copies of an image
            have the same.
        copies: number of noisy copies of each image (the paper's k).
        lbd: weight of the robustness loss, lambda.
        gamma: value of ndtri(p1) - ndtri(p2) beyond which a radius is large enough.
        beta: inverse temperature of the softmax in the robustness loss.
    """

    copies: int = 16
    lbd: float = 12.0
    gamma: float = 8.0
    beta: float = 16.0

    name = "macer"
    milestones = (200 / 440, 400 / 440)
    normalises = False
    positive = ("copies", "gamma", "beta")
    nonnegative = ("lbd",)

    @classmethod
    def published(cls, sigma):
        return {"lbd": 12.0 if sigma < 0.5 else 4.0}

    def recipe(self, schedule):
        return Recipe(440, 64, 0.01, 5e-4) if schedule == "step" else Recipe(6, 64, 0.05, 5e-4)

    def loss(self, network, batch, key):
        noise, sigmas = draw_noise(batch.images, self.sigma, self.copies, key)
        logits = network.learn(batch.images[:, None] + noise)
        return self.of_logits(logits, batch.labels, sigmas), logits

    def of_logits(
        self,
        logits: Float[Array, "batch copies num_classes"],
        labels: Int[Array, "batch"],
        sigmas: Float[Array, "batch"] | float,
    ) -> Float[Array, ""]:
        """Classification and robustness loss, each a mean over the batch (equations 6 to 9, algorithm 1).

        sigmas: noise level of each image, or of all.
        """
        soft = jax.nn.softmax(logits, axis=-1).mean(axis=1)
        true = jnp.take_along_axis(soft, labels[:, None], axis=-1)[:, 0]
        classification = -jnp.log(true + 1e-10)

        (p1, p2), (top, _) = (
            jnp.moveaxis(a, -1, 0) for a in jax.lax.top_k(jax.nn.softmax(self.beta * logits, axis=-1).mean(axis=1), 2)
        )
        inside = (p1 < 1) & (p2 > 0)  # elsewhere the gap is infinite, and so is its gradient
        gap = ndtri(jnp.where(inside, p1, 0.5)) - ndtri(jnp.where(inside, p2, 0.5))
        counts = inside & (top == labels) & (gap <= self.gamma)
        robustness = jnp.where(counts, sigmas / 2 * (self.gamma - gap), 0.0)
        return (classification + self.lbd * robustness).mean()
