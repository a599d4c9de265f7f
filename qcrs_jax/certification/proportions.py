"""Lower bounds of the selected class's probability. A new one is one class, and one line in BOUNDS."""

import functools
from typing import Any, Protocol, runtime_checkable

import numpy as np

from .. import bounds


@runtime_checkable
class Bound(Protocol):
    """A lower bound of a probability p, from how many of n independent samples fell into the class.

    name: as `Fixed(name)`, commands and results files have it.
    randomises: whether it needs a uniform number. Then it is drawn from the image's key, and recorded, and the bound
        cannot be had inside jit.
    """

    @property
    def name(self) -> str: ...

    @property
    def randomises(self) -> bool: ...

    def lower(self, successes, n, alpha: float, u) -> Any:
        """A number below 1 that is at most p, with probability at least 1 - alpha over the samples and u. Float64.

        Args:
            successes, n: counts of any shape, 0 <= successes <= n; n broadcasts.
            u: uniform on (0, 1] and independent of the samples, shaped as successes; None where nothing randomises.
        """
        ...

    def smallest_n(self, alpha: float) -> int:
        """The smallest n at which any count can certify, that is, has a bound above 1/2."""
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
    """`bounds.randomised_lower`: never below Clopper and Pearson's, and fails with probability alpha exactly.

    Where u <= alpha and all samples agree it is 1 and tells nothing: Clopper and Pearson's stands in, so that no radius
    is infinite. That only lowers bounds, and no p at most alpha ** (1 / n) notices.
    """

    name = "randomised"
    randomises = True

    def lower(self, successes, n, alpha: float, u):
        bound = bounds.randomised_lower(successes, n, alpha, u)
        return np.where(bound < 1, bound, bounds.clopper_pearson_lower(successes, n, alpha))[()]

    def smallest_n(self, alpha: float) -> int:
        return int(bounds.smallest_n(alpha))


BOUNDS: dict[str, Bound] = {bound.name: bound for bound in (ClopperPearson(), Randomised())}
"""The bounds by the names that `Fixed`, commands and results files have for them."""

USUAL = "clopper-pearson"
"""The bound where none is named."""


@functools.lru_cache(maxsize=16)
def lower_table(bound: Bound, n: int, alpha: float) -> np.ndarray:
    """`bound.lower` for 0..n successes, for use inside jit; shape (n + 1,), float64, read-only."""
    table = np.asarray(bound.lower(np.arange(n + 1), n, alpha, None), np.float64)
    table.setflags(write=False)
    return table
