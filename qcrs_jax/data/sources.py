"""The sources of data by name. Light to import: the module of a source is imported when its data set is asked for."""

import pkgutil

from .source import Source

SOURCES: dict[str, str] = {
    "cifar10": "qcrs_jax.data.arrays:CIFAR10_FILES",
    "cifar100": "qcrs_jax.data.arrays:CIFAR100_FILES",
    "mnist": "qcrs_jax.data.arrays:MNIST_FILES",
    "fashion_mnist": "qcrs_jax.data.arrays:FASHION_MNIST_FILES",
    "svhn_cropped": "qcrs_jax.data.arrays:SVHN_FILES",
    "imagenet": "qcrs_jax.data.image_files:IMAGENET_FILES",
    "imagenet2012": "qcrs_jax.data.image_files:IMAGENET_FILES",  # the name that TFDS has for it
    "folder": "qcrs_jax.data.image_files:FOLDER",
    "npz": "qcrs_jax.data.arrays:NPZ",
}
"""Each source as MODULE:OBJECT, by the name of the data set: `dataset` of `load_dataset` and of the commands."""


def source_of(name: str) -> Source:
    """The source `name`, with its module imported. Raises KeyError for an unknown name."""
    return pkgutil.resolve_name(SOURCES[name])


def known_classes(name: str) -> tuple[str, ...] | None:
    """The names of the classes of the data set `name`, by label, if they are known without its files; else None."""
    return source_of(name).classes if name in SOURCES else None
