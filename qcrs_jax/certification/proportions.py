"""Lower bounds of the selected class's probability. A new one is one class, and one line in BOUNDS."""

import functools
from typing import Any, Protocol, runtime_checkable

import numpy as np

from .. import bounds


@runtime_checkable
class Bound(Protocol):
    """A lower bound of a probability p, from the number of n independent samples that fell into the class.

    name: its name in `Fixed(name)`, in commands and in results files.
    randomises: whether it needs a uniform number. That number is drawn from the image's key and recorded. The bound is
        then not possible inside jit.
    """

    @property
    def name(self) -> str: ...

    @property
    def randomises(self) -> bool: ...

    def lower(self, successes, n, alpha: float, u) -> Any:
        """A number below 1 that is at most p with probability at least 1 - alpha over the samples and u. Float64.

        Args:
            successes, n: counts of any shape, 0 <= successes <= n; n broadcasts.
            alpha: failure probability in (0, 1).
            u: uniform on (0, 1], independent of the samples, of the shape of successes; None if nothing is randomised.
        """
        ...

    def smallest_n(self, alpha: float) -> int:
        """The smallest n at which some count can certify, that is, has a bound above 1/2."""
        ...


class ClopperPearson:
    """The exact bound (Clopper and Pearson 1934), as LOWERCONFBOUND of Cohen et al. 2019."""

    name = "clopper-pearson"
    randomises = False

    def lower(self, successes, n, alpha: float, u):
        return bounds.clopper_pearson_lower(successes, n, alpha)

    def smallest_n(self, alpha: float) -> int:
        return int(bounds.smallest_n(alpha))


class Randomised:
    """`bounds.randomised_lower`: never below Clopper and Pearson's bound, and fails with probability alpha exactly.

    Where u <= alpha and all samples agree, that bound is 1 and would give an infinite radius. Clopper and Pearson's
    bound replaces it there. This only lowers bounds, and changes no coverage for p at most alpha ** (1 / n).
    """

    name = "randomised"
    randomises = True

    def lower(self, successes, n, alpha: float, u):
        bound = bounds.randomised_lower(successes, n, alpha, u)
        return np.where(bound < 1, bound, bounds.clopper_pearson_lower(successes, n, alpha))[()]

    def smallest_n(self, alpha: float) -> int:
        return int(bounds.smallest_n(alpha))


BOUNDS: dict[str, Bound] = {bound.name: bound for bound in (ClopperPearson(), Randomised())}
"""The bounds, by their names in `Fixed`, in commands and in results files."""

USUAL = "clopper-pearson"
"""The default bound."""


@functools.lru_cache(maxsize=16)
def lower_table(bound: Bound, n: int, alpha: float) -> np.ndarray:
    """`bound.lower` for 0..n successes, for use inside jit; shape (n + 1,), float64, read-only."""
    table = np.asarray(bound.lower(np.arange(n + 1), n, alpha, None), np.float64)
    table.setflags(write=False)
    return table
