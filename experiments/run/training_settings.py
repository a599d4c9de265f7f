"""The request of a training: typed settings, from which the command makes its flags."""

import dataclasses

from qcrs_jax.errors import SettingError

from .settings import setting

# (epochs, batch, learning rate, weight decay) of Cohen et al. and MACER on CIFAR-10, and of short runs
DEFAULTS = {
    ("gaussian", "step"): (90, 256, 0.1, 1e-4),
    ("macer", "step"): (440, 64, 0.01, 5e-4),
    ("gaussian", "onecycle"): (14, 128, 0.2, 5e-4),
    ("macer", "onecycle"): (6, 64, 0.05, 5e-4),
}


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
    """A training: the network, the method with its noise, and the optimisation. `complete` replaces each None."""

    sigma: float | None = setting(
        None,
        "standard deviation of the noise, pixels in [0, 1]. With --sigma_range, the level at which accuracy is tested "
        "(default: sqrt(LOW * HIGH))",
    )
    sigma_range: tuple[float, float] | None = setting(
        None,
        "train on a range of levels: each image of each step has one of its own, with log sigma uniform; all copies of "
        "an image have the same",
        type=low_high,
        metavar="LOW,HIGH",
    )
    arch: str | None = setting(
        None, "network: cifar_resnet20, ..., resnet50, lenet, ... (default: that of --init, else cifar_resnet20)"
    )
    init: str | None = setting(
        None, "start from the weights of this checkpoint, of any kind that certify opens", metavar="CHECKPOINT"
    )
    method: str = setting("gaussian", "Cohen's augmentation, or MACER", choices=("gaussian", "macer"))
    copies: int = setting(16, "MACER: number k of noisy copies of each image")
    lbd: float | None = setting(None, "MACER: weight of the robustness loss (default: 12 below sigma 0.5, else 4)")
    gamma: float = setting(8.0, "MACER: gap at which the hinge loss is zero")
    beta: float = setting(16.0, "MACER: inverse temperature of the softmax")
    schedule: str = setting(
        "step",
        "schedule of the learning rate: divided by 10 at 1/3 and 2/3 of the epochs (MACER: 5/11 and 10/11), or one "
        "cycle",
        choices=("step", "onecycle"),
    )
    epochs: int | None = setting(None, "number of epochs (default: 90, MACER 440; with onecycle 14, MACER 6)")
    batch: int | None = setting(
        None, "images in each step, on all devices together (default: 256, MACER 64; with onecycle 128, MACER 64)"
    )
    lr: float | None = setting(
        None, "learning rate, or its peak (default: 0.1, MACER 0.01; with onecycle 0.2, MACER 0.05)"
    )
    momentum: float = setting(0.9, "momentum of the steps")
    weight_decay: float | None = setting(None, "weight decay (default: 1e-4, MACER and onecycle 5e-4)")
    augment: str | None = setting(
        None,
        "augmentation of the images (default: crop_flip for images of 3 channels, else none)",
        choices=("crop_flip", "none"),
    )
    dtype: str = setting("float32", "number format of the passes", choices=("float32", "bfloat16"))
    seed: int = setting(0, "seed of weights, order, augmentation and noise")
    test_skip: int = setting(1, "test on images 0, K, 2K, ... (default: 1, all)", metavar="K")

    def complete(self) -> "Training":
        """The training with the papers' defaults for its method and schedule, checked.

        Raises:
            SettingError: a setting is out of its range.
        """
        from qcrs_jax.training import LogUniform

        if self.sigma is None and self.sigma_range is None:
            raise SettingError("give {sigma}, the noise level, or {sigma_range}, a range of them")
        epochs, batch, rate, decay = DEFAULTS[self.method, self.schedule]
        defaults = {"epochs": epochs, "batch": batch, "lr": rate, "weight_decay": decay}
        if self.sigma_range is not None:
            defaults["sigma"] = LogUniform(*self.sigma_range).middle
        defaults["lbd"] = 12.0 if (defaults["sigma"] if self.sigma is None else self.sigma) < 0.5 else 4.0
        missing = {name: value for name, value in defaults.items() if getattr(self, name) is None}
        filled = dataclasses.replace(self, **missing)
        for name in ("epochs", "batch", "lr", "test_skip"):
            if not 0 < getattr(filled, name) < float("inf"):
                raise SettingError(f"{{{name}}} must be positive, not {getattr(filled, name)}")
        if not 0 <= filled.momentum < 1 or not 0 <= filled.weight_decay < 1:
            raise SettingError("{momentum} and {weight_decay} must lie in [0, 1)")
        return filled
