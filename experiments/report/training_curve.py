"""The log of a training, with one line an epoch, and its figure."""

import dataclasses
from pathlib import Path

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


def read_log(path: Path) -> list[Epoch]:
    """The epochs of a training log.

    Raises:
        RecordsError: it cannot be read, or is another file.
    """
    return read_rows(path, set(Epoch.columns()), Epoch.of, "log of a training")


def plot_log(epochs: list[Epoch], out: Path, title: str) -> None:
    """Draws loss and accuracies of a training log against the epoch to the file `out`."""
    columns = {name: [getattr(epoch, name) for epoch in epochs] for name in Epoch.columns()}
    figure, (left, right) = pyplot().subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    left.plot(columns["epoch"], columns["loss"], linewidth=1.8)
    left.set(xlabel="epoch", ylabel="training loss")
    names = {"clean_accuracy": "test, clean", "noisy_accuracy": "test, under noise", "train_accuracy": "training"}
    for column, name in names.items():
        right.plot(columns["epoch"], columns[column], linewidth=1.8, label=f"{name}: {columns[column][-1]:.3f}")
    right.set(xlabel="epoch", ylabel="accuracy", ylim=(0, 1))
    right.legend(frameon=False, loc="lower right")
    for axes in (left, right):
        tidy(axes)
    figure.suptitle(title, fontsize=11)
    save(figure, out)
