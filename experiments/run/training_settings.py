"""The request of a training: typed settings, from which the command makes its flags."""

import dataclasses
from pathlib import Path
from typing import Any

from qcrs_jax.errors import SettingError

from .settings import setting


def low_high(text: str) -> tuple[float, float]:
    """(low, high) of the text "LOW,HIGH".

    Raises:
        SettingError: anything else.
    """
    try:
        low, high = map(float, text.split(","))
    except ValueError as error:
        raise SettingError(f"{text!r} is not LOW,HIGH, as 0.2,1 is") from error
    return low, high


low_high.__name__ = "LOW,HIGH"  # as argparse calls it


@dataclasses.dataclass(frozen=True)
class Training:
    """A training: the network, the method with its noise, and the optimisation. `training.completed` replaces None."""

    sigma: float | None = setting(
        None,
        "noise level, for pixels in [0, 1]; with --sigma_range, the one of the tests (default: sqrt(LOW * HIGH))",
    )
    sigma_range: tuple[float, float] | None = setting(
        None,
        "range of noise levels: each image of each step has its own, with log sigma uniform",
        type=low_high,
        metavar="LOW,HIGH",
    )
    arch: str | None = setting(
        None, "network: cifar_resnet20, ..., resnet50, lenet, ... (default: that of --init, else cifar_resnet20)"
    )
    init: str | None = setting(None, "start from these weights: any that certify opens", metavar="CHECKPOINT")
    method: str = setting(
        "gaussian",
        "gaussian (Cohen's augmentation), macer, smoothadv, consistency, smoothmix or catrs; denoiser trains no "
        "classifier, but a denoiser before one",
        metavar="NAME",
    )
    teacher: str | None = setting(
        None,
        "catrs: a classifier trained under the same noise, whose predictions of the training images are kept",
        metavar="CHECKPOINT",
    )
    teacher_samples: int | None = setting(
        None, "noisy copies of each training image from which the teacher's prediction is made (default: 10000)"
    )
    denoiser: Path | None = setting(
        None,
        "train the classifier behind this denoiser, whose weights stay as they are; --init then fine-tunes a "
        "classifier of clean images",
        metavar="DENOISER",
    )
    classifier: str | None = setting(
        None,
        "denoiser: train for stability: this classifier, of any kind that certify opens, has to answer the denoised "
        "image as it answers the clean one (default: squared error)",
        metavar="CHECKPOINT",
    )
    width: int | None = setting(None, "denoiser: channels of its network (default: that of --init, else 32)")
    settings: dict[str, Any] = dataclasses.field(default_factory=dict)
    """Settings of the method that were given, by name; the others have its published values."""
    schedule: str = setting(
        "step",
        "schedule of the learning rate: divided by 10 at 1/3 and 2/3 of the epochs (macer: 5/11 and 10/11), or one "
        "cycle",
        choices=("step", "onecycle"),
    )
    epochs: int | None = setting(
        None,
        "number of epochs (default: gaussian and denoiser 90, macer 440, others 150; with onecycle gaussian 14, "
        "denoiser 30, others 6)",
    )
    batch: int | None = setting(
        None,
        "images in each step, on all devices together (default: gaussian and denoiser 256, macer 64, others 256 / "
        "copies; with onecycle gaussian and denoiser 128, others 64)",
    )
    lr: float | None = setting(
        None,
        "learning rate, or its peak (default: 0.1, macer 0.01, denoiser 0.001; with onecycle gaussian 0.2, denoiser "
        "0.002, others 0.05)",
    )
    momentum: float = setting(0.9, "momentum of the steps; of Adam for denoiser")
    weight_decay: float | None = setting(None, "weight decay (default: 1e-4; macer and onecycle 5e-4; denoiser 0)")
    augment: str | None = setting(
        None,
        "augmentation of the images (default: crop_flip for images of 3 channels, else none)",
        choices=("crop_flip", "none"),
    )
    dtype: str = setting("float32", "number format of the passes", choices=("float32", "bfloat16"))
    seed: int = setting(0, "seed of weights, order, augmentation and noise")
    test_skip: int = setting(1, "test on images 0, K, 2K, ... (default: 1, all)", metavar="K")
