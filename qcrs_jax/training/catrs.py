"""CAT-RS (Jeong, Kim and Shin, AAAI 2023): confidence-aware training."""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..errors import SettingError
from .attack import ascend, into_ball
from .levels import LogUniform, draw_noise
from .method import Method, Recipe
from .probabilities import cross_entropy, divergence


@dataclasses.dataclass(frozen=True)
class CatRS(Method):
    """CAT-RS: of an uncertain image, only the easiest copies are learned; of a certain one, the worst noise too.

    The number of learned copies is drawn from a binomial distribution, and is at least one. Its probability is the
    share of copies that the network classifies right. If all copies are learned, the network also has to keep the
    prediction of a teacher under noise that an attack made worse. The teacher was trained under the same noise.

    Attributes:
        copies: number of noisy copies of each image (the paper's M).
        epsilon: largest L2 norm by which the attack changes the noise of a copy, pixels in [0, 1].
        steps: steps of the attack; each is 2 epsilon / steps long.
        lbd: weight of the loss under the worst noise, lambda.
    """

    copies: int = 4
    epsilon: float = 1.0
    steps: int = 4
    lbd: float = 1.0

    name = "catrs"
    teacher = True
    positive = ("copies", "steps")
    nonnegative = ("epsilon", "lbd")

    def __post_init__(self):
        super().__post_init__()
        if isinstance(self.sigma, LogUniform):
            raise SettingError(
                "{method} catrs takes one {sigma} and no {sigma_range}: the predictions of its teacher are made at one "
                "level"
            )

    @classmethod
    def published(cls, sigma):
        return {"lbd": 2.0 * sigma}

    def recipe(self, schedule):
        return Recipe(150, max(1, 256 // self.copies), 0.1, 1e-4) if schedule == "step" else Recipe(6, 64, 0.05, 5e-4)

    def loss(self, network, batch, key):
        if batch.predictions is None:
            raise SettingError(f"{{method}} {self.name} needs predictions: probabilities of the classes by its teacher")
        noise, _ = draw_noise(batch.images, self.sigma, self.copies, key)
        logits = network.learn(batch.images[:, None] + noise)
        worst = network.learn(batch.images[:, None] + self.attack(network, batch, noise))
        right = (logits.argmax(axis=-1) == batch.labels[:, None]).mean(axis=1)
        drawn = jax.random.uniform(jax.random.fold_in(key, 2**32 - 2), logits.shape[:2])
        learned = jnp.maximum(1, (drawn < right[:, None]).sum(axis=1))  # binomial
        return self.of_logits(logits, worst, batch.labels, batch.predictions, learned), logits

    def attack(self, network, batch, noise):
        """Noise (batch, copies, h, w, c) that is worse for the prediction of the teacher.

        After each step the noise is projected into the ball around the first. It is then shifted and scaled to the mean
        and the mean square of the first, as the published program does.
        """
        axes = (-3, -2, -1)
        mean, square = noise.mean(axis=axes, keepdims=True), (noise**2).mean(axis=axes, keepdims=True)

        def objective(moved):
            logits = network.probe(batch.images[:, None] + moved)
            return divergence(batch.predictions[:, None], logits).sum()

        def project(moved):
            near = noise + into_ball(moved - noise, self.epsilon)
            scale = jnp.sqrt(square / (near**2).mean(axis=axes, keepdims=True))
            return mean + scale * (near - near.mean(axis=axes, keepdims=True))

        step_size = 2 * self.epsilon / self.steps
        return ascend(objective, noise, steps=self.steps, step_size=step_size, project=project)

    def of_logits(
        self,
        logits: Float[Array, "batch copies num_classes"],
        worst: Float[Array, "batch copies num_classes"],
        labels: Int[Array, "batch"],
        predictions: Float[Array, "batch num_classes"],
        learned: Int[Array, "batch"],
    ) -> Float[Array, ""]:
        """The loss of the logits of copies with the first and with the worst noise, a mean over the batch.

        predictions: probabilities of the classes by the teacher.
        learned: number of copies of each image that are learned, 1 to copies.
        """
        easiest = jnp.sort(cross_entropy(logits, labels), axis=1)
        counted = jnp.arange(self.copies) < learned[:, None]
        low = jnp.where(counted, easiest, 0.0).mean(axis=1)
        high = divergence(predictions[:, None], worst).max(axis=1)
        return (low + self.lbd * jnp.where(learned == self.copies, high, 0.0)).mean()
