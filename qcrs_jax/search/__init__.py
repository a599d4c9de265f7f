"""Which sigma an input gets. A search is one class; a new one is one file here, and one line in SEARCHES.

maximisers.py   maximise a costly, noisy function over a bracket; they know nothing of smoothing
protocol.py     what a search has to give, and FixedSigma, which keeps sigma as it is
qcrs.py         QCRS: the sigma of the largest radius, by one of the maximisers
bayesian.py     QCRS by a posterior of the whole curve (posterior.py)
ddrs.py         DDRS: gradient ascent on a surrogate of the radius
"""

from .bayesian import Bayesian
from .ddrs import DDRS, SigmaAscent
from .protocol import FixedSigma, Query, Search
from .qcrs import QCRS, Bisection, GoldenSection, Grid, Shrinking, SigmaSearch

SEARCHES = {search.name: search for search in (GoldenSection, Bisection, Shrinking, Grid, Bayesian)}
"""The searches of QCRS by the names that `--search` and results files have for them."""

__all__ = [
    "DDRS",
    "QCRS",
    "SEARCHES",
    "Bayesian",
    "Bisection",
    "FixedSigma",
    "GoldenSection",
    "Grid",
    "Query",
    "Search",
    "Shrinking",
    "SigmaAscent",
    "SigmaSearch",
]
