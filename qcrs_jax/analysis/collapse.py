"""Measures at which sigma a classifier loses its accuracy under noise, and how many classes it answers there."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Array, Float, Int

from ..certification.certificate import sample_curve
from ..checks import UNIT, ValueRange, as_image_keys, as_images, whole_number
from ..errors import SettingError
from ..results.collapse import Collapse
from ..sampling.classifiers import Classifier
from ..sampling.counts import default_batch_size
from ..sampling.devices import Device
from ..sampling.smoothing import GAUSSIAN, Noise

RATIO = 1.15
"""Ratio of neighbouring sigmas above the original one, at most."""


def collapse_grid(lower: float, sigma: float, upper: float) -> list[float]:
    """The sigmas at which the collapse of a classifier trained at `sigma` is measured; ascending float32.

    They are at most `RATIO` apart from `sigma` to `upper`. Below there are `lower` and one between: accuracy is rarely
    lost there.
    """
    above = np.geomspace(sigma, upper, 1 + max(1, int(np.ceil(np.log(upper / sigma) / np.log(RATIO)))))
    return sorted(set(np.array([lower, np.sqrt(lower * sigma), sigma, *above], np.float32).tolist()))


def measure_collapse(
    classify: Classifier,
    images: Float[Array | np.ndarray, "*m h w c"],
    sigmas: Float[np.ndarray, "s"] | Sequence[float],
    labels: Int[np.ndarray, "labels"] | Sequence[int] | None = None,
    *,
    key,
    copies: int = 5,
    noise: Noise = GAUSSIAN,
    value_range: ValueRange = UNIT,
    batch_size: int | None = None,
    devices: Sequence[Device] | None = None,
) -> Collapse:
    """Returns how a classifier answers images under noise of growing sigma. It certifies nothing.

    `Collapse.lost_at` is the sigma at which accuracy under noise is lost. All sigmas share the same noise, which is
    that of `sample_curve` with the same keys.

    Args:
        classify: as for `certify`.
        images: several images (m, h, w, c) in `value_range`; fifty or more, of many classes.
        sigmas: noise levels, in the units of `value_range`. One at which the classifier was trained should be among
            them: accuracy is compared with the best one.
        labels: true classes, (m,); None measures the number of classes alone.
        key: PRNG key, or m keys, one for each image.
        copies: number of noisy copies of each image at each sigma.
        noise, value_range, devices: as for `certify`.
        batch_size: noisy copies per forward pass of a device, of all images in it together. It changes no count.

    Raises:
        TypeError, ValueError: as for `certify`.
    """
    images = as_images(images, value_range)
    if images.ndim != 4 or labels is not None and np.shape(labels) != images.shape[:1]:
        shapes = f"{images.shape}" + ("" if labels is None else f" and {np.shape(labels)}")
        raise SettingError(f"collapse is measured on images (m, h, w, c) and {{labels}} (m,), not on {shapes}")
    keys, copies = as_image_keys(key, images), whole_number("copies", copies)
    own = -(-copies // (len(devices) if devices else 1))  # copies of an image in a pass of a device
    together = min(len(images), max(1, (batch_size or default_batch_size(images.shape[1:])) // own))
    counts = []
    for start in range(0, len(images), together):
        group = np.minimum(np.arange(start, start + together), len(images) - 1)  # another shape would be compiled anew
        drawn = sample_curve(
            classify,
            images[group],
            sigmas,
            key=keys[group],
            n=copies,
            noise=noise,
            value_range=value_range,
            batch_size=own,
            devices=devices,
        )
        counts.append(np.asarray(drawn)[: len(images) - start])
    labels = None if labels is None else np.asarray(labels)
    return Collapse.of_counts(np.asarray(sigmas, np.float32), np.concatenate(counts), copies, labels)
