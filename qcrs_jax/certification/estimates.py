"""Estimates: how many certification samples an image gets, and what their counts certify.

Only `certify` asks an estimate; nothing else needs to know it. The estimate provides the tables of the compiled loop,
the certificate that follows from counts, and the columns that a results file has beside the counts. A new one is one
class here.
"""

import dataclasses
import functools
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int, UInt32

from .. import bounds
from ..errors import SettingError
from ..sampling.counts import Votes, soft_sums
from ..sampling.smoothing import Noise
from ..sampling.streams import uniform
from ..search import Aim, SigmaAscent, SigmaSearch
from .proportions import BOUNDS, USUAL, Bound
from .sequential import Sequential, check_no_labels, check_one_number, check_smallest
from .verdict import Certificate, fields_of, make_soft_certificate

VOTES = "softmax(beta logits) in units of 2**-15, logits in steps of 2**-10"
"""The definition of a soft vote, as `sampling.soft_votes` has it. Another definition needs another text."""


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("selection", "estimation", "n", "looks", "sigma", "words", "search"),
    meta_fields=("estimate", "noise", "alpha", "most", "fixed"),
)
@dataclasses.dataclass(frozen=True)
class Drawn:
    """The samples drawn for one image or several, at their sigma. `*m` is () or (images,). A pytree of arrays.

    selection, estimation: votes of the samples that select the class, and of those that certify it.
    n: number of samples that certify; counts sum to less where logits were not finite.
    looks: number of looks at the counts.
    sigma: noise level.
    words: bits of the number that randomises a bound; None where the bound is not randomised.
    search: trace of the search that chose sigma; None at a fixed sigma.
    estimate, noise, alpha: the arguments of the request.
    most: largest number of samples that an image could get.
    fixed: number of samples of each image where it is one number, known beforehand; else None.
    """

    selection: Votes
    estimation: Votes
    n: Int[Array, "*m"]
    looks: Int[Array, "*m"]
    sigma: Float[Array, "*m"]
    words: UInt32[Array, "*m 2"] | None
    search: SigmaSearch | SigmaAscent | None
    estimate: "Estimate"
    noise: Noise
    alpha: float
    most: int
    fixed: int | None


@runtime_checkable
class Estimate(Protocol):
    """The protocol of estimates: how many of n samples certify an image, and what they certify.

    name: name of this kind of estimate in results files.
    columns: columns that a results file has beside the counts, by the names of Record.
    randomises: whether a uniform number is drawn for the bound.
    votes_beta: inverse temperature of the soft votes that are summed; None where there are none.
    on_host: whether the certificate needs concrete counts, which do not exist inside jit.
    may_end_early: whether an image may get fewer than n samples.
    """

    @property
    def name(self) -> str: ...

    @property
    def columns(self) -> tuple[str, ...]: ...

    @property
    def randomises(self) -> bool: ...

    @property
    def votes_beta(self) -> float | None: ...

    @property
    def on_host(self) -> bool: ...

    @property
    def may_end_early(self) -> bool: ...

    def check(self, n0: int, n, alpha: float, labels: bool) -> None:
        """Raises SettingError for numbers with which nothing can be certified, before anything is computed.

        labels: whether images draw no samples where the selected class differs from the label.
        """
        ...

    def check_reach(self, sigma, n, alpha: float, noise: Noise) -> None:
        """Raises SettingError where no counts at `sigma` could certify what is asked."""
        ...

    def tables(self, n0: int, n, alpha: float, noise: Noise) -> tuple[Any, Any]:
        """The tables of the compiled loop: samples by the top count of the selection, and looks. Either may be None."""
        ...

    def aim(self, n: int, alpha: float, noise: Noise) -> Aim:
        """The certificate of n samples for which a search chooses sigma."""
        ...

    def queries(self, n: int) -> tuple[int, ...]:
        """The numbers of samples that are drawn at a time, one after another, where all n are drawn."""
        ...

    def conclude(self, drawn: Drawn) -> Certificate:
        """The certificate for what was drawn. It fails with probability at most alpha."""
        ...

    def again(self, line, n0: int, n: int, alpha: float, noise: Noise) -> dict:
        """The fields of a line of a results file that follow from its counts, by the names of Record.

        line: a Record, with the `columns`.
        """
        ...

    def fields(self, certificate: Certificate) -> dict:
        """The `columns` of one image's certificate, as Python numbers."""
        ...

    def recorded(self) -> dict:
        """The description of the estimate in a sidecar; `estimate_of` reads it."""
        ...


class _OneEstimation:
    """Estimates that draw all their samples at once, and that can reach some radius at every sigma."""

    may_end_early = False

    def check_reach(self, sigma, n, alpha, noise):
        pass

    def tables(self, n0, n, alpha, noise):
        return None, None

    def aim(self, n, alpha, noise):
        return Aim(n, alpha, noise)

    def queries(self, n):
        return (n,)


class _Hard(_OneEstimation):
    """Estimates of Cohen's classifier whose number of samples does not depend on the certification counts."""

    name: str
    bound: str
    votes_beta = None

    def __post_init__(self):
        if self.bound not in BOUNDS:
            raise SettingError(f"unknown {{bound}} {self.bound!r}; known are {', '.join(BOUNDS)}")

    @property
    def _bound(self) -> Bound:
        return BOUNDS[self.bound]

    @property
    def randomises(self) -> bool:
        return self._bound.randomises

    @property
    def on_host(self) -> bool:
        return self.randomises

    @property
    def columns(self) -> tuple[str, ...]:
        return self._bound.columns

    def check(self, n0, n, alpha, labels):
        check_smallest(n, alpha, self._bound.smallest_n(alpha))

    def aim(self, n, alpha, noise):
        return Aim(n, alpha, noise, self._bound.buckets)

    def conclude(self, drawn):
        counts = drawn.selection.counts, drawn.estimation.counts
        inside = isinstance(counts[1], Tracer)
        n = drawn.fixed if inside else np.asarray(drawn.n, np.int64)[()]
        u = uniform(drawn.words) if self.randomises else None
        return self._bound.certificate(*counts, drawn.sigma, n, drawn.alpha, drawn.noise, u)

    def again(self, line, n0, n, alpha, noise):
        counts, n = (np.array(line.counts0), np.array(line.counts)), n if line.n is None else line.n
        made = self._bound.certificate(*counts, line.sigma, n, alpha, noise, line.u)
        return fields_of(made) | self._bound_fields(made)

    def fields(self, certificate):
        return self._bound_fields(certificate)

    def _bound_fields(self, certificate):
        return {name: float(getattr(certificate, name)) for name in self._bound.columns}

    def recorded(self):
        return {"name": self.name, **vars(self)}


@dataclasses.dataclass(frozen=True)
class Fixed(_Hard):
    r"""Draws all n samples: one number for all images or, outside jit, one for each image.

    The usual bound is Clopper and Pearson's. For k >= 1 successes among n it is the p that solves

    $$\sum_{i = k}^{n} \binom{n}{i} p^i (1 - p)^{n - i} = \alpha.$$

    Attributes:
        bound: "clopper-pearson", "randomised" or "classes". The randomised bound is never below Clopper and Pearson's,
            and is as large as a bound that fails with probability alpha can be. Its uniform number is drawn from the
            image's key, in a stream of its own. It is not possible inside jit. The bound over classes bounds the other
            classes as well: its radius is larger where the mistakes are spread over several classes.

    Raises:
        SettingError: the bound is unknown.
    """

    bound: str = USUAL
    name = "fixed"


@dataclasses.dataclass(frozen=True)
class Tolerance(_Hard):
    """Draws only as many of the n samples as can be expected to keep an image's radius.

    The n0 selection samples decide the number (`bounds.enough_table`). They are independent of the samples that
    certify. Given that number, the certification samples are as many independent draws, so the certificate fails with
    probability at most alpha. It is not possible inside jit.

    Attributes:
        tolerance: expected relative loss of radius that is acceptable in exchange for fewer samples, in (0, 1).
        bound: "clopper-pearson", "randomised" or "classes", as for `Fixed`.

    Raises:
        SettingError: tolerance is out of its range, or the bound is unknown.
    """

    tolerance: float
    bound: str = USUAL
    name = "tolerance"
    may_end_early = True

    def __post_init__(self):
        super().__post_init__()
        if not 0 < self.tolerance < 1:
            raise SettingError(f"{{tolerance}} is a share of the radius and must lie in (0, 1), not {self.tolerance}")

    @property
    def on_host(self):
        return True

    @property
    def columns(self):
        return ("n", *super().columns)

    def check(self, n0, n, alpha, labels):
        check_one_number(n, "a tolerance")
        super().check(n0, n, alpha, labels)

    def tables(self, n0, n, alpha, noise):
        return bounds.enough_table(n0, n, alpha, self.tolerance, noise.unit_radius), None

    def again(self, line, n0, n, alpha, noise):
        enough = int(self.tables(n0, n, alpha, noise)[0][max(line.counts0)])
        return {**super().again(line, n0, n, alpha, noise), "n": enough}

    def fields(self, certificate):
        return {"n": int(certificate.n), **self._bound_fields(certificate)}


@dataclasses.dataclass(frozen=True)
class Soft(_OneEstimation):
    r"""Draws all n samples, for the soft certificate (Soft-RS of Zhai et al. 2020).

    It certifies another smoothed classifier than Cohen's: the class with the largest mean of softmax(beta * logits)
    over the noise. `certification.verdict.make_soft_certificate` defines it exactly. With bounds of the mean votes of
    the selected class and of all others, the radius is

    $$\frac{\sigma}{2} \left( \Phi^{-1}(\underline{p_A}) - \Phi^{-1}(\overline{p_B}) \right).$$

    The bounds of all classes share alpha (`bounds.soft_bounds`). It is not possible inside jit.

    Attributes:
        beta: inverse temperature of the softmax, positive; MACER takes 16.

    Raises:
        SettingError: beta is out of its range.
    """

    beta: float = 16.0
    name = "soft"
    columns = ("pb_upper", "sums0", "sums", "squares")
    randomises = False
    on_host = True

    def __post_init__(self):
        if not 0 < self.beta < np.inf:
            raise SettingError(f"{{beta}} is an inverse temperature and must be positive and finite, not {self.beta}")

    @property
    def votes_beta(self) -> float:
        return float(self.beta)

    def check(self, n0, n, alpha, labels):
        check_one_number(n, "a soft certificate")
        check_no_labels(labels, "a soft certificate")
        check_smallest(n, alpha, bounds.smallest_soft_n(alpha))

    def conclude(self, drawn):
        counts = drawn.selection.counts, drawn.estimation.counts
        sums = (soft_sums(drawn.selection.digits)[0], *soft_sums(drawn.estimation.digits))
        return make_soft_certificate(*counts, *sums, drawn.sigma, drawn.most, drawn.alpha, drawn.noise)

    def again(self, line, n0, n, alpha, noise):
        counts = np.array(line.counts0), np.array(line.counts)
        sums = np.array(line.sums0), np.array(line.sums), np.array(line.squares)
        made = make_soft_certificate(*counts, *sums, line.sigma, n, alpha, noise)
        assert made.pb_upper is not None
        return {**fields_of(made), "pb_upper": float(made.pb_upper)}

    def fields(self, certificate):
        votes = certificate.soft
        sums = {name: tuple(getattr(votes, name).tolist()) for name in ("sums0", "sums", "squares")}
        return {"pb_upper": float(certificate.pb_upper), **sums}

    def recorded(self):
        return {"name": self.name, **dataclasses.asdict(self), "votes": VOTES}


ESTIMATES: dict[str, type] = {estimate.name: estimate for estimate in (Fixed, Tolerance, Sequential, Soft)}
"""The estimates, by their names in the program and in results files."""


def estimate_of(recorded: dict) -> Estimate:
    """The estimate that a sidecar's request describes, as `Estimate.recorded` wrote it.

    Raises:
        SettingError: no estimate has that name, or the estimate does not have these settings.
    """
    settings = {name: value for name, value in recorded.items() if name not in ("name", "votes")}
    kind = ESTIMATES.get(recorded.get("name", ""))
    if kind is None:
        raise SettingError(f"unknown {{estimate}} {recorded.get('name')!r}; known are {', '.join(ESTIMATES)}")
    try:
        return kind(**settings)
    except TypeError as error:
        raise SettingError(f"the {{estimate}} {kind.name!r} has other settings: {error}") from error
