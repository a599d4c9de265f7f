"""What a training is asked: typed settings, of which the command makes its flags."""

import dataclasses

from qcrs_jax.errors import SettingError

from .settings import setting

# (epochs, batch, learning rate, weight decay): of Cohen et al. and MACER on CIFAR-10, and of short runs.
DEFAULTS = {
    ("gaussian", "step"): (90, 256, 0.1, 1e-4),
    ("macer", "step"): (440, 64, 0.01, 5e-4),
    ("gaussian", "onecycle"): (14, 128, 0.2, 5e-4),
    ("macer", "onecycle"): (6, 64, 0.05, 5e-4),
}


@dataclasses.dataclass(frozen=True)
class Training:
    """A training: the network, the method with its noise, and the optimisation. `complete` fills in what is None."""

    sigma: float = setting(help="standard deviation of the noise, pixels in [0, 1]")
    arch: str | None = setting(
        None, "cifar_resnet20, ..., resnet50, lenet, ... (default: that of --init, else cifar_resnet20)"
    )
    init: str | None = setting(None, "start from the weights of what certify opens", metavar="CHECKPOINT")
    method: str = setting("gaussian", "Cohen's augmentation, or MACER", choices=("gaussian", "macer"))
    copies: int = setting(16, "MACER: noisy copies of an image, k")
    lbd: float | None = setting(None, "MACER: weight of the robustness loss (default: 12 below sigma 0.5, else 4)")
    gamma: float = setting(8.0, "MACER: hinge on the gap")
    beta: float = setting(16.0, "MACER: inverse temperature")
    schedule: str = setting(
        "step",
        "learning rate: divided by 10 at 1/3 and 2/3 of the epochs (MACER: 5/11 and 10/11), or one cycle",
        choices=("step", "onecycle"),
    )
    epochs: int | None = setting(None, "default: 90, MACER 440; with onecycle 14, MACER 6")
    batch: int | None = setting(
        None, "images of a step, on all devices together (default: 256, MACER 64; onecycle 128, 64)"
    )
    lr: float | None = setting(None, "learning rate, or its peak (default: 0.1, MACER 0.01; onecycle 0.2, 0.05)")
    momentum: float = setting(0.9, "momentum of the steps")
    weight_decay: float | None = setting(None, "default: 1e-4, MACER and onecycle 5e-4")
    augment: str | None = setting(
        None, "default: crop_flip for images of 3 channels, else none", choices=("crop_flip", "none")
    )
    dtype: str = setting("float32", "of the passes", choices=("float32", "bfloat16"))
    seed: int = setting(0, "of weights, order, augmentation and noise")
    test_skip: int = setting(1, "test on images 0, K, 2K, ... (default: 1, all)", metavar="K")

    def complete(self) -> "Training":
        """With the papers' defaults of its method and schedule, checked.

        Raises:
            SettingError: a setting out of its range.
        """
        epochs, batch, rate, decay = DEFAULTS[self.method, self.schedule]
        defaults = {"epochs": epochs, "batch": batch, "lr": rate, "weight_decay": decay}
        defaults["lbd"] = 12.0 if self.sigma < 0.5 else 4.0
        missing = {name: value for name, value in defaults.items() if getattr(self, name) is None}
        filled = dataclasses.replace(self, **missing)
        for name in ("epochs", "batch", "lr", "test_skip"):
            if not 0 < getattr(filled, name) < float("inf"):
                raise SettingError(f"{{{name}}} must be positive, not {getattr(filled, name)}")
        if not 0 <= filled.momentum < 1 or not 0 <= filled.weight_decay < 1:
            raise SettingError("{momentum} and {weight_decay} must lie in [0, 1)")
        return filled
