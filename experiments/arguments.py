"""Arguments that several commands share."""

from pathlib import Path


def share(text: str) -> float:
    """The number that 1% or 0.01 stands for."""
    return float(text[:-1]) / 100 if text.endswith("%") else float(text)


def add_data_arguments(parser):
    """Adds --dataset and --data_dir to `parser`; returns the group, for more of its kind."""
    group = parser.add_argument_group("data")
    group.add_argument(
        "--dataset",
        default="cifar10",
        choices="cifar10 cifar100 mnist fashion_mnist svhn_cropped imagenet imagenet2012 folder npz".split(),
        help="a known data set from its original files or TFDS, a folder of CLASS/IMAGE, or an .npz with x, y "
        "and perhaps class_names "
        "(default: cifar10)",
    )
    group.add_argument(
        "--data_dir", type=Path, help="where the data set is (default: ./data, ./dataset_cache, ., then TFDS)"
    )
    return group
