"""Colours and lines of runs: each method has one colour in all figures, each run of a figure a line of its own.

In a figure of many runs of one method, each has a colour.
"""

from collections.abc import Sequence
from typing import NamedTuple

METHODS = {
    "cohen": "#0072b2",
    "bisection": "#d55e00",
    "golden": "#e69f00",
    "bayesian": "#009e73",
    "shrinking": "#56b4e9",
    "grid": "#cc79a7",
    "ddrs": "#7b61a8",
    "cascade": "#000000",
}
"""Colours of Okabe and Ito (2008), which colour-blind readers can distinguish, and a violet."""
OTHERS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Colours of runs whose method is not known, and of many runs of one method."""
DASHES: tuple[tuple[float, ...], ...] = ((), (6, 2), (2, 1.5), (7, 2, 1.5, 2), (4, 1.5, 1, 1.5, 1, 1.5))


class Style(NamedTuple):
    """A colour, and the lengths of strokes and gaps in widths of the line; () for a solid line."""

    colour: str
    dash: tuple[float, ...]


def styles(runs: Sequence) -> list[Style]:
    """The style of each of the runs of a figure."""
    methods = [method_of(run) for run in runs]
    unknown = iter(OTHERS * len(runs))
    alike = len(runs) > 3 and len(set(methods)) == 1
    colours = [not alike and METHODS.get(method) or next(unknown) for method in methods]
    return [Style(colour, DASHES[place % len(DASHES)]) for place, colour in enumerate(colours)]


def method_of(run) -> str | None:
    """The name of a run's search, or "cohen" or "ddrs"; None for a log that does not record it."""
    search = run.request.get("search") or {}
    return search.get("name") if search.get("method") == "qcrs" else search.get("method")
