"""Train a base classifier under Gaussian noise: Cohen's augmentation, or MACER. Resumes when given again.

OUT_DIR becomes a classifier that `certify` and `export` open; its folder `training` holds the state after the last
epoch, the log and its curve. Defaults are the papers'; `--schedule onecycle` is a short run for small machines.

  qcrs-jax train OUT_DIR --arch cifar_resnet110 --dataset cifar10 --sigma 0.25
  qcrs-jax train OUT_DIR --arch cifar_resnet20 --dataset cifar10 --sigma 0.25 --schedule onecycle
  qcrs-jax train OUT_DIR --arch lenet --dataset mnist --sigma 0.25 --method macer
  qcrs-jax train OUT_DIR --init models/noise_0.25.pth.tar --dataset cifar10 --sigma 0.50 --epochs 10 --lr 0.01
"""

from .figures import pyplot, save, tidy

COLUMNS = ("epoch", "learning_rate", "loss", "train_accuracy", "clean_accuracy", "noisy_accuracy", "seconds")


def read_log(path) -> list[tuple]:
    """The rows of a training log, one an epoch, in the order of COLUMNS."""
    lines = path.read_text().splitlines()[1:]
    return [(int(epoch), *map(float, rest)) for epoch, *rest in (line.split("\t") for line in lines)]


def plot_log(rows, out, title) -> None:
    """Draws loss and accuracies of a training log against the epoch to the file `out`."""

    columns = dict(zip(COLUMNS, zip(*rows)))
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
