"""The runs of a report, the findings of their verification, and the groups of runs over the same images."""

import dataclasses
from pathlib import Path

from qcrs_jax.results.records import Run

from .gains import extremes, reference_of
from .styles import styles

TOP = 10
"""The number of images shown that gained most, and of those that lost most."""


@dataclasses.dataclass(frozen=True)
class Verified:
    """The findings of `verify` about the files of a run.

    verdict: the verdict in a sentence.
    lines: the output.
    troubles: the errors.
    whole: whether every line was drawn again, and agrees.
    """

    verdict: str
    lines: list[str]
    troubles: list[str]
    whole: bool


@dataclasses.dataclass(frozen=True)
class Part:
    """A run of the report, its files, the findings of their verification (None if there was none), and its name."""

    run: Run
    files: list[Path]
    verified: Verified | None = None
    name: str = ""


@dataclasses.dataclass(frozen=True)
class Pictures:
    """The data set of runs over the same images, or None and the reason why it could not be opened."""

    dataset: object | None
    why: str = ""


class Group:
    """Runs over the same images, and the pictures of these."""

    def __init__(self, parts: list[Part], pictures: Pictures):
        self.parts, self.pictures = parts, pictures
        self.runs = [part.run for part in parts]
        reference = reference_of(self.runs)
        self.reference = next((part for part in parts if part.run is reference), None)
        self.styles = styles(self.runs)

    @property
    def compared(self) -> list[Part]:
        """The runs that gain or lose over the reference."""
        return [] if self.reference is None else [part for part in self.parts if part is not self.reference]

    @property
    def drawn(self):
        """(name, run, style) of each run."""
        return [(part.name, part.run, style) for part, style in zip(self.parts, self.styles)]

    def interesting(self) -> list[int]:
        """The indices of all images; those that gained or lost most come first, the others spread evenly."""
        sides = [side for part in self.compared for side in extremes(self.reference.run, part.run, TOP)]
        first = [place for side in sides for place in side]
        places = range(len(self.runs[0].records))
        spread = sorted(places, key=lambda place: (int(f"{place:024b}"[::-1], 2), place))
        return [self.runs[0].records[i].idx for i in dict.fromkeys([*first, *spread])]
