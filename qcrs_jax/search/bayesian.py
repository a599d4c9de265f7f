"""Bayesian optimisation of the certified radius over sigma, from class counts. Each count informs the whole curve.

The curve is z(sigma) = ndtri(p(sigma)). Its posterior given all counts so far (posterior.py) gives for each sigma the
radius that the certification, with its n and alpha, can be expected to give, and how uncertain that is. A search that
compares lower bounds uses each pair of evaluations once, and compares values that saturate at its own small n.
"""

import dataclasses
import operator
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..bounds import PROBITS
from ..errors import SettingError
from .aim import Radii, largest_rival
from .maximisers import AskTell
from .posterior import Departures, Prior, information, posterior
from .qcrs import QCRS, Tables

PRIOR = Prior()
OUTSIDE_RIVAL = Prior(slope=-1.0)  # of the share outside the largest rival; its departures are those of PRIOR
RATIO = 1.04  # ratio of neighbouring sigmas on the grid; between them a radius hardly changes
REACH = 4.0  # largest factor by which the bracket may widen beyond an end
COARSE = 3  # evaluations spread over the bracket, after the first one at the original sigma
WIDENING = 6  # grid points by which the bracket grows when its end is best and was evaluated
CLASS_SAMPLES = 500  # most samples at the original sigma to separate its two top classes, as in the published search
WORTH = 1e-4  # the search ends where the expected gain is at most this share of the radius or of sigma0


def _normal(count):
    """Nodes and weights of Gauss's quadrature over a standard normal."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(count)
    return np.asarray(nodes, np.float32), np.asarray(weights / weights.sum(), np.float32)


OUTER, INNER = _normal(7), _normal(5)


class _State(NamedTuple):
    counts: Float[Array, "points num_classes"]
    n: Float[Array, "points"]
    prediction: Int[Array, ""]
    told: Int[Array, ""]
    step: Int[Array, ""]  # of the design
    lower: Int[Array, ""]  # the grid points that the search may choose at present
    upper: Int[Array, ""]
    next: Int[Array, ""]
    best: Int[Array, ""]
    done: Bool[Array, ""]


class SigmaGrid(NamedTuple):
    """The sigmas that a search may answer, beside the original one.

    sigmas: at most `RATIO` apart; they reach from `REACH` times below the bracket to `REACH` times above it.
    departures: departures of the prior at these sigmas.
    design: the first points to ask for. The original sigma is the point behind the grid.
    first, last: positions of the ends of the bracket.
    """

    sigmas: Float[Array | np.ndarray, "points"]
    departures: Departures
    design: Int[Array | np.ndarray, "first"]
    first: Int[Array | np.ndarray, ""] | np.integer
    last: Int[Array | np.ndarray, ""] | np.integer

    @classmethod
    def over(cls, lower: float, upper: float, above: bool = True) -> "SigmaGrid":
        """The grid of a bracket, made on the host in float64. Without `above` it ends at the bracket's upper end."""
        grid, first, last = sigma_grid(lower, upper)
        grid = grid if above else grid[: last + 1]
        coarse = first + np.round((last - first) * (np.arange(COARSE) + 0.5) / COARSE).astype(int)
        design = np.array([len(grid), *coarse], np.int32)
        return cls(np.asarray(grid, np.float32), PRIOR.on(grid), design, np.int32(first), np.int32(last))


@dataclasses.dataclass(frozen=True)
class Bayesian(QCRS):
    """Bayesian optimisation: a posterior of the whole curve R(sigma) from all counts. It may widen the bracket.

    Each evaluation draws new samples. The search stops when no further evaluation can be expected to gain anything.

    Source: the knowledge gradient of Frazier, Powell and Dayanik 2009.

    Attributes:
        sigma_lower, sigma_upper: ends of the bracket of sigmas, 0 < sigma_lower < sigma_upper. Where an end is best,
            the bracket is widened there, by a factor of up to four.
        search_n: samples for each evaluation, at least 1.
        max_evaluations: largest number of evaluations, at least 2.
        widen_above: whether the bracket may be widened beyond its upper end.

    Raises:
        SettingError: a setting is out of its range.
    """

    max_evaluations: int = dataclasses.field(default=15, kw_only=True)
    widen_above: bool = dataclasses.field(default=True, kw_only=True)

    name: ClassVar[str] = "bayesian"
    may_end_early: ClassVar[bool] = True
    widens: ClassVar[bool] = True

    def __post_init__(self):
        if self.max_evaluations < 2:
            raise SettingError(f"{{max_evaluations}} must be at least 2, not {self.max_evaluations}")
        super().__post_init__()

    @property
    def evaluations(self):
        return self.max_evaluations

    def tables(self, aim):
        grid = SigmaGrid.over(self.sigma_lower, self.sigma_upper, self.widen_above)
        return Tables(aim.predictive(self.search_n), (aim.expected(), grid))

    @property
    def reach(self):
        return self.sigma_upper * (REACH if self.widen_above else 1)

    def ending_at(self, sigma):
        return dataclasses.replace(self, sigma_upper=sigma, widen_above=False)

    def recorded(self):
        recorded = super().recorded()
        if self.widen_above:  # as files of before have it
            del recorded["widen_above"]
        return recorded

    def maximiser(self, sigma, tables, num_classes):
        radii, grid = tables.more
        return bayesian(grid, self.max_evaluations, self.search_n, sigma, radii, num_classes)

    def told(self, point, counts, prediction, values):
        return counts

    def predicted(self, inner, prediction):
        return inner.prediction


def bayesian(
    grid: SigmaGrid,
    evaluations: int | Int[Array, ""],
    n: int | Int[Array, ""],
    sigma0: Float[Array, ""],
    radii: Radii,
    num_classes: int,
) -> AskTell:
    """A search that asks for a sigma, receives the class counts of n samples there, and in the end answers a sigma.

    It first asks for sigma0, where it selects the class whose radius it maximises. It asks for sigma0 again while the
    two top classes could be level there. Then it asks for three sigmas spread over the bracket. After that it asks for
    the sigma after which the largest expected radius will on average be largest: the knowledge gradient (Frazier,
    Powell and Dayanik 2009). The answer is the sigma with the largest expected radius, evaluated or not. Where an end
    of the bracket is best and was evaluated, the bracket is widened, by up to `REACH` times.

    Args:
        grid: the sigmas that may be answered.
        evaluations: largest number of evaluations. There are fewer where no further one can be expected to gain more
            than `WORTH`.
        n: samples for each evaluation.
        sigma0: the original sigma, the noise of the training.
        radii: the radii that the certification can be expected to give, by probit (`Aim.expected`).
        num_classes: number of classes.
    """
    sigma0 = jnp.asarray(sigma0, jnp.float32)
    original, design, n = len(grid.sigmas), jnp.asarray(grid.design), jnp.asarray(n, jnp.float32)
    sigmas = jnp.append(jnp.asarray(grid.sigmas), sigma0)
    points = jnp.arange(sigmas.size)
    curve, outside_rival = (prior.curve(grid.departures, sigma0) for prior in (PRIOR, OUTSIDE_RIVAL))
    priors = jax.tree.map(lambda *of_both: jnp.stack(of_both), curve, outside_rival)
    candidates = jnp.append(points[:-1:2], points[-1])

    def expected_radii(mean, deviation, rule, others):
        """Mean radius at each sigma (the last axis) where z is normal."""
        nodes, weights = rule
        z = mean[..., None] + deviation[..., None] * nodes.reshape((1,) * mean.ndim + (-1,))
        values = _interpolate(radii.alone, z)
        if others is not None:
            values = jnp.maximum(values, _interpolate(radii.own, z) + others[:, None])
        return sigmas.reshape((1,) * (mean.ndim - 1) + (-1,)) * (values @ weights)

    def fitted(counts, n, prediction):
        """The posterior of z, and the part of the radius at each sigma that the largest rival leaves.

        The latter is the mean over the posterior of the share of samples outside the largest rival, and None where the
        bound looks at no rival. What further samples would show about the rival is not part of the knowledge gradient.
        """
        if radii.others is None:
            return posterior(curve, counts[:, prediction], n), None
        successes = jnp.stack([counts[:, prediction], counts.sum(axis=-1) - largest_rival(counts, prediction)])
        both = jax.vmap(posterior, in_axes=(0, 0, None))(priors, successes, n)
        z, outside = (jax.tree.map(operator.itemgetter(place), both) for place in (0, 1))
        nodes, weights = INNER
        return z, _interpolate(radii.others, outside.mean[:, None] + outside.deviation[:, None] * nodes) @ weights

    def knowledge_gradient(z, allowed, best, others):
        """The expected gain of n more samples at a candidate: largest expected radius after them, less that at `best`.

        It is the mean over the possible counts. Both terms use one quadrature, so that the gain is 0 where there is
        nothing to learn.
        """
        covariance = jnp.matmul(z.spread[:, candidates].T, z.spread, precision="highest")
        variance = z.deviation**2
        noise = 1 / (n * information(z.mean[candidates]))
        shift = covariance / jnp.sqrt(variance[candidates] + noise)[:, None]  # candidates, points
        left = jnp.sqrt(jnp.maximum(variance[None] - shift**2, 0))
        nodes, weights = OUTER
        after = expected_radii(z.mean[None, None] + nodes[:, None, None] * shift[None], left[None], INNER, others)
        gain = jnp.where(allowed[None, None], after, -1).max(axis=-1) - after[..., best]
        return jnp.where(allowed[candidates], weights @ gain, -1)

    def class_is_open(counts):
        """Whether the two top classes lie within two standard deviations, and samples are left to separate them."""
        first, second = jax.lax.top_k(counts, 2)[0]
        return ((first - second) ** 2 < 4 * (first + second)) & (counts.sum() + n <= CLASS_SAMPLES)

    def tell(s, counts):
        counts = s.counts.at[s.next].add(counts.astype(jnp.float32))
        s = s._replace(counts=counts, n=s.n.at[s.next].add(n), told=s.told + 1)
        at_sigma0 = s.counts[original]
        prediction = jnp.argmax(at_sigma0).astype(jnp.int32)
        step = jnp.where((s.step == 0) & class_is_open(at_sigma0), 0, s.step + 1)
        allowed = ((points >= s.lower) & (points <= s.upper)) | (points == original)
        z, others = fitted(s.counts, s.n, prediction)
        expected = jnp.where(allowed, expected_radii(z.mean, z.deviation, INNER, others), -1)
        best = jnp.argmax(expected).astype(jnp.int32)
        least = WORTH * jnp.maximum(expected[best], sigma0)
        at_end = ((best == s.lower) | (best == s.upper)) & (expected[best] > least)  # not where all are hopeless
        evaluated = s.n[best] > 0
        unsure_end = at_end & ~evaluated
        wider_below = at_end & evaluated & (best == s.lower) & (best > 0)
        wider_above = at_end & evaluated & (best == s.upper) & (best < original - 1)
        gain = knowledge_gradient(z, allowed, best, others)
        following = jnp.where(unsure_end, best, candidates[jnp.argmax(gain)])
        worthwhile = unsure_end | wider_below | wider_above | (gain.max() > least)
        return s._replace(
            lower=jnp.where(wider_below, jnp.maximum(s.lower - WIDENING, 0), s.lower),
            upper=jnp.where(wider_above, jnp.minimum(s.upper + WIDENING, original - 1), s.upper),
            prediction=prediction,
            step=step,
            next=jnp.where(step < design.size, design[step], following).astype(jnp.int32),
            best=best,
            done=(s.told >= evaluations) | ((step >= design.size) & ~worthwhile),
        )

    init = _State(
        counts=jnp.zeros((sigmas.size, num_classes)),
        n=jnp.zeros(sigmas.size),
        prediction=jnp.int32(0),
        told=jnp.int32(0),
        step=jnp.int32(0),
        lower=jnp.asarray(grid.first),
        upper=jnp.asarray(grid.last),
        next=design[0],
        best=design[0],
        done=jnp.bool_(False),
    )
    return AskTell(init, lambda s: sigmas[s.next], tell, lambda s: s.done, lambda s: sigmas[s.best])


def sigma_grid(lower: float, upper: float):
    """Sigmas at most `RATIO` apart that reach `REACH` times beyond the bracket, and the positions of its ends."""
    inside = np.geomspace(lower, upper, 1 + int(np.ceil(np.log(upper / lower) / np.log(RATIO))))
    beyond = RATIO ** np.arange(1, 1 + int(np.log(REACH) / np.log(RATIO)))
    return np.concatenate([lower / beyond[::-1], inside, upper * beyond]), len(beyond), len(beyond) + len(inside) - 1


def _interpolate(table, z):
    """`table`, whose values are those at `PROBITS`, interpolated at any z."""
    table = jnp.asarray(table)
    place = jnp.clip((z - PROBITS[0]) / (PROBITS[1] - PROBITS[0]), 0, len(PROBITS) - 1.001)
    index = place.astype(jnp.int32)
    return table[index] + (place - index.astype(jnp.float32)) * (table[index + 1] - table[index])
