"""The certificate for which a search chooses sigma, and the radii that its counts let expect."""

import dataclasses
import functools
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .. import bounds
from ..sampling.smoothing import GAUSSIAN, Noise


class Radii(NamedTuple):
    """Radii at sigma = 1, by number of successes or by probit (`bounds.PROBITS`). A pytree of arrays.

    alone: radius that follows from the probability of the class alone.
    own, others: for a bound over classes, else None. The radius by that bound is `own` of the class plus `others` of
        the samples outside its largest rival. The larger of both radii is what is certified.
    """

    alone: Float[Array | np.ndarray, "values"]
    own: Float[Array | np.ndarray, "values"] | None = None
    others: Float[Array | np.ndarray, "values"] | None = None

    def of_counts(self, counts: Int[Array, "num_classes"], prediction: Int[Array, ""] | int) -> Float[Array, ""]:
        """The radius at sigma = 1 of the class `prediction`, by class counts of one sigma; jit-compatible."""
        own, others = self.own, self.others
        alone = jnp.asarray(self.alone)[counts[prediction]]
        if own is None or others is None:
            return alone
        outside = counts.sum() - largest_rival(counts, prediction)
        return jnp.maximum(alone, jnp.asarray(own)[counts[prediction]] + jnp.asarray(others)[outside])


def largest_rival(counts: Array, prediction: Int[Array, ""] | int) -> Array:
    """The largest count, along the last axis, of a class other than `prediction`; jit-compatible."""
    return jnp.where(jnp.arange(counts.shape[-1]) == prediction, 0, counts).max(axis=-1)


@dataclasses.dataclass(frozen=True)
class Aim:
    """The certificate for which a search chooses sigma.

    n, alpha: its number of samples and its failure probability.
    noise: the noise, which gives radii.
    buckets: number of upper bounds that share one half of alpha, where the bound is over classes; else None.
    """

    n: int
    alpha: float
    noise: Noise = GAUSSIAN
    buckets: int | None = None

    def expected(self) -> Radii:
        """The radii that n samples can be expected to certify at the probits of `bounds.PROBITS`, float32."""
        return _radii(self, None)

    def predictive(self, m: int) -> Radii:
        """The radii that n samples can be expected to certify after 0..m of m samples fell into a class, float32."""
        return _radii(self, m)


@functools.lru_cache(maxsize=16)
def _radii(aim, m):
    seen = lambda table: np.asarray(table if m is None else bounds.predictive(table, m), np.float32)  # noqa: E731
    unit_radius = aim.noise.unit_radius
    alone = seen(bounds.expected_radius_table(aim.n, aim.alpha, unit_radius))
    if aim.buckets is None:
        return Radii(alone)
    shares = aim.alpha / 2, aim.alpha / 2 / aim.buckets
    return Radii(alone, *(seen(bounds.expected_half_table(aim.n, share, unit_radius)) for share in shares))
