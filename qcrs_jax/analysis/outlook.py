"""A budget of certification samples for a data set, spent where they can be expected to add most radius.

The outlook of an image comes from its selection and search samples. They are independent of the samples that certify.
Given the numbers of certification samples, however they follow from outlooks of this image and of others, these are as
many independent draws. The certificate therefore fails with probability at most alpha. It would not be valid to choose
the number, or to draw again, by looking at the certification samples themselves.
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from scipy.special import ndtri

from ..bounds import UnitRadius, expected_radius, smallest_n
from ..certification.certificate import MAX_N
from ..search.bayesian import PRIOR, sigma_grid
from ..search.posterior import posterior

NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(15)
MOST = 64  # times the mean are given to one image at most
STEP = 2 ** (1 / 2)  # between the numbers of samples that are considered
PROBITS = np.linspace(-2, 7, 181)


class Outlook(NamedTuple):
    """The knowledge about an image before its certification samples are drawn. `*m` is () or (images,).

    sigma: noise level of the certificate.
    mean, deviation: mean and deviation of z = ndtri(p) at sigma, where p is the probability of the selected class.
    """

    sigma: Float[np.ndarray, "*m"] | np.floating
    mean: Float[np.ndarray, "*m"] | np.floating
    deviation: Float[np.ndarray, "*m"] | np.floating


def outlook(
    sigma: float,
    sigmas: Float[np.ndarray, "evaluations"] | Sequence[float],
    successes: Int[np.ndarray, "evaluations"] | Sequence[int],
    n: Int[np.ndarray, "evaluations"] | Sequence[int],
    sigma0: float,
) -> Outlook:
    """The outlook of one image at `sigma`, from `successes` of n samples at each of `sigmas`.

    Counts that share noise, as those of a golden section, are treated as independent. The outlook is then too certain,
    which costs radius but no guarantee.

    Args:
        sigma0: noise of the training, for the prior.
    """
    lower, upper = 0.25 * sigma0, 4 * sigma0
    grid = sigma_grid(lower, upper)[0]
    nearest = lambda at: np.abs(np.log(grid)[:, None] - np.log(np.atleast_1d(at))).argmin(axis=0)  # noqa: E731
    at = nearest(np.maximum(sigmas, grid[0]))
    counted, drawn = np.zeros(len(grid) + 1, np.float32), np.zeros(len(grid) + 1, np.float32)
    np.add.at(counted, at, successes)
    np.add.at(drawn, at, n)
    mean, deviation = _fit(lower, upper)(jnp.float32(sigma0), counted, drawn)
    found = nearest(sigma)[0]
    return Outlook(np.float64(sigma), np.float64(mean[found]), np.float64(deviation[found]))


@functools.cache
def _fit(lower, upper):
    departures = PRIOR.on(sigma_grid(lower, upper)[0])

    def fit(sigma0, successes, n):
        z = posterior(PRIOR.curve(departures, sigma0), successes, n)
        return z.mean, z.deviation

    return jax.jit(fit)


def expected_radii(
    outlook: Outlook, ns: Sequence[int] | np.ndarray, alpha: float, unit_radius: UnitRadius = ndtri
) -> Float[np.ndarray, "*m numbers"]:
    """The radius that each of `ns` certification samples can be expected to certify, float64."""
    z = np.asarray(outlook.mean)[..., None] + np.asarray(outlook.deviation)[..., None] * NODES
    weights = WEIGHTS / WEIGHTS.sum()
    radii = [np.interp(z, PROBITS, _table(int(n), alpha, unit_radius)) @ weights for n in ns]
    return np.asarray(outlook.sigma)[..., None] * np.stack(radii, axis=-1)


@functools.lru_cache(maxsize=256)
def _table(n, alpha, unit_radius):
    return expected_radius(PROBITS, n, alpha, 40, unit_radius)


def _numbers(mean, alpha):
    """The numbers of samples that are considered, ascending; `mean` is among them."""
    below = int(np.log(mean / smallest_n(alpha)) / np.log(STEP))
    above = int(np.log(min(MOST, MAX_N / mean)) / np.log(STEP))
    return np.unique([round(mean * STEP**i) for i in range(-below, above + 1)])


def allocate(outlook: Outlook, mean: int, alpha: float, unit_radius: UnitRadius = ndtri) -> Int[np.ndarray, "m"]:
    """Numbers of samples for each of m images, on average at most `mean`, with the largest sum of expected radii.

    At a given price for a sample each image takes the number that is worth most to it. The allocation then lies on the
    concave hull of what is possible (Everett 1963). The price is the lowest that the budget can pay. The rest goes to
    the first images that would take more at a slightly lower price.
    """
    ns = _numbers(mean, alpha)
    radii = expected_radii(outlook, ns, alpha, unit_radius)
    at_price = lambda price: ns[np.argmax(radii - price * ns, axis=-1)]  # noqa: E731
    low, high = 0.0, float(radii.max() / ns[0])  # prices at which every image takes the most, and the least
    for _ in range(60):
        price = (low + high) / 2
        low, high = (low, price) if at_price(price).mean() <= mean else (price, high)
    fewer, more = at_price(high), at_price(low)
    affordable = fewer.sum() + np.cumsum(more - fewer) <= mean * more.size
    return np.where(affordable, more, fewer)
