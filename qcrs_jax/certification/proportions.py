"""Bounds of the selected class's probability, by name. A new one is one class, and one line in BOUNDS."""

import abc
import functools
from typing import Any

import numpy as np
from jax.core import Tracer

from .. import bounds
from ..sampling.smoothing import Noise
from .classes import TYPICAL_BUCKETS, certificate_over_classes
from .verdict import Certificate, make_certificate


class Bound(abc.ABC):
    """A bound of the certificate: a lower bound of the selected class's probability p.

    name: its name in `Fixed(name)`, in commands and in results files.
    randomises: whether it needs a uniform number. That number is drawn from the image's key and recorded. The bound is
        then not possible inside jit.
    columns: columns that a results file has beside the counts, by the names of Certificate and Record.
    buckets: the number of upper bounds of other classes that a search assumes; None where it bounds p alone.
    """

    name: str
    randomises = False
    columns: tuple[str, ...] = ()
    buckets: int | None = None

    @abc.abstractmethod
    def lower(self, successes, n, alpha: float, u) -> Any:
        """A number below 1 that is at most p with probability at least 1 - alpha over the samples and u. Float64.

        Args:
            successes, n: counts of any shape, 0 <= successes <= n; n broadcasts.
            alpha: failure probability in (0, 1).
            u: uniform on (0, 1], independent of the samples, of the shape of successes; None if nothing is randomised.
        """

    def smallest_n(self, alpha: float) -> int:
        """The smallest n at which some count can certify, that is, has a bound above 1/2."""
        return int(bounds.smallest_n(alpha))

    def certificate(self, counts0, counts, sigma, n, alpha: float, noise: Noise, u=None) -> Certificate:
        """The certificate that follows from selection counts0, and estimation counts of n samples at sigma."""
        if isinstance(counts, Tracer):
            lower = lower_table(self, n, alpha).__getitem__
        else:
            lower = lambda successes: self.lower(successes, n, alpha, u)  # noqa: E731
        return make_certificate(counts0, counts, sigma, n, alpha, lower, noise)._replace(u=u)


class ClopperPearson(Bound):
    """The exact bound (Clopper and Pearson 1934), as LOWERCONFBOUND of Cohen et al. 2019."""

    name = "clopper-pearson"

    def lower(self, successes, n, alpha, u):
        return bounds.clopper_pearson_lower(successes, n, alpha)


class OverClasses(ClopperPearson):
    """Upper bounds of the other classes beside the lower bound of the selected one; the radius is larger (`classes`).

    Where the selection samples let expect less of it, it is Clopper and Pearson's bound. Where all mistakes go to one
    class its radius may be up to 1% smaller.
    """

    name = "classes"
    columns = ("pb_upper",)
    buckets = TYPICAL_BUCKETS

    def certificate(self, counts0, counts, sigma, n, alpha, noise, u=None):
        return certificate_over_classes(counts0, counts, sigma, n, alpha, noise)


class Randomised(Bound):
    """`bounds.randomised_lower`: never below Clopper and Pearson's bound, and fails with probability alpha exactly.

    Where u <= alpha and all samples agree, that bound is 1 and would give an infinite radius. Clopper and Pearson's
    bound replaces it there. This only lowers bounds, and changes no coverage for p at most alpha ** (1 / n).
    """

    name = "randomised"
    randomises = True
    columns = ("u",)

    def lower(self, successes, n, alpha, u):
        bound = bounds.randomised_lower(successes, n, alpha, u)
        return np.where(bound < 1, bound, bounds.clopper_pearson_lower(successes, n, alpha))[()]


BOUNDS: dict[str, Bound] = {bound.name: bound for bound in (ClopperPearson(), Randomised(), OverClasses())}
"""The bounds, by their names in `Fixed`, in commands and in results files."""

USUAL = "clopper-pearson"
"""The default bound."""


@functools.lru_cache(maxsize=16)
def lower_table(bound: Bound, n: int, alpha: float) -> np.ndarray:
    """`bound.lower` for 0..n successes, for use inside jit; shape (n + 1,), float64, read-only."""
    table = np.asarray(bound.lower(np.arange(n + 1), n, alpha, None), np.float64)
    table.setflags(write=False)
    return table
