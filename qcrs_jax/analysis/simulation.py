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
from ..certification.cascade import Cascade
from ..certification.estimates import Fixed
from ..certification.proportions import BOUNDS
from ..errors import SettingError
from ..sampling.smoothing import GAUSSIAN, Noise
from ..search import QCRS
from ..search.maximisers import run
from .curves import Curves

CERTIFICATIONS = 8  # of one search, where radii have to be drawn
ROUNDING = 1e-6  # by which a sigma may miss the ends of a curve, which has float32


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
    draws: int | None = None,
) -> Simulation:
    """The results of `search` on `curves`, for certificates of n samples at alpha with the radii of `noise`.

    Beyond the ends of a curve its shares are those at the end, and so is its radius: a wider bracket gains nothing.

    Args:
        estimate: the bound of the certificates. The searches aim at it.
        n0: samples that select the class of a certificate.
        repeats: number of searches on each curve.
        draws: number of certificates that are drawn for each search; the radius is their mean. None draws
            `CERTIFICATIONS`, but for `Fixed()` takes the radius to be expected, without errors of the selection.

    Raises:
        SettingError: the bound needs random numbers, which are not simulated.
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
    if draws is None and estimate == Fixed():
        radius = radius_at(curves, sigma, prediction, n, alpha, noise)
    else:
        drawn = {"key": key, "n0": n0, "n": n, "alpha": alpha, "noise": noise, "draws": draws or CERTIFICATIONS}
        radius = drawn_radius(curves, sigma, prediction, estimate, **drawn)
    return Simulation(sigma.astype(float), prediction, samples, radius)


def check_simulated(estimate: Fixed) -> None:
    """Raises SettingError for a bound that needs random numbers, which are not simulated."""
    if estimate.randomises:
        raise SettingError(f"the {{bound}} {estimate.bound!r} needs random numbers that a simulation does not draw")


def drawn_radius(
    curves: Curves,
    sigma: Float[np.ndarray, "*repeats m"],
    prediction: Int[np.ndarray, "*repeats m"],
    estimate: Fixed,
    *,
    key,
    n0: int = 100,
    n: int = 100_000,
    alpha: float = 0.001,
    noise: Noise = GAUSSIAN,
    draws: int = CERTIFICATIONS,
) -> Float[np.ndarray, "*repeats m"]:
    """The mean radius of `draws` certificates of each image at `sigma`, each with counts of its own.

    A certificate of another class than `prediction` counts as 0.

    Raises:
        SettingError: the bound needs random numbers, which are not simulated.
    """
    check_simulated(estimate)
    rng, sigma = np.random.default_rng(np.asarray(jax.random.key_data(key))), _within(curves, sigma)
    shares = _shares(curves, sigma)
    radii = np.zeros(sigma.shape)
    for _ in range(draws):
        counts0, counts = (rng.multinomial(number, shares) for number in (n0, n))
        made = BOUNDS[estimate.bound].certificate(counts0, counts, sigma, n, alpha, noise)
        radii += np.where(made.prediction == prediction, made.radius, 0.0)
    return radii / draws


class SimulatedCascade(NamedTuple):
    """A cascade on m curves: means over the certificates that were drawn.

    radius: certified radius, 0 where the class is not the label.
    samples: number of samples of all stages.
    """

    radius: Float[np.ndarray, "m"]
    samples: Float[np.ndarray, "m"]


def simulate_cascade(
    curves: Curves,
    cascade: Cascade,
    *,
    key,
    n0: int = 100,
    n: int = 100_000,
    alpha: float = 0.001,
    noise: Noise = GAUSSIAN,
    draws: int = CERTIFICATIONS,
) -> SimulatedCascade:
    """The certificates of a cascade on `curves`, `draws` for each image, each with counts of its own.

    Raises:
        SettingError: a stage lies outside the sigmas of the curves, or the request cannot be met.
    """
    cascade.check(n0, n, alpha, noise)
    stages = np.array(cascade.sigmas)
    if stages.min() < (1 - ROUNDING) * curves.sigmas[0] or stages.max() > (1 + ROUNDING) * curves.sigmas[-1]:
        raise SettingError(
            f"{{sigmas}} {', '.join(f'{sigma:g}' for sigma in stages)}: the curves reach from {curves.sigmas[0]:g} to "
            f"{curves.sigmas[-1]:g}; measure others, or choose stages among these"
        )
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    shares = np.moveaxis(_shares(curves, np.broadcast_to(stages[:, None], (len(stages), len(curves.idx)))), 0, 1)
    radius, samples = np.zeros(len(curves.idx)), np.zeros(len(curves.idx))
    for _ in range(draws):
        counts0, counts = (rng.multinomial(number, shares) for number in (n0, n))
        made = cascade.certificate(counts0, counts, n0, n, alpha, noise)
        assert made.stages is not None
        radius += np.where(made.prediction == curves.labels, made.radius, 0.0)
        samples += n0 * len(stages) + made.stages.n.sum(axis=-1)
    return SimulatedCascade(radius / draws, samples / draws)


def radius_at(
    curves: Curves,
    sigma: Float[np.ndarray, "*repeats m"],
    prediction: Int[np.ndarray, "*repeats m"],
    n: int = 100_000,
    alpha: float = 0.001,
    noise: Noise = GAUSSIAN,
) -> Float[np.ndarray, "*repeats m"]:
    """The radius that n samples at alpha can be expected to certify for a class of each image at `sigma`."""
    sigma = _within(curves, sigma)
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


def _shares(curves, sigma):
    """The class shares of each image at `sigma` (*repeats, m): (*repeats, m, num_classes)."""
    probits, log_sigmas = _probits(curves), np.log(curves.sigmas)
    shares = np.empty((*sigma.shape, probits.shape[-1]))
    for at in np.ndindex(sigma.shape):
        shares[at] = special.ndtr([np.interp(np.log(sigma[at]), log_sigmas, row) for row in probits[at[-1]].T])
    return shares / shares.sum(axis=-1, keepdims=True)


def _within(curves, sigma):
    """`sigma` within the curves: what is certified beyond their ends is not known."""
    return np.clip(np.asarray(sigma, float), curves.sigmas[0], curves.sigmas[-1])


def _probits(curves):
    """ndtri of the class shares, half a count away from 0 and 1."""
    return special.ndtri(np.clip(curves.counts / curves.n, 0.5 / curves.n, 1 - 0.5 / curves.n))
