"""Classifiers whose smoothed answers are known."""

import jax.numpy as jnp
import numpy as np
from scipy import special

SHAPE = (4, 4, 3)
DIRECTION = np.random.default_rng(0).normal(size=SHAPE)
DIRECTION /= np.linalg.norm(DIRECTION)


def linear(images):
    """Two half spaces: class 0 where the image, seen from mid-grey, has a positive component along DIRECTION.

    Smoothed with any sigma, an image at signed distance d has P(class 0) = Phi(d / sigma) and radius |d|.
    """
    score = jnp.einsum("bhwc,hwc->b", images - 0.5, jnp.asarray(DIRECTION, jnp.float32))
    return jnp.stack([score, -score], axis=-1)


def slab(width, images):
    """Class 0 within `width` of the origin along DIRECTION: at the origin, larger noise finds its way out."""
    score = jnp.abs(jnp.einsum("bhwc,hwc->b", images, jnp.asarray(DIRECTION, jnp.float32)))
    return jnp.stack([width - score, score - width], axis=-1)


def slab_probability(width, sigma):
    """P(class 0) of the slab at the origin."""
    return 1 - 2 * special.ndtr(-width / np.asarray(sigma))


def by_sign(images):
    """Four classes from the signs of two pixels: exact for any order of the arithmetic."""
    return jnp.eye(4)[2 * (images[:, 0, 0, 0] > 0) + (images[:, 1, 1, 1] > 0)]


def at_distance(d):
    """An image at signed distance d from the linear classifier's boundary, in [0, 1] for |d| up to 1."""
    return jnp.asarray(0.5 + d * DIRECTION, jnp.float32)
