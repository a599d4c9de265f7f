r"""The certificate of a bound over all classes, from raw counts. Pure functions; nothing is drawn.

Cohen's radius looks at the selected class alone. Every other class could have all that it leaves. With an upper bound
of every other class as well, the radius is, for normal noise,

$$\frac{\sigma}{2} \left( \Phi^{-1}(\underline{p_A}) - \Phi^{-1}(\overline{p_B}) \right),$$

which is larger where the mistakes are spread over several classes. It can be positive where the selected class has less
than half of the samples.

The other classes are put into buckets. The most frequent ones of the selection samples are alone, the rest share one.
One half of alpha is for the selected class. The buckets have equal parts of the other half. The bound of a bucket
bounds each class in it, and every other class has at most what the selected class leaves. So with probability at least
1 - alpha over the certification samples all bounds hold. The buckets, and whether Cohen's bound with all of alpha is
taken instead, follow from the selection samples alone.

Source: Delattre et al., AISTATS 2025. They take the next class alone while the rest has more than the most frequent
one. Here the numbers in `ALONE` are compared by the radius to be expected.
"""

import functools
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Int

from ..bounds import clopper_pearson_lower, look_up, rounded_down
from ..sampling.smoothing import Noise
from .verdict import ABSTAIN, Certificate

ALONE = (1, 2, 4, 8, 16, 32)
"""The numbers of classes that may be alone. A finer choice would change a part of alpha by less than a factor of 2."""

TYPICAL_BUCKETS = 4
"""The number of buckets that a search assumes: it chooses sigma before the selection samples are drawn."""


def certificate_over_classes(counts0, counts, sigma, n, alpha: float, noise: Noise) -> Certificate:
    """The certificate that follows from selection counts0, and estimation counts of n samples at sigma.

    n is one number or, outside jit, one for each image. Samples that fell into no class count for every bucket.
    """
    xp: Any = jnp if isinstance(counts, Tracer) else np
    counts0, counts, sigma = xp.asarray(counts0), xp.asarray(counts), xp.asarray(sigma)
    selected = xp.argmax(counts0, axis=-1)
    parts = numbers_alone(counts0.shape[-1])
    bounds = (_Tabulated if xp is jnp else _Exact)(n, alpha, noise, parts)
    choice = best_choice(xp, counts0, bounds)
    successes = xp.take_along_axis(counts, selected[..., None], axis=-1)[..., 0]
    alone = ranks(xp, counts0) < xp.asarray((0, *parts))[choice][..., None]
    in_no_class = n - counts.sum(axis=-1)
    rest = n - successes - xp.where(alone, counts, 0).sum(axis=-1)
    largest = xp.maximum(xp.where(alone, counts, 0).max(axis=-1) + in_no_class, rest)

    over_classes = choice > 0
    whole, half = bounds.whole(successes), bounds.half(successes)
    outside = bounds.outside(n - largest, xp.maximum(choice - 1, 0))
    pa_lower = xp.where(over_classes, half.lower, whole.lower)
    left = xp.where(over_classes, xp.maximum(outside.lower, half.lower), whole.lower)
    gap = (half.radius + xp.maximum(half.radius, outside.radius)) / 2
    if xp is jnp:  # of two numbers of opposite signs the sum has fewer digits than either was rounded down by
        gap = jnp.nextafter(jnp.nextafter(gap, jnp.float32(-jnp.inf)), jnp.float32(-jnp.inf))
    abstains = xp.where(over_classes, ~(gap > 0), whole.lower < 0.5) | ~(sigma > 0)
    radius = xp.where(abstains, 0.0, sigma * xp.where(over_classes, gap, whole.radius))
    return Certificate(
        prediction=xp.where(abstains, ABSTAIN, selected)[()],
        radius=xp.maximum(radius, 0.0)[()],
        pa_lower=pa_lower[()],
        sigma=sigma[()],
        counts=counts,
        counts0=counts0,
        n=(xp.zeros_like(selected) + n)[()],
        pb_upper=(jnp.nextafter(1 - left, jnp.float32(2)) if xp is jnp else 1 - left)[()],  # rounded up
    )


def numbers_alone(num_classes: int) -> tuple[int, ...]:
    """The numbers of classes that may be alone, so that at least one is left for the bucket of the rest."""
    return tuple(number for number in ALONE if number <= num_classes - 2)


def ranks(xp, counts0: Int[Array | np.ndarray, "*m c"]) -> Int[Array | np.ndarray, "*m c"]:
    """The rank of each class among the other classes, the most frequent first; the selected class is the last."""
    last = xp.arange(counts0.shape[-1]) == xp.argmax(counts0, axis=-1)[..., None]
    order = xp.argsort(xp.where(last, 1, -counts0), axis=-1, stable=True)
    return xp.argsort(order, axis=-1, stable=True)


def best_choice(xp, counts0: Int[Array | np.ndarray, "*m c"], bounds) -> Any:
    """0 for Cohen's bound, or i where ALONE[i - 1] classes are alone: the largest radius to be expected; (*m).

    The radius is that of the counts that the shares of the selection samples would give. Unseen classes share half a
    sample. The bucket of the rest is taken one standard deviation larger than it was seen: its classes are those that
    were seen least. In doubt this takes the bound over classes. Where all mistakes go to one class that costs a part of
    alpha, and so up to 1% of the radius; where they are spread it gains several times as much.
    """
    last, total = counts0.shape[-1] - 1, counts0.sum(axis=-1)[..., None] + 1.0
    shares = (-xp.sort(-counts0, axis=-1) + 0.5 / max(last, 1)) / total  # the selected class is the first
    own = (counts0.max(axis=-1)[..., None] + 0.5) / total
    values = [bounds.whole(xp.round(bounds.n * own[..., 0]).astype(int)).radius]
    half = bounds.half(xp.round(bounds.n * own[..., 0]).astype(int)).radius
    for place, number in enumerate(numbers_alone(last + 1)):
        rest = xp.maximum(1 - own - shares[..., 1 : number + 1].sum(axis=-1, keepdims=True), 0.0)
        rest = rest + xp.sqrt(rest * (1 - rest) / total + 1 / total**2)
        largest = xp.minimum(xp.maximum(shares[..., 1:2], rest), 1.0)[..., 0]
        outside = bounds.outside(xp.round(bounds.n * (1 - largest)).astype(int), place + 0 * counts0[..., 0]).radius
        values.append((half + xp.maximum(half, outside)) / 2)
    return xp.argmax(xp.stack(values, axis=-1), axis=-1)


class _Bounds(NamedTuple):
    """Lower bounds of shares, and their radii at sigma = 1, which are negative below 1/2."""

    lower: Any
    radius: Any


class _Exact:
    """The bounds at a number of successes, in float64 on the host."""

    def __init__(self, n, alpha, noise, parts):
        self.n, self.alpha, self.noise, self.parts = n, alpha, noise, np.asarray((*parts, 0))

    def whole(self, successes):
        return self._at(successes, self.alpha)

    def half(self, successes):
        return self._at(successes, self.alpha / 2)

    def outside(self, samples, place):
        """The bounds for `samples` outside a bucket, where parts[place] classes are alone."""
        return self._at(samples, self.alpha / 2 / (self.parts[place] + 1))

    def _at(self, successes, alpha):
        lower = np.maximum(clopper_pearson_lower(successes, self.n, alpha) - self.noise.lost, 0)
        return _Bounds(lower, rounded_down(self.noise.unit_radius(lower)))


class _Tabulated:
    """The same bounds inside jit, rounded down to float32."""

    def __init__(self, n, alpha, noise, parts):
        self.n = n
        self.tables = [
            _table(n, share, noise.lost, noise.unit_radius)
            for share in (alpha, alpha / 2, *(alpha / 2 / (number + 1) for number in parts))
        ]

    def whole(self, successes):
        return self._at(self.tables[0], successes)

    def half(self, successes):
        return self._at(self.tables[1], successes)

    def outside(self, samples, place):
        tables = self.tables[2:] or self.tables[1:]
        of_each = [self._at(table, samples) for table in tables]
        pick = lambda *values: jnp.take_along_axis(jnp.stack(values, axis=-1), place[..., None], axis=-1)[..., 0]  # noqa: E731
        return _Bounds(pick(*(at.lower for at in of_each)), pick(*(at.radius for at in of_each)))

    def _at(self, table, successes):
        return _Bounds(look_up(table[0], successes), look_up(table[1], successes))


@functools.lru_cache(maxsize=64)
def _table(n, alpha, lost, unit_radius):
    lower = np.maximum(clopper_pearson_lower(np.arange(n + 1), n, alpha) - lost, 0)
    return lower, rounded_down(unit_radius(lower))
