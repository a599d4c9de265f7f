"""Sequential estimation: bounds of a probability that may be looked at while the samples come, and when to stop.

At looks j = 0, 1, ... an image has n_j certification samples in all, k of them of the selected class. A confidence
sequence gives a lower and an upper bound for every (j, k):

    P(some lower bound exceeds p) <= alpha  and  P(some upper bound is below p) <= beta,  each over all looks at once.

Sampling may therefore stop by any rule that sees nothing but the samples so far, and the bounds of the look at which it
stops hold: the certificate's lower bound fails with probability at most alpha, as one of a fixed n does. For a decision
at radius r, with t = Phi(r / sigma): "robust", p > t, is claimed where the lower bound exceeds t, and so wrongly with
probability at most alpha; "not robust", p <= t, where the upper bound is below t, wrongly with probability at most
beta. Of the two claims the true p makes only one wrong, so that neither error is shared between them.

`walk` computes exactly, by dynamic programming, with what probability the samples end at each look and count.

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
from .verdict import Certificate, fields_of, make_sequential_certificate

SEQUENCES = ("union", "betting", "stages", "fixed")
RATIO = 1.2  # between looks, once it makes a longer step than `step`
MARGIN = 5e-5  # probits by which tables understate lower bounds and overstate upper ones: interpolation and float32
LEAST_ALPHA = 1e-15  # down to which the margin was tried
MAX_SEQUENTIAL_N = 2**22  # there are tables of all counts at all looks


class Looks(NamedTuple):
    """What a sequential estimation looks up inside jit. J looks.

    n: samples at each look, ascending.
    start: the smallest count at each look whose upper bound exceeds 1/2. Below it the image abstains for certain.
    offset: where the entries of each look begin in the tables; they are of the counts start..n.
    lower, upper: bounds as radii at sigma = 1, that is in probits.
    radius: (most, least) in float32 between which the radius asked about lies; NaN for none.
    precision: the share of the radius within which it is to be known; NaN for none.
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
    """The settings of a sequential estimation: when to stop, and by which confidence sequence. Exactly one of the first
    two is given.

    Attributes:
        decide: the radius r of the question whether the input is certifiably robust at r: sampling stops when it is
            answered.
        precision: sampling stops when the radius is known within this share: the certified radius is then at least
            1 - precision times the upper bound, and so, with probability at least 1 - alpha - alpha_upper, the
            certified and the true radius of the selected class are that close. It also stops where the upper bound is
            0.
        alpha_upper: failure probability of the upper bounds, for all looks together; alpha by default.
        sequence: "union": Clopper-Pearson bounds of which the last look has half of alpha and the others equal parts of
            the other half; where all n samples are needed nearly those of a fixed n. "betting": `betting_lower`; needs
            the fewest samples where the answer is clear. "stages": as union, with alpha in equal parts on n / 100,
            n / 10 and n samples; Horvath et al. draw each stage anew, here the samples are pooled. "fixed": one look at
            all n.
        look_every: samples between looks of the first two, at least; later each look has 1.2 times the samples of the
            last.
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
        """What a results file keeps beside the counts."""
        return ("n", "radius_upper") + (() if self.decide is None else ("robust",))

    def check(self, n0: int, n, alpha: float, labels: bool) -> None:
        """Raises SettingError for numbers with which nothing can be certified."""
        check_one_number(n, "a sequential estimation")
        check_no_labels(labels, "a sequential estimation")
        self.check_alpha(alpha)
        check_smallest(n, alpha, bounds.smallest_n(alpha))

    def tables(self, n0: int, n: int, alpha: float, noise: Noise) -> tuple[None, "Looks"]:
        """What the compiled loop looks up."""
        return None, tables(self, n, alpha, noise)

    def queries(self, n: int) -> tuple[int, ...]:
        """How many samples are drawn at a time, one after another, where all n are drawn."""
        return tuple(np.diff(self.looks(n), prepend=0).tolist())

    def conclude(self, drawn) -> Certificate:
        """The certificate of an `estimates.Drawn`; fails with probability at most alpha."""
        counts = drawn.selection.counts, drawn.estimation.counts
        look = np.asarray(drawn.looks) - 1
        return make_sequential_certificate(*counts, drawn.sigma, look, self, drawn.most, drawn.alpha, drawn.noise)

    def again(self, line, n0: int, n: int, alpha: float, noise: Noise) -> dict:
        """What follows from the counts of one line of a results file; that n is no look where it stopped at none."""
        looks = self.looks(n)
        if line.n not in looks:
            return {"n": looks[-1]}
        counts = np.array(line.counts0), np.array(line.counts)
        made = make_sequential_certificate(*counts, line.sigma, looks.index(line.n), self, n, alpha, noise)
        return {**fields_of(made), **self.fields(made), "n": line.n}

    def fields(self, certificate) -> dict:
        """The `columns` of one image's certificate, in Python's own numbers."""
        found = {"n": int(certificate.n), "radius_upper": float(certificate.radius_upper)}
        return found if self.decide is None else {**found, "robust": int(certificate.robust)}

    def recorded(self) -> dict:
        """What a sidecar says of it."""
        return {"name": self.name, **dataclasses.asdict(self)}

    def looks(self, n: int) -> tuple[int, ...]:
        """How many samples there are at each look, the last n."""
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
        """Upper bounds of the confidence sequence, as `lower`; alpha is what alpha_upper is by default."""
        failures = np.asarray(self.looks(n))[look] - np.asarray(successes)
        return 1.0 - self.lower(look, failures, n, alpha if self.alpha_upper is None else self.alpha_upper)

    def check_alpha(self, alpha: float) -> None:
        """Raises SettingError for a failure probability for which the tables are not exact enough."""
        for name, value in (("alpha", alpha), ("alpha_upper", self.alpha_upper)):
            if value is not None and value < LEAST_ALPHA:
                raise SettingError(
                    f"{{{name}}} of a sequential estimation must be at least {LEAST_ALPHA:g}, not {value}"
                )

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
        """The shares of alpha that each look of a union bound has; 1 in all."""
        if self.sequence == "union" and looks > 1:
            return np.array([*[0.5 / (looks - 1)] * (looks - 1), 0.5])
        return np.full(looks, 1 / looks)

    def decision(self, radius, radius_upper):
        """What is claimed of the radius asked about, from the bounds of the true one: 1 robust, 0 not, -1 undecided."""
        if self.decide is None:
            raise ValueError("no radius to decide was asked about")
        return np.where(np.greater(radius, self.decide), 1, np.where(np.less(radius_upper, self.decide), 0, -1))[()]


def check_one_number(n, what: str) -> None:
    """Raises SettingError where `what` is asked of another number of samples for each image."""
    if np.ndim(n) > 0:
        raise SettingError(f"{what} takes one {{n}} for all images; a number for each goes with Fixed")


def check_no_labels(labels: bool, what: str) -> None:
    """Raises SettingError where `what` is asked to stop where the class is wrong."""
    if labels:
        raise SettingError(f"{what} does not stop where the class is wrong; give {{labels}} with Fixed or Tolerance")


def check_smallest(n, alpha: float, smallest: int) -> None:
    """Raises SettingError for fewer than the `smallest` number of samples that could certify."""
    if np.min(n) < smallest:
        raise SettingError(
            f"{{n}} = {n} samples can certify nothing at {{alpha}} = {alpha}: even if all agree the bound stays below "
            f"1/2. The smallest n that could is {smallest}"
        )


@functools.lru_cache(maxsize=8)
def tables(sequential: Sequential, n: int, alpha: float, noise: Noise = GAUSSIAN) -> Looks:
    """What the estimation looks up. Inside jit it stops only where the exact bounds say so too.

    Bounds are computed at all counts of up to 128 failures, at fewer of the others, and interpolated.
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
            lower, upper = np.full((2, m), -np.inf)  # one or two samples tell nothing
        lower[-1] = unit(max(sequential.lower(look, m, n, alpha) - noise.lost, 0.0))
        upper[-1] = np.inf  # of counts 1..m, each
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
    """y between its values at x, in the order of counts; `beyond` outside of those that are finite.

    Where alpha is very small and samples are few, a bound is 0 or 1 in float64, and infinite in probits.
    """
    there = np.isfinite(y)
    if there.sum() < 2:
        return np.full(len(at), beyond)
    x, y = x[there], y[there]
    return np.where((at < x[0]) | (at > x[-1]), beyond, interpolate.PchipInterpolator(x, y)(at))[::-1]


def betting_lower(successes, n, alpha: float):
    """Lower bounds of a proportion that hold with probability at least 1 - alpha at all n at once, float64.

    A gambler bets on more successes than p would give. Theirs is the mean, over thetas above p drawn from Jeffreys'
    prior Beta(1/2, 1/2), of the likelihood ratio theta**k (1 - theta)**(n - k) / (p**k (1 - p)**(n - k)). Against the
    true p this wealth is a martingale that starts at 1, and by Ville's inequality it ever reaches 1 / alpha with
    probability at most alpha. The bound is the p against which it is 1 / alpha: the wealth falls in p up to k / n, and
    is at most 1 beyond.

    Voracek bets the whole prior (Krichevsky and Trofimov 1981). The half below p only loses against what is tested, and
    without it lower bounds of Phi(1) to Phi(2) need 15 to 25% fewer samples. His program lets 1 / (2 alpha) do, as if
    half of the prior lay to each side of p. That is too little: at alpha = 0.05 and p = 0.84 it claims less than p with
    probability 0.053 within 6000 samples.

    Args:
        successes: counts k, any shape, 0 <= k <= n.
        n: numbers of draws, at least 1; broadcasts against successes.
        alpha: failure probability in (0, 1).
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

    Dynamic programming over the counts of the looks: the number of successes between two looks is binomial.

    Args:
        looks: samples at each look, ascending.
        stops: (look, counts 0..n) -> whether to stop there. The last look stops everything.

    Returns:
        for each look an array over its counts, which together sum to 1.
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
    """What a sequential estimation at sigma = 1 comes to where the probability is p; exact.

    samples: mean number of samples.
    radius: mean certified radius.
    exceeds: probability that the certified lower bound exceeds p; at most alpha.
    robust, not_robust: probabilities of the two claims about the radius asked about; 0 where none is.
    """

    samples: float
    radius: float
    exceeds: float
    robust: float
    not_robust: float


def outcome(sequential: Sequential, n: int, alpha: float, p: float) -> Outcome:
    """What `certify` with these settings comes to for an input of class probability p at sigma = 1."""
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
