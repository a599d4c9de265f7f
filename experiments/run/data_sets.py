"""Opens the data set that settings name, and prints the choices made while opening it."""

import dataclasses

from qcrs_jax.data.load import load_dataset
from qcrs_jax.errors import UserError
from qcrs_jax.printable import printable_lines

from .settings import Data


def open_dataset(data: Data):
    """The data set. Prints its notes.

    Raises:
        UserError: as for `load_dataset`.
    """
    dataset = load_dataset(
        data.dataset, data.data_dir, data.split, data.on_error, data.class_order, data.tfds, data.memory_limit
    )
    for note in dataset.notes:
        print(printable_lines(f"note: {note}"))
    return dataset


def open_train_and_test(data: Data):
    """The two data sets of a training.

    Raises:
        UserError: as for `load_dataset`, or their labels belong to different classes.
    """
    train, test = (open_dataset(dataclasses.replace(data, split=split)) for split in ("train", "test"))
    if any(one != other for one, other in zip(train.class_names, test.class_names)):
        own = sorted(set(train.class_names) ^ set(test.class_names))
        raise UserError(
            f"{train.source} and {test.source}: label 0, 1, ... is not the same class in both: "
            f"{', '.join(own[:6]) or 'their order differs'}. An empty folder keeps the place of a class without images"
        )
    return train, test
