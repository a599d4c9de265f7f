"""The class of data sources: a reader of files, and the folders in which it looks. Light to import."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .dataset import Dataset
    from .limits import Limit


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set by its original files.

    Attributes:
        read: (folder, split, limit) -> the Dataset; None if its files are not in the folder.
        folders: folders below each root in which it looks; "" is the root itself.
        knows: whether files in a folder surely belong to it, so that the data set need not be named.
        classes: names of its classes in the order of the labels, if these are known beforehand.
        splits: splits that it has.
        given: whether it has no place of its own and reads the folder or file in `data_dir`.
        in_tfds: whether TensorFlow Datasets has it too, and is asked if no files are found.
    """

    read: "Callable[[Path, str, Limit], Dataset | None]"
    folders: tuple[str, ...] = ("",)
    knows: Callable[[Path], bool] = lambda root: False
    classes: tuple[str, ...] | None = None
    splits: tuple[str, ...] = ("train", "test")
    given: bool = False
    in_tfds: bool = False
