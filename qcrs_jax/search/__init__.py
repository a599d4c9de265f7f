"""Searches for sigma, the noise level of an image. A search is one class.

A new one is one file here and one line in SEARCHES.

maximisers.py   maximise a costly, noisy function over a bracket; they know nothing of smoothing
aim.py          the certificate for which sigma is chosen, and the radii that counts let expect
protocol.py     what every search has to define, and FixedSigma, which keeps sigma as it is
qcrs.py         QCRS: finds the sigma with the largest radius, by one of the maximisers
bayesian.py     QCRS by a posterior of the whole curve (posterior.py)
ddrs.py         DDRS: gradient ascent on a surrogate of the radius
"""

from ..errors import SettingError
from .aim import Aim, Radii
from .bayesian import Bayesian
from .ddrs import DDRS, SigmaAscent
from .protocol import FixedSigma, Query, Search
from .qcrs import QCRS, Bisection, GoldenSection, Grid, Shrinking, SigmaSearch

SEARCHES: dict[str, type[Search]] = {
    search.name: search for search in (FixedSigma, GoldenSection, Bisection, Shrinking, Grid, Bayesian, DDRS)
}
"""The searches, by their names in the program and in results files."""


def search_of(recorded: dict) -> Search:
    """The search that a sidecar's request describes, as `Search.recorded` wrote it.

    Raises:
        SettingError: no search has that name, or the search does not have these settings.
    """
    settings = {name: value for name, value in recorded.items() if name not in ("method", "name")}
    kind = SEARCHES.get(recorded.get("name", ""))
    if kind is None or kind.method != recorded.get("method"):
        name, method = recorded.get("name"), recorded.get("method")
        raise SettingError(f"unknown {{search}} {name!r} of {method!r}; known are {', '.join(SEARCHES)}")
    try:
        return kind(**settings)
    except TypeError as error:
        raise SettingError(f"the {{search}} {kind.name!r} has other settings: {error}") from error


__all__ = [
    "DDRS",
    "QCRS",
    "SEARCHES",
    "Aim",
    "Bayesian",
    "Bisection",
    "FixedSigma",
    "GoldenSection",
    "Grid",
    "Query",
    "Radii",
    "Search",
    "Shrinking",
    "SigmaAscent",
    "SigmaSearch",
    "search_of",
]
