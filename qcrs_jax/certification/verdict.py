"""Certificates, hard and soft, and predictions from raw counts. Pure functions; nothing is drawn."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Int

from .. import bounds
from ..sampling.counts import SOFT_ONE
from ..sampling.smoothing import GAUSSIAN, Noise
from ..search import SigmaAscent, SigmaSearch

ABSTAIN = -1


class SoftVotes(NamedTuple):
    """The sums from which a soft certificate follows. Votes are in units of 1 / SOFT_ONE, squares of its square; exact.

    sums0: each class's votes by the n0 samples that selected the class, (*m, num_classes).
    sums, squares: each class's votes, and their squares, by the n certification samples, (*m, num_classes).
    """

    sums0: Int[np.ndarray, "*m num_classes"]
    sums: Int[np.ndarray, "*m num_classes"]
    squares: Int[np.ndarray, "*m num_classes"]


class Stages(NamedTuple):
    """The counts of all stages of a cascade.

    counts0, counts: class counts of selection and certification at every stage, (*m, stages, num_classes).
    n: number of certification samples at every stage, (*m, stages); 0 where the stage was not sampled.
    """

    counts0: Int[np.ndarray, "*m stages num_classes"]
    counts: Int[np.ndarray, "*m stages num_classes"]
    n: Int[np.ndarray, "*m stages"]


class Certificate(NamedTuple):
    """The result of `certify`: NumPy scalars and arrays, or traced arrays inside jit. `*m` is () or (images,).

    The guarantee, for each image, with probability at least 1 - alpha over its certification samples: the classifier
    smoothed with noise of this sigma, held fixed, predicts `prediction` everywhere within distance `radius` of the
    image. The distance is in the norm of the noise: L2 for normal noise, L1 for uniform noise.

    A sigma that was searched belongs to this image. The certificate says nothing about a classifier that would search
    sigma again at the perturbed image.

    The certificate of a cascade is about the cascade, which is one classifier for all inputs.

    The smoothed classifier is Cohen's: it predicts the class that noisy copies most often fall into. The classifier of
    a soft certificate predicts the class with the largest mean soft vote. The two may differ.

    Attributes:
        prediction: the class, or ABSTAIN (-1), (*m).
        radius: certified radius, (*m), in the units of the image (`value_range`); 0 where it abstains.
        pa_lower: lower bound of the probability of the selected class, (*m); of its mean soft vote if it is soft.
        sigma: noise level of the certificate, (*m), in the units of the image.
        counts: class counts of the n certification samples, (*m, num_classes).
        counts0: class counts of the n0 samples that selected the class, (*m, num_classes).
        n: number of certification samples, (*m). Counts sum to less where logits were not finite.
        robust: answer to "is the true radius above `decide`?", (*m). The true radius is sigma * ndtri(p), where p is
            the probability of the selected class. 1: yes, wrong with probability at most alpha. 0: no, wrong with
            probability at most alpha_upper. -1: n samples could not decide. None if no radius was asked about.
        radius_upper: upper bound of the true radius, (*m), from a sequential estimation; inf where all samples agree.
            None for other estimates.
        u: number in (0, 1] that randomised the bound, (*m); None where the bound is not randomised.
        pb_upper: upper bound of the probability of every other class, (*m), from a bound over classes; of its mean soft
            vote if it is soft. None for other bounds.
        stage: stage of a cascade whose bounds give the radius, counted from 0; -1 where it abstains, (*m). Sigma,
            pa_lower, n and counts are of that stage, or of the most promising one. None for other certificates.
        stages: counts of all stages of a cascade; None for other certificates.
        search: trace of the search by which QCRS or DDRS chose sigma; None at a fixed sigma.
        soft: soft votes of a soft certificate; None for a hard one.
    """

    prediction: Int[Array | np.ndarray, "*m"] | np.integer
    radius: Float[Array | np.ndarray, "*m"] | np.floating
    pa_lower: Float[Array | np.ndarray, "*m"] | np.floating
    sigma: Float[Array | np.ndarray, "*m"] | np.floating
    counts: Int[Array | np.ndarray, "*m num_classes"]
    counts0: Int[Array | np.ndarray, "*m num_classes"]
    n: Int[Array | np.ndarray, "*m"] | np.integer
    search: SigmaSearch | SigmaAscent | None = None
    soft: SoftVotes | None = None
    robust: Int[np.ndarray, "*m"] | np.integer | None = None
    radius_upper: Float[np.ndarray, "*m"] | np.floating | None = None
    u: Float[np.ndarray, "*m"] | np.floating | None = None
    pb_upper: Float[Array | np.ndarray, "*m"] | np.floating | None = None
    stage: Int[np.ndarray, "*m"] | np.integer | None = None
    stages: Stages | None = None

    def __repr__(self) -> str:
        """The fields that are not None. Large arrays, and those inside other objects, are shown by shape alone."""
        return _short(self)


class Prediction(NamedTuple):
    """The result of `predict`: NumPy scalars and arrays, or traced arrays inside jit. `*m` is () or (images,).

    Attributes:
        prediction: the class, or ABSTAIN (-1), (*m).
        counts: class counts of the n samples, (*m, num_classes).
    """

    prediction: Int[Array | np.ndarray, "*m"] | np.integer
    counts: Int[Array | np.ndarray, "*m num_classes"]


def make_certificate(counts0, counts, sigma, n, alpha: float, lower=None, noise: Noise = GAUSSIAN) -> Certificate:
    """The certificate that follows from raw counts: selection counts0, and estimation counts of n samples at sigma.

    n is one number, or, outside jit, one for each image. `lower` maps counts of successes, a NumPy array, to lower
    bounds of pa; the default is Clopper and Pearson's bound. `noise.lost` is subtracted from the bounds.
    """
    xp = _numpy_of(counts)
    counts0, counts, sigma = xp.asarray(counts0), xp.asarray(counts), xp.asarray(sigma)
    selected = xp.argmax(counts0, axis=-1)
    successes = xp.take_along_axis(counts, selected[..., None], axis=-1)[..., 0]
    if xp is jnp:
        table = lower(np.arange(n + 1)) if lower else bounds.pa_lower_table(n, alpha)
        table = np.maximum(table - noise.lost, 0)
        pa_lower = bounds.look_up(table, successes)
        radius = sigma * bounds.look_up(bounds.certified_radius(table, 1.0, noise.unit_radius), successes)
    else:
        pa_lower = lower(successes) if lower else bounds.clopper_pearson_lower(successes, n, alpha)
        pa_lower = np.maximum(pa_lower - noise.lost, 0)[()]
        radius = bounds.certified_radius(pa_lower, sigma, noise.unit_radius)
    abstains = (pa_lower < 0.5) | ~(sigma > 0)  # inside jit a sigma cannot be refused
    return Certificate(
        prediction=xp.where(abstains, ABSTAIN, selected)[()],
        radius=xp.where(abstains, 0.0, radius)[()],
        pa_lower=pa_lower,
        sigma=sigma[()],
        counts=counts,
        counts0=counts0,
        n=(xp.zeros_like(selected) + n)[()],
    )


def _short(value):
    if hasattr(value, "_fields"):
        fields = ((name, getattr(value, name)) for name in value._fields)
        return f"{type(value).__name__}({', '.join(f'{n}={_inside(v)}' for n, v in fields if v is not None)})"
    return _inside(value)


def _inside(value):
    if hasattr(value, "_fields"):
        return f"{type(value).__name__}(...)"
    if isinstance(value, Tracer) or np.size(value) > 10:
        return f"{value.dtype}{list(value.shape)}"
    return np.array2string(np.asarray(value), precision=4, separator=", ")


def fields_of(certificate: Certificate) -> dict:
    """The fields of one image's certificate that every line of a results file has, as Python numbers."""
    return {
        "predict": int(certificate.prediction),
        "radius": float(certificate.radius),
        "pa_lower": float(certificate.pa_lower),
    }


def make_sequential_certificate(
    counts0, counts, sigma, look, sequential, n: int, alpha: float, noise: Noise = GAUSSIAN
) -> Certificate:
    """The certificate of an estimation that stopped at `look`, counted from 0, with at most n samples.

    Its bounds are those of the confidence sequence at that look. They hold whatever made the estimation stop there.
    """
    made = make_certificate(
        counts0,
        counts,
        sigma,
        np.asarray(sequential.looks(n))[look],
        alpha,
        lambda successes: sequential.lower(look, successes, n, alpha),
        noise,
    )
    successes = np.take_along_axis(made.counts, np.argmax(made.counts0, axis=-1)[..., None], axis=-1)[..., 0]
    upper = np.minimum(sequential.upper(look, successes, n, alpha) + noise.lost, 1.0)
    made = made._replace(radius_upper=bounds.certified_radius(upper, made.sigma, noise.unit_radius))
    if sequential.decide is None:
        return made
    return made._replace(robust=sequential.decision(made.radius, made.radius_upper))


def make_soft_certificate(
    counts0, counts, sums0, sums, squares, sigma, n: int, alpha: float, noise: Noise = GAUSSIAN
) -> Certificate:
    """The soft certificate that follows from votes; only outside jit. The arguments have the names of the fields.

    It says where the class with the largest mean vote stays the same. A vote is what `sampling.soft_votes` returns.
    That is itself a function into [0, 1], so nothing has to be added for the softmax from which it was rounded. The
    number of samples that voted for no class is n less the counts. The certificate holds whatever they would have
    voted.
    """
    counts0, counts, sums0, sums, squares, sigma = map(np.asarray, (counts0, counts, sums0, sums, squares, sigma))
    selected = np.argmax(sums0, axis=-1)
    spoilt = n - counts.sum(axis=-1)
    pa_lower, pb_upper = bounds.soft_bounds(selected, sums, squares, spoilt, n, alpha, SOFT_ONE)
    pa_lower, pb_upper = np.maximum(pa_lower - noise.lost, 0)[()], np.minimum(pb_upper + noise.lost, 1)[()]
    return Certificate(
        prediction=np.where(pa_lower > pb_upper, selected, ABSTAIN)[()],
        radius=bounds.gap_radius(pa_lower, pb_upper, sigma, noise.unit_radius),
        pa_lower=pa_lower,
        sigma=sigma[()],
        counts=counts,
        counts0=counts0,
        n=np.full(selected.shape, n)[()],
        soft=SoftVotes(sums0, sums, squares),
        pb_upper=pb_upper,
    )


def make_prediction(counts, n: int, alpha: float) -> Prediction:
    """PREDICT's answer that follows from the counts of n samples.

    The number of samples that voted for no class is n less the counts. They count for the runner-up, so the answer
    holds whatever they would have voted.
    """
    xp = _numpy_of(counts)
    counts = xp.asarray(counts)
    top, second = -xp.sort(-counts, axis=-1)[..., 0], -xp.sort(-counts, axis=-1)[..., 1]
    rivals = second + n - counts.sum(axis=-1)
    if xp is jnp:
        threshold = bounds.look_up(bounds.predict_table(n, alpha), top + rivals)
    else:
        threshold = bounds.predict_threshold(top + rivals, alpha)
    return Prediction(xp.where(top >= threshold, xp.argmax(counts, axis=-1), ABSTAIN)[()], counts)


def _numpy_of(counts) -> Any:
    return jnp if isinstance(counts, Tracer) else np
