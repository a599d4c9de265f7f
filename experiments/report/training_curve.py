"""The log of a training, with one line an epoch, and its figure."""

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from qcrs_jax.results.records import read_rows
from qcrs_jax.results.rows import Row

from .figures import pyplot, save, tidy


@dataclasses.dataclass(frozen=True)
class Epoch(Row):
    """The record of an epoch: the last learning rate, the mean loss, and accuracies on training and test images.

    noisy_accuracy: accuracy on test images under one draw of the noise.
    seconds: time of this epoch.
    """

    epoch: int
    learning_rate: float
    loss: float
    train_accuracy: float
    clean_accuracy: float
    noisy_accuracy: float
    seconds: float


@dataclasses.dataclass(frozen=True)
class DenoiserEpoch(Row):
    """The record of an epoch of a denoiser.

    train_error: mean squared error of a pixel, over the training images and the levels of their noise.
    error_low, error_middle, error_high: the same on test images, at the lowest, the middle and the highest level.
    seconds: time of this epoch.
    """

    epoch: int
    learning_rate: float
    loss: float
    train_error: float
    error_low: float
    error_middle: float
    error_high: float
    seconds: float


E = TypeVar("E", bound=Row)


def read_log(path: Path, kind: type[E] = Epoch) -> list[E]:
    """The epochs of a training log, whose lines are of this `kind`.

    Raises:
        RecordsError: it cannot be read, or is another file.
    """
    return read_rows(path, set(kind.columns()), kind.of, "log of a training")


def plot_log(epochs: list[Epoch], out: Path, title: str) -> None:
    """Draws loss and accuracies of a training log against the epoch to the file `out`."""
    names = {"clean_accuracy": "test, clean", "noisy_accuracy": "test, under noise", "train_accuracy": "training"}
    with _figure(epochs, names, out, title) as right:
        right.set(ylabel="accuracy", ylim=(0, 1))
        right.legend(frameon=False, loc="lower right")


def plot_denoiser_log(epochs: list[DenoiserEpoch], levels: Sequence[float], out: Path, title: str) -> None:
    """Draws loss and errors of the training log of a denoiser to the file `out`; `levels` are those of its errors."""
    names = ("error_low", "error_middle", "error_high")
    told = {name: f"test, sigma {level:g}" for name, level in zip(names, levels)}
    distinct = {name: text for name, text in told.items() if text not in list(told.values())[: names.index(name)]}
    with _figure(epochs, distinct, out, title) as right:
        right.set(ylabel="mean squared error of a pixel", yscale="log")
        right.legend(frameon=False, loc="upper right")


@contextlib.contextmanager
def _figure(epochs, names, out, title):
    """A figure of the loss, and of columns with their names, whose axes are still to be labelled."""
    columns = {name: [getattr(epoch, name) for epoch in epochs] for name in type(epochs[0]).columns()}
    figure, (left, right) = pyplot().subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    left.plot(columns["epoch"], columns["loss"], linewidth=1.8)
    left.set(xlabel="epoch", ylabel="training loss")
    for column, name in names.items():
        right.plot(columns["epoch"], columns[column], linewidth=1.8, label=f"{name}: {columns[column][-1]:.3g}")
    right.set(xlabel="epoch")
    yield right
    for axes in (left, right):
        tidy(axes)
    figure.suptitle(title, fontsize=11)
    save(figure, out)
