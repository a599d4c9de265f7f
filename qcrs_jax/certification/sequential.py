r"""Sequential estimation: bounds of a probability that hold while samples arrive, and rules for when to stop.

At looks j = 0, 1, ... an image has n_j certification samples in all, of which k fell into the selected class. A
confidence sequence gives a lower and an upper bound for every (j, k):

    P(some lower bound exceeds p) <= alpha  and  P(some upper bound is below p) <= beta,  each over all looks at once.

Sampling may therefore stop by any rule that sees only the samples so far. The bounds of the look at which it stops
hold: the certificate's lower bound fails with probability at most alpha, like that of a fixed n.

A decision at radius r compares p with t = Phi(r / sigma). "Robust", p > t, is claimed where the lower bound exceeds t.
That is wrong with probability at most alpha. "Not robust", p <= t, is claimed where the upper bound is below t. That is
wrong with probability at most beta. For any p at most one of the two claims is false, so alpha and beta need not be
split between them.

`walk` computes exactly, by dynamic programming, the probability that the samples end at each look and count.

Sources: V. Voracek, "Treatment of Statistical Estimation Problems in Randomized Smoothing for Adversarial Robustness",
NeurIPS 2024 (both sequences); J. Ville 1939; R. Krichevsky and V. Trofimov 1981 (the mixture); M. Horvath et al.,
"Boosting Randomized Smoothing with Variance Reduced Classifiers", ICLR 2022 (stages).
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int
from scipy import interpolate, special

from .. import bounds
from ..errors import SettingError
from ..sampling.smoothing import GAUSSIAN, Noise
from ..search import Aim
from .verdict import Certificate, fields_of, make_sequential_certificate

SEQUENCES = ("union", "betting", "stages", "fixed")
RATIO = 1.2  # ratio of the samples of two looks, once this is more than `look_every` samples
MARGIN = 5e-5  # probits; tables understate lower bounds and overstate upper ones by it: interpolation and float32
LEAST_ALPHA = 1e-15  # the smallest alpha for which the margin was tested
MAX_SEQUENTIAL_N = 2**22  # the tables hold all counts at all looks


class Looks(NamedTuple):
    """The tables of a sequential estimation inside jit. There are J looks.

    n: number of samples at each look, ascending.
    start: smallest count at each look whose upper bound exceeds 1/2. Below it the image surely abstains.
    offset: start of the entries of each look in the tables; they are for the counts start..n.
    lower, upper: bounds as radii at sigma = 1, that is, in probits.
    radius: (most, least) in float32, between which the radius asked about lies; NaN for none.
    precision: share of the radius within which it is to be known; NaN for none.
    """

    n: Int[np.ndarray | Array, "J"]
    start: Int[np.ndarray | Array, "J"]
    offset: Int[np.ndarray | Array, "J"]
    lower: Float[np.ndarray | Array, "entries"]
    upper: Float[np.ndarray | Array, "entries"]
    radius: Float[np.ndarray | Array, "2"]
    precision: Float[np.ndarray | Array, ""] | np.float32

    def stops(self, xp, look, successes, sigma):
        """Whether to stop at `look` after `successes` of n[look] samples at sigma; xp is numpy or jax.numpy."""
        above = successes - self.start[look]
        entry = self.offset[look] + xp.maximum(above, 0)
        lower, upper = self.lower[entry], self.upper[entry]
        decided = (sigma * lower > self.radius[0]) | (sigma * upper < self.radius[1])
        known = lower >= (1 - self.precision) * upper
        return (above < 0) | decided | known | (look == self.n.shape[0] - 1)


@dataclasses.dataclass(frozen=True)
class Sequential:
    r"""Stops sampling when the answer is known, by a confidence sequence.

    Exactly one of `decide` and `precision` is given.

    The bounds of all looks hold together. With p the probability of the selected class,

    $$P(\exists j : L_j > p) \le \alpha, \qquad P(\exists j : U_j < p) \le \alpha_{\text{upper}}.$$

    The certificate therefore fails with probability at most alpha, whenever sampling stops. It is not possible inside
    jit.

    Sources: Voracek, NeurIPS 2024 (union and betting); Horvath et al., ICLR 2022 (stages).

    Attributes:
        decide: radius r, for the question whether the input is certifiably robust at r. Sampling stops when the
            question is answered.
        precision: share in (0, 1) within which the radius is to be known. Sampling stops when the certified radius is
            at least 1 - precision times the upper bound. With probability at least 1 - alpha - alpha_upper, the
            certified and the true radius of the selected class are then that close. Sampling also stops where the upper
            bound is 0.
        alpha_upper: failure probability of the upper bounds, for all looks together (default: alpha).
        sequence: kind of bounds. "union": Clopper-Pearson bounds; the last look has half of alpha, and the other looks
            share the other half equally. An image that needs all n samples gets nearly the bounds of a fixed n.
            "betting": bounds of a betting strategy (`betting_lower`), which need the fewest samples where the answer is
            clear. "stages": as union, with alpha in equal parts on n / 100, n / 10 and n samples; Horvath et al. draw
            each stage anew, here the samples are pooled. "fixed": one look at all n samples.
        look_every: smallest number of samples between looks of "union" and "betting". Later each look has 1.2 times the
            samples of the last.

    Raises:
        SettingError: a setting is out of its range, or not exactly one of decide and precision is given.
    """

    decide: float | None = None
    precision: float | None = None
    alpha_upper: float | None = None
    sequence: str = "union"
    look_every: int = 50
    name = "sequential"
    randomises = False
    votes_beta = None
    on_host = True
    may_end_early = True

    def __post_init__(self):
        if (self.decide is None) == (self.precision is None):
            raise SettingError(
                "a sequential estimation needs a radius to {decide} or a {precision} to reach, and not both"
            )
        if self.decide is not None and not 0 <= self.decide < math.inf:
            raise SettingError(f"{{decide}} is a radius and must be finite and not negative, not {self.decide}")
        if self.precision is not None and not 0 < self.precision < 1:
            raise SettingError(f"{{precision}} is a share of the radius and must lie in (0, 1), not {self.precision}")
        if self.alpha_upper is not None:
            bounds.check_alpha(self.alpha_upper, "alpha_upper")
        if self.sequence not in SEQUENCES:
            raise SettingError(f"unknown {{sequence}} {self.sequence!r}; known are {', '.join(SEQUENCES)}")
        if self.look_every < 1:
            raise SettingError(f"{{look_every}} must be at least 1, not {self.look_every}")

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that a results file has beside the counts."""
        return ("n", "radius_upper") + (() if self.decide is None else ("robust",))

    def check(self, n0: int, n, alpha: float, labels: bool) -> None:
        """Raises SettingError for numbers with which nothing can be certified."""
        check_one_number(n, "a sequential estimation")
        check_no_labels(labels, "a sequential estimation")
        self.check_alpha(alpha)
        check_smallest(n, alpha, bounds.smallest_n(alpha))

    def tables(self, n0: int, n: int, alpha: float, noise: Noise) -> tuple[None, "Looks"]:
        """The tables of the compiled loop."""
        return None, tables(self, n, alpha, noise)

    def queries(self, n: int) -> tuple[int, ...]:
        """The numbers of samples that are drawn at a time, one after another, where all n are drawn."""
        return tuple(np.diff(self.looks(n), prepend=0).tolist())

    def conclude(self, drawn) -> Certificate:
        """The certificate for an `estimates.Drawn`. It fails with probability at most alpha."""
        counts = drawn.selection.counts, drawn.estimation.counts
        look = np.asarray(drawn.looks) - 1
        return make_sequential_certificate(*counts, drawn.sigma, look, self, drawn.most, drawn.alpha, drawn.noise)

    def again(self, line, n0: int, n: int, alpha: float, noise: Noise) -> dict:
        """The fields that follow from the counts of one line of a results file. n alone if the line's n is no look."""
        looks = self.looks(n)
        if line.n not in looks:
            return {"n": looks[-1]}
        counts = np.array(line.counts0), np.array(line.counts)
        made = make_sequential_certificate(*counts, line.sigma, looks.index(line.n), self, n, alpha, noise)
        return {**fields_of(made), **self.fields(made), "n": line.n}

    def fields(self, certificate) -> dict:
        """The `columns` of one image's certificate, as Python numbers."""
        found = {"n": int(certificate.n), "radius_upper": float(certificate.radius_upper)}
        return found if self.decide is None else {**found, "robust": int(certificate.robust)}

    def recorded(self) -> dict:
        """The description of the estimate in a sidecar."""
        return {"name": self.name, **dataclasses.asdict(self)}

    def looks(self, n: int) -> tuple[int, ...]:
        """The number of samples at each look; the last is n."""
        if n > MAX_SEQUENTIAL_N:
            raise SettingError(f"{{n}} = {n}: a sequential estimation has at most {MAX_SEQUENTIAL_N} samples")
        if self.sequence == "fixed":
            return (n,)
        if self.sequence == "stages":
            return tuple(sorted({max(n // 100, 1), max(n // 10, 1), n}))
        looks, m = [], self.look_every
        while m < n:
            looks.append(m)
            m = max(m + self.look_every, math.ceil(RATIO * m))
        return (*looks, n)

    def lower(self, look, successes, n: int, alpha: float):
        """Lower bounds of the confidence sequence after counts `successes` at the looks `look`, float64."""
        look, looks = np.asarray(look), np.asarray(self.looks(n))
        if self.sequence == "betting":
            return betting_lower(successes, looks[look], alpha)
        return bounds.clopper_pearson_lower(successes, looks[look], alpha * self._shares(len(looks))[look])

    def upper(self, look, successes, n: int, alpha: float):
        """Upper bounds of the confidence sequence, as `lower`. alpha is used where alpha_upper is None."""
        failures = np.asarray(self.looks(n))[look] - np.asarray(successes)
        return 1.0 - self.lower(look, failures, n, alpha if self.alpha_upper is None else self.alpha_upper)

    def check_alpha(self, alpha: float) -> None:
        """Raises SettingError for a failure probability for which the tables are not exact enough."""
        for name, value in (("alpha", alpha), ("alpha_upper", self.alpha_upper)):
            if value is not None and value < LEAST_ALPHA:
                raise SettingError(
                    f"{{{name}}} of a sequential estimation must be at least {LEAST_ALPHA:g}, not {value}"
                )

    def aim(self, n: int, alpha: float, noise: Noise) -> Aim:
        """The certificate for which a search chooses sigma: that of all n samples."""
        return Aim(n, alpha, noise)

    def check_reach(self, sigma, n: int, alpha: float, noise: Noise) -> None:
        """Raises SettingError where no count of n samples at sigma could certify the radius asked about, or any."""
        self.check_alpha(alpha)
        sigma = float(np.max(sigma))
        lower = max(float(self.lower(len(self.looks(n)) - 1, n, n, alpha)) - noise.lost, 0.0)
        most = float(bounds.certified_radius(lower, sigma, noise.unit_radius))
        if most <= (self.decide or 0):
            raise SettingError(
                f"{{n}} = {n} samples at {{sigma}} {sigma:g} and {{alpha}} = {alpha} certify at most a radius of "
                f"{most:.4g} with the {{sequence}} {self.sequence!r}: more than {self.decide or 0:g} could never be "
                "certified"
            )

    def _shares(self, looks):
        """The shares of alpha of each look of a union bound; they sum to 1."""
        if self.sequence == "union" and looks > 1:
            return np.array([*[0.5 / (looks - 1)] * (looks - 1), 0.5])
        return np.full(looks, 1 / looks)

    def decision(self, radius, radius_upper):
        """The answer about the radius `decide`, from the bounds of the true one: 1 robust, 0 not, -1 undecided."""
        if self.decide is None:
            raise ValueError("no radius to decide was asked about")
        return np.where(np.greater(radius, self.decide), 1, np.where(np.less(radius_upper, self.decide), 0, -1))[()]


def check_one_number(n, what: str) -> None:
    """Raises SettingError where n is a number for each image, which `what` does not take."""
    if np.ndim(n) > 0:
        raise SettingError(f"{what} takes one {{n}} for all images; a number for each goes with Fixed")


def check_no_labels(labels: bool, what: str) -> None:
    """Raises SettingError where labels are given, by which `what` cannot stop."""
    if labels:
        raise SettingError(f"{what} does not stop where the class is wrong; give {{labels}} with Fixed or Tolerance")


def check_smallest(n, alpha: float, smallest: int) -> None:
    """Raises SettingError where n is less than `smallest`, the smallest number of samples that could certify."""
    if np.min(n) < smallest:
        raise SettingError(
            f"{{n}} = {n} samples can certify nothing at {{alpha}} = {alpha}: even if all agree the bound stays below "
            f"1/2. The smallest n that could is {smallest}"
        )


@functools.lru_cache(maxsize=8)
def tables(sequential: Sequential, n: int, alpha: float, noise: Noise = GAUSSIAN) -> Looks:
    """The tables of the estimation. Inside jit it stops only where the exact bounds say so too.

    Bounds are computed at all counts of up to 128 failures and at some of the others, and interpolated between.
    """
    looks, unit = sequential.looks(n), noise.unit_radius
    starts, lowers, uppers = [], [], []
    for look, m in enumerate(looks):
        many = np.round(np.geomspace(128, max(m, 129), 24 * math.ceil(math.log(m / 128 + 2)))).astype(int)
        failures = np.unique([*range(1, 129), *many, m - 1]).astype(int)
        failures = failures[(failures > 0) & (failures < m)]
        x, at = np.log(failures), np.log(np.maximum(np.arange(m), 1))
        lower = unit(np.maximum(sequential.lower(look, m - failures, n, alpha) - noise.lost, 0))
        upper = unit(np.minimum(sequential.upper(look, m - failures, n, alpha) + noise.lost, 1))
        if m > 2:
            lower, upper = (_interpolated(x, y, at, beyond) for y, beyond in ((lower, -np.inf), (upper, np.inf)))
        else:
            lower, upper = np.full((2, m), -np.inf)  # one or two samples bound nothing
        lower[-1] = unit(max(sequential.lower(look, m, n, alpha) - noise.lost, 0.0))
        upper[-1] = np.inf  # the arrays are for the counts 1..m
        start = int(np.argmax(upper > 0))
        starts.append(start + 1)
        lowers.append(lower[start:] - MARGIN)
        uppers.append(upper[start:] + MARGIN)
    offsets = np.cumsum([0, *map(len, lowers[:-1])])
    nothing = np.float32(np.nan)
    asked = (nothing, nothing)
    if sequential.decide is not None:
        r = np.float32(sequential.decide)
        asked = np.nextafter(r, np.float32(np.inf)), np.nextafter(r, np.float32(-np.inf))
    return Looks(
        n=np.asarray(looks, np.int32),
        start=np.asarray(starts, np.int32),
        offset=offsets.astype(np.int32),
        lower=np.concatenate(lowers).astype(np.float32),
        upper=np.concatenate(uppers).astype(np.float32),
        radius=np.asarray(asked, np.float32),
        precision=np.float32(nothing if sequential.precision is None else sequential.precision),
    )


def _interpolated(x, y, at, beyond):
    """y at the points between its values at x, in the order of counts; `beyond` outside of the finite values.

    Where alpha is very small and samples are few, a bound is 0 or 1 in float64, and infinite in probits.
    """
    there = np.isfinite(y)
    if there.sum() < 2:
        return np.full(len(at), beyond)
    x, y = x[there], y[there]
    return np.where((at < x[0]) | (at > x[-1]), beyond, interpolate.PchipInterpolator(x, y)(at))[::-1]


def betting_lower(successes, n, alpha: float):
    r"""Lower bounds of a proportion that hold with probability at least 1 - alpha at all n at once, float64.

    A gambler bets on more successes than p would give. The wealth is the mean of the likelihood ratio

        theta**k (1 - theta)**(n - k) / (p**k (1 - p)**(n - k))

    over thetas above p, drawn from Jeffreys' prior Beta(1/2, 1/2). Against the true p this wealth is a martingale that
    starts at 1. By Ville's inequality it ever reaches 1 / alpha with probability at most alpha. The bound is the p
    against which the wealth is 1 / alpha. The wealth falls in p up to k / n, and is at most 1 beyond.

    Voracek bets the whole prior (Krichevsky and Trofimov 1981). The half below p only loses against the tested p.
    Without it, lower bounds of Phi(1) to Phi(2) need 15 to 25% fewer samples. His program accepts 1 / (2 alpha), as if
    half of the prior lay to each side of p. That is too little: at alpha = 0.05 and p = 0.84 it exceeds p with
    probability 0.053 within 6000 samples.

    Args:
        successes: counts k, any shape, 0 <= k <= n.
        n: numbers of draws, at least 1; broadcasts against successes.
        alpha: failure probability in (0, 1).

    Raises:
        ValueError: a number is out of its range.
    """
    bounds.check_alpha(alpha)
    k, n = np.broadcast_arrays(np.asarray(successes, np.float64), np.asarray(n, np.float64))
    if np.any(k < 0) or np.any(k > n) or np.any(n < 1):
        raise ValueError("successes must lie between 0 and n, and n must be at least 1")
    k, none = np.maximum(k, 1), k == 0
    low, high = np.full(k.shape, -700.0), np.log(k / n)  # of log p; the wealth reaches 1 / alpha at low
    for _ in range(64):
        middle = (low + high) / 2
        rich = _log_wealth(middle, k, n) >= -math.log(alpha)
        low, high = np.where(rich, middle, low), np.where(rich, high, middle)
    return np.where(none, 0.0, np.exp(low))[()]


def _log_wealth(log_p, k, n):
    """The log of the wealth of `betting_lower` against p <= k / n."""
    log_q = np.log(-np.expm1(np.minimum(log_p, -1e-17)))
    share = special.betainc(n - k + 0.5, k + 0.5, -np.expm1(log_p)) / special.betainc(0.5, 0.5, -np.expm1(log_p))
    likelihood = k * log_p + np.where(k < n, (n - k) * log_q, 0.0)
    return special.betaln(k + 0.5, n - k + 0.5) - special.betaln(0.5, 0.5) + np.log(share) - likelihood


def walk(looks: Sequence[int], stops: Callable[[int, np.ndarray], np.ndarray], p: float) -> list[np.ndarray]:
    """The probability that samples of success probability p end at each look with each count; exact but for rounding.

    Dynamic programming over the counts at the looks: the number of successes between two looks is binomial.

    Args:
        looks: number of samples at each look, ascending.
        stops: (look, counts 0..n) -> whether to stop there. The last look always stops.
        p: success probability.

    Returns:
        For each look an array over its counts. All arrays together sum to 1.
    """
    ended, going, before = [], np.ones(1), 0
    for look, n in enumerate(looks):
        going = _add_samples(going, n - before, p)
        stop = stops(look, np.arange(n + 1)) | (look == len(looks) - 1)
        ended.append(np.where(stop, going, 0.0))
        going, before = np.where(stop, 0.0, going), n
    return ended


def _add_samples(distribution, n, p):
    """The distribution of a count after n more samples."""
    from scipy import signal, stats  # slow to import, and only the analysis needs it

    more = stats.binom.pmf(np.arange(n + 1), n, p)
    if min(distribution.size, more.size) < 200:
        return np.convolve(distribution, more)
    return np.maximum(signal.fftconvolve(distribution, more), 0.0)


class Outcome(NamedTuple):
    """The outcome of a sequential estimation at sigma = 1 where the probability is p; exact.

    samples: mean number of samples.
    radius: mean certified radius.
    exceeds: probability that the certified lower bound exceeds p; at most alpha.
    robust, not_robust: probabilities of the two claims about the radius asked about; 0 if none was asked about.
    """

    samples: float
    radius: float
    exceeds: float
    robust: float
    not_robust: float


def outcome(sequential: Sequential, n: int, alpha: float, p: float) -> Outcome:
    """The outcome of `certify` with these settings for an input of class probability p at sigma = 1."""
    looks = tables(sequential, n, alpha)
    stops = lambda look, counts: looks.stops(np, look, counts, np.float32(1))  # noqa: E731
    totals = np.zeros(5)
    for look, (m, chances) in enumerate(zip(looks.n.tolist(), walk(looks.n.tolist(), stops, p))):
        k = np.flatnonzero(chances > 1e-18)
        chances = chances[k]
        lower = sequential.lower(look, k, n, alpha)
        radius = bounds.certified_radius(lower, 1.0)
        figures = [np.full(k.shape, m), radius, lower > p, np.zeros(k.shape), np.zeros(k.shape)]
        if sequential.decide is not None:
            upper = bounds.certified_radius(sequential.upper(look, k, n, alpha), 1.0)
            decision = sequential.decision(radius, upper)
            figures[3:] = [decision == 1, decision == 0]
        totals += [float((chances * figure).sum()) for figure in figures]
    return Outcome(*totals)
