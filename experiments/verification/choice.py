"""The choice of the lines of a results file that are drawn again, and how surely that finds a forged one."""

import dataclasses
import math
import random
import secrets


@dataclasses.dataclass(frozen=True)
class Choice:
    """The number of lines that are drawn again, and the seed that chooses them.

    lines: number of lines; infinite for all.
    confidence, forged: used instead of `lines`. If a share `forged` of the lines is forged, as many lines are drawn as
        contain one of them with probability `confidence`.
    seed: seed of the choice. None takes a fresh one for each file, which the maker of the file cannot know.
    """

    lines: int | float
    confidence: int | float | None = None
    forged: int | float | None = None
    seed: int | None = None

    @property
    def draws(self) -> bool:
        """Whether any line is drawn again."""
        return self.confidence is not None or self.lines > 0

    def number(self, of: int) -> int:
        """The number of lines that are drawn again, out of `of`."""
        if self.confidence is None:
            return int(min(self.lines, of))
        return lines_needed(of, forged_lines(of, self.forged), self.confidence)

    def choose(self, indices) -> tuple[list, int]:
        """The chosen lines among `indices`, in their order, and the seed that chose them."""
        seed = secrets.randbits(32) if self.seed is None else self.seed
        return sorted(random.Random(seed).sample(sorted(indices), self.number(len(indices)))), seed

    def power(self, of: int, one: str = "line") -> str:
        """A sentence on how surely a forged line is among those that are drawn again; `one` is the name of a line."""
        drawn = self.number(of)
        text = f"{drawn} of {of} {one}s drawn again: a single forged {one} would be found with probability "
        text += percent(found(of, drawn, 1))
        if self.forged is not None and (forged := forged_lines(of, self.forged)) > 1:
            text += f", one of {forged} ({self.forged:.6g} of the {one}s) with probability "
            text += percent(found(of, drawn, forged))
        return text


def forged_lines(of: int, share: int | float) -> int:
    """The number of lines in a `share` of `of` lines, at least one."""
    return max(1, math.ceil(share * of - 1e-9))


def found(of: int, drawn: int, forged: int) -> float:
    """The probability that one of `forged` lines, out of `of`, is among `drawn` that are chosen at random."""
    missed = 1.0
    for k in range(drawn):
        missed *= max(of - forged - k, 0) / (of - k)
    return 1 - missed


def lines_needed(of: int, forged: int, confidence: int | float) -> int:
    """The smallest number of random lines that contain one of `forged` with probability `confidence`."""
    missed = 1.0
    for k in range(of):
        if missed <= 1 - confidence + 1e-12:
            return k
        missed *= max(of - forged - k, 0) / (of - k)
    return of


def missed(of: int, drawn: int) -> str:
    """The probability that one forged line, out of `of`, is not among those drawn again; in per cent, rounded up."""
    return f"{math.ceil(1000 * (of - drawn) / max(of, 1) - 1e-9) / 10 if of else 100:g}%"


def percent(probability: int | float) -> str:
    """A probability in per cent, rounded down."""
    return f"{math.floor(probability * 1000 + 1e-9) / 10:g}%"


def duration(seconds: int | float) -> str:
    """A time in words, to two digits."""
    for unit, length in (("s", 1), ("min", 60), ("h", 3600), ("days", 86400)):
        if seconds < 100 * length or unit == "days":
            return f"{float(f'{seconds / length:.2g}'):g} {unit}"
    return ""
