"""Attacks on smoothed classifiers: the nearest image that is found to be answered otherwise, checked by fresh samples.

A certificate is a lower bound of the distance to the nearest other answer. An attack gives an upper bound.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..bounds import check_alpha
from ..certification.cascade import Cascade, conclude_cascade, draw_stages, of_each_stage
from ..certification.certificate import check_prediction, check_search
from ..certification.estimates import Estimate, Fixed
from ..certification.procedure import draw_prediction, draw_search
from ..certification.verdict import ABSTAIN, make_prediction
from ..checks import UNIT, ValueRange, as_images, as_key, check_execution, check_sigma, instance_of, whole_number
from ..errors import SettingError
from ..sampling.classifiers import Classifier, as_pytree
from ..sampling.counts import default_batch_size
from ..sampling.devices import Device
from ..sampling.smoothing import GAUSSIAN, Noise, check_largest, check_noise
from ..sampling.streams import ATTACK, CHECK, stream
from ..search import Search
from .ascent import Ball, ascend

CLOSE = 1.005  # a failed and a successful distance nearer than this are not divided further
DOUBT = 2  # standard deviations of the looks by which the label has to lead where nothing is checked
_ATTACKED = "attacked=Smoothed(0.25), FrozenRule(0.25, search) or CascadeRule(Cascade((1.0, 0.5)))"
_MOST_DRAWS, _MOST_TRIES = 2**20, 1000


@dataclasses.dataclass(frozen=True)
class Attack:
    """The settings of an attack.

    An attempt is an ascent at one distance, for each sigma that is attacked. The first attempt is made just inside the
    certified radius. Then the distance grows until an attempt succeeds. The others divide the interval between the
    largest distance that failed and the smallest that succeeded.

    Attributes:
        attempts: number of distances that are tried, at most, from 1 to 1000.
        restarts: number of starting points of an ascent, from 1 to 1000: the best image so far, and random ones.
        steps: number of steps of an ascent, at least 1.
        draws: noisy copies through which each step is differentiated, at least 1.
        looks: noisy copies that compare the ends of the ascents, at least 1. An image at which the label clearly leads
            among them is not checked by fresh samples.
        inside: first distance, as a share of the certified radius, above 0 and below 1.

    Raises:
        SettingError: a setting is out of its range.
    """

    attempts: int = 8
    restarts: int = 2
    steps: int = 20
    draws: int = 64
    looks: int = 200
    inside: float = 0.99

    def __post_init__(self):
        for name in ("attempts", "restarts", "steps", "draws", "looks"):
            most = _MOST_TRIES if name in ("attempts", "restarts") else _MOST_DRAWS
            whole_number(name, getattr(self, name))
            if getattr(self, name) > most:
                raise SettingError(f"{{{name}}} must be at most {most}, not {getattr(self, name)}")
        if not 0 < self.inside < 1:
            raise SettingError(
                f"{{inside}} is a share of the radius and must be above 0 and below 1, not {self.inside}"
            )

    @property
    def samples(self) -> int:
        """The number of noisy copies that are differentiated for one sigma, at most. Each costs about three others."""
        return self.attempts * self.restarts * (self.steps + 1) * self.draws


class Answer(NamedTuple):
    """What a classifier answers at one image, by fresh samples.

    Attributes:
        prediction: the class, or ABSTAIN (-1).
        sigma: noise level at which it was answered.
        counts: class counts of the samples, (num_classes,), unless the classifier says otherwise.
    """

    prediction: int
    sigma: float
    counts: Int[np.ndarray, "numbers"]


@runtime_checkable
class Attacked(Protocol):
    """A classifier that is attacked: what an ascent differentiates, and what the classifier answers.

    method: its name in commands and results files.
    """

    @property
    def method(self) -> str: ...

    def parts(self, classify) -> Sequence[tuple[Classifier, float]]:
        """The smoothed classifiers that decide its answer, as (classifier, sigma). An ascent attacks one of them."""
        ...

    def check(self, n: int, alpha: float, value_range: ValueRange, noise: Noise) -> None:
        """Raises SettingError where n samples at `alpha` cannot decide an answer, or the noise does not fit."""
        ...

    def answer(self, classify, image: Float[Array, "h w c"], key, n: int, alpha: float, **program: Any) -> Answer:
        """The answer at `image`, by samples that `key` draws. A class is wrong with probability at most alpha.

        Args:
            program: `noise`, `batch_size` and `devices`, as for `certify`.
        """
        ...


@dataclasses.dataclass(frozen=True)
class Smoothed:
    """The classifier smoothed with one sigma, held fixed. All certificates are about such a classifier.

    Attributes:
        sigma: noise level, in the units of the image.
    """

    sigma: float

    method: ClassVar[str] = "cohen"

    def parts(self, classify):
        return [(classify, self.sigma)]

    def check(self, n, alpha, value_range, noise):
        check_prediction(self.sigma, n, alpha, value_range)
        check_largest(noise, self.sigma)

    def answer(self, classify, image, key, n, alpha, **program):
        counts = np.asarray(_counts(classify, image, self.sigma, key, n, **program))
        return Answer(int(make_prediction(counts, n, alpha).prediction), float(np.float32(self.sigma)), counts)


@dataclasses.dataclass(frozen=True)
class FrozenRule:
    """The rule that searches sigma anew at every input, and answers as the classifier smoothed with that sigma.

    No certificate is about this rule: a certificate holds for the sigma of one input, held fixed.

    Attributes:
        sigma: noise level at which the search starts.
        search: object that chooses sigma.
        n, alpha, estimate: those of the certificates for which it is chosen.
        levels: noise levels that are attacked; by default sigma, from which QCRS takes its class, and the upper end of
            the bracket.
    """

    sigma: float
    search: Search
    n: int = 100_000
    alpha: float = 0.001
    estimate: Estimate = Fixed()  # noqa: RUF009
    levels: tuple[float, ...] | None = None

    method: ClassVar[str] = "frozen"

    def parts(self, classify):
        ends = [self.sigma, self.search.sigma_upper]
        levels = [level for level in ends if level is not None] if self.levels is None else self.levels
        return [(classify, float(level)) for level in levels]

    def check(self, n, alpha, value_range, noise):
        check_prediction(self.sigma, n, alpha, value_range)
        check_search(self.search, self.sigma, value_range, noise)
        check_largest(noise, self.sigma)
        for _, level in self.parts(None):  # of any classifier
            check_sigma(level, value_range, "levels")
            check_largest(noise, level, "levels")

    def answer(self, classify, image, key, n, alpha, **program):
        tables = self.search.tables(self.estimate.aim(self.n, float(self.alpha), program["noise"]))
        own = (jnp.float32(self.sigma), key)
        chosen = draw_search(as_pytree(classify), image, own, self.search, tables, **program)
        sigma = self.sigma if chosen is None else float(chosen.sigma)
        counts = np.asarray(_counts(classify, image, sigma, key, n, **program))
        return Answer(int(make_prediction(counts, n, alpha).prediction), float(np.float32(sigma)), counts)


@dataclasses.dataclass(frozen=True)
class CascadeRule:
    """A cascade, which is one classifier for all inputs. Inside the radius of its certificate an attack fails.

    `Answer.counts` are then those of selection at all stages, followed by those of the other samples at all stages.

    Attributes:
        cascade: noise levels and thresholds of its stages.
        n0: number of samples of each stage that select, in a check.
    """

    cascade: Cascade
    n0: int = 100

    method: ClassVar[str] = "cascade"

    def parts(self, classify):
        networks = [classify] * len(self.cascade.sigmas) if classify is None or callable(classify) else classify
        return list(zip(networks, self.cascade.sigmas))

    def check(self, n, alpha, value_range, noise):
        self.cascade.check(self.n0, n, alpha, noise, value_range)

    def answer(self, classify, image, key, n, alpha, **program):
        networks = of_each_stage(classify, self.cascade, image.shape)
        drawn = draw_stages(networks, image, key, self.cascade, self.n0, n, float(alpha), **program)
        made = conclude_cascade(drawn)
        counts = np.concatenate([np.ravel(drawn.counts0), np.ravel(drawn.counts)])
        return Answer(int(made.prediction), float(made.sigma), counts)


def _counts(classify, image, sigma, key, n, **program):
    """Class counts of n estimation samples at an image that need not be on a grid: noise on a grid rounds it first."""
    return draw_prediction(as_pytree(classify), image, (jnp.float32(sigma), key), jnp.int32(n), **program)


class Nearest(NamedTuple):
    """The result of an attack on one image.

    Attributes:
        distance: L2 distance of the nearest image that was shown to be answered otherwise, rounded up, in the units of
            the image; infinite if none was found.
        image: that image, (h, w, c), float32; the original one if none was found.
        prediction: the class that is answered there; ABSTAIN (-1) if none was found.
        sigma: noise level at which it is answered; NaN if none was found.
        counts: class counts of the samples that showed it, (num_classes,); zeros if none was found.
        failed: largest distance below `distance` at which the attack failed; 0 if it failed nowhere.
        checks: number of images that were checked by fresh samples.
    """

    distance: Any
    image: Any
    prediction: Any
    sigma: Any
    counts: Any
    failed: Any
    checks: Any


def attack(
    classify: Classifier,
    image: Float[Array | np.ndarray, "h w c"],
    label: int | np.integer,
    attacked: Attacked,
    *,
    radius: int | float | np.floating = 0.0,
    key,
    settings: Attack = Attack(),  # noqa: B008
    n: int = 10_000,
    alpha: float = 0.001,
    noise: Noise = GAUSSIAN,
    value_range: ValueRange = UNIT,
    batch_size: int | None = None,
    devices: Sequence[Device] | None = None,
) -> Nearest:
    r"""Returns the nearest image, in L2, at which `attacked` was shown to answer another class than `label`.

    Projected gradient ascent looks for it at several distances. Each step differentiates the mean soft votes of fresh
    noisy copies. A candidate counts only if n other samples, drawn afresh for each candidate, show by PREDICT's test
    that the answer is another class.

    Let the attack make at most B checks, one for each attempt and each smoothed classifier that is attacked. Each check
    fails with probability at most alpha / B. So, with probability at least 1 - alpha over the samples of all checks of
    this image, every answer that they show is right, and the distance to the nearest image that is not answered
    `label` is at most `distance`.

    A certificate of `label` at `radius`, for the classifier that is attacked, excludes a distance below `radius`. Both
    statements together fail with a probability of at most the sum of their alphas. An attack that finds nothing proves
    nothing.

    The result is a function of the arguments. The gradients are sums of floating-point numbers, so another batch size,
    number of devices or kind of device may lead to another candidate. The counts of one candidate are the same there.

    Source: Athalye et al. 2018 (gradients through random inputs) and Salman et al. 2019 (through soft votes).

    Args:
        classify: as for `certify`; differentiable by the image in reverse mode.
        image: one image (h, w, c) in `value_range`.
        label: class whose answer is attacked, as that of a certificate.
        attacked: `Smoothed(sigma)`, `FrozenRule(sigma, search)` or `CascadeRule(cascade)`.
        radius: certified radius at which the first attempt is made; 0 without one.
        key: PRNG key. `certify` may have the same: its noise is other noise.
        settings: numbers of attempts, restarts, steps and copies.
        n: number of samples of each check.
        alpha: failure probability of all checks of this image together, in (0, 1).
        noise: noise that the smoothed classifiers add; one with radii in L2.
        value_range: lowest and highest value of an image; the image that is found lies in it. None accepts any values.
        batch_size: noisy copies per forward pass of a device.
        devices: devices that share the noisy copies; None leaves the choice to JAX.

    Returns:
        A `Nearest`, with numbers of NumPy.

    Raises:
        TypeError: an argument has the wrong kind; the message says what to write.
        ValueError: an argument is out of its range, the noise has radii of L1, or n samples can decide nothing at
            alpha / B.
    """
    return begin(
        classify,
        image,
        label,
        attacked,
        radius=radius,
        key=key,
        settings=settings,
        n=n,
        alpha=alpha,
        noise=noise,
        value_range=value_range,
        batch_size=batch_size,
        devices=devices,
    )()


def begin(
    classify: Classifier,
    image,
    label: Any,
    attacked: Attacked,
    *,
    radius: Any = 0.0,
    key,
    settings: Attack = Attack(),  # noqa: B008
    n: int = 10_000,
    alpha: float = 0.001,
    noise: Noise = GAUSSIAN,
    value_range: ValueRange = UNIT,
    batch_size: int | None = None,
    devices: Sequence[Device] | None = None,
) -> Callable[[], Nearest]:
    """The attack of `attack` after its first attempt: a function that makes the others and returns the result."""
    image = as_images(image, value_range)
    if image.ndim != 3:
        raise ValueError(f"image must have shape (h, w, c), not {image.shape}; attack one at a time")
    key, label, n = as_key(key), whole_number("label", label, 0), whole_number("n", n)
    check_execution(classify, batch_size, devices)
    check_attack(attacked, settings, n, alpha, noise, value_range)
    check_noise(noise, image, [sigma for _, sigma in attacked.parts(classify)])
    radius = float(radius)
    if not 0 <= radius < math.inf:
        raise SettingError(f"{{radius}} must be 0 or positive, and finite, not {radius}")
    share = share_of(alpha, settings, len(attacked.parts(classify)))
    program = {"noise": noise, "batch_size": batch_size or default_batch_size(image.shape)}
    program["devices"] = devices and tuple(devices)
    one = _OneImage(classify, image, label, attacked, radius, key, settings, n, share, value_range, program)
    return one.begin()


def check_attack(
    attacked: Attacked, settings: Attack, n: int, alpha: float, noise: Noise = GAUSSIAN, value_range: ValueRange = UNIT
) -> None:
    """Raises TypeError or SettingError for an attack that cannot be made, before anything is computed."""
    instance_of("settings", settings, (Attack,), "settings=Attack(attempts=8)")
    instance_of(
        "attacked",
        attacked,
        (Attacked,),
        "attacked=Smoothed(0.25), FrozenRule(0.25, search) or CascadeRule(Cascade((1.0, 0.5)))",
    )
    check_alpha(alpha)
    if noise.norm != "L2":
        raise SettingError(f"an attack moves images in L2; the {{noise}} {noise.name!r} has radii of {noise.norm}")
    parts = len(attacked.parts(None))
    share = share_of(alpha, settings, parts)
    try:
        attacked.check(n, share, value_range, noise)
    except SettingError as error:
        each = f"{settings.attempts * parts} checks, of {settings.attempts} {{attempts}}, share {{alpha}}"
        raise SettingError(f"{each}: {error.text}") from error


def share_of(alpha: float, settings: Attack, parts: int) -> float:
    """The failure probability of each check, of which there are at most one for each attempt and part."""
    return alpha / (settings.attempts * parts)


@dataclasses.dataclass(frozen=True)
class _OneImage:
    """The attack on one image. The attributes are the checked arguments of `attack`; `share` is alpha of a check."""

    classify: Classifier
    image: Float[Array, "h w c"]
    label: int
    attacked: Attacked
    radius: float
    key: Any
    settings: Attack
    n: int
    share: float
    value_range: ValueRange
    program: dict

    def begin(self) -> Callable[[], Nearest]:
        """Makes the first attempt. Returns a function that makes the others."""
        distance = self._distance(0, 0.0, math.inf)
        first = self._attempt(0, distance, [self.image] * len(self.parts))

        def finish():
            best, checks, failed, tried = None, 0, 0.0, distance
            candidates = first
            for attempt in range(1, self.settings.attempts + 1):
                found, made = self._checked(candidates, checks, best)
                checks += made
                if found is None:
                    failed = max(failed, tried)
                else:
                    best = found
                if attempt == self.settings.attempts or best and best.distance <= CLOSE * failed:
                    break
                tried = self._distance(attempt, failed, best.distance if best else math.inf)
                starts = [candidate.image for candidate in candidates]
                candidates = self._attempt(attempt, tried, starts)
            if best is None:
                return unchanged(self.image, len(candidates[0].counts), failed, checks)
            return _of_numpy(best._replace(failed=failed if failed < best.distance else 0.0, checks=checks))

        return finish

    @property
    def parts(self):
        return self.attacked.parts(self.classify)

    def _attempt(self, attempt, distance, starts):
        """The candidates of one distance, one for each part."""
        low, high = (-np.inf, np.inf) if self.value_range is None else self.value_range
        ball = Ball(self.image, np.float32(distance), np.float32(low), np.float32(high))
        keys = [stream(self.key, ATTACK, attempt * len(self.parts) + place) for place in range(len(self.parts))]
        return [
            ascend(classify, ball, start, self.label, sigma, key, self.settings, **self.program)
            for (classify, sigma), start, key in zip(self.parts, starts, keys)
        ]

    def _distance(self, attempt, failed, succeeded):
        """The distance of an attempt, by the largest that failed and the smallest that succeeded."""
        if succeeded < math.inf:
            return math.sqrt(failed * succeeded) if failed else succeeded / 2
        smallest = min(sigma for _, sigma in self.parts) / 4
        if attempt == 0:
            return self.settings.inside * self.radius if self.radius else smallest
        return max(1.5 * failed, smallest) if attempt == 1 else 2 * failed

    def _checked(self, candidates, checks, best):
        """The nearest candidate whose other answer fresh samples show, or None; and the number of checks."""
        leads = [candidate.lead(self.label) for candidate in candidates]
        made = 0
        for place in sorted(range(len(candidates)), key=lambda place: -leads[place]):
            if leads[place] <= -DOUBT * math.sqrt(self.settings.looks):
                break
            image = np.asarray(candidates[place].image)
            away = distance_between(image, np.asarray(self.image))
            if best and away >= best.distance:
                continue
            key = stream(self.key, CHECK, checks + made)
            answer = self.attacked.answer(self.classify, jnp.asarray(image), key, self.n, self.share, **self.program)
            made += 1
            if answer.prediction not in (self.label, ABSTAIN):
                return Nearest(away, image, answer.prediction, answer.sigma, answer.counts, 0.0, 0), made
        return None, made


def distance_between(image, other) -> float:
    """The L2 distance of two images of float32, rounded up, float64."""
    square = math.fsum(((np.asarray(image, np.float64) - np.asarray(other, np.float64)) ** 2).ravel())
    return math.nextafter(math.sqrt(square) * (1 + 2**-50), math.inf) if square else 0.0


def unchanged(image, classes: int, failed: float = 0.0, checks: int = 0) -> Nearest:
    """The result of an attack that found nothing."""
    nothing = np.zeros(classes, np.int32)
    return _of_numpy(Nearest(math.inf, np.asarray(image), ABSTAIN, math.nan, nothing, failed, checks))


def _of_numpy(found):
    """A `Nearest` with numbers of NumPy."""
    kinds = (np.float64, np.asarray, np.int64, np.float64, np.asarray, np.float64, np.int64)
    return Nearest(*(kind(value) for kind, value in zip(kinds, found)))
