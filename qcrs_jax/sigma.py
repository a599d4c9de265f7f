"""Which sigma an input gets: fixed (Cohen), or searched for the input (QCRS).

A policy is a search over queries: it asks for class counts at a sigma, is told them, and answers a sigma. It
sees the classifier in no other way, so that it runs as well on a closed form or on a simulated curve.
"""

import dataclasses
import math
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from .bounds import check_alpha, radius_table, smallest_n
from .search import Search, bisection, evaluations, golden_section, grid, shrinking

SEARCHES = ("golden", "bisection", "shrinking", "grid")
SEARCH, SELECTION, ESTIMATION, END = range(4)  # the stages of a certification, each with noise of its own
CURVE = 4  # the noise of curves of R(sigma), which no certificate sees

DIFFERENCE_FLOOR = 1e-3  # where the central difference of the published settings reaches a negative sigma


class Query(NamedTuple):
    """Asks for the class counts of n noisy copies at sigma; (stage, draw) names the noise."""

    sigma: Float[Array, ""]
    n: Int[Array, ""]
    stage: Int[Array, ""]
    draw: Int[Array, ""]


@dataclasses.dataclass(frozen=True)
class QCRS:
    """The settings of QCRS: a search for the sigma with the largest radius (Kung and Chen, AAAI 2024).

    R(sigma) = sigma * ndtri(pa_lower(sigma)), with pa_lower from search_n samples, is quasiconcave in sigma for
    most inputs. Its samples choose sigma and nothing else: the certificate is drawn afresh.

    Attributes:
        sigma_lower, sigma_upper: the bracket, 0 < sigma_lower < sigma_upper.
        tolerance: width of the bracket, or length of the stride, at which the search ends (the reference's epsilon).
        search: "golden" (golden section), "bisection" (as published), "shrinking" (strides that shrink by 0.75, also
            in the published program), or "grid" (points `tolerance` apart).
        search_n: samples for each evaluation (the reference's gradient_n).
        epsilon_step: the central difference of bisection and shrinking steps tolerance / epsilon_step to either side.
        alpha: failure probability of the lower bounds that the search compares.

    golden and grid use common random numbers: the same noise at every sigma. The published ones, bisection and
    shrinking, draw anew for each evaluation.

    The bound that a search compares saturates: at most 2.21 sigma with 500 samples, where a certificate of 100 000
    reaches 3.81. Sigmas are therefore chosen somewhat large; a larger search_n lessens that.
    """

    sigma_lower: float
    sigma_upper: float
    tolerance: float = 0.03
    search: str = "golden"
    search_n: int = 500
    epsilon_step: float = 0.4
    alpha: float = 0.001

    def __post_init__(self):
        check_alpha(self.alpha)
        if not 0 < self.sigma_lower < self.sigma_upper < math.inf:
            raise ValueError(
                f"the bracket needs 0 < sigma_lower < sigma_upper < inf, not {self.sigma_lower} and {self.sigma_upper}"
            )
        for name in ("tolerance", "epsilon_step"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive and finite, not {getattr(self, name)}")
        if self.tolerance < 1e-4 * self.sigma_upper:
            raise ValueError(
                f"tolerance {self.tolerance} is finer than a search can tell; the least is {1e-4 * self.sigma_upper:g}"
            )
        if self.search_n < smallest_n(self.alpha):
            raise ValueError(
                f"with search_n = {self.search_n} every radius of the search is 0; at alpha = {self.alpha} "
                f"the smallest that can tell sigmas apart is {smallest_n(self.alpha)}"
            )
        if self.search not in SEARCHES:
            raise ValueError(f"unknown search {self.search!r}; known are {', '.join(SEARCHES)}")

    @property
    def evaluations(self) -> int:
        """How many sigmas one search evaluates, the original one included."""
        return evaluations(self.search, self.sigma_lower, self.sigma_upper, self.tolerance)

    @property
    def samples(self) -> int:
        """Samples that one search draws."""
        return self.evaluations * self.search_n


class SigmaSearch(NamedTuple):
    """What a search for sigma did. Entries of the trace beyond `evaluations` are NaN and 0.

    sigma: the sigma chosen.
    prediction: the class whose radius was maximised, the top class at the original sigma.
    evaluations: how many sigmas were evaluated; search_n samples each.
    sigmas: the sigmas in the order of their evaluation, the original one first.
    successes: counts of `prediction` among the search_n samples at each.
    radii: their lower bounds of the radius.
    """

    sigma: Float[Array, "*m"]
    prediction: Int[Array, "*m"]
    evaluations: Int[Array, "*m"]
    sigmas: Float[Array, "*m capacity"]
    successes: Int[Array, "*m capacity"]
    radii: Float[Array, "*m capacity"]


class _State(NamedTuple):
    search: Any
    trace: SigmaSearch


def fixed_policy(sigma: Float[Array, ""]) -> Search:
    """The policy of Cohen et al.: one sigma for all inputs, no query."""
    init = jnp.asarray(sigma, jnp.float32)
    return Search(init, lambda s: _query(s, 0, 0), lambda s, counts: s, lambda s: jnp.bool_(True), lambda s: s)


def qcrs_policy(settings: QCRS, sigma: Float[Array, ""]) -> Search:
    """The policy of QCRS around the original `sigma`, at which the first query chooses the class."""
    bracket = (settings.sigma_lower, settings.sigma_upper, settings.tolerance, sigma)
    by_difference = {"bisection": bisection, "shrinking": shrinking}
    fresh_noise = settings.search in by_difference
    if fresh_noise:
        step = settings.tolerance / settings.epsilon_step
        search = by_difference[settings.search](*bracket, step, DIFFERENCE_FLOOR)
    else:
        search = {"golden": golden_section, "grid": grid}[settings.search](*bracket)
    radii = jnp.asarray(radius_table(settings.search_n, settings.alpha), jnp.float32)
    capacity = settings.evaluations + 2  # float32 may end the bracket a step later than counted
    zero = jnp.int32(0)
    trace = SigmaSearch(
        sigma=jnp.asarray(sigma, jnp.float32),
        prediction=zero,
        evaluations=zero,
        sigmas=jnp.full(capacity, jnp.nan, jnp.float32),
        successes=jnp.zeros(capacity, jnp.int32),
        radii=jnp.zeros(capacity, jnp.float32),
    )

    def ask(state):
        draw = state.trace.evaluations if fresh_noise else 0
        return _query(search.ask(state.search), settings.search_n, draw)

    def tell(state, counts):
        t, point = state.trace, search.ask(state.search)
        prediction = jnp.where(t.evaluations == 0, jnp.argmax(counts).astype(jnp.int32), t.prediction)
        radius = point * radii[counts[prediction]]
        inner = search.tell(state.search, radius)
        trace = SigmaSearch(
            sigma=search.best(inner),
            prediction=prediction,
            evaluations=t.evaluations + 1,
            sigmas=t.sigmas.at[t.evaluations].set(point, mode="drop"),
            successes=t.successes.at[t.evaluations].set(counts[prediction], mode="drop"),
            radii=t.radii.at[t.evaluations].set(radius, mode="drop"),
        )
        return _State(inner, trace)

    return Search(_State(search.init, trace), ask, tell, lambda s: search.done(s.search), lambda s: s.trace.sigma)


def _query(sigma, n, draw):
    return Query(sigma, jnp.int32(n), jnp.int32(SEARCH), jnp.asarray(draw, jnp.int32))
