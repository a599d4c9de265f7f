r"""The cascade: one classifier for every input that answers at the first of several noise levels with a majority.

A certificate of QCRS belongs to the sigma of its image. The cascade is one classifier for all inputs. Let

$$u_{k,y}(x) = \sigma_k \, \Phi^{-1}\left(P(f_k(x + \sigma_k Z) = y)\right),$$

which changes by at most the distance by which x moves, for every stage k and class y (Salman et al. 2019). Stage k
answers y where u_{k,y}(x) > tau_k, with tau_k >= 0, so that at most one class can pass. Otherwise the next stage is
asked. After the last one there is no answer. The certified radius of a class c is

$$R_c = \max_d \; \min\left(u_{d,c} - \tau_d, \; \min_{k < d, \, y \ne c} (\tau_k - u_{k,y})\right).$$

Within R_c every stage before d answers c or passes on, because no other class can pass its threshold, and stage d
answers c if it is asked. Jeong and Shin (NeurIPS 2023) take for d the stage at which x itself is answered. The maximum
over d is never smaller.

The bounds of the probabilities share alpha. The class, and the number of stages that are sampled, follow from the
selection samples of all stages. Other samples certify.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .. import bounds
from ..bounds import clopper_pearson_lower, rounded_down
from ..checks import UNIT, ValueRange, as_image_keys, as_images, check_execution, check_sigma, instance_of, whole_number
from ..errors import SettingError
from ..sampling.classifiers import Classifier, as_pytree, num_classes
from ..sampling.counts import default_batch_size
from ..sampling.devices import Device
from ..sampling.smoothing import GAUSSIAN, Noise, check_noise
from ..sampling.streams import ESTIMATION, SELECTION
from .certificate import MAX_N
from .classes import TYPICAL_BUCKETS, numbers_alone
from .procedure import draw_stage
from .verdict import ABSTAIN, Certificate, Prediction, Stages

MOST_STAGES = 20


@dataclasses.dataclass(frozen=True)
class Cascade:
    """A classifier that answers at the first of its noise levels where a class has a majority.

    Attributes:
        sigmas: noise level of each stage, descending, in the units of the images.
        tau: thresholds of the stages, or one for all: stage k answers a class whose radius at x exceeds tau_k. At 0
            that is a class with more than half of the copies.

    Raises:
        SettingError: a number is out of its range, or there is not one threshold for each stage.
    """

    sigmas: tuple[float, ...]
    tau: float | tuple[float, ...] = 0.0

    def __post_init__(self):
        sigmas = tuple(float(sigma) for sigma in self.sigmas)
        given = self.tau if isinstance(self.tau, Sequence) else (self.tau,)
        tau = tuple(float(each) for each in given)
        tau = tau * len(sigmas) if len(tau) == 1 else tau
        if not 1 <= len(sigmas) <= MOST_STAGES:
            raise SettingError(f"{{sigmas}} has {len(sigmas)} noise levels; a cascade has 1 to {MOST_STAGES} stages")
        if not all(0 < sigma < math.inf for sigma in sigmas) or list(sigmas) != sorted(sigmas, reverse=True):
            raise SettingError(f"{{sigmas}} must be positive, the largest first, not {', '.join(map(str, sigmas))}")
        if len(tau) != len(sigmas) or not all(0 <= each < math.inf for each in tau):
            raise SettingError(
                f"{{tau}} must be one number of at least 0, or one for each of the {len(sigmas)} stages, not "
                f"{', '.join(map(str, tau))}"
            )
        object.__setattr__(self, "sigmas", sigmas)
        object.__setattr__(self, "tau", tau)

    def check(self, n0: int, n: int, alpha: float, noise: Noise, value_range: ValueRange = UNIT) -> None:
        """Raises SettingError for numbers with which nothing can be certified, before anything is computed."""
        bounds.check_alpha(alpha)
        bounds.check_asked_alpha(alpha)
        check_sigma(self.sigmas, value_range, "sigmas")
        if max(self.sigmas) > noise.largest_sigma:
            raise SettingError(
                f"{{sigmas}} has {max(self.sigmas):g}: the {{noise}} {noise.name!r} can be drawn up to "
                f"{noise.largest_sigma:.4g}"
            )
        if not 1 <= n0 <= MAX_N or not 1 <= n <= MAX_N:
            raise SettingError(f"{{n0}} = {n0} and {{n}} = {n} must lie between 1 and {MAX_N}")
        least = int(bounds.smallest_n(alpha))
        if n < least:
            raise SettingError(
                f"{{n}} = {n} samples can certify nothing at {{alpha}} = {alpha}; the smallest n that could is {least}"
            )

    def certificate(self, counts0, counts, n0: int, n: int, alpha: float, noise: Noise = GAUSSIAN) -> Certificate:
        """The certificate that follows from counts, each (*m, stages, num_classes). Pure; only outside jit.

        Args:
            counts0: class counts of the n0 selection samples of every stage.
            counts: class counts of the n samples of every stage that the selection samples ask for; zeros elsewhere.
        """
        return _certificate(self, np.asarray(counts0), np.asarray(counts), n0, n, float(alpha), noise)

    @property
    def thresholds(self) -> tuple[float, ...]:
        """The threshold of each stage."""
        return self.tau if isinstance(self.tau, tuple) else (self.tau,) * len(self.sigmas)

    def recorded(self) -> dict:
        """The description of the cascade in a sidecar."""
        return {"method": "cascade", "name": "cascade", "sigmas": list(self.sigmas), "tau": list(self.thresholds)}


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=("counts0", "counts"),
    meta_fields=("cascade", "n0", "n", "alpha", "noise"),
)
@dataclasses.dataclass(frozen=True)
class DrawnCascade:
    """The samples of a cascade for one image or several: a pytree of arrays. `*m` is () or (images,).

    counts0: class counts of the selection samples of every stage, (*m, stages, num_classes).
    counts: class counts of the samples that certify, of the stages that are sampled; zeros elsewhere.
    cascade, n0, n, alpha, noise: the arguments of the request.
    """

    counts0: Int[Array, "*m stages num_classes"]
    counts: Int[Array, "*m stages num_classes"]
    cascade: Cascade
    n0: int
    n: int
    alpha: float
    noise: Noise


def certify_cascade(
    classify: Classifier | Sequence[Classifier],
    images: Float[Array | np.ndarray, "*m h w c"],
    cascade: Cascade,
    *,
    key,
    n0: int = 100,
    n: int = 100_000,
    alpha: float = 0.001,
    noise: Noise = GAUSSIAN,
    value_range: ValueRange = UNIT,
    batch_size: int | None = None,
    devices: Sequence[Device] | None = None,
) -> Certificate:
    """Returns a certified radius of the cascade for each image.

    With probability at least 1 - alpha for each image, over its certification samples: the classifier that answers at
    the first stage whose smoothed classifier has a class above its threshold gives `prediction` at every input within
    `radius` of the image. It is one classifier for all inputs; nothing in it belongs to the image. The head of
    `certification/cascade.py` has the formula.

    Args:
        classify: one classifier for all stages, or a sequence with one for each.
        images: one image (h, w, c) of floats in `value_range`, or several (m, h, w, c).
        cascade: noise levels and thresholds of the stages.
        key: PRNG key, as for `certify`. With one stage the samples are those of `certify`.
        n0: number of samples at every stage that select the class, and the stages to be sampled.
        n: number of samples that certify, at each stage that is sampled.
        alpha, noise, value_range, batch_size, devices: as for `certify`.

    Returns:
        A Certificate. `stage` is the number d of the formula, and `stages` has the counts of all stages. Its sigma,
        pa_lower, n and counts are those of stage d.

    Raises:
        TypeError, ValueError: as for `certify`.
    """
    return conclude_cascade(
        draw_cascade(
            classify,
            images,
            cascade,
            key=key,
            n0=n0,
            n=n,
            alpha=alpha,
            noise=noise,
            value_range=value_range,
            batch_size=batch_size,
            devices=devices,
        )
    )


def draw_cascade(
    classify: Classifier | Sequence[Classifier],
    images: Float[Array | np.ndarray, "*m h w c"],
    cascade: Cascade,
    *,
    key,
    n0: int = 100,
    n: int = 100_000,
    alpha: float = 0.001,
    noise: Noise = GAUSSIAN,
    value_range: ValueRange = UNIT,
    batch_size: int | None = None,
    devices: Sequence[Device] | None = None,
) -> DrawnCascade:
    """Returns the samples of `certify_cascade` as soon as the devices are at work. `conclude_cascade` continues.

    Jit- and vmap-compatible. Arguments and errors are those of `certify_cascade`.
    """
    images = as_images(images, value_range)
    keys = as_image_keys(key, images)
    n0, n = whole_number("n0", n0), whole_number("n", n)
    instance_of("cascade", cascade, (Cascade,), "Cascade((1.0, 0.5, 0.25)) with the noise levels of the stages")
    cascade.check(n0, n, alpha, noise, value_range)
    check_noise(noise, images, cascade.sigmas, "sigmas")
    networks = of_each_stage(classify, cascade, images.shape[-3:])
    for network in networks:
        check_execution(network, batch_size, devices)

    program = {"noise": noise, "batch_size": batch_size, "devices": devices and tuple(devices)}
    return draw_stages(networks, images, keys, cascade, n0, n, float(alpha), **program)


def draw_stages(
    networks, images, keys, cascade: Cascade, n0: int, n: int, alpha: float, *, noise, batch_size, devices
) -> DrawnCascade:
    """`draw_cascade` of checked arguments. Images need not be on a grid: noise on a grid rounds them first."""

    def draw(stage, purpose, number):
        return draw_stage(
            networks[stage],
            images,
            (keys, jnp.broadcast_to(jnp.asarray(number, jnp.int32), images.shape[:-3])),
            jnp.float32(cascade.sigmas[stage]),
            jnp.int32(purpose),
            jnp.int32(stage),
            noise=noise,
            batch_size=batch_size or default_batch_size(images.shape),
            devices=devices,
        )

    stages = range(len(cascade.sigmas))
    counts0 = jnp.stack([draw(stage, SELECTION, n0) for stage in stages], axis=-2)
    last = _last_stage(counts0, *_tables(cascade, n0, n, alpha, noise))
    counts = [draw(stage, ESTIMATION, jnp.where(stage <= last, n, 0)) for stage in stages]
    return DrawnCascade(counts0, jnp.stack(counts, axis=-2), cascade, n0, n, alpha, noise)


def conclude_cascade(drawn: DrawnCascade) -> Certificate:
    """Returns the certificate for the samples of `draw_cascade`, after waiting for them; float64, outside jit."""
    numbers = drawn.n0, drawn.n, drawn.alpha, drawn.noise
    return drawn.cascade.certificate(drawn.counts0, drawn.counts, *numbers)


def predict_cascade(
    classify: Classifier | Sequence[Classifier],
    images: Float[Array | np.ndarray, "*m h w c"],
    cascade: Cascade,
    *,
    key,
    n0: int = 100,
    n: int = 100_000,
    alpha: float = 0.001,
    **options,
) -> Prediction:
    """Returns the cascade's class for each image, or ABSTAIN.

    With probability at least 1 - alpha for each image the answer is ABSTAIN or the cascade's. Arguments and errors are
    those of `certify_cascade`. `counts` are those of all stages, (*m, stages, num_classes).
    """
    certified = certify_cascade(classify, images, cascade, key=key, n0=n0, n=n, alpha=alpha, **options)
    assert certified.stages is not None
    return Prediction(certified.prediction, certified.stages.counts)


def of_each_stage(classify, cascade, image_shape):
    """The classifiers of all stages as pytrees."""
    if not isinstance(classify, Sequence):
        return [as_pytree(classify)] * len(cascade.sigmas)
    networks = list(classify)
    if len(networks) != len(cascade.sigmas):
        raise SettingError(
            f"classify has {len(networks)} classifiers for {len(cascade.sigmas)} stages; give one for all, or one for "
            "each"
        )
    classes = [num_classes(network, image_shape) for network in networks]
    if len(set(classes)) > 1:
        raise SettingError(f"classify: the classifiers of the stages have {classes} classes; they must have the same")
    return [as_pytree(network) for network in networks]


def last_stage(xp, counts0, own, rival):
    """(last stage to be sampled, class) for selection counts (*m, stages, num_classes), by the radii to be expected.

    The tables are those of `_tables`. They are only looked up and compared, so the answer is the same on every device
    and on the host.
    """
    largest = counts0.max(axis=-1, keepdims=True)
    top = xp.arange(counts0.shape[-1]) == xp.argmax(counts0, axis=-1)[..., None]
    second = xp.where(top, -1, counts0).max(axis=-1, keepdims=True)
    others = xp.where(top, second, largest)
    best, before = None, None  # by last stage: axis -2 of (*m, last, num_classes)
    for stage in range(counts0.shape[-2]):
        value = _of_last(xp, own[:, stage], counts0[..., stage, :])
        if before is not None:
            value = xp.minimum(value, before)
        limit = _of_last(xp, rival[:, stage], others[..., stage, :])
        best = value if best is None else xp.maximum(best, value)
        before = limit if before is None else xp.minimum(before, limit)
    assert best is not None
    last = xp.argmax(best.max(axis=-1), axis=-1)
    best = xp.take_along_axis(best, last[..., None, None], axis=-2)[..., 0, :]
    own0 = xp.take_along_axis(counts0, last[..., None, None], axis=-2)[..., 0, :]
    return last, xp.argmax(xp.where(best == best.max(axis=-1, keepdims=True), own0, -1), axis=-1)


def _of_last(xp, table, counts):
    """table[last, count] for each last stage, (*m, last, num_classes)."""
    return xp.moveaxis(xp.asarray(table)[:, counts], 0, -2)


_last_stage = jax.jit(lambda counts0, own, rival: last_stage(jnp, counts0, own, rival)[0])


@functools.lru_cache(maxsize=16)
def _tables(cascade: Cascade, n0: int, n: int, alpha: float, noise: Noise):
    """The expected limits of the radius by the last stage that is sampled, the stage, and a count of n0; float32.

    The first table has u - tau of a class with that count. The second has tau - u of the other classes, the most
    frequent of which has that count. Where the stage comes after the last one, the first is -inf.
    """
    stages = len(cascade.sigmas)
    expected = np.round(n * (np.arange(n0 + 1) + 0.5) / (n0 + 1))
    own = np.full((stages, stages, n0 + 1), -np.inf)
    rival = np.full((stages, stages, n0 + 1), np.inf)
    radius = lambda successes, share: noise.unit_radius(  # noqa: E731
        np.maximum(clopper_pearson_lower(successes, n, share) - noise.lost, 0)
    )
    for last in range(stages):
        for stage in range(last + 1):
            sigma, tau = np.float32(cascade.sigmas[stage]), cascade.thresholds[stage]
            share = _share(alpha, last, stage)
            own[last, stage] = sigma * radius(expected, share) - tau
            rival[last, stage] = tau + sigma * radius(n - expected, alpha / (last + 1) / 2 / TYPICAL_BUCKETS)
    return own.astype(np.float32), rival.astype(np.float32)


def _share(alpha, last, stage):
    """The part of alpha for the class itself at a stage: the last stage that is sampled has no other bounds."""
    return alpha / (last + 1) * np.where(stage < last, 0.5, 1.0)


def _certificate(cascade, counts0, counts, n0, n, alpha, noise) -> Certificate:
    last, selected = last_stage(np, counts0, *_tables(cascade, n0, n, alpha, noise))
    last, selected = np.asarray(last), np.asarray(selected)
    place = np.arange(counts0.shape[-2])
    sampled = place <= last[..., None]
    sigma = np.asarray(cascade.sigmas, np.float32)

    successes = np.take_along_axis(counts, selected[..., None, None], axis=-1)[..., 0]
    lower = clopper_pearson_lower(successes, n, _share(alpha, last[..., None], place))
    lower = np.where(sampled, np.maximum(lower - noise.lost, 0), 0)
    own = _minus(sigma * rounded_down(noise.unit_radius(lower)), np.array(cascade.thresholds))
    half = alpha / (last[..., None] + 1) / 2
    outside = np.maximum(_outside(counts0, counts, selected, n, half, noise), lower)
    rival = _plus(sigma * rounded_down(noise.unit_radius(outside)), np.array(cascade.thresholds))

    before = np.minimum.accumulate(rival, axis=-1)
    value = np.where(sampled, own, -np.inf)
    value[..., 1:] = np.minimum(value[..., 1:], before[..., :-1])
    stage, radius = np.argmax(value, axis=-1), value.max(axis=-1)
    at = lambda array: np.take_along_axis(array, stage[..., None], axis=-1)[..., 0]  # noqa: E731
    of_stage = lambda array: np.take_along_axis(array, stage[..., None, None], axis=-2)[..., 0, :]  # noqa: E731
    abstains = ~(radius > 0)
    return Certificate(
        prediction=np.where(abstains, ABSTAIN, selected)[()],
        radius=np.where(abstains, 0.0, radius)[()],
        pa_lower=at(lower)[()],
        sigma=sigma[stage][()],
        counts=of_stage(counts),
        counts0=of_stage(counts0),
        n=np.full(stage.shape, n)[()],
        stage=np.where(abstains, -1, stage)[()],
        stages=Stages(counts0, counts, np.where(sampled, n, 0)),
    )


def _minus(limit, tau):
    return np.where(tau > 0, np.nextafter(limit - tau, -np.inf), limit)


def _plus(limit, tau):
    return np.where(tau > 0, np.nextafter(limit + tau, -np.inf), limit)


def _outside(counts0, counts, selected, n, alpha, noise):
    """A lower bound of the share outside each other class, for each stage, (*m, stages); float64.

    All other classes have it at once, with probability at least 1 - alpha over the n samples of a stage. The most
    frequent other classes are alone and the rest shares one bucket, as in the bound over classes; or all are alone.
    """
    classes = counts0.shape[-1]
    chosen = np.arange(classes) == selected[..., None, None]
    order = np.argsort(np.where(chosen, 1, -counts0), axis=-1, stable=True)
    rank = np.argsort(order, axis=-1, stable=True)
    none = n - counts.sum(axis=-1)
    numbers = [*numbers_alone(classes), classes - 1]
    expected, bound = [], []
    total = counts0.sum(axis=-1) + 1.0
    shares = (np.sort(-np.where(chosen, -1, counts0), axis=-1)[..., :-1] * -1 + 0.5 / (classes - 1)) / total[..., None]
    for number in numbers:
        buckets = number + (number < classes - 1)
        rest = shares[..., number:].sum(axis=-1)
        rest = rest + np.sqrt(rest * np.maximum(1 - rest, 0) / total + 1 / total**2) if number < classes - 1 else rest
        largest = np.minimum(np.maximum(shares[..., 0], rest), 1.0)
        expected.append(clopper_pearson_lower(np.round(n * (1 - largest)), n, alpha / buckets))
        alone = rank < number
        most = np.where(alone, counts, 0).max(axis=-1)
        rest = np.where(alone | chosen, 0, counts).sum(axis=-1)
        bound.append(clopper_pearson_lower(n - np.maximum(most, rest) - none, n, alpha / buckets))
    choice = np.argmax(np.stack(expected), axis=0)
    found = np.take_along_axis(np.stack(bound), choice[None], axis=0)[0]
    return np.maximum(found - noise.lost, 0)
