"""What follows from raw counts: certificates, hard and soft, and predictions. Pure functions; nothing is drawn."""

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
    """What a soft certificate follows from. Votes are in units of 1 / SOFT_ONE, squares of its square; exact.

    sums0: each class's votes of the n0 samples that selected the class, (*m, num_classes).
    sums, squares: each class's votes, and their squares, of the n certification samples, (*m, num_classes).
    pb_upper: upper bound of every other class's mean vote.
    """

    sums0: Int[np.ndarray, "*m num_classes"]
    sums: Int[np.ndarray, "*m num_classes"]
    squares: Int[np.ndarray, "*m num_classes"]
    pb_upper: Float[np.ndarray, "*m"] | np.floating


class Certificate(NamedTuple):
    """What CERTIFY returns; NumPy scalars and arrays, or traced arrays inside jit. `*m` is () or (images,).

    With probability at least 1 - alpha over the certification samples, for each image: the classifier smoothed with
    noise of this sigma, held fixed, predicts `prediction` everywhere within distance `radius` of the image, in the norm
    of the noise: L2 for normal noise, L1 for uniform. A sigma that was searched belongs to this image: nothing is said
    of a classifier that would search sigma again at the perturbed image.

    The smoothed classifier is Cohen's, which predicts the class that noisy copies most often fall into. That of a soft
    certificate predicts the class with the largest mean soft vote; the two may differ.

    Attributes:
        prediction: the class, or ABSTAIN (-1).
        radius: in units of pixels in [0, 1]; 0 where it abstains.
        pa_lower: lower bound of the probability, or the mean soft vote, of the selected class.
        sigma: the noise level of the certificate.
        counts: class counts of the n certification samples, `(*m, num_classes)`.
        counts0: class counts of the n0 samples that selected the class, `(*m, num_classes)`.
        n: how many certification samples there were; counts sum to less where logits were not finite.
        robust: of a decision at a radius: 1 for robust, that is a true radius sigma * ndtri(p) above it, p the
            probability of the selected class, which is wrong with probability at most alpha; 0 for not, wrong with
            probability at most beta; -1 where n samples could not decide. None where no radius was asked about.
        radius_upper: of a sequential estimation, the upper bound of the true radius, inf where all samples agree; None
            in others.
        u: the number in (0, 1] that randomised the bound; None where none did.
        search: how QCRS or DDRS chose sigma; None at a fixed sigma.
        soft: the soft votes of a soft certificate; None for a hard one.
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

    def __repr__(self) -> str:
        """The fields that are not None; of large arrays, and of what is inside others, the shape alone."""
        return _short(self)


class Prediction(NamedTuple):
    """What PREDICT returns; NumPy scalars and arrays, or traced arrays inside jit. `*m` is () or (images,).

    Attributes:
        prediction: the class, or ABSTAIN (-1).
        counts: class counts of the n samples, `(*m, num_classes)`.
    """

    prediction: Int[Array | np.ndarray, "*m"] | np.integer
    counts: Int[Array | np.ndarray, "*m num_classes"]


def make_certificate(counts0, counts, sigma, n, alpha: float, lower=None, noise: Noise = GAUSSIAN) -> Certificate:
    """The certificate that follows from raw counts: selection counts0, estimation counts of n samples at sigma.

    n is one number, or, outside jit, one for each image. `lower` gives the bound of pa after each count of successes,
    an array of NumPy's; by default it is Clopper and Pearson's. What `noise` lost of its distribution is taken off it.
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
    """What every line of a results file says of one image's certificate, in Python's own numbers."""
    return {
        "predict": int(certificate.prediction),
        "radius": float(certificate.radius),
        "pa_lower": float(certificate.pa_lower),
    }


def make_sequential_certificate(
    counts0, counts, sigma, look, sequential, n: int, alpha: float, noise: Noise = GAUSSIAN
) -> Certificate:
    """The certificate of an estimation that stopped at `look`, counted from 0, with n samples at most.

    Its bounds are those of the confidence sequence at that look: exact, whatever made the estimation stop there.
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
    """The soft certificate that follows from what was counted; outside jit alone. Arguments as the fields' names tell.

    It says where the class with the largest mean vote stays the same. A vote is what `sampling.soft_votes` gives, a
    function into [0, 1] in its own right, so that nothing has to be added for the softmax it was rounded from. Samples
    that voted for no class are n less the counts; the certificate holds whatever they would have voted.
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
        soft=SoftVotes(sums0, sums, squares, pb_upper),
    )


def make_prediction(counts, n: int, alpha: float) -> Prediction:
    """PREDICT's answer that follows from the counts of n samples.

    Samples that voted for no class are n less the counts. They count for the runner-up: the answer holds whatever they
    would have voted.
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
