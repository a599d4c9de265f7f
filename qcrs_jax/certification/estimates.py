"""Estimates: how many certification samples an image gets, and what follows from their counts.

An estimate is an object that `certify` asks and that nobody else has to know: what the compiled loop looks up, which
certificate its counts give, and what a results file keeps beside the counts. A new one is one class here.
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
from ..search import SigmaAscent, SigmaSearch
from .proportions import BOUNDS, USUAL, Bound, lower_table
from .sequential import Sequential, check_no_labels, check_one_number, check_smallest
from .verdict import Certificate, fields_of, make_certificate, make_soft_certificate

VOTES = "softmax(beta logits) in units of 2**-15, logits in steps of 2**-10"
"""What a soft vote is, as `sampling.soft_votes` defines it. Another definition needs another text."""


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("selection", "estimation", "n", "looks", "sigma", "words", "search"),
    meta_fields=("estimate", "noise", "alpha", "most", "fixed"),
)
@dataclasses.dataclass(frozen=True)
class Drawn:
    """What was drawn of one image, or of several, and at which sigma. `*m` is () or (images,). A pytree of arrays.

    selection, estimation: the votes of the samples that select the class, and of those that certify it.
    n: how many samples certify; counts sum to less where logits were not finite.
    looks: how many looks at the counts there were.
    sigma: the noise level.
    words: the bits of the number that randomises a bound; None where none does.
    search: how sigma was chosen; None at a fixed sigma.
    estimate, noise, alpha: what was asked.
    most: the most samples that an image could get.
    fixed: how many each got where that is one number, known beforehand; else None.
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
    """How many of n samples certify an image, and what they certify.

    name: of the kind of estimate, in results files.
    columns: what a results file keeps beside the counts, by the names of Record.
    randomises: whether a uniform number is drawn for the bound.
    votes_beta: inverse temperature of the soft votes that are summed; None for none.
    on_host: whether the certificate needs counts that can be seen, that is, cannot be had inside jit.
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

        labels: whether images of another label than the selected class are left without samples.
        """
        ...

    def check_reach(self, sigma, n, alpha: float, noise: Noise) -> None:
        """Raises SettingError where no counts at `sigma` could certify what is asked."""
        ...

    def tables(self, n0: int, n, alpha: float) -> tuple[Any, Any]:
        """What the compiled loop looks up: samples by the top count of the selection, and looks; None for neither."""
        ...

    def queries(self, n: int) -> tuple[int, ...]:
        """How many samples are drawn at a time, one after another, where all n are drawn."""
        ...

    def conclude(self, drawn: Drawn) -> Certificate:
        """The certificate of what was drawn; fails with probability at most alpha."""
        ...

    def again(self, line, n0: int, n: int, alpha: float, noise: Noise) -> dict:
        """The fields of a line of a results file that follow from its counts, by the names of Record.

        line: a Record, with the `columns`.
        """
        ...

    def fields(self, certificate: Certificate) -> dict:
        """The `columns` of one image's certificate, in Python's own numbers."""
        ...

    def recorded(self) -> dict:
        """What a sidecar says of it; `estimate_of` reads it."""
        ...


class _OneEstimation:
    """Estimates that draw their samples in one go, and can reach some radius at every sigma."""

    may_end_early = False

    def check_reach(self, sigma, n, alpha, noise):
        pass

    def tables(self, n0, n, alpha, noise):
        return None, None

    def queries(self, n):
        return (n,)


class _Hard(_OneEstimation):
    """Estimates of Cohen's classifier, whose number of samples does not depend on their counts."""

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
        return ("u",) if self.randomises else ()

    def check(self, n0, n, alpha, labels):
        check_smallest(n, alpha, self._bound.smallest_n(alpha))

    def conclude(self, drawn):
        counts = drawn.selection.counts, drawn.estimation.counts
        if isinstance(counts[1], Tracer):
            table = lower_table(self._bound, drawn.fixed, drawn.alpha)
            return make_certificate(*counts, drawn.sigma, drawn.fixed, drawn.alpha, table.__getitem__, drawn.noise)
        n = np.asarray(drawn.n, np.int64)[()]
        u = uniform(drawn.words) if self.randomises else None
        return self._made(*counts, drawn.sigma, n, drawn.alpha, drawn.noise, u)

    def again(self, line, n0, n, alpha, noise):
        counts, n = (np.array(line.counts0), np.array(line.counts)), n if line.n is None else line.n
        return fields_of(self._made(*counts, line.sigma, n, alpha, noise, line.u))

    def _made(self, counts0, counts, sigma, n, alpha, noise, u):
        lower = lambda k: self._bound.lower(k, n, alpha, u)  # noqa: E731
        made = make_certificate(counts0, counts, sigma, n, alpha, lower, noise)
        return made._replace(u=u)

    def fields(self, certificate):
        return {} if certificate.u is None else {"u": float(certificate.u)}

    def recorded(self):
        return {"name": self.name, **vars(self)}


@dataclasses.dataclass(frozen=True)
class Fixed(_Hard):
    """All n samples, one number for all images or, outside jit, one for each.

    Attributes:
        bound: a name in BOUNDS: "clopper-pearson", or "randomised", `bounds.randomised_lower`: never below, and as
            large as a bound can be that fails with probability alpha. Its uniform number is drawn from the image's key,
            in a stream of its own. It cannot be had inside jit.
    """

    bound: str = USUAL
    name = "fixed"


@dataclasses.dataclass(frozen=True)
class Tolerance(_Hard):
    """As few of the n samples as can be expected to keep an image's radius.

    The n0 selection samples decide how many it gets (`bounds.enough_table`). They are independent of the samples that
    certify: whatever that number, these are as many independent draws, and the certificate fails with probability at
    most alpha. It cannot be had inside jit.

    Attributes:
        tolerance: expected relative loss of radius that is acceptable in exchange for fewer samples, in (0, 1).
        bound: as of `Fixed`.
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
        enough = int(self.tables(n0, n, alpha)[0][max(line.counts0)])
        return {**super().again(line, n0, n, alpha), "n": enough}

    def fields(self, certificate):
        return {"n": int(certificate.n), **super().fields(certificate)}


@dataclasses.dataclass(frozen=True)
class Soft(_OneEstimation):
    """All n samples, for the soft certificate (Soft-RS of Zhai et al. 2020).

    It is about another smoothed classifier: the class with the largest mean of softmax(beta * logits) over the noise,
    as `make_soft_certificate` defines it. The bounds of all classes share alpha (`bounds.soft_bounds`). It cannot be
    had inside jit.

    Attributes:
        beta: inverse temperature; MACER's by default.
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
        assert made.soft is not None
        return {**fields_of(made), "pb_upper": float(made.soft.pb_upper)}

    def fields(self, certificate):
        votes = certificate.soft
        sums = {name: tuple(getattr(votes, name).tolist()) for name in ("sums0", "sums", "squares")}
        return {"pb_upper": float(votes.pb_upper), **sums}

    def recorded(self):
        return {"name": self.name, **dataclasses.asdict(self), "votes": VOTES}


ESTIMATES: dict[str, type] = {estimate.name: estimate for estimate in (Fixed, Tolerance, Sequential, Soft)}
"""The estimates by the names that the program and results files have for them."""


def estimate_of(recorded: dict) -> Estimate:
    """The estimate that a sidecar's request tells of, as `Estimate.recorded` wrote it.

    Raises:
        SettingError: there is none of that name, or it has no such settings.
    """
    settings = {name: value for name, value in recorded.items() if name not in ("name", "votes")}
    kind = ESTIMATES.get(recorded.get("name", ""))
    if kind is None:
        raise SettingError(f"unknown {{estimate}} {recorded.get('name')!r}; known are {', '.join(ESTIMATES)}")
    try:
        return kind(**settings)
    except TypeError as error:
        raise SettingError(f"the {{estimate}} {kind.name!r} has other settings: {error}") from error
