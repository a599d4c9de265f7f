"""Parts of losses that several methods share, in float32 and with finite gradients."""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ..extras import needed_for

with needed_for("training"):
    import optax

_LEAST = 1e-20  # below it a probability counts as this, as in the published programs


def cross_entropy(logits: Float[Array, "... num_classes"], labels: Int[Array, "..."]) -> Float[Array, "..."]:
    """-log of the probability of the label. Labels (batch,) also go with logits (batch, copies, num_classes)."""
    labels = jnp.broadcast_to(labels.reshape(labels.shape + (1,) * (logits.ndim - 1 - labels.ndim)), logits.shape[:-1])
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def soft_cross_entropy(logits: Float[Array, "batch copies num_classes"], labels: Int[Array, "batch"]):
    """-log of the mean over copies of the probability of the label, (batch,): the loss of the soft smoothed classifier.

    It is computed from logarithms, so its gradient does not vanish where all copies are far from the label.
    """
    return math.log(logits.shape[1]) - jax.nn.logsumexp(-cross_entropy(logits, labels), axis=1)


def log_of(probabilities):
    """log of probabilities, from below bounded by log 1e-20."""
    return jnp.log(jnp.maximum(probabilities, _LEAST))


def divergence(target: Float[Array, "... num_classes"], logits: Float[Array, "... num_classes"]) -> Float[Array, "..."]:
    """The Kullback-Leibler divergence KL(target || softmax(logits))."""
    return (target * (log_of(target) - jax.nn.log_softmax(logits))).sum(axis=-1)


def entropy(probabilities: Float[Array, "... num_classes"]) -> Float[Array, "..."]:
    """The entropy, in nats."""
    return -(probabilities * log_of(probabilities)).sum(axis=-1)
