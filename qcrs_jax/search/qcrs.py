r"""QCRS: finds for each input the sigma with the largest radius, from class counts (Kung and Chen, AAAI 2024).

Let p(sigma) be the probability of the class under noise of standard deviation sigma. For most inputs the radius
R(sigma) = sigma * ndtri(p(sigma)) is quasiconcave in sigma. The samples of the search only choose sigma: the
certificate is drawn afresh.

A search asks for class counts at a sigma, receives them, and in the end answers a sigma. It sees the classifier in no
other way. It therefore also runs on a closed form or on a simulated curve.
"""

import abc
import dataclasses
import math
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..bounds import check_alpha, radius_table, smallest_n
from ..errors import SettingError
from . import maximisers
from .aim import Radii
from .maximisers import AskTell
from .protocol import Search, check_bracket, query

OBJECTIVES = ("predictive", "lcb")
DIFFERENCE_FLOOR = 1e-3  # used where the central difference of the published settings reaches a negative sigma
CAPACITY = 32  # least room of a trace, in evaluations: most brackets then share one compiled program


class SigmaSearch(NamedTuple):
    """The result of a search for sigma, with its trace. Entries of the trace beyond `evaluations` are 0.

    `*m` is () for one image, or (images,). `capacity` is the room of the trace, at least `evaluations`.

    Attributes:
        sigma: the chosen sigma, (*m).
        prediction: the class whose radius was maximised, (*m): the top class at the original sigma.
        evaluations: number of evaluations, (*m). Each took search_n samples.
        sigmas: the evaluated sigmas in order, (*m, capacity). The original sigma is the first.
        counts: class counts of the search_n samples at each of these sigmas, (*m, capacity, num_classes).
        radii: the radii that the search compared, (*m, capacity). They are lower bounds or expected radii, by the
            search's objective.
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


class Tables(NamedTuple):
    """The tables in which a search looks up radii, at sigma = 1.

    values: the radii that are compared, by counts among search_n.
    more: further tables that a kind of search needs.
    """

    values: Radii
    more: Any = ()


class _State(NamedTuple):
    inner: Any
    trace: SigmaSearch


class _Derived:
    """Numbers that a search computes from its settings when it is made. They are no fields of the dataclass.

    capacity: number of evaluations that a trace has room for.
    strides: distances from the ends of the bracket to the points inside, for golden section.
    step: step of the central difference.
    """

    capacity: int
    strides: np.ndarray
    step: float


@dataclasses.dataclass(frozen=True)
class QCRS(_Derived, Search, abc.ABC):
    r"""The family of QCRS searches: GoldenSection, Bisection, Shrinking, Grid and Bayesian. They use class counts.

    A search looks for the sigma with the largest radius,

    $$\max_{\sigma} R(\sigma), \qquad R(\sigma) = \sigma \, \Phi^{-1}(p(\sigma)),$$

    where p(sigma) is the probability of the class under normal noise of standard deviation sigma. Other noises have
    other radii (`unit_radius`). The samples of a search only choose sigma: the certificate draws its own.

    Source: Kung and Chen, AAAI 2024.

    Attributes:
        sigma_lower, sigma_upper: ends of the bracket of sigmas, 0 < sigma_lower < sigma_upper.
        search_n: samples for each evaluation, at least 1 (gradient_n in the published program).

    Raises:
        SettingError: a setting is out of its range.
    """

    sigma_lower: float
    sigma_upper: float = dataclasses.field()  # required; the default of Search is for searches without a bracket
    _: dataclasses.KW_ONLY
    search_n: int = 500

    method: ClassVar[str] = "qcrs"
    name: ClassVar[str]
    static: ClassVar[tuple[str, ...]] = ("capacity",)
    common_noise: ClassVar[bool] = False  # whether all sigmas share their noise; else each evaluation draws new noise

    def __new__(cls, *args, **options):
        if cls is QCRS:
            raise TypeError(
                "QCRS is a family of searches: choose GoldenSection(sigma_lower, sigma_upper), Bisection (as "
                "published), Shrinking, Grid or Bayesian"
            )
        return super().__new__(cls)

    def __post_init__(self):
        if not 0 < self.sigma_lower < self.sigma_upper < math.inf:
            raise SettingError(
                f"the bracket needs 0 < {{sigma_lower}} < {{sigma_upper}} < inf, not {self.sigma_lower} and "
                f"{self.sigma_upper}"
            )
        if self.search_n < 1:
            raise SettingError(f"{{search_n}} must be at least 1, not {self.search_n}")
        room = self.evaluations + 2  # float32 may end the bracket a step later than counted
        object.__setattr__(self, "capacity", max(CAPACITY, 2 ** math.ceil(math.log2(room))))

    @property
    @abc.abstractmethod
    def evaluations(self) -> int:
        """The largest number of sigmas that one search evaluates, the original one included."""

    @property
    def samples(self) -> int:
        """The largest number of samples that one search draws."""
        return self.evaluations * self.search_n

    def spent(self, trace: SigmaSearch) -> int:
        return int(trace.evaluations) * self.search_n

    def check_start(self, sigma):
        check_bracket(sigma, self.sigma_lower, self.sigma_upper)

    @abc.abstractmethod
    def maximiser(self, sigma: Float[Array, ""], tables: Tables, num_classes: int) -> AskTell:
        """The maximiser, which asks for sigmas and receives the values that `told` returns."""

    def told(self, point, counts, prediction, values):
        """The value that the maximiser receives for the counts at a sigma: the radius of `prediction`."""
        return point * values.of_counts(counts, prediction)

    def predicted(self, inner, prediction):
        """The class whose radius is maximised. `prediction` is the top class of the first evaluation."""
        return prediction

    def policy(self, sigma, tables, num_classes):
        inner = self.maximiser(sigma, tables, num_classes)
        values = tables.values
        radii = jax.vmap(values.of_counts, in_axes=(0, None))
        zero = jnp.int32(0)
        trace = SigmaSearch(
            sigma=jnp.asarray(sigma, jnp.float32),
            prediction=zero,
            evaluations=zero,
            sigmas=jnp.zeros(self.capacity, jnp.float32),
            counts=jnp.zeros((self.capacity, num_classes), jnp.int32),
            radii=jnp.zeros(self.capacity, jnp.float32),
        )

        def ask(state):
            draw = 0 if self.common_noise else state.trace.evaluations
            return query(inner.ask(state.inner), self.search_n, draw)

        def tell(state, counts):
            t, point = state.trace, inner.ask(state.inner)
            prediction = jnp.where(t.evaluations == 0, jnp.argmax(counts).astype(jnp.int32), t.prediction)
            told = inner.tell(state.inner, self.told(point, counts, prediction, values))
            trace = t._replace(
                sigma=inner.best(told),
                prediction=self.predicted(told, prediction),
                evaluations=t.evaluations + 1,
                sigmas=t.sigmas.at[t.evaluations].set(point, mode="drop"),
                counts=t.counts.at[t.evaluations].set(counts, mode="drop"),
            )
            return _State(told, trace._replace(radii=trace.sigmas * radii(trace.counts, trace.prediction)))

        return AskTell(_State(inner.init, trace), ask, tell, lambda s: inner.done(s.inner), lambda s: s.trace.sigma)

    def trace(self, state, begun):
        return state.trace


@dataclasses.dataclass(frozen=True)
class _ByValues(QCRS):
    """A search that compares numbers at two sigmas.

    Attributes:
        epsilon: the search stops when the bracket is this narrow, or its stride this short.
        objective: the value that is compared. "lcb", the published one, is the radius of a lower confidence bound from
            the search_n samples. It saturates: at 2.21 sigma with 500 samples, where a certificate of 100 000 samples
            reaches 3.81 sigma. So it chooses too large sigmas. "predictive" is the radius that the certification, with
            its own n and alpha, can be expected to give after these samples.
        alpha: failure probability of the lower bounds that "lcb" compares.
    """

    epsilon: float = dataclasses.field(default=0.03, kw_only=True)
    objective: str = dataclasses.field(default="predictive", kw_only=True)
    alpha: float = dataclasses.field(default=0.001, kw_only=True)

    static: ClassVar[tuple[str, ...]] = ("capacity", "objective")

    def __post_init__(self):
        if self.objective not in OBJECTIVES:
            raise SettingError(f"unknown {{objective}} {self.objective!r}; known are {', '.join(OBJECTIVES)}")
        check_alpha(self.alpha)
        check_positive(self, "epsilon")
        super().__post_init__()
        if self.epsilon >= self.sigma_upper - self.sigma_lower:
            raise SettingError(
                f"{{epsilon}} {self.epsilon:g} is as wide as the bracket, {self.sigma_lower:g} to "
                f"{self.sigma_upper:g}: nothing would be searched; choose a smaller {{epsilon}} or a wider bracket"
            )
        if self.epsilon < 1e-4 * self.sigma_upper:
            raise SettingError(
                f"{{epsilon}} {self.epsilon} is too small: float32 cannot compare sigmas that close; the smallest is "
                f"{1e-4 * self.sigma_upper:g}"
            )
        if self.objective == "lcb" and self.search_n < smallest_n(self.alpha):
            raise SettingError(
                f"with {{search_n}} = {self.search_n} every radius of the search is 0; at alpha = {self.alpha} "
                f"the smallest that gives one above 0 is {smallest_n(self.alpha)}"
            )

    @property
    def bracket(self) -> tuple[Any, Any, Any]:
        """The ends of the bracket, and epsilon."""
        return self.sigma_lower, self.sigma_upper, self.epsilon

    def tables(self, aim):
        if self.objective == "lcb":
            lower_bounds = radius_table(self.search_n, self.alpha, aim.noise.unit_radius)
            return Tables(Radii(np.asarray(lower_bounds, np.float32)))
        return Tables(aim.predictive(self.search_n))


@dataclasses.dataclass(frozen=True)
class GoldenSection(_ByValues):
    """Golden-section search for the sigma with the largest radius (Kiefer 1953). The same noise is used at every sigma.

    Each evaluation narrows the bracket by the factor 0.618. The answer is the best sigma that was evaluated.

    Attributes:
        sigma_lower, sigma_upper: ends of the bracket of sigmas, 0 < sigma_lower < sigma_upper.
        search_n: samples for each evaluation, at least 1 (gradient_n in the published program).
        epsilon: width of the bracket at which the search stops. It is less than the bracket.
        objective: value that is compared. "predictive" is the radius that the certification can be expected to give;
            "lcb" is the radius of a lower confidence bound from the search_n samples (default: predictive; lcb for
            bisection and shrinking).
        alpha: failure probability of the lower bounds that "lcb" compares.

    Raises:
        SettingError: a setting is out of its range.
    """

    name: ClassVar[str] = "golden"
    common_noise: ClassVar[bool] = True

    def __post_init__(self):
        super().__post_init__()
        object.__setattr__(self, "strides", maximisers.golden_strides(self.sigma_lower, self.sigma_upper))

    @property
    def evaluations(self):
        return maximisers.golden_evaluations(*self.bracket)

    def maximiser(self, sigma, tables, num_classes):
        return maximisers.golden_section(*self.bracket, sigma, self.strides)


@dataclasses.dataclass(frozen=True)
class Grid(_ByValues):
    """Exhaustive search: evaluates all sigmas of an even grid, with the same noise at each.

    Attributes:
        sigma_lower, sigma_upper: ends of the bracket of sigmas, 0 < sigma_lower < sigma_upper. Both are on the grid.
        search_n: samples for each evaluation, at least 1.
        epsilon: largest distance between neighbouring sigmas. It is less than the bracket.
        objective: value that is compared: "predictive" (default) or "lcb", as for `GoldenSection`.
        alpha: failure probability of the lower bounds that "lcb" compares.

    Raises:
        SettingError: a setting is out of its range.
    """

    name: ClassVar[str] = "grid"
    common_noise: ClassVar[bool] = True

    @property
    def evaluations(self):
        return maximisers.grid_evaluations(*self.bracket)

    def maximiser(self, sigma, tables, num_classes):
        return maximisers.grid(*self.bracket, sigma)


@dataclasses.dataclass(frozen=True)
class Bisection(_ByValues):
    r"""Bisection on the sign of a central difference of lower bounds: the search that QCRS published.

    At the midpoint m of the bracket it takes the difference of the compared values at two sigmas,

    $$R(m + h) - R(m - h),$$

    with h = epsilon / epsilon_step. It moves one end of the bracket to m: the lower end where the difference is
    positive, the upper end where it is negative. Every evaluation draws new samples. At the end it evaluates the
    original sigma and the midpoint once more. It answers the midpoint only where that is strictly better.

    Source: Kung and Chen, AAAI 2024, algorithm 1, and the program published with it.

    Attributes:
        sigma_lower, sigma_upper: ends of the bracket of sigmas, 0 < sigma_lower < sigma_upper.
        search_n: samples for each evaluation, at least 1 (gradient_n in the published program).
        epsilon: width of the bracket at which the search stops. It is less than the bracket.
        objective: value that is compared: "lcb" (default) or "predictive", as for `GoldenSection`.
        alpha: failure probability of the lower bounds that "lcb" compares.
        epsilon_step: the central difference takes a step of epsilon / epsilon_step to either side.

    Raises:
        SettingError: a setting is out of its range.
    """

    objective: str = dataclasses.field(default="lcb", kw_only=True)
    epsilon_step: float = dataclasses.field(default=0.4, kw_only=True)

    name: ClassVar[str] = "bisection"

    def __post_init__(self):
        check_positive(self, "epsilon_step")
        super().__post_init__()
        object.__setattr__(self, "step", self.epsilon / self.epsilon_step)

    @property
    def evaluations(self):
        return maximisers.bisection_evaluations(*self.bracket)

    def maximiser(self, sigma, tables, num_classes):
        return maximisers.bisection(*self.bracket, sigma, self.step, DIFFERENCE_FLOOR)


@dataclasses.dataclass(frozen=True)
class Shrinking(Bisection):
    """Ascent by strides that shrink by the factor 0.75, an option of the published program.

    The first stride is half the bracket. Each stride goes up or down by the sign of a central difference, as for
    `Bisection`, and never leaves the bracket. Every evaluation draws new samples.

    Source: the program published with Kung and Chen, AAAI 2024.

    Attributes:
        sigma_lower, sigma_upper: ends of the bracket of sigmas, 0 < sigma_lower < sigma_upper.
        search_n: samples for each evaluation, at least 1 (gradient_n in the published program).
        epsilon: length of the stride at which the search stops. It is less than the bracket.
        objective: value that is compared: "lcb" (default) or "predictive", as for `GoldenSection`.
        alpha: failure probability of the lower bounds that "lcb" compares.
        epsilon_step: the central difference takes a step of epsilon / epsilon_step to either side.

    Raises:
        SettingError: a setting is out of its range.
    """

    name: ClassVar[str] = "shrinking"

    @property
    def evaluations(self):
        return maximisers.shrinking_evaluations(*self.bracket)

    def maximiser(self, sigma, tables, num_classes):
        return maximisers.shrinking(*self.bracket, sigma, self.step, DIFFERENCE_FLOOR)


def check_positive(search, *names) -> None:
    """Raises SettingError unless these attributes are positive and finite."""
    for name in names:
        if not 0 < getattr(search, name) < math.inf:
            raise SettingError(f"{{{name}}} must be positive and finite, not {getattr(search, name)}")
