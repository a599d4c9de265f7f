r"""A Gaussian-process posterior of the curve z(sigma) = ndtri(p(sigma)), given binomial counts at some sigmas.

p(sigma) is the probability of one class under noise of standard deviation sigma. The prior is over log sigma. It is
the sum of a straight line, whose height and slope are uncertain, and of smooth departures from that line.

Counts are binomial with probability Phi(z). The posterior is therefore log-concave. Laplace's method approximates it
at its mode (Rasmussen and Williams 2006, chapter 3).

The curve is represented on a grid of sigmas as mean + basis @ x, with x standard normal. The departures are the
principal components of their covariance on the grid. Fitting all counts is thus a probit regression on a few numbers.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import log_ndtr
from jaxtyping import Array, Float, Real

NEWTON_STEPS = 10
STEP_SIZES = (0.0, 1.0, 0.5, 0.25, 0.1, 0.03, 0.01)
MOST = 20_000  # more samples at one sigma count as this many: float32 cannot weigh more against the prior


@dataclasses.dataclass(frozen=True)
class Prior:
    """A prior of z over v = log(sigma / sigma0), in probits. sigma0 is the noise of the training.

    Attributes:
        height, slope: means of z(sigma0) and of dz/dv.
        height_sd, slope_sd: their standard deviations.
        amplitude, length: scales of the departures, whose covariance is amplitude**2 exp(-(v - v')**2 / 2 length**2).
    """

    height: float = 1.5
    slope: float = -2.0
    height_sd: float = 2.0
    slope_sd: float = 2.0
    amplitude: float = 1.5
    length: float = 0.45

    def on(self, sigmas: Float[np.ndarray, "points"]) -> "Departures":
        """The departures from the line at `sigmas`, which ascend. Computed on the host in float64."""
        u = np.log(sigmas)
        values, vectors = np.linalg.eigh(self.amplitude**2 * np.exp(-0.5 * ((u[:, None] - u) / self.length) ** 2))
        kept = values > 1e-4  # smaller components make no visible difference
        return Departures(np.asarray(u, np.float32), np.asarray(vectors[:, kept] * np.sqrt(values[kept]), np.float32))

    def curve(self, departures: "Departures", sigma0: Float[Array, ""]) -> "Curve":
        """The prior at the sigmas of `departures`, followed by sigma0; jit-compatible."""
        u, components = map(jnp.asarray, departures)
        u0 = jnp.log(sigma0)
        at_sigma0 = jax.vmap(lambda component: jnp.interp(u0, u, component), in_axes=1)(components)
        v = jnp.append(u - u0, 0.0)
        line = jnp.stack([jnp.full_like(v, self.height_sd), self.slope_sd * v], axis=1)
        basis = jnp.concatenate([line, jnp.vstack([components, at_sigma0])], axis=1)
        return Curve(self.height + self.slope * v, basis)


class Departures(NamedTuple):
    """The principal components of the departures from the line, at some sigmas.

    u: logarithms of the sigmas.
    components: departure of each component at each sigma.
    """

    u: Float[Array | np.ndarray, "points"]
    components: Float[Array | np.ndarray, "points components"]


class Curve(NamedTuple):
    """A Gaussian prior of z at some points: mean + basis @ x with x standard normal."""

    mean: Float[Array, "points"]
    basis: Float[Array, "points components"]


class Posterior(NamedTuple):
    """z at each point of the grid: mean + spread.T @ x with x standard normal."""

    mean: Float[Array, "*m points"]
    spread: Float[Array, "*m components points"]

    @property
    def deviation(self) -> Float[Array, "*m points"]:
        """Standard deviation of z at each point."""
        return jnp.sqrt((self.spread**2).sum(axis=-2))


def posterior(prior: Curve, successes: Real[Array, "points"], n: Real[Array, "points"]) -> Posterior:
    """The posterior of z, given `successes` among n samples at each point of the grid. n may be 0.

    jit- and vmap-compatible. On a CPU several posteriors are computed one after another. jaxlib solves several systems
    of equations at once with threads that wait for each other: where two such solutions run at the same time, and there
    are two threads, both wait for ever (jaxlib 0.10).
    """
    one_by_one = jax.custom_batching.sequential_vmap(_posterior)
    return jax.lax.platform_dependent(prior, successes, n, cpu=one_by_one, default=_posterior)


def _posterior(prior, successes, n):
    mean, basis = prior
    matmul = functools.partial(jnp.matmul, precision="highest")  # a TPU's default is too coarse
    weight = jnp.minimum(1.0, MOST / jnp.maximum(n, 1))
    successes, failures = weight * successes, weight * (n - successes)

    def log_posterior(x):
        z = mean + matmul(basis, x)
        return (successes * log_ndtr(z) + failures * log_ndtr(-z)).sum() - 0.5 * (x**2).sum()

    def slope_and_factor(x):
        """The gradient of the log posterior at x, and the Cholesky factor of minus its second derivative."""
        z = mean + matmul(basis, x)
        (up, bent_up), (down, bent_down) = _hazard(z), _hazard(-z)
        curvature = successes * bent_up + failures * bent_down
        gradient = matmul(basis.T, successes * up - failures * down) - x
        return gradient, jnp.linalg.cholesky(jnp.eye(x.size) + matmul(basis.T, curvature[:, None] * basis))

    def newton(_, x):
        gradient, factor = slope_and_factor(x)
        step = jax.scipy.linalg.cho_solve((factor, True), gradient)
        steps = x[None] + jnp.asarray(STEP_SIZES)[:, None] * step[None]
        heights = jax.vmap(log_posterior)(steps)
        return steps[jnp.argmax(jnp.where(jnp.isnan(heights), -jnp.inf, heights))]

    x = jax.lax.fori_loop(0, NEWTON_STEPS, newton, jnp.zeros(basis.shape[1]))
    _, factor = slope_and_factor(x)
    spread = jax.scipy.linalg.solve_triangular(factor, basis.T, lower=True)
    return Posterior(mean + matmul(basis, x), spread)


def information(z: Float[Array, "points"]) -> Float[Array, "points"]:
    """Fisher information of one sample about z, where the sample succeeds with probability Phi(z)."""
    return _hazard(z)[0] * _hazard(-z)[0]


def _hazard(z):
    """The first derivative of log Phi(z), and minus its second derivative."""
    hazard = jnp.exp(-0.5 * z**2 - 0.5 * jnp.log(2 * jnp.pi) - log_ndtr(z))
    return hazard, jnp.maximum(hazard * (z + hazard), 0)
