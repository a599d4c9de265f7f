"""What a source of data is: a reader of files, and where it looks. Light to import."""

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
        read: (folder, split, limit) -> the Dataset; None where its files are not in the folder.
        folders: where it looks below each root: "" is the root itself.
        knows: whether files in a folder are surely its own, so that nobody has to name the data set.
        classes: the names of its classes in the order of the labels, where these are known beforehand.
        splits: those that it has.
        given: whether it has no place of its own and reads whatever `data_dir` names.
        in_tfds: whether TensorFlow Datasets has it too, and is asked where no files are found.
    """

    read: "Callable[[Path, str, Limit], Dataset | None]"
    folders: tuple[str, ...] = ("",)
    knows: Callable[[Path], bool] = lambda root: False
    classes: tuple[str, ...] | None = None
    splits: tuple[str, ...] = ("train", "test")
    given: bool = False
    in_tfds: bool = False
