"""Searches on measured curves, without the network: the results of each for its samples."""

import dataclasses
import math

import jax
import numpy as np

from qcrs_jax.analysis.simulation import (
    CERTIFICATIONS,
    best_radius,
    check_simulated,
    drawn_radius,
    radius_at,
    simulate,
    simulate_cascade,
)
from qcrs_jax.bounds import smallest_n
from qcrs_jax.certification.cascade import Cascade
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
    sigmas: the stages of each of the cascades that are compared instead of searches.
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
    sigmas: tuple[tuple[float, ...], ...] = ()

    def __post_init__(self):
        check_simulated(Fixed(self.bound))
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

    With another bound than Clopper and Pearson's, certificates are drawn. The gains are over the same search, and over
    the published bisection, with Clopper and Pearson's bound. The best radii under another bound are not known.

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
    first = settings["bisection, as published"]
    best = best_radius(curves, first.sigma_lower, first.sigma_upper, asked.n, asked.alpha, curves.noise)
    usual = asked.bound == USUAL
    found = _radii(curves, settings, asked, Fixed(asked.bound), drawn=not usual)
    plain = found if usual else _radii(curves, settings, asked, Fixed(), drawn=True)
    base = plain["bisection, as published"][1]
    rows = []
    for name, (samples, radius) in found.items():
        regret = np.maximum(best - radius, 0)
        share = f"{100 * radius.mean() / best.mean():.1f}%"
        known = [share, f"{regret.mean():.3f}, {regret.max():.2f}"] if usual else [_gain(radius, plain[name][1])]
        rows.append((name, f"{samples:,.0f}", *known, "" if radius is base else _gain(radius, base)))
    known = ["of the best", "regret, worst"] if usual else ["gain by the bound (95%)"]
    header = ["search", "samples", *known, "gain over bisection (95%)"]
    return LAYOUTS["terminal"](header, [[(cell, None) for cell in row] for row in rows]) + "\n"


def cascades(curves, asked: Simulation) -> str:
    """A table of cascades on `curves`: samples, ACR, gain over the best sigma of the curves for all images.

    Raises:
        UserError: a number is impossible, or a stage lies outside the curves.
    """
    every = {"n": asked.n, "alpha": asked.alpha, "noise": curves.noise, "key": jax.random.key(asked.seed)}
    singles = [simulate_cascade(curves, Cascade((sigma,)), **every) for sigma in curves.sigmas.tolist()]
    best = max(range(len(singles)), key=lambda place: singles[place].radius.mean())
    found = {f"sigma {curves.sigmas[best]:g} for all, the best one": singles[best]}
    for sigmas in asked.sigmas:
        name = f"cascade {', '.join(f'{sigma:g}' for sigma in sigmas)}"
        found[name] = simulate_cascade(curves, Cascade(sigmas), **every, draws=asked.repeats)
    rows = [
        (name, f"{made.samples.mean():,.0f}", f"{made.radius.mean():.4f}", _gain(made.radius, singles[best].radius))
        for name, made in found.items()
    ]
    rows[0] = (*rows[0][:3], "")
    header = ["classifier", "samples", "ACR", "gain (95%)"]
    return LAYOUTS["terminal"](header, [[(cell, None) for cell in row] for row in rows]) + "\n"


def _radii(curves, settings, asked, estimate, drawn):
    """{name: (samples, radius of each image)} of the original sigma and of each search, under the bound of `estimate`.

    drawn: whether certificates are drawn. Else the radius is the one to be expected.
    """
    sigma = float(curves.sigmas[curves.original])
    certificate = {"n": asked.n, "alpha": asked.alpha, "noise": curves.noise}
    key, at_sigma = jax.random.key(asked.seed), np.full(len(curves.idx), sigma)
    if drawn:
        fixed = drawn_radius(curves, at_sigma, curves.classes, estimate, key=key, **certificate)
    else:
        fixed = radius_at(curves, at_sigma, curves.classes, **certificate)
    radii = {f"sigma {sigma:g} for all": (0.0, fixed)}
    certificate |= {"estimate": estimate, "draws": CERTIFICATIONS if drawn else None}
    for name, search in settings.items():
        found = simulate(curves, search, key=key, repeats=asked.repeats, **certificate)
        radii[name] = float(found.samples.mean()), found.radius.mean(axis=0)
    return radii


def _gain(radius, base):
    """The gain in mean radius over `base`, with its interval over the images, in per cent of the latter."""
    every = np.ones(len(base), bool)
    gain, *ends = (100 * value / base.mean() for value in paired_gain((every, radius), (every, base)))
    interval = "no interval" if math.isnan(ends[0]) else "{:+.1f} to {:+.1f}".format(*ends)
    return f"{gain:+.1f}% ({interval})"
