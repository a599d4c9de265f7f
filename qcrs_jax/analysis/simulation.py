"""Searches for sigma on measured curves, without the network: shows in seconds what a search would have chosen.

The class shares of a curve (curves.py), interpolated in probits over log sigma, are taken as the truth. A search draws
its counts from them. The share of a class that was always chosen is known up to 1 / n: measure with a large n.

A sample is a number u, uniform on [0, 1). The classes divide [0, 1) into intervals as long as their shares, the top
class at the original sigma first. The sample falls into the class whose interval contains u. A search that reuses its
noise at every sigma reuses u: the sample changes its class only where the shares move past u. For a class that lies
within a slab around the image this is exactly what real noise does.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtr
from jaxtyping import Float, Int
from scipy import special

from ..bounds import PROBITS, expected_radius_table
from ..certification.estimates import Fixed
from ..certification.proportions import BOUNDS
from ..sampling.smoothing import GAUSSIAN, Noise
from ..search import QCRS
from ..search.maximisers import run
from .curves import Curves

CERTIFICATIONS = 8  # of one search, where radii have to be drawn


class Simulation(NamedTuple):
    """Searches on m curves, each repeated with other samples.

    sigma: chosen sigma.
    prediction: class whose radius was maximised.
    samples: number of samples that the search drew.
    radius: radius that the certification can be expected to give there, on average over its samples.
    """

    sigma: Float[np.ndarray, "repeats m"]
    prediction: Int[np.ndarray, "repeats m"]
    samples: Int[np.ndarray, "repeats m"]
    radius: Float[np.ndarray, "repeats m"]


def simulate(
    curves: Curves,
    search: QCRS,
    *,
    key,
    n: int = 100_000,
    alpha: float = 0.001,
    noise: Noise = GAUSSIAN,
    estimate: Fixed = Fixed(),  # noqa: B008
    n0: int = 100,
    repeats: int = 10,
) -> Simulation:
    """The results of `search` on `curves`, for certificates of n samples at alpha with the radii of `noise`.

    Beyond the ends of a curve its shares are those at the end, and so is its radius: a wider bracket gains nothing.

    A bound over classes has no table of radii to be expected: what it certifies depends on all classes, and on the n0
    samples that select. Its radius is the mean of `CERTIFICATIONS` certificates, with counts of their own.
    """
    log_sigmas = jnp.asarray(np.log(curves.sigmas), jnp.float32)
    tables = search.tables(estimate.aim(n, alpha, noise))

    def simulated(key, probits):
        order = jnp.argsort(-probits[curves.original])  # of the classes, the top one first

        def counts(query):
            z = jax.vmap(lambda row: jnp.interp(jnp.log(query.sigma), log_sigmas, row), in_axes=1)(probits)
            ends = jnp.cumsum(ndtr(z)[order])
            u = jax.random.uniform(jax.random.fold_in(key, query.draw), (search.search_n,))
            below = (u[:, None] < ends / ends[-1]).sum(axis=0, dtype=jnp.int32)
            return jnp.zeros(len(order), jnp.int32).at[order].set(jnp.diff(below, prepend=0))

        sigma = jnp.float32(curves.sigmas[curves.original])
        trace = run(search.policy(sigma, tables, curves.counts.shape[-1]), counts).trace
        return trace.sigma, trace.prediction, trace.evaluations * search.search_n

    keys = jax.random.split(key, (repeats, len(curves.idx)))
    over_all = jax.jit(jax.vmap(jax.vmap(simulated), in_axes=(0, None)))
    found = over_all(keys, jnp.asarray(_probits(curves), jnp.float32))
    sigma, prediction, samples = (np.asarray(a) for a in found)
    if estimate.aim(n, alpha, noise).buckets is None:
        radius = radius_at(curves, sigma, prediction, n, alpha, noise)
    else:
        at = Drawer(curves, sigma, prediction, np.random.default_rng(np.asarray(jax.random.key_data(key))))
        radius = np.mean([at.radius(estimate, n0, n, alpha, noise) for _ in range(CERTIFICATIONS)], axis=0)
    return Simulation(sigma.astype(float), prediction, samples, radius)


class Drawer:
    """Draws counts of selection and estimation at one sigma of each curve, for the class that a search chose.

    Args:
        sigma, prediction: sigma and class of each image, (*repeats, m).
    """

    def __init__(self, curves: Curves, sigma, prediction, rng: np.random.Generator):
        probits, log_sigmas = _probits(curves), np.log(curves.sigmas)
        self._sigma, self._prediction, self._rng = np.asarray(sigma, float), prediction, rng
        self._shares = np.empty((*self._sigma.shape, probits.shape[-1]))
        for at in np.ndindex(self._sigma.shape):
            z = [np.interp(np.log(self._sigma[at]), log_sigmas, row) for row in probits[at[-1]].T]
            self._shares[at] = special.ndtr(z)
        self._shares /= self._shares.sum(axis=-1, keepdims=True)

    def radius(self, estimate: Fixed, n0: int, n: int, alpha: float, noise: Noise) -> Float[np.ndarray, "*repeats m"]:
        """The certified radius of one draw; 0 where another class than the search's was selected."""
        counts0, counts = (self._rng.multinomial(number, self._shares) for number in (n0, n))
        made = BOUNDS[estimate.bound].certificate(counts0, counts, self._sigma, n, alpha, noise)
        return np.where(made.prediction == self._prediction, made.radius, 0.0)


def radius_at(
    curves: Curves,
    sigma: Float[np.ndarray, "*repeats m"],
    prediction: Int[np.ndarray, "*repeats m"],
    n: int = 100_000,
    alpha: float = 0.001,
    noise: Noise = GAUSSIAN,
) -> Float[np.ndarray, "*repeats m"]:
    """The radius that n samples at alpha can be expected to certify for a class of each image at `sigma`."""
    sigma = np.clip(sigma, curves.sigmas[0], curves.sigmas[-1])
    probits, log_sigmas = _probits(curves), np.log(curves.sigmas)
    z = np.empty(sigma.shape)
    for at in np.ndindex(sigma.shape):
        z[at] = np.interp(np.log(sigma[at]), log_sigmas, probits[at[-1], :, prediction[at]])
    return sigma * np.interp(z, PROBITS, expected_radius_table(n, alpha, noise.unit_radius))


def best_radius(
    curves: Curves,
    sigma_lower: float,
    sigma_upper: float,
    n: int = 100_000,
    alpha: float = 0.001,
    noise: Noise = GAUSSIAN,
) -> Float[np.ndarray, "m"]:
    """The largest such radius, of the class at the original sigma, at any sigma in the bracket."""
    sigmas = np.geomspace(sigma_lower, sigma_upper, 400)
    everywhere = np.broadcast_to(sigmas[:, None], (len(sigmas), len(curves.idx)))
    return radius_at(curves, everywhere, np.broadcast_to(curves.classes, everywhere.shape), n, alpha, noise).max(axis=0)


def _probits(curves):
    """ndtri of the class shares, half a count away from 0 and 1."""
    return special.ndtri(np.clip(curves.counts / curves.n, 0.5 / curves.n, 1 - 0.5 / curves.n))
