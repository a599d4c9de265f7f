"""SmoothMix (Jeong et al., NeurIPS 2021): mixes images with adversarial ones, whose class is to be uncertain."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .attack import ascend, into_ball
from .levels import draw_noise
from .method import Method, Recipe
from .probabilities import cross_entropy, divergence, soft_cross_entropy


@dataclasses.dataclass(frozen=True)
class SmoothMix(Method):
    """SmoothMix: cross-entropy of noisy copies, and a divergence on the way to an adversarial image.

    The attack takes steps of one length against the soft smoothed classifier. At a random place of the first half of
    the way, the network has to give a mixture of its own answer at the image and the uniform answer.

    Attributes:
        copies: number of noisy copies of each image (the paper's m).
        steps: steps of the attack (the paper's T).
        step_size: length of each step, pixels in [0, 1] (the paper's alpha).
        eta: weight of the divergence.
        warmup: number of epochs over which that weight grows to its value.
        one_step: whether the image itself is replaced by the attack's after its first step, at most as far as
            `step_size`, which grows in the warm-up too.
    """

    copies: int = 2
    steps: int = 4
    step_size: float = 1.0
    eta: float = 5.0
    warmup: int = 10
    one_step: bool = False

    name = "smoothmix"
    positive = ("copies", "steps", "step_size", "warmup")
    nonnegative = ("eta",)

    @classmethod
    def published(cls, sigma):
        return {"step_size": 2.0 * sigma}

    def recipe(self, schedule):
        return Recipe(150, max(1, 256 // self.copies), 0.1, 1e-4) if schedule == "step" else Recipe(6, 64, 0.05, 5e-4)

    def loss(self, network, batch, key):
        noise, _ = draw_noise(batch.images, self.sigma, self.copies, key)
        grown = jnp.minimum(1.0, (batch.epoch + 1) / self.warmup)
        images, moved = self.attack(network, batch, noise, grown)
        clean = network.learn(images[:, None] + noise)
        share = jax.random.uniform(jax.random.fold_in(key, 2**32 - 2), (len(images),), maxval=0.5)
        mixed = images + share[:, None, None, None] * (moved - images)
        value = self.of_logits(clean, network.learn(mixed[:, None] + noise), batch.labels, share, grown)
        return value, clean

    def attack(self, network, batch, noise, grown: Float[Array, ""] | float = 1.0):
        """The images from which the way starts, and the adversarial ones at its end; both in [0, 1]."""

        def objective(moved):
            return soft_cross_entropy(network.probe(moved[:, None] + noise), batch.labels).sum()

        def steps(start, count):
            return ascend(
                objective, start, steps=count, step_size=self.step_size, project=lambda x: jnp.clip(x, 0.0, 1.0)
            )

        first = steps(batch.images, 1)
        moved = steps(first, self.steps - 1) if self.steps > 1 else first
        if not self.one_step:
            return batch.images, moved
        near = batch.images + into_ball(first - batch.images, self.step_size * grown)
        return jnp.clip(near, 0.0, 1.0), moved

    def of_logits(
        self,
        clean: Float[Array, "batch copies num_classes"],
        mixed: Float[Array, "batch copies num_classes"],
        labels: Int[Array, "batch"],
        share: Float[Array, "batch"],
        grown: Float[Array, ""] | float = 1.0,
    ) -> Float[Array, ""]:
        """The loss of the logits of clean and of mixed copies, a mean over the batch.

        The divergence is of images that the clean copies together classify right. Its gradient also flows through the
        target.

        share: share of the adversarial image in each mixture.
        """
        mean = jax.nn.softmax(clean).mean(axis=1)
        target = mean + share[:, None] * (1 / mean.shape[-1] - mean)
        apart = divergence(target[:, None], mixed).mean(axis=1)
        right = mean.argmax(axis=-1) == labels
        return (cross_entropy(clean, labels).mean(axis=1) + self.eta * grown * jnp.where(right, apart, 0.0)).mean()
