"""Which sigma an input gets: fixed (Cohen), or searched for the input (QCRS).

A policy is a search over queries: it asks for class counts at a sigma, is told them, and answers a sigma. It
sees the classifier in no other way, so that it runs as well on a closed form or on a simulated curve.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .bayesian import bayesian
from .bounds import check_alpha, expected_radius_table, predictive_table, radius_table, smallest_n
from .search import Search, bisection, evaluations, golden_section, grid, shrinking

SEARCHES = ("golden", "bisection", "shrinking", "grid", "bayesian")
PUBLISHED = ("bisection", "shrinking")  # in the program of QCRS
OBJECTIVES = ("predictive", "lcb")
SEARCH, SELECTION, ESTIMATION, END = range(4)  # the stages of a certification, each with noise of its own
CURVE = 4  # the noise of curves of R(sigma), which no certificate sees
UNIFORM = 5  # the number that randomises a bound

DIFFERENCE_FLOOR = 1e-3  # where the central difference of the published settings reaches a negative sigma


class Tables(NamedTuple):
    """What a search looks up, at sigma = 1.

    values: of the objective, for each count of successes among search_n.
    radii: `bounds.expected_radius_table` at the n and alpha of the certification.
    """

    values: Float[np.ndarray | Array, "counts"]
    radii: Float[np.ndarray | Array, "probits"]


class Query(NamedTuple):
    """Asks for the class counts of n noisy copies at sigma; (stage, draw) names the noise, from sample `first` on."""

    sigma: Float[Array, ""]
    n: Int[Array, ""]
    stage: Int[Array, ""]
    draw: Int[Array, ""]
    first: Int[Array, ""] | int = 0


@dataclasses.dataclass(frozen=True)
class QCRS:
    """The settings of QCRS: a search for the sigma with the largest radius (Kung and Chen, AAAI 2024).

    R(sigma) = sigma * ndtri(p(sigma)) is quasiconcave in sigma for most inputs, p the probability of the class. The
    samples of the search choose sigma and nothing else: the certificate is drawn afresh.

    Attributes:
        sigma_lower, sigma_upper: the bracket, 0 < sigma_lower < sigma_upper.
        tolerance: width of the bracket, or length of the stride, at which the search ends (the reference's epsilon).
        search: "golden" (golden section), "bisection" (as published), "shrinking" (strides that shrink by 0.75, also
            in the published program), "grid" (points `tolerance` apart), or "bayesian" (Bayesian optimisation: a
            posterior of the whole curve from all counts; it may widen the bracket).
        search_n: samples for each evaluation (the reference's gradient_n).
        epsilon_step: the central difference of bisection and shrinking steps tolerance / epsilon_step to either side.
        alpha: failure probability of the lower bounds that "lcb" compares.
        objective: what is compared at two sigmas. "lcb", the published one: the radius of a lower confidence bound from
            the search_n samples. It saturates, at 2.21 sigma with 500 samples where a certificate of 100 000 reaches
            3.81, so that sigmas are chosen too large. "predictive": the radius that the certification can be
            expected to give, with its own n and alpha, after these samples. By default predictive, lcb for the
            published searches.
        max_evaluations: the most that "bayesian" makes.

    golden and grid use common random numbers: the same noise at every sigma. The others draw anew for each evaluation.
    """

    sigma_lower: float
    sigma_upper: float
    tolerance: float = 0.03
    search: str = "golden"
    search_n: int = 500
    epsilon_step: float = 0.4
    alpha: float = 0.001
    objective: str | None = None
    max_evaluations: int = 15

    def __post_init__(self):
        if self.search not in SEARCHES:
            raise ValueError(f"unknown search {self.search!r}; known are {', '.join(SEARCHES)}")
        if self.objective is None:
            object.__setattr__(self, "objective", "lcb" if self.search in PUBLISHED else "predictive")
        if self.objective not in OBJECTIVES:
            raise ValueError(f"unknown objective {self.objective!r}; known are {', '.join(OBJECTIVES)}")
        if (self.search, self.objective) == ("bayesian", "lcb"):
            raise ValueError("the bayesian search compares expected radii; its objective is predictive")
        if self.max_evaluations < 2:
            raise ValueError(f"max_evaluations must be at least 2, not {self.max_evaluations}")
        check_alpha(self.alpha)
        if not 0 < self.sigma_lower < self.sigma_upper < math.inf:
            raise ValueError(
                f"the bracket needs 0 < sigma_lower < sigma_upper < inf, not {self.sigma_lower} and {self.sigma_upper}"
            )
        for name in ("tolerance", "epsilon_step"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive and finite, not {getattr(self, name)}")
        if self.search != "bayesian" and self.tolerance >= self.sigma_upper - self.sigma_lower:
            raise ValueError(
                f"tolerance {self.tolerance:g} is as wide as the bracket, {self.sigma_lower:g} to "
                f"{self.sigma_upper:g}: nothing would be searched; choose a smaller tolerance or a wider bracket"
            )
        if self.tolerance < 1e-4 * self.sigma_upper:
            raise ValueError(
                f"tolerance {self.tolerance} is finer than a search can tell; the least is {1e-4 * self.sigma_upper:g}"
            )
        if self.search_n < 1:
            raise ValueError(f"search_n must be at least 1, not {self.search_n}")
        if self.objective == "lcb" and self.search_n < smallest_n(self.alpha):
            raise ValueError(
                f"with search_n = {self.search_n} every radius of the search is 0; at alpha = {self.alpha} "
                f"the smallest that can tell sigmas apart is {smallest_n(self.alpha)}"
            )

    @property
    def evaluations(self) -> int:
        """How many sigmas one search evaluates, the original one included; bayesian at most."""
        if self.search == "bayesian":
            return self.max_evaluations
        return evaluations(self.search, self.sigma_lower, self.sigma_upper, self.tolerance)

    @property
    def may_end_early(self) -> bool:
        """Whether a search may make fewer evaluations."""
        return self.search == "bayesian"

    @property
    def samples(self) -> int:
        """Samples that one search draws; bayesian at most."""
        return self.evaluations * self.search_n

    def tables(self, n: int, alpha: float) -> "Tables":
        """What a search for certificates of n samples at alpha looks up."""
        if self.objective == "lcb":
            values = radius_table(self.search_n, self.alpha)
        else:
            values = predictive_table(self.search_n, n, alpha)
        return Tables(*(np.float32(table) for table in (values, expected_radius_table(n, alpha))))


class SigmaSearch(NamedTuple):
    """What a search for sigma did. Entries of the trace beyond `evaluations` are 0.

    sigma: the sigma chosen.
    prediction: the class whose radius was maximised, the top class at the original sigma.
    evaluations: how many there were; search_n samples each.
    sigmas: the sigmas in the order of their evaluation, the original one first.
    counts: class counts of the search_n samples at each.
    radii: what the search compared: their lower bounds of the radius, or expected ones, by the objective.
    """

    sigma: Float[Array, "*m"]
    prediction: Int[Array, "*m"]
    evaluations: Int[Array, "*m"]
    sigmas: Float[Array, "*m capacity"]
    counts: Int[Array, "*m capacity num_classes"]
    radii: Float[Array, "*m capacity"]

    @property
    def successes(self) -> Int[Array, "*m capacity"]:
        """Counts of `prediction` at each of `sigmas`."""
        return jnp.take_along_axis(self.counts, self.prediction[..., None, None], axis=-1)[..., 0]


class _State(NamedTuple):
    search: Any
    trace: SigmaSearch


def fixed_policy(sigma: Float[Array, ""]) -> Search:
    """The policy of Cohen et al.: one sigma for all inputs, no query."""
    init = jnp.asarray(sigma, jnp.float32)
    return Search(init, lambda s: _query(s, 0, 0), lambda s, counts: s, lambda s: jnp.bool_(True), lambda s: s)


def qcrs_policy(settings: QCRS, sigma: Float[Array, ""], tables: Tables, num_classes: int) -> Search:
    """The policy of QCRS around the original `sigma`, at which the first query chooses the class."""
    bracket = (settings.sigma_lower, settings.sigma_upper, settings.tolerance, sigma)
    by_counts = settings.search == "bayesian"
    if by_counts:
        limits = (settings.sigma_lower, settings.sigma_upper, settings.max_evaluations, settings.search_n)
        search = bayesian(*limits, sigma, jnp.asarray(tables.radii), num_classes)
    elif settings.search in PUBLISHED:
        step = settings.tolerance / settings.epsilon_step
        search = {"bisection": bisection, "shrinking": shrinking}[settings.search](*bracket, step, DIFFERENCE_FLOOR)
    else:
        search = {"golden": golden_section, "grid": grid}[settings.search](*bracket)
    fresh_noise = settings.search not in ("golden", "grid")
    values = jnp.asarray(tables.values)
    capacity = settings.evaluations + 2  # float32 may end the bracket a step later than counted
    zero = jnp.int32(0)
    trace = SigmaSearch(
        sigma=jnp.asarray(sigma, jnp.float32),
        prediction=zero,
        evaluations=zero,
        sigmas=jnp.zeros(capacity, jnp.float32),
        counts=jnp.zeros((capacity, num_classes), jnp.int32),
        radii=jnp.zeros(capacity, jnp.float32),
    )

    def ask(state):
        draw = state.trace.evaluations if fresh_noise else 0
        return _query(search.ask(state.search), settings.search_n, draw)

    def tell(state, counts):
        t, point = state.trace, search.ask(state.search)
        prediction = jnp.where(t.evaluations == 0, jnp.argmax(counts).astype(jnp.int32), t.prediction)
        inner = search.tell(state.search, counts if by_counts else point * values[counts[prediction]])
        trace = t._replace(
            sigma=search.best(inner),
            prediction=inner.prediction if by_counts else prediction,
            evaluations=t.evaluations + 1,
            sigmas=t.sigmas.at[t.evaluations].set(point, mode="drop"),
            counts=t.counts.at[t.evaluations].set(counts, mode="drop"),
        )
        return _State(inner, trace._replace(radii=trace.sigmas * values[trace.successes]))

    return Search(_State(search.init, trace), ask, tell, lambda s: search.done(s.search), lambda s: s.trace.sigma)


def _query(sigma, n, draw):
    return Query(sigma, jnp.int32(n), jnp.int32(SEARCH), jnp.asarray(draw, jnp.int32))
