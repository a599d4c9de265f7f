"""Kinds of noise: how it is added to an image, the norm in which it certifies, and the radius of a probability.

`certify` is given a noise as an object. Sampling asks it for noisy images, and conclusions ask it for radii. Nobody
asks for its name. A new one is one class, and one line in NOISES.
"""

import dataclasses
import functools
import math
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int
from scipy import special

from ..checks import instance_of
from ..errors import SettingError
from . import thresholds
from .noise import (
    bits,
    gaussian_noise,
    is_negative,
    magnitude_words,
    normal_magnitude,
    numbers_of,
    places,
    threefry2x32,
)

LARGEST_IMAGE = 2**20
"""Most numbers of an image whose noise is on a grid."""
_ERROR, _EXACT_UP_TO = 2e-6, 7.0  # error of the float32 quantile, four times the measured one, and its range
_OFF_GRID = 1e-4  # steps by which a value may miss its grid point; rounding to float32 is 3e-5 at most


@runtime_checkable
class Noise(Protocol):
    """A distribution of noise, at every sigma, which is its standard deviation in the units of the image.

    name: its name in commands and results files.
    norm: norm of the radii that it certifies: "L2" or "L1".
    lost: largest total variation between the distribution that is drawn and the one whose radii are certified. Bounds
        of probabilities are moved by it.
    largest_sigma: largest sigma at which it can be drawn.
    """

    @property
    def name(self) -> str: ...

    @property
    def norm(self) -> str: ...

    @property
    def lost(self) -> float: ...

    @property
    def largest_sigma(self) -> float: ...

    def check_images(self, images: Float[np.ndarray, "*m h w c"]) -> None:
        """Raises SettingError for images to which it cannot be added."""
        ...

    def level(self, sigma: Float[ArrayLike, ""]) -> Any:
        """The values that all samples at one sigma share, for `add`; jit-compatible."""
        ...

    def add(
        self, image: Float[Array | np.ndarray, "h w c"], level, key, index: Int[Array, "batch"]
    ) -> Float[Array, "batch h w c"]:
        """Noisy copies of `image`, (batch, h, w, c): a function of (image, sigma, key, number of the sample) alone.

        Args:
            image: one image (h, w, c).
            level: `level(sigma)`.
            key, index: the key and the numbers of the samples, as for `noise.gaussian_noise`.
        """
        ...

    # Tables are kept by this function: a static method is one for all noises of a class, a method one for each object.
    def unit_radius(self, p) -> Any:
        """The radius at sigma = 1 within which a mean of p stays above 1/2; negative below 1/2. Float64.

        It is an increasing function with unit_radius(1 - p) = -unit_radius(p). Let p(x) be the mean, under noise of
        standard deviation sigma, of a function into [0, 1]. Where x moves by d, unit_radius(p(x)) moves by at most d /
        sigma. A class of mean pa therefore stays above one of mean pb within sigma / 2 * (unit_radius(pa) -
        unit_radius(pb)).
        """
        ...

    def draws(self, prng: str) -> str:
        """The description of the numbers drawn, for a sidecar. Other numbers need another description."""
        ...

    def recorded(self) -> dict:
        """The description of the noise in a request; `noise_of` reads it."""
        ...


class _Noise:
    name: str
    norm: str
    lost = 0.0
    largest_sigma = math.inf

    def check_images(self, images):
        pass

    def level(self, sigma):
        return sigma

    def recorded(self):
        return {"name": self.name, "norm": self.norm, **vars(self)}


class _L2(_Noise):
    """Normal noise: ndtri of a mean is 1 / sigma-Lipschitz in L2 (Cohen et al. 2019; Salman et al. 2019)."""

    norm = "L2"

    @staticmethod
    def unit_radius(p):
        return special.ndtri(p)


@dataclasses.dataclass(frozen=True)
class Gaussian(_L2):
    r"""Normal noise in float32, for images of any values (Cohen et al. 2019).

    The radius of a probability p is, in L2,

    $$\sigma \, \Phi^{-1}(p).$$

    The head of `sampling/noise.py` states the effect of float32 on the normal number and on the sum.
    """

    name = "gaussian"

    def add(self, image, level, key, index):
        return image[None] + level * gaussian_noise(key, index, image.shape)

    def draws(self, prng):
        return f"{bits(prng)}, quantile of 62 bits and a sign"


GAUSSIAN = Gaussian()
"""The default noise."""


@dataclasses.dataclass(frozen=True)
class GridGaussian(_L2):
    r"""Normal noise rounded to the grid of the pixels: exact, and the same on every device.

    It is for images whose values are whole multiples of 1 / steps, as 8-bit images divided by 255 are. A whole number
    K of steps is added to each value. With s = steps,

    $$P(K = i) = \Phi\left(\frac{2i + 1}{2 s \sigma}\right) - \Phi\left(\frac{2i - 1}{2 s \sigma}\right).$$

    This equals normal noise that is then rounded to the grid. Radii are in L2. They therefore hold, at every point of
    the ball, for the classifier that first rounds its input to the grid. Nothing else is rounded: the law of the noisy
    image depends on the image in no other way.

    K is exact: the random magnitude is compared with thresholds of 62 bits (`thresholds.py`). The law of the thresholds
    differs from the true one, in total variation over all numbers of the image, by at most `lost`, and bounds are moved
    by it. The standard deviation is not smaller than sigma, and larger by a share of at most 2**-33. PREDICT tests the
    classes under the law that is drawn, and is not moved.

    Attributes:
        steps: number of steps of the grid in one unit of the image's values, 1 to 255: 255 for 8-bit images in [0, 1],
            1 for those in [0, 255].

    Raises:
        SettingError: steps is out of its range.
    """

    steps: int = 255

    name = "grid"
    lost = LARGEST_IMAGE * thresholds.COUNT * thresholds.UNITS * 2.0**-62

    def __post_init__(self):
        if not isinstance(self.steps, int) or not 1 <= self.steps <= thresholds.LARGEST_STEPS:
            raise SettingError(
                f"{{steps}} of a grid must be a whole number from 1 to {thresholds.LARGEST_STEPS}, not {self.steps}"
            )

    @property
    def largest_sigma(self) -> float:
        return thresholds.largest_sigma(self.steps)

    def check_images(self, images):
        if np.prod(images.shape[-3:]) > LARGEST_IMAGE:
            raise SettingError(
                f"{{noise}} on a grid takes images of at most {LARGEST_IMAGE} numbers, not of shape "
                f"{images.shape[-3:]}; Gaussian() takes larger ones"
            )
        scaled = np.asarray(images, np.float64) * self.steps
        off = np.abs(scaled - np.round(scaled)).max(initial=0.0)
        if off > _OFF_GRID:
            raise SettingError(
                f"{{noise}} on a grid of {self.steps} steps needs images whose values are whole multiples of 1 / "
                f"{self.steps}; one of these is {off:.3g} of a step off. Round them, np.round(images * {self.steps}) / "
                f"{self.steps}, if they are 8-bit images that were resized; else choose Gaussian()"
            )

    def level(self, sigma):
        sigma = jnp.asarray(sigma, jnp.float32)
        upper, lower = thresholds.thresholds(sigma, self.steps)
        return jnp.float32(self.steps) * sigma, upper.astype(jnp.int32), lower.astype(jnp.int32)

    def add(self, image, level, key, index):
        whole = jnp.round(image * np.float32(self.steps)).astype(jnp.int32)
        places = whole[None] + numbers_of(_rounded, key, index, image.shape, *level, tpu=_rounded_by_rows)
        return places.astype(jnp.float32) * np.float32(1 / self.steps)

    def draws(self, prng):
        return f"{bits(prng)}, 62 bits against the thresholds of a rounded normal number, and a sign"


def _rounded(first, second, scale, upper, lower):
    """scale * Z rounded to a whole number, int32, from two words for each Z.

    The float32 quantile is right to less than half a step. The step into which it falls is therefore known up to one
    threshold. For magnitudes k < 2**12 a threshold may be further off than the next one; they are part of `lost`.
    """
    k0, k1 = magnitude_words(first, second)
    below = jnp.clip((scale * normal_magnitude(k0, k1)).astype(jnp.int32), 0, thresholds.COUNT - 1)
    t0, t1 = upper[below], lower[below]
    steps = below + ((k0 < t0) | ((k0 == t0) & (k1 < t1))).astype(jnp.int32)
    return jnp.where(is_negative(first), -steps, steps)


def _rounded_by_rows(words, index, scale, upper, lower, *, shape):
    """`_rounded` of the words of threefry, (batch, *shape), without a table look-up for each number.

    A TPU is slow at such look-ups. Here the float32 quantile rounds all numbers. About one in 10 000 lies so near to a
    threshold that the quantile's error might decide. Those are drawn again, one of each row at a time, and compared
    with the threshold.
    """

    def numbers(i):
        first, second = threefry2x32(words[0], words[1], i, places(shape))
        magnitude = normal_magnitude(*magnitude_words(first, second))
        whole = jnp.floor(scale * magnitude)
        behind = scale * magnitude - whole
        steps = whole.astype(jnp.int32) + (behind >= 0.5).astype(jnp.int32)
        open = (jnp.abs(behind - 0.5) <= _ERROR * scale * magnitude) | (magnitude > _EXACT_UP_TO)
        # One array, where two would be written.
        return 2 * jnp.where(is_negative(first), -steps, steps) + open.astype(jnp.int32)

    columns = math.prod(shape[1:])
    column = places(shape[1:]).astype(jnp.int32)[None, None]
    row = jnp.arange(shape[0], dtype=jnp.uint32)[None] * np.uint32(columns)
    spread = (...,) + (None,) * (len(shape) - 1)

    def first_open(steps):
        return jnp.where(steps & 1 == 1, column, columns).min(axis=tuple(range(2, steps.ndim)))

    def settle(state):
        steps, at = state
        again = threefry2x32(words[0], words[1], index[:, None], row + at.astype(jnp.uint32))
        steps = jnp.where(column == at[spread], 2 * _rounded(*again, scale, upper, lower)[spread], steps)
        return steps, first_open(steps)

    steps = jax.vmap(numbers)(index)
    steps, _ = jax.lax.while_loop(lambda state: state[1].min() < columns, settle, (steps, first_open(steps)))
    return steps >> 1


@dataclasses.dataclass(frozen=True)
class Uniform(_Noise):
    r"""Noise uniform on [-h, h], h = sqrt(3) sigma, whose radii are in the L1 norm (Yang et al., ICML 2020).

    A mean of p stays above 1/2 within an L1 distance of

    $$h \, (2p - 1), \qquad h = \sqrt{3} \, \sigma.$$

    As for other noises, sigma is the standard deviation. Numbers are rounded to float32.
    """

    name = "uniform"
    norm = "L1"

    @staticmethod
    def unit_radius(p):
        return np.sqrt(3) * (2 * np.asarray(p, np.float64) - 1)

    def add(self, image, level, key, index):
        return image[None] + level * numbers_of(_uniform, key, index, image.shape)

    def draws(self, prng):
        return f"{bits(prng)}, uniform of 31 bits and a sign"


def _uniform(first, second):
    """Uniform on [-sqrt(3), sqrt(3)], of variance 1."""
    magnitude = (magnitude_words(first, second)[0].astype(jnp.float32) + 0.5) * np.float32(np.sqrt(3) * 2**-31)
    return jnp.where(is_negative(first), -magnitude, magnitude)


def check_noise(noise, images, sigma, name: str = "sigma") -> None:
    """Raises an error unless `noise` can be added to `images` at `sigma`. Inside jit their values are not seen.

    Raises:
        TypeError: `noise` is no noise.
        SettingError: the noise cannot be added to these images, or at this sigma, which the message calls `name`.
    """
    instance_of("noise", noise, (Noise,), "noise=Gaussian(), GridGaussian() or Uniform()")
    if not isinstance(images, Tracer) and getattr(images, "is_fully_addressable", True):
        noise.check_images(images)
    check_largest(noise, sigma, name)


def check_largest(noise: Noise, sigma, name: str = "sigma") -> None:
    """Raises SettingError where `noise` cannot be drawn at `sigma`."""
    if not isinstance(sigma, Tracer) and np.max(sigma) > noise.largest_sigma:
        raise SettingError(
            f"{{{name}}} = {np.max(sigma):g}: the {{noise}} {noise.name!r} can be drawn up to {noise.largest_sigma:.4g}"
        )


NOISES: dict[str, type] = {noise.name: noise for noise in (Gaussian, GridGaussian, Uniform)}
"""The noises, by their names in commands and in results files."""


def recorded_noise(noise: Noise) -> dict:
    """The part of a request that describes `noise`: `smoothing`; {} for `Gaussian()`, the noise of earlier versions."""
    return {} if noise == GAUSSIAN else {"smoothing": noise.recorded()}


def noise_of(request: dict) -> Noise:
    """The noise of a request, as `recorded_noise` wrote it.

    Raises:
        SettingError: no noise has that name, or the noise does not have these settings.
    """
    if "smoothing" not in request:
        return GAUSSIAN
    recorded = request["smoothing"]
    settings = {name: value for name, value in recorded.items() if name not in ("name", "norm")}
    kind = NOISES.get(recorded.get("name", ""))
    if kind is None:
        raise SettingError(f"unknown {{noise}} {recorded.get('name')!r}; known are {', '.join(NOISES)}")
    if recorded.get("norm", kind.norm) != kind.norm:
        raise SettingError(f"the {{noise}} {kind.name!r} has radii of {kind.norm}, not of {recorded['norm']}")
    try:
        return _made(kind, tuple(sorted(settings.items())))
    except TypeError as error:
        raise SettingError(f"the {{noise}} {kind.name!r} has other settings: {error}") from error


@functools.lru_cache(maxsize=64)
def _made(kind, settings):
    """One object for equal settings, by which tables are kept."""
    return kind(**dict(settings))
