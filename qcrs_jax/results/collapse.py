"""Collapse: the sigma up to which a classifier keeps its accuracy under noise, and the images of a run beyond it.

Far above the noise of its training a network answers one class, whatever the image is. A search that may choose such a
sigma finds large radii there. These certificates hold, but they are about a classifier that is nearly constant.
"""

import collections
import dataclasses
import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from .records import Run

CLOSE = 1e-6
"""The relative difference below which two sigmas are the same: those of a file are float32."""
CLEAR = 3
"""Standard errors by which an accuracy has to exceed that of a constant answer, before anything can be lost."""


@dataclasses.dataclass(frozen=True)
class Level:
    """The answers of a classifier to many images under noise of one sigma.

    Attributes:
        sigma: standard deviation of the noise.
        accuracy: share of the noisy copies that fall into the label of their image; None without labels.
        classes: effective number of classes that the smoothed classifier answers: the exponential of the entropy of
            their shares. An image is answered the class that most of its copies fall into.
        commonest: the class that most images are answered.
        share: share of the images that are answered this class.
    """

    sigma: float
    accuracy: float | None
    classes: float
    commonest: int
    share: float


@dataclasses.dataclass(frozen=True)
class Collapse:
    """A classifier under growing noise.

    Attributes:
        levels: its answers at each sigma, ascending.
        constant: accuracy of the best constant answer, which is the share of the commonest label; None without labels.
        images: number of images that were looked at.
        copies: noisy copies of each image at each sigma.
    """

    levels: tuple[Level, ...]
    constant: float | None
    images: int
    copies: int

    @classmethod
    def of_counts(
        cls,
        sigmas: Float[np.ndarray, "s"],
        counts: Int[np.ndarray, "m s num_classes"],
        copies: int,
        labels: Int[np.ndarray, "m"] | None = None,
    ) -> "Collapse":
        """The figures of class counts of m images, with so many copies of each at each of s sigmas.

        A copy in no class is a wrong one. An image without a copy in a class is not answered.
        """
        counts = np.asarray(counts)
        levels = []
        for sigma, at in sorted(zip(map(float, sigmas), counts.swapaxes(0, 1)), key=lambda pair: pair[0]):
            accuracy = None
            if labels is not None:
                accuracy = float(np.take_along_axis(at, np.asarray(labels)[:, None], axis=1).sum() / len(at) / copies)
            answers = np.bincount(at.argmax(axis=1)[at.sum(axis=1) > 0], minlength=at.shape[1])
            shares = answers / max(answers.sum(), 1)
            common = int(answers.argmax())
            levels.append(Level(sigma, accuracy, effective_number(shares), common, float(shares[common])))
        constant = None if labels is None else float(np.bincount(labels).max() / len(labels))
        return cls(tuple(levels), constant, len(counts), copies)

    @property
    def reference(self) -> Level | None:
        """The level of the best accuracy, or of the most classes without labels. None where nothing could be lost.

        Nothing can be lost by a classifier that is nowhere clearly more accurate than a constant answer, or that
        answers one class everywhere.
        """
        best = max(self.levels, key=self._kept)
        if self.constant is None:
            return best if best.classes > 1 else None
        error = math.sqrt(self.constant * (1 - self.constant) / self.images)
        return best if self._kept(best) > self.constant + CLEAR * error else None

    @property
    def least(self) -> float | None:
        """The accuracy, or number of classes, below which it is lost; None where nothing could be lost."""
        best = self.reference
        return None if best is None else (self._kept(best) + (1.0 if self.constant is None else self.constant)) / 2

    @property
    def lost_at(self) -> float | None:
        """The smallest sigma above that of the best accuracy at which accuracy under noise is lost; None if nowhere.

        Accuracy is lost where it is nearer to that of a constant answer than to the best one. Between the measured
        sigmas it is interpolated, linearly over log sigma. Without labels the effective number of classes takes its
        place, which is 1 for a constant answer. Rounded down to three digits.
        """
        best, least = self.reference, self.least
        if best is None or least is None:
            return None
        above = self.levels[self.levels.index(best) :]
        for before, after in zip(above, above[1:]):
            high, low = self._kept(before), self._kept(after)
            if low < least:
                part = (high - least) / (high - low)
                return _rounded(before.sigma * (after.sigma / before.sigma) ** part)
        return None

    def _kept(self, level: Level) -> float:
        return level.classes if self.constant is None else level.accuracy or 0.0

    def recorded(self) -> dict[str, Any]:
        """Its record in JSON, with `lost_at`."""
        return {**dataclasses.asdict(self), "levels": [*map(dataclasses.asdict, self.levels)], "lost_at": self.lost_at}

    @classmethod
    def of(cls, recorded: dict) -> "Collapse":
        """What a record that `sidecar.parse` accepted describes."""
        names = [field.name for field in dataclasses.fields(Level)]
        levels = [Level(*(level[name] for name in names)) for level in recorded["levels"]]
        return cls(tuple(levels), *(recorded[name] for name in ("constant", "images", "copies")))


def effective_number(shares: Float[np.ndarray, "k"]) -> float:
    """The exponential of the entropy of shares that sum to 1: k for k equal ones, 1 where one has all; 1 for none."""
    shares = np.asarray(shares, float)
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))


def _rounded(sigma):
    """`sigma` with three significant digits, rounded down."""
    unit = 10.0 ** (math.floor(math.log10(sigma)) - 2)
    return float(f"{math.floor(sigma / unit * (1 + 1e-12)) * unit:.3g}")


def record_of(run: Run) -> Collapse | None:
    """The collapse that a run recorded; None if it recorded none."""
    recorded = run.sidecar.get("provenance", {}).get("collapse")
    return Collapse.of(recorded) if recorded and recorded["levels"] else None


def limit_of(run: Run, given: float | None = None) -> float | None:
    """The sigma beyond which an image of the run counts as beyond: `given`, or the recorded `lost_at`, or None."""
    record = record_of(run)
    return given if given is not None else record.lost_at if record else None


class Beyond(NamedTuple):
    """The images of a run whose sigma lies beyond a limit.

    Attributes:
        limit: the sigma beyond which they lie.
        places: their positions among the records of the run.
        images: number of all images of the run.
        answered: {class: number of these images that are answered it}, the most frequent first; -1 for abstentions.
        right: number of these images that are answered rightly.
        acr: ACR of the run.
        acr_without: ACR of the run where these images count as 0.
    """

    limit: float
    places: list[int]
    images: int
    answered: dict[int, int]
    right: int
    acr: float
    acr_without: float

    @property
    def share(self) -> float:
        """The share of the ACR that these images carry; 0 where there is none."""
        return 1 - self.acr_without / self.acr if self.acr else 0.0


def beyond(run: Run, limit: float | None) -> Beyond | None:
    """The images of a run of certificates whose sigma exceeds `limit`; None if there are none, or no limit."""
    if limit is None or run.predicts:
        return None
    far = [i for i, r in enumerate(run.records) if r.sigma is not None and r.sigma > limit * (1 + CLOSE)]
    if not far:
        return None
    certified = np.array([r.correct * r.radius for r in run.records], float)
    answered = collections.Counter(run.records[i].predict for i in far)
    answered = dict(sorted(answered.items(), key=lambda item: (-item[1], item[0])))
    right = sum(run.records[i].correct for i in far)
    without = certified.copy()
    without[far] = 0
    return Beyond(limit, far, len(certified), answered, right, float(certified.mean()), float(without.mean()))
