"""Noise levels of training: one sigma, or a range of them; and the noisy copies of a step."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..checks import check_sigma
from ..errors import SettingError

_LEVELS = 2**32 - 1  # the fold of the levels' key; no array of noise is that large


@dataclasses.dataclass(frozen=True)
class LogUniform:
    """Noise levels for training on a range: log sigma is uniform, and each image of each step has a level of its own.

    Attributes:
        low: lowest level, in units of pixels in [0, 1].
        high: highest level, in the same units.

    Raises:
        SettingError: a level is not positive, not finite or far above the range of images, or not `low` < `high`.
    """

    low: float
    high: float

    def __post_init__(self):
        for level in (self.low, self.high):
            check_sigma(level, name="sigma_range")
        if not self.low < self.high:
            raise SettingError(
                f"{{sigma_range}} {self.low:g},{self.high:g} must be LOW,HIGH with LOW below HIGH; for one level give "
                "{sigma} alone"
            )

    def __str__(self):
        return f"{self.low:g} to {self.high:g}"

    @property
    def middle(self) -> float:
        """The median level, sqrt(low * high)."""
        return math.sqrt(self.low * self.high)

    def draw(self, key, count: int) -> Float[Array, "count"]:
        """`count` independent levels."""
        low, high = math.log(self.low), math.log(self.high)
        return jnp.clip(jnp.exp(jax.random.uniform(key, (count,), minval=low, maxval=high)), self.low, self.high)


def draw_levels(sigma: float | LogUniform, count: int, key) -> Float[Array, "count"]:
    """The noise levels of `count` images. With the key of `draw_noise` they are the levels of its noise."""
    if isinstance(sigma, LogUniform):
        return sigma.draw(jax.random.fold_in(key, _LEVELS), count)
    return jnp.full(count, sigma, jnp.float32)


def draw_noise(
    images: Float[Array, "batch h w c"], sigma: float | LogUniform, copies: int, key
) -> tuple[Float[Array, "batch copies h w c"], Float[Array, "batch"]]:
    """Noise for copies of images, and the noise level of each image, which all its copies have."""
    sigmas = draw_levels(sigma, len(images), key)
    normal = jax.random.normal(key, (len(images), copies, *images.shape[1:]))
    return sigmas[:, None, None, None, None] * normal, sigmas
