"""Projected gradient ascent in L2, which finds the adversarial images and the adversarial noise of training."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def norms(x: Float[Array, "... h w c"]) -> Float[Array, "... 1 1 1"]:
    """The L2 norm of each image."""
    return jnp.sqrt((x**2).sum(axis=(-3, -2, -1), keepdims=True))


def into_ball(x: Float[Array, "... h w c"], radius) -> Float[Array, "... h w c"]:
    """Each x if its norm is at most `radius`; else x, shortened to that norm."""
    norm = norms(x)
    return x * jnp.where(norm > radius, radius / (norm + 1e-7), 1.0)


def ascend(
    objective: Callable,
    start: Float[Array, "... h w c"],
    *,
    steps: int,
    step_size,
    project: Callable,
) -> Float[Array, "... h w c"]:
    """The images after `steps` steps of length `step_size` along the gradient, each followed by `project`; constants.

    Args:
        objective: returns the sum over images of the quantity that grows. Where its gradient is zero, the image stays.
        project: maps images to those that are allowed.
    """

    def step(_, x):
        gradient = jax.grad(objective)(x)
        return project(x + step_size * gradient / (norms(gradient) + 1e-8))

    start = jax.lax.stop_gradient(start)
    return jax.lax.stop_gradient(jax.lax.fori_loop(0, steps, step, start))
