"""Figures of runs over a data set: ACR, certified accuracy, abstention, agreement.

There are also statements beyond the sample: a bound for the true certified accuracy of these images, and intervals for
all images like these. The bound concerns alpha, that is, the noise that was drawn. The intervals concern the images
that were drawn.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from .account import RHO, wrong_share
from .records import RecordsError, Run, is_soft

LEVEL = 0.95
"""Level of the intervals, over the images that were drawn."""
RESAMPLES = 9999
FEWEST = 20  # smallest number of images for a bootstrap of one run


class Summary(NamedTuple):
    """The figures of one run. Means are over all its images.

    acr: average certified radius, mean of correct * radius (Zhai et al. 2020).
    accuracy: share of images predicted right and certified at radius 0.
    abstention: share of images on which it abstains.
    samples: mean number of counted noisy copies per image; NaN if the file does not record it.
    seconds: median wall-clock time per image, so that compilation does not count; NaN if the file does not record it.
    """

    images: int
    acr: float
    accuracy: float
    abstention: float
    samples: float
    seconds: float


class Agreement(NamedTuple):
    """The answers of one run, compared with those of a run with more samples. Shares are of all images, and
    correct + incorrect + abstention = agrees + differs + abstention = 1.

    n: samples for each image; NaN if the file does not record it.
    agrees, differs: shares of answers that are, or are not, the class that most samples of the other run fall into. NaN
        for that run itself.
    seconds: median wall-clock time per image; NaN if the file does not record it.
    """

    images: int
    n: float
    correct: float
    incorrect: float
    abstention: float
    agrees: float
    differs: float
    seconds: float


def certified_accuracy(
    correct: Bool[np.ndarray, "m"], radius: Float[np.ndarray, "m"], at: Float[np.ndarray, "r"]
) -> Float[np.ndarray, "r"]:
    """The share of images that are predicted right with a certified radius of at least each of `at`."""
    return (correct[:, None] & (radius[:, None] >= at)).mean(axis=0)


def average_certified_radius(correct: Bool[np.ndarray, "m"], radius: Float[np.ndarray, "m"]) -> float:
    """ACR: mean of correct * radius (Zhai et al. 2020)."""
    return float(np.mean(correct * radius))


def certified_accuracy_lower(accuracy: float, m: int, alpha: float, rho: float = RHO) -> float:
    """A lower bound of a data set's true certified accuracy, which fails with probability at most rho.

    It holds at all radii at once. The share of the m certificates that may be wrong is subtracted.
    """
    return accuracy - wrong_share(m, alpha, rho)


def share_interval(
    successes: Int[np.ndarray, "*r"], m: int, level: float = LEVEL
) -> tuple[Float[np.ndarray, "*r"], Float[np.ndarray, "*r"]]:
    """An interval (low, high) of a probability of success, for each number of `successes` in m independent trials.

    It is exact for every probability: low is too high with probability at most (1 - level) / 2, and high too low.

    Source: Clopper and Pearson 1934.
    """
    from scipy.special import betaincinv

    k, tail = np.asarray(successes), (1 - level) / 2
    low = np.where(k > 0, betaincinv(np.maximum(k, 1), m - k + 1, tail), 0.0)
    high = np.where(k < m, betaincinv(k + 1, np.maximum(m - k, 1), 1 - tail), 1.0)
    return low, high


def certified_accuracy_interval(
    correct: Bool[np.ndarray, "m"],
    radius: Float[np.ndarray, "m"],
    at: Float[np.ndarray, "r"],
    level: float = LEVEL,
) -> tuple[Float[np.ndarray, "r"], Float[np.ndarray, "r"]]:
    """An interval of the certified accuracy at each of `at`, over all images like these m: (low, high).

    It holds for each radius by itself, with probability at least `level` over m images drawn independently from the
    population. It contains the share of the population that this classifier and its certification get right with at
    least that radius (`share_interval`). It does not account for wrong certificates; see `certified_accuracy_lower`.
    """
    return share_interval((correct[:, None] & (radius[:, None] >= at)).sum(axis=0), len(correct), level)


def acr_interval(
    correct: Bool[np.ndarray, "m"], radius: Float[np.ndarray, "m"], level: float = LEVEL, seed: int = 0
) -> tuple[float, float]:
    """An interval of the ACR over all images like these m: (low, high), NaN where nothing can be stated.

    It is a BCa bootstrap over the images (Efron 1987), which assumes that they were drawn independently from the
    population. It holds at `level` in the limit of many images. With twenty images, of which few have large radii, it
    may miss twice as often as stated. Nothing is stated for fewer than `FEWEST` images, or where correct * radius is
    the same for all of them.
    """
    if len(correct) < FEWEST:
        return math.nan, math.nan
    return _bootstrap((correct * radius,), level, RESAMPLES, seed)


def paired_gain(
    ours: tuple[Bool[np.ndarray, "m"], Float[np.ndarray, "m"]],
    theirs: tuple[Bool[np.ndarray, "m"], Float[np.ndarray, "m"]],
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float, float]:
    """The gain in ACR of one run over another on the same images, and its interval: (gain, low, high).

    It is a BCa bootstrap over the images (Efron 1987), which are resampled in pairs. Variation between images that both
    runs share cancels. Low and high are NaN where the gain is the same at all images, as for a run compared with
    itself.

    Args:
        ours, theirs: the columns correct and radius of the two runs.
    """
    pairs = ours[0] * ours[1], theirs[0] * theirs[1]
    return float(np.mean(pairs[0] - pairs[1])), *_bootstrap(pairs, level, resamples, seed)


def _bootstrap(samples, level, resamples, seed):
    """The interval of the mean of one sample, or of the difference of two paired ones; NaN if all values are equal."""
    from scipy import stats

    def statistic(sample, other=0.0, axis=-1):
        return np.mean(sample - other, axis=axis)

    m = len(samples[0])
    if np.ptp(np.subtract(*samples) if len(samples) > 1 else samples[0]) == 0:
        return math.nan, math.nan
    found = stats.bootstrap(
        samples,
        statistic,
        n_resamples=resamples,
        batch=max(1, 2**20 // m),  # numbers in memory
        vectorized=True,
        paired=len(samples) > 1,
        confidence_level=level,
        # Corrects for skewness, of order 1 / sqrt(m), in time that grows with m squared.
        method="BCa" if m <= 10_000 else "percentile",
        rng=np.random.default_rng(seed),
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def columns(run: Run) -> tuple[Bool[np.ndarray, "m"], Float[np.ndarray, "m"]]:
    """The columns correct and radius of a run.

    Raises:
        RecordsError: it is a run of PREDICT.
    """
    if run.predicts:
        raise RecordsError(f"{run.path}: holds predictions, which have no radii")
    return (
        np.array([r.correct for r in run.records], bool),
        np.array([r.radius for r in run.records], float),
    )


def summarise(run: Run) -> Summary:
    """The figures of one run.

    Raises:
        RecordsError: it has no images yet.
    """
    if not run.records:
        raise RecordsError(f"{run.path}: holds no results yet")
    correct, radius = columns(run)
    return Summary(
        images=len(run.records),
        acr=average_certified_radius(correct, radius),
        accuracy=float(correct.mean()),
        abstention=float(np.mean([r.predict == -1 for r in run.records])),
        samples=float(np.mean([r.samples for r in run.records])),
        seconds=float(np.median([r.seconds for r in run.records])),
    )


def largest_run(runs: Sequence[Run]) -> Run | None:
    """The run with the most samples for each image, among those whose files have counts; None if there is none."""
    known = [run for run in runs if _n(run) and all(r.counts for r in run.records)]
    return max(known, key=_n, default=None)


def agreement(run: Run, reference: Run | None) -> Agreement:
    """How often a run of PREDICT, or of certificates, answers, and answers as `reference` does on the same images.

    Raises:
        RecordsError: the runs have different classifiers, sigmas or certificates, sigma was chosen per input, or there
            are no images.
    """
    if not run.records:
        raise RecordsError(f"{run.path}: holds no results yet")
    if run.input_specific:
        raise RecordsError(f"{run.path}: has another sigma for each input; predictions are compared at one sigma")
    predictions, correct = np.array([[r.predict, r.correct] for r in run.records]).T
    answered = predictions != -1
    agrees = differs = math.nan
    if reference and reference is not run:
        changed = [
            key for key in ("sigma", "classifier") if run.request and run.request.get(key) != reference.request.get(key)
        ]
        changed += ["certificate"] * (is_soft(run.request) != is_soft(reference.request))
        if changed:
            raise RecordsError(f"{run.path} and {reference.path} have different {' and '.join(changed)}")
        same = predictions == np.array([np.argmax(r.counts) for r in reference.records])
        agrees, differs = np.mean(answered & same), np.mean(answered & ~same)
    return Agreement(
        images=len(run.records),
        n=_n(run) or math.nan,
        correct=float(correct.mean()),
        incorrect=float(np.mean(answered & (correct == 0))),
        abstention=float(np.mean(~answered)),
        agrees=float(agrees),
        differs=float(differs),
        seconds=float(np.median([r.seconds for r in run.records])),
    )


def _n(run):
    return run.request.get("n")
