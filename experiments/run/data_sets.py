"""The data set that a command's flags name, opened; what was chosen on the way is printed."""

from qcrs_jax.data.load import load_dataset
from qcrs_jax.errors import UserError
from qcrs_jax.printable import printable_lines


def open_dataset(args, split: str | None = None):
    """The data set that `args` name, of `split` or else of theirs. Prints its notes.

    Raises:
        UserError: what `load_dataset` raises.
    """

    on_error = getattr(args, "on_error", "stop")
    split, tfds = split or args.split, getattr(args, "tfds", "prepare")
    dataset = load_dataset(args.dataset, args.data_dir, split, on_error, args.class_order, tfds, args.memory_limit)
    for note in dataset.notes:
        print(printable_lines(f"note: {note}"))
    return dataset


def open_train_and_test(args):
    """The two data sets of a training.

    Raises:
        UserError: what `load_dataset` raises, or their labels are of different classes.
    """

    train, test = (open_dataset(args, split) for split in ("train", "test"))
    if any(one != other for one, other in zip(train.class_names, test.class_names)):
        own = sorted(set(train.class_names) ^ set(test.class_names))
        raise UserError(
            f"{train.source} and {test.source}: label 0, 1, ... is not the same class in both: "
            f"{', '.join(own[:6]) or 'their order differs'}. An empty folder keeps the place of a class without images"
        )
    return train, test
