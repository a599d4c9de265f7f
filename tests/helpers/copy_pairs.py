"""The answers of two classifiers to the same noisy copies."""

import jax
import jax.numpy as jnp
from classifiers import by_sign

from qcrs_jax.experiments.run import copies

KEY = jax.random.key(3)


def shifted(images):
    """`by_sign` of slightly darker images; of the darkest it knows nothing."""
    return jnp.where((images[:, 2, 2, 2] > -0.5)[:, None], by_sign(images - 0.05), jnp.inf)


def pairs(*networks, image, sigma, n, batch_size=16, devices=1):
    program = {"batch_size": batch_size, "devices": jax.devices()[:devices]}
    return list(copies.pairs_of_classes(*networks, image, sigma, key=KEY, n=n, **program))
