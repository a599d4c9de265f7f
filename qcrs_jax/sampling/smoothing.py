"""What noise is added to an image, in which norm it certifies, and what radius a probability certifies.

A noise is an object that `certify` is given. Whoever samples asks it for noisy images, and whoever concludes asks it
for radii; nobody asks for its name. A new one is one class, and one line in NOISES.
"""

import dataclasses
import math
from typing import Any, ClassVar, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
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
"""Numbers that an image may have whose noise is on a grid."""
_ERROR, _EXACT_UP_TO = 2e-6, 7.0  # of the quantile in float32: four times what is measured, and how far out that is
_OFF_GRID = 2e-3  # steps by which a value may miss its point of the grid: far more than float32 rounds it by


@runtime_checkable
class Noise(Protocol):
    """A distribution of noise, at every sigma, its standard deviation in the image's units.

    name: as commands and results files have it.
    norm: of the radii that it certifies: "L2" or "L1".
    lost: how far the distribution that is drawn may be from the one whose radii are certified, in total variation.
        Bounds of probabilities are moved by it.
    largest_sigma: the largest sigma at which it can be drawn.
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

    def level(self, sigma: Float[Array, ""]) -> Any:
        """What all samples at one sigma have in common, for `add`; jit-compatible."""
        ...

    def add(self, image: Float[Array, "h w c"], level, key, index: Int[Array, "batch"]) -> Float[Array, "batch h w c"]:
        """Noisy copies of `image`: a function of (image, sigma, key, number of the sample) alone, at any sigma.

        Args:
            level: `level(sigma)`.
            key, index: as of `noise.gaussian_noise`.
        """
        ...

    def unit_radius(self, p) -> Any:
        """The radius at sigma = 1 within which a mean of p stays above 1/2; negative below 1/2. Float64.

        An increasing function with unit_radius(1 - p) = -unit_radius(p). Let p(x) be the mean, under noise of standard
        deviation sigma, of a function into [0, 1]. Where x moves by d, unit_radius(p(x)) moves by at most d / sigma. So
        a class of mean pa stays above one of mean pb within sigma / 2 * (unit_radius(pa) - unit_radius(pb)).
        """
        ...

    def draws(self, prng: str) -> str:
        """What a sidecar says of the numbers drawn. Other numbers need other words."""
        ...

    def recorded(self) -> dict:
        """What a request says of it; `noise_of` reads it."""
        ...


class _Noise:
    name: ClassVar[str]
    norm: ClassVar[str]
    lost: ClassVar[float] = 0.0
    largest_sigma: float = np.inf

    def check_images(self, images):
        pass

    def level(self, sigma):
        return sigma

    def recorded(self):
        return {"name": self.name, "norm": self.norm, **vars(self)}


class _L2(_Noise):
    """Normal noise: ndtri of a mean is 1 / sigma-Lipschitz in L2 (Cohen et al. 2019; Salman et al. 2019)."""

    norm: ClassVar[str] = "L2"

    def unit_radius(self, p):
        return special.ndtri(p)


@dataclasses.dataclass(frozen=True)
class Gaussian(_L2):
    """Normal noise in float32, for images of any values (Cohen et al. 2019).

    What float32 leaves of a normal number, and of the sum, is in the head of `sampling/noise.py`.
    """

    name: ClassVar[str] = "gaussian"

    def add(self, image, level, key, index):
        return image[None] + level * gaussian_noise(key, index, image.shape)

    def draws(self, prng):
        return f"{bits(prng)}, quantile of 62 bits and a sign"


GAUSSIAN = Gaussian()
"""The noise where none is named."""


@dataclasses.dataclass(frozen=True)
class GridGaussian(_L2):
    """Normal noise rounded to the grid of the pixels: exact, and the same on every device.

    An image whose values are whole multiples of 1 / steps, as 8-bit images divided by 255 are, gets a whole number K of
    steps added to each: P(K = i) = Phi((2i + 1) / (2 steps sigma)) - Phi((2i - 1) / (2 steps sigma)). That is normal
    noise, and then rounding to the grid. So radii hold, at every point of the ball, for the classifier that rounds its
    input to the grid before it looks at it: no image and no noise is rounded otherwise, and the law of the noisy image
    tells nothing else of the image.

    K is exact: the random magnitude is compared with thresholds of 62 bits (`thresholds.py`). What separates their law
    from the true one, in total variation over all numbers of the image, is at most `lost`, and bounds are moved by it.
    The standard deviation is not smaller than sigma, and larger by a share of at most 2**-33.

    Attributes:
        steps: of the grid to a unit of the image's values, 1 to 255: 255 for 8-bit images in [0, 1], 1 for those in
            [0, 255].
    """

    steps: int = 255

    name: ClassVar[str] = "grid"
    lost: ClassVar[float] = LARGEST_IMAGE * thresholds.COUNT * thresholds.UNITS * 2.0**-62

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

    The quantile in float32 is right to less than half a step. So the step it falls into is known up to one threshold.
    Of magnitudes k < 2**12 a threshold may be further off than the next one is: they are part of what is lost.
    """
    k0, k1 = magnitude_words(first, second)
    below = jnp.clip((scale * normal_magnitude(k0, k1)).astype(jnp.int32), 0, thresholds.COUNT - 1)
    t0, t1 = upper[below], lower[below]
    steps = below + ((k0 < t0) | ((k0 == t0) & (k1 < t1))).astype(jnp.int32)
    return jnp.where(is_negative(first), -steps, steps)


def _rounded_by_rows(words, index, scale, upper, lower, *, shape):
    """`_rounded` of the words of threefry, (batch, *shape), without a look into a table for each number.

    A TPU is slow at that. Here all are rounded by the quantile in float32. Those so near to a threshold that its error
    might decide, one of 10 000 or so, are drawn again, one of each row at a time, and compared with it.
    """

    def numbers(i):
        first, second = threefry2x32(words[0], words[1], i, places(shape))
        magnitude = normal_magnitude(*magnitude_words(first, second))
        whole = jnp.floor(scale * magnitude)
        behind = scale * magnitude - whole
        steps = (whole + (behind >= 0.5)).astype(jnp.int32)
        open = (jnp.abs(behind - 0.5) <= _ERROR * scale * magnitude) | (magnitude > _EXACT_UP_TO)
        return 2 * jnp.where(is_negative(first), -steps, steps) + open  # one array, where two would be written

    columns = math.prod(shape[1:])
    column = places(shape[1:]).astype(jnp.int32)
    row = jnp.arange(shape[0], dtype=jnp.uint32) * np.uint32(columns)
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
    """Noise uniform on [-h, h], h = sqrt(3) sigma, whose radii are of L1 (Yang et al., ICML 2020).

    A mean of p stays above 1/2 within an L1 distance of h (2p - 1). sigma is the standard deviation, as of other
    noises. Numbers are rounded to float32.
    """

    name: ClassVar[str] = "uniform"
    norm: ClassVar[str] = "L1"

    def unit_radius(self, p):
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
    """Raises unless `noise` is one that can be added to `images` at `sigma`; inside jit their values are not seen.

    Raises:
        TypeError: it is no noise.
        SettingError: the images, or sigma, called `name`, are none for it.
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
"""The noises by the names that commands and results files have for them."""


def asked(noise: Noise) -> dict:
    """What a request says of `noise`: its `smoothing`, and nothing of `Gaussian()`, the noise of earlier versions."""
    return {} if noise == GAUSSIAN else {"smoothing": noise.recorded()}


def noise_of(request: dict) -> Noise:
    """The noise of a request, as `asked` wrote it.

    Raises:
        SettingError: there is none of that name, or it has no such settings.
    """
    recorded = request.get("smoothing", GAUSSIAN.recorded())
    settings = {name: value for name, value in recorded.items() if name not in ("name", "norm")}
    kind = NOISES.get(recorded.get("name", ""))
    if kind is None:
        raise SettingError(f"unknown {{noise}} {recorded.get('name')!r}; known are {', '.join(NOISES)}")
    if recorded.get("norm", kind.norm) != kind.norm:
        raise SettingError(f"the {{noise}} {kind.name!r} has radii of {kind.norm}, not of {recorded['norm']}")
    try:
        return kind(**settings)
    except TypeError as error:
        raise SettingError(f"the {{noise}} {kind.name!r} has other settings: {error}") from error
