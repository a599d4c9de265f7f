"""Searches on measured curves, without the network: the results of each for its samples."""

import dataclasses
import math

import jax
import numpy as np

from qcrs_jax.analysis.simulation import CERTIFICATIONS, best_radius, drawn_radius, radius_at, simulate
from qcrs_jax.bounds import smallest_n
from qcrs_jax.certification.certificate import check_request
from qcrs_jax.certification.estimates import Fixed
from qcrs_jax.certification.proportions import USUAL
from qcrs_jax.errors import SettingError, UserError
from qcrs_jax.results.metrics import paired_gain
from qcrs_jax.search import Bayesian, Bisection, GoldenSection, Grid

from ..report.layouts import LAYOUTS

MOST_REPEATS = 1000
MOST_EVALUATIONS = 1000  # of a search on a curve


@dataclasses.dataclass(frozen=True)
class Simulation:
    """The comparison: searches in a bracket, for certificates of n samples at alpha.

    sigma_lower, sigma_upper, epsilon: None for 0.25, 3.5 and 0.1 times the original sigma.
    bound: the bound of the certificates, and of those at which the searches aim.
    repeats: number of searches on each curve, with counts by `seed`.
    """

    sigma_lower: float | None = None
    sigma_upper: float | None = None
    epsilon: float | None = None
    epsilon_step: float = 0.4
    n: int = 100_000
    alpha: float = 0.001
    bound: str = USUAL
    repeats: int = 10
    seed: int = 0

    def __post_init__(self):
        if Fixed(self.bound).randomises:
            raise SettingError(f"the {{bound}} {self.bound!r} needs random numbers that a simulation does not draw")
        if not 1 <= self.repeats <= MOST_REPEATS:
            raise SettingError(f"{{repeats}} must be at least 1 and at most {MOST_REPEATS}, not {self.repeats}")
        check_request(1.0, smallest_n(self.alpha), self.n, self.alpha)


def searches(sigma: float, asked: Simulation) -> dict:
    """The searches that are compared, by name."""
    lower, upper, epsilon = asked.sigma_lower, asked.sigma_upper, asked.epsilon
    ends = (0.25 * sigma if lower is None else lower, 3.5 * sigma if upper is None else upper)
    stop = {"epsilon": 0.1 * sigma if epsilon is None else epsilon}
    bisection = Bisection(*ends, **stop, epsilon_step=asked.epsilon_step, alpha=asked.alpha)
    return {
        "bisection, as published": bisection,
        "golden section of lower bounds": GoldenSection(*ends, **stop, objective="lcb", alpha=asked.alpha),
        "golden section of expected radii": GoldenSection(*ends, **stop),
        **{
            f"bayesian, {evaluations} x {n}": Bayesian(*ends, search_n=n, max_evaluations=evaluations)
            for evaluations, n in ((bisection.evaluations, 500), (20, 100), (10, 100))
        },
        "grid of expected radii": Grid(*ends, **stop),
    }


def comparison(curves, asked: Simulation) -> str:
    """A table of the searches on `curves`: samples, share of the best radii, regret, gain over the published bisection.

    With another bound than Clopper and Pearson's, certificates are drawn, and the reference is the published bisection
    with Clopper and Pearson's bound. The best radii under such a bound are not known.

    Raises:
        UserError: the bracket or another number is impossible.
    """
    sigma = float(curves.sigmas[curves.original])
    settings = searches(sigma, asked)
    if len(curves.sigmas) < 2:
        raise UserError(f"the curves have the one sigma {sigma:g}; a search needs curves of at least two")
    for name, search in settings.items():
        if search.evaluations > MOST_EVALUATIONS:
            raise SettingError(
                f"impossible request: {name} would evaluate {search.evaluations} sigmas of each curve, and "
                f"{MOST_EVALUATIONS} are possible; a larger {{epsilon}} takes fewer"
            )
    reference = "bisection, as published"
    first = settings[reference]
    best = best_radius(curves, first.sigma_lower, first.sigma_upper, asked.n, asked.alpha, curves.noise)
    usual, bound = asked.bound == USUAL, Fixed(asked.bound)
    certificate = {"key": jax.random.key(asked.seed), "n": asked.n, "alpha": asked.alpha, "noise": curves.noise}
    certificate |= {"draws": 0 if usual else CERTIFICATIONS}
    at_sigma = np.full(len(curves.idx), sigma)
    if usual:
        fixed = radius_at(curves, at_sigma, curves.classes, asked.n, asked.alpha, curves.noise)
    else:
        fixed = drawn_radius(curves, at_sigma, curves.classes, bound, **certificate)
    radii = {f"sigma {sigma:g} for all": (0.0, fixed)}
    runs = {name: (search, bound) for name, search in settings.items()}
    if not usual:
        runs = {f"{reference}, {USUAL}": (first, Fixed()), **runs}
        reference = f"{reference}, {USUAL}"
    for name, (search, estimate) in runs.items():
        found = simulate(curves, search, estimate=estimate, repeats=asked.repeats, **certificate)
        radii[name] = float(found.samples.mean()), found.radius.mean(axis=0)
    every = np.ones(len(best), bool)
    base = radii[reference][1]
    rows = []
    for name, (samples, radius) in radii.items():
        gain, *ends = (100 * value / base.mean() for value in paired_gain((every, radius), (every, base)))
        interval = "no interval" if math.isnan(ends[0]) else "{:+.1f} to {:+.1f}".format(*ends)
        regret = np.maximum(best - radius, 0)
        share = f"{100 * radius.mean() / best.mean():.1f}%"
        known = (share, f"{regret.mean():.3f}, {regret.max():.2f}") if usual else ()
        cells = f"{samples:,.0f}", *known
        rows.append((name, *cells, "" if radius is base else f"{gain:+.1f}% ({interval})"))
    known = ["of the best", "regret, worst"] if usual else []
    header = ["search", "samples", *known, "gain over bisection (95%)"]
    return LAYOUTS["terminal"](header, [[(cell, None) for cell in row] for row in rows]) + "\n"
