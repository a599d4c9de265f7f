"""Checks of the arguments of public functions: images, keys, noise levels, counts and settings.

Each function returns its argument in the one form that the rest of the package uses, or raises an error. Inside jit the
values of an array cannot be seen. Its dtype and its shape are still checked there.
"""

import numbers
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from .errors import SettingError

ValueRange = tuple[float | int, float | int] | None
UNIT = (0.0, 1.0)
CHANNELS = (1, 2, 3, 4)
LARGEST_SIGMA = 10  # times the range of the images; a level in units of 255 is larger
_ROUNDING = 1e-5  # of the range, by which a resized image may leave it
_ABOUT_RANGE = (
    "If the classifier takes images of another range, name it: value_range=(low, high); sigma and radius are then in "
    "its units. value_range=None takes any values and any layout."
)


def as_images(images, value_range: ValueRange = UNIT) -> jax.Array:
    """`images` in float32: one image (h, w, c), or several (m, h, w, c).

    Args:
        images: floats in `value_range`, channels last.
        value_range: lowest and highest value of an image; None accepts any values and any layout.

    Raises:
        TypeError: `images` is no array of floats.
        ValueError: it has another layout, a value outside the range, or one that is not finite.
    """
    if not isinstance(images, jax.Array):
        images = np.asarray(images)
    if not jnp.issubdtype(images.dtype, jnp.floating):
        scaled = " / 255 if they are 0 to 255" if value_range == UNIT else ""
        raise TypeError(
            f"images must be floats{' in [0, 1]' if value_range == UNIT else ''}, not {images.dtype}; write "
            f"images.astype(np.float32){scaled}"
        )
    if images.ndim not in (3, 4) or 0 in images.shape:
        grey = "; write images[..., None] if they have one channel" if images.ndim == 2 else ""
        raise ValueError(f"images must have shape (h, w, c) or (m, h, w, c), not {images.shape}{grey}")
    if value_range is not None:
        low, high = _range(value_range)
        _check_layout(images.shape)
        if not isinstance(images, Tracer) and getattr(images, "is_fully_addressable", True):
            _check_values(np.asarray(images), low, high)
    return jnp.asarray(images, jnp.float32)


def _range(value_range):
    try:
        low, high = map(float, value_range)
    except (TypeError, ValueError):
        low = high = np.nan
    if not -np.inf < low < high < np.inf:
        raise SettingError(f"{{value_range}} must be (low, high) with low < high, or None, not {value_range!r}")
    return low, high


def _check_layout(shape):
    """Raises ValueError for shapes that belong to another layout of images."""
    *_, height, width, channels = shape
    if channels not in CHANNELS and height in CHANNELS:
        axes = "0, 2, 3, 1" if len(shape) == 4 else "1, 2, 0"
        raise ValueError(
            f"images of shape {shape} look as if their channels came first; write images.transpose({axes}). If they "
            f"are {height} rows high and have {channels} channels, value_range=None takes them as they are"
        )
    if len(shape) == 4 and width in CHANNELS and height > max(CHANNELS):
        raise ValueError(
            f"images of shape {shape} would be {shape[0]} images of {width} columns. For one image with {width} "
            "channels write images[..., 0]; where the last axis counts images, write np.moveaxis(images, -1, 0). If "
            "they are meant as they are, value_range=None takes them"
        )
    if channels == width and channels not in CHANNELS:
        raise ValueError(
            f"images of shape {shape} would have {channels} channels. Grey images without an axis of channels need "
            "images[..., None]; channels that come first have to come last. If they are meant as they are, "
            "value_range=None takes them"
        )


def _check_values(images, low, high):
    """Raises ValueError if a value is not finite or lies outside [low, high]."""
    least, most = float(images.min()), float(images.max())  # NaN where one is
    if not np.isfinite((least, most)).all():
        raise ValueError("images have values that are not finite (NaN or infinite); mend them, or leave them out")
    slack = _ROUNDING * (high - low)
    if low - slack <= least and most <= high + slack:
        return
    if (low, high) == UNIT and least >= 0 and 2 < most <= 255:
        remedy = "Write images / 255."
    elif (low, high) == UNIT and -1 - slack <= least < 0:
        remedy = (
            "Images in [-1, 1] become (images + 1) / 2. Normalised images have to be in [0, 1] again: the classifier "
            "normalises them, after the noise."
        )
    else:
        remedy = "Normalised images have to be in [0, 1] again: the classifier normalises them, after the noise."
    if high < most < high + 0.1 * (high - low) and least > low - 0.1 * (high - low):
        remedy = f"Where resizing overshot, write np.clip(images, {low:g}, {high:g})."
    raise ValueError(f"images must lie in [{low:g}, {high:g}], not in [{least:g}, {most:g}]. {remedy} {_ABOUT_RANGE}")


def as_key(key) -> jax.Array:
    """`key` as a typed key array, from `jax.random.key` or from `jax.random.PRNGKey`.

    Raises:
        TypeError: `key` is something else.
    """
    if isinstance(key, jax.Array) and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        return key
    if isinstance(key, np.ndarray | jax.Array) and key.dtype == np.uint32 and key.ndim in (1, 2):
        if key.shape[-1] in (2, 4):
            return jax.random.wrap_key_data(jnp.asarray(key), impl={2: "threefry2x32", 4: "rbg"}[key.shape[-1]])
    seed = key if isinstance(key, int) and not isinstance(key, bool) else "seed"
    raise TypeError(f"key must be a PRNG key of JAX, not {_described(key)}; write key=jax.random.key({seed})")


def as_image_keys(key, images) -> jax.Array:
    """The keys of `images`: `key` itself for one image; for several, `fold_in(key, position)` or the m keys given.

    Raises:
        TypeError: `key` is no key.
        ValueError: the number of keys differs from that of the images.
    """
    key = as_key(key)
    if images.ndim == 3 and key.shape == () or images.ndim == 4 and key.shape == images.shape[:1]:
        return key
    if key.shape:
        of = f"{len(images)} images" if images.ndim == 4 else "one image"
        raise ValueError(f"there are keys of shape {key.shape} for {of}; give one key, or one for each image")
    return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, jnp.arange(images.shape[0]))


def for_each(images, name: str, value, dtype, axes: int = 0) -> jax.Array:
    """`value`, of `axes` axes, for each of `images`: one for all is repeated, one for each is kept.

    Raises:
        ValueError: `value` has another shape.
    """
    value = jnp.asarray(value, dtype)
    several = images.shape[:-3]
    if value.ndim == axes:
        return jnp.broadcast_to(value, (*several, *value.shape))
    if value.shape[: value.ndim - axes] != several:
        of = (
            f"{len(images)} images: give one number, or one for each image" if several else "one image: give one number"
        )
        raise SettingError(f"{{{name}}} has shape {value.shape[: value.ndim - axes]} for {of}")
    return value


def check_sigma(sigma, value_range: ValueRange = UNIT, name: str = "sigma") -> None:
    """Raises SettingError for a noise level that is not positive and finite, or far above the range of the images."""
    if isinstance(sigma, Tracer):
        return
    values = np.asarray(sigma)
    if values.dtype.kind not in "fiu" and not jnp.issubdtype(values.dtype, jnp.floating):
        raise TypeError(f"{name} is the standard deviation of the noise, a number, not {_described(sigma)}")
    if not np.all((np.float32(values) > 0) & (np.float32(values) < np.inf)):
        raise SettingError(
            f"{{{name}}} is the standard deviation of the noise and must be positive and finite, not {sigma}"
        )
    if value_range is None:
        return
    low, high = _range(value_range)
    if np.max(values) > LARGEST_SIGMA * (high - low):
        raise SettingError(
            f"{{{name}}} = {np.max(values):g} is more than {LARGEST_SIGMA} times the range [{low:g}, {high:g}] of the "
            f"images; sigma is in their units: a level of {np.max(values):g} out of 255 is {np.max(values) / 255:.3g}"
        )


def whole_number(name: str, value, least: int | None = 1) -> Any:
    """`value`, a whole number or an array of whole numbers, as an int or an array of int64.

    Raises:
        TypeError: it is not a number, or not whole.
        SettingError: it is less than `least`.
    """
    if isinstance(value, Tracer):
        return value
    array = np.asarray(value)
    if array.dtype.kind not in "iuf" or not np.all(array == np.floor(array)):
        raise TypeError(f"{name} must be a whole number, not {_described(value)}")
    if least is not None and not np.all(array >= least):
        raise SettingError(f"{{{name}}} must be at least {least}, not {value}")
    return array.astype(np.int64) if array.ndim else int(array)


def check_execution(classify, batch_size, devices) -> None:
    """Raises TypeError or SettingError for an invalid classifier, batch size or list of devices."""
    if not callable(classify):
        raise TypeError(
            "classify must be a function of images (batch, h, w, c) that returns logits (batch, num_classes), not "
            f"{_described(classify)}" + ("; write its .classify" if hasattr(classify, "classify") else "")
        )
    if batch_size is not None and (not isinstance(batch_size, numbers.Integral) or isinstance(batch_size, bool)):
        raise TypeError(f"batch_size must be a whole number or None, not {_described(batch_size)}")
    if batch_size is not None and batch_size < 1:
        raise SettingError(f"{{batch_size}} must be at least 1, not {batch_size}")
    if devices is None:
        return
    if not isinstance(devices, Sequence | np.ndarray) or not all(isinstance(d, jax.Device) for d in devices):
        raise TypeError(f"devices must be a list of JAX's devices, as jax.devices() gives, not {_described(devices)}")
    if len(devices) == 0:
        raise SettingError("{devices} is empty; give jax.devices(), or None for one device")


def instance_of(name: str, value, kinds: tuple[type, ...], example: str) -> None:
    """Raises TypeError unless `value` is an object of one of `kinds`. `example` shows what to write."""
    if isinstance(value, type) or not isinstance(value, kinds):
        known = " or ".join(kind.__name__ for kind in kinds)
        raise TypeError(f"{name} must be of the kind {known}, not {_described(value)}; write {example}")


def _described(value):
    if isinstance(value, np.ndarray | jax.Array):
        return f"an array of {value.dtype} of shape {value.shape}"
    if isinstance(value, type):
        return f"the class {value.__name__} itself"
    if value is None or isinstance(value, str | int | float | bool):
        return repr(value)
    return f"a {type(value).__name__}"
