"""Data sets as (h, w, c) float32 images in [0, 1] and integer labels, by index.

A source of data is a reader (root, split, limit) -> Dataset | None in a table by name; TFDS is asked last.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from ..errors import setting
from ..files import reads
from . import image_folders, tfds_files
from .arrays import read_idx
from .class_order import in_class_order
from .dataset import DataError, Dataset, digest
from .limits import Limit
from .sources import SOURCES, known_classes, source_of
from .splits import SPLITS

__all__ = ["DATASETS", "DataError", "Dataset", "digest", "known_classes", "load_dataset", "name_of", "read_idx"]

DEFAULT_DIRS = ("data", "dataset_cache", ".")
DATASETS = tuple(SOURCES)


@reads("data_dir", DataError)
def load_dataset(
    dataset: str | None,
    data_dir: str | Path | None = None,
    split: str = "test",
    on_error: str = "stop",
    class_order: str | Path | Sequence[str] | None = None,
    tfds: str = "prepare",
    memory_limit: float | int | None = None,
) -> Dataset:
    """Opens the data set of this name, from files on disk or through TensorFlow Datasets (TFDS).

    Args:
        dataset: "cifar10", "cifar100", "mnist", "fashion_mnist" or "svhn_cropped": the original files below `data_dir`,
            or else TFDS, which downloads what it lacks. "imagenet" or "imagenet2012": the validation images, in folders
            of classes, or flat with a label file, or from TFDS, resized and cropped to (224, 224, 3). "folder":
            `data_dir/[split/]CLASS/IMAGE`, with classes and files in sorted order, or Tiny-ImageNet as it is unpacked.
            "npz": the file `data_dir`, or `data_dir/SPLIT.npz`. It has x (m, h, w[, c]), uint8 or in [0, 1], y (m,) or
            (m, 1), and class_names if y lacks the last classes. The names may also be images and labels, or such a pair
            for each split, as x_test and y_test. None: the data set that `name_of` finds.
        data_dir: folder or file of the data set; by default ./data, ./dataset_cache and the current folder are
            searched.
        split: "train", "test", or "val" if it exists. Where test has no labels, val is taken for it.
        on_error: "stop" raises an error if a label, or an image of an array, does not fit. "skip" raises it only when
            that image is read, `dataset[i]`.
        class_order: the classes with labels 0, 1, ...: "number" or "text", by the names of the classes; a file with the
            name of a class on each line; or a list of the names. The default is the data set's own order. It must be
            given where the names of the folders are numbers that do not determine the order.
        tfds: "prepare" lets TFDS download what it lacks. "read" takes what TFDS has prepared, and writes nothing.
            "leave" does not ask TFDS.
        memory_limit: largest memory of its arrays, or of one decoded image, in GiB. The default is 4, or half of this
            machine's memory if that is less. Sizes are compared with it before anything is read.

    Returns:
        A Dataset: `dataset[i]` is (image, label), the image (h, w, c) in float32 in [0, 1].

    Raises:
        DataError: the data set is missing, damaged or larger than memory_limit, or the order of its classes is not
            known. The message says where it looked and what to do.
    """
    if split not in SPLITS:
        raise DataError(f"{setting('split')} must be train or test, or val where there is one, not {split!r}")
    if on_error not in ("stop", "skip"):
        raise DataError(f"{setting('on_error')} must be stop or skip, not {on_error!r}")
    name, notes = dataset, ()
    if name is None:
        name = name_of(data_dir)
        notes = (f"{data_dir}: read as {name} (dataset {name})",) if data_dir is not None else ()
    theirs = "imagenet" if name == "imagenet2012" else name
    found = in_class_order(_find(theirs, data_dir, split, tfds, Limit.of(memory_limit)), class_order)
    if found.problems and on_error == "stop":
        first, *others = found.problems.values()
        more = f", and {len(others)} more do not fit" if others else ""
        raise DataError(f"{first}{more}. Mend it, or leave such images out with {setting('on_error')} skip")
    return dataclasses.replace(found, notes=notes + found.notes) if notes else found


def name_of(data_dir: str | Path | None) -> str:
    """The name of the data set in `data_dir`: one whose original files are there, else folder or npz, else cifar10.

    Raises:
        DataError: there is no such file or folder.
    """
    if data_dir is None:
        return "cifar10"
    root = Path(data_dir)
    if not root.exists():
        raise _missing(root)
    if root.is_file():
        return "npz"
    for name, source in ((name, source_of(name)) for name in SOURCES):
        if any(source.knows(root / sub) for sub in source.folders):
            return name
        if source.in_tfds and any(root.glob(f"{name}/*/dataset_info.json")):  # as TFDS keeps it
            return name
    if root.is_dir() and image_folders.holds_images(root):
        return "folder"
    return "npz" if any(root.glob("*.npz")) else "cifar10"


def _missing(root):
    return DataError(f"{root}: no such file or directory (from {setting('data_dir')})")


def _find(name, data_dir, split, tfds, limit) -> Dataset:
    if name not in SOURCES:
        raise DataError(f"unknown {setting('dataset')} {name!r}; known are {', '.join(SOURCES)}")
    source, looked = source_of(name), []
    if source.given:
        if data_dir is None:
            raise DataError(f"{setting('dataset')} {name} needs {setting('data_dir')}: where the images are")
        root = Path(data_dir)
        if not root.exists():
            raise _missing(root)
        found = source.read(root, split, limit)
        if found is None:
            raise DataError(f"{root}: holds no data set of {setting('dataset')} {name}")
        return found
    if split not in source.splits:
        raise DataError(f"{name}: has the splits {' and '.join(source.splits)}, and no {split} ({setting('split')})")
    for root in [Path(data_dir)] if data_dir is not None else [Path(d) for d in DEFAULT_DIRS]:
        for sub in source.folders:
            looked.append(root / sub)
            if (found := source.read(root / sub, split, limit)) is not None:
                return found
    if source.in_tfds and tfds != "leave":
        return tfds_files.load(name, data_dir, split, looked, prepare=tfds == "prepare", limit=limit)
    places = "".join(f"\n  {place.absolute()}" for place in looked)
    unasked = (
        f"TensorFlow Datasets was not asked, because no folder was named for it; name one as {setting('data_dir')}"
        if source.in_tfds
        else f"Name the folder of its files as {setting('data_dir')}"
    )
    raise DataError(f"data set {name} ({split}) was not found. Looked in{places}\n{unasked}")
