"""Data sets: images and labels by index. Readers of all kinds return them, and stand in modules of their own."""

import dataclasses
import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float

from ..errors import UserError


class DataError(UserError):
    """A data set that is missing or damaged. The message names the file, or where it looked, and the remedy."""


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Images and labels by index: `image, label = dataset[i]`, image (h, w, c) float32 in [0, 1].

    Attributes:
        name: name by which it was asked for.
        split: "train", "test" or "val".
        source: place where it was found.
        class_names: names of the classes, in the order of the labels.
        labels: label of every image.
        read: index -> raw image, uint8 (h, w, c) or (h, w), or float in [0, 1].
        fingerprint: SHA-256 of what identifies the images and their order.
        problems: index -> why that image or its label cannot be used. Reading it raises DataError.
        files: file of each image, if images have files of their own.
        notes: sentences for the user on choices that could have been others.
        question: error that asks for the order of the classes; None where the order is known.
        held: bytes of images that stay in memory; 0 if each image is read when it is needed.
    """

    name: str
    split: str
    source: str
    class_names: list[str]
    labels: np.ndarray
    read: Callable[[int], np.ndarray]
    fingerprint: str
    problems: dict[int, str] = dataclasses.field(default_factory=dict)
    files: list[Path] | None = None
    notes: tuple[str, ...] = ()
    question: DataError | None = None
    held: int = 0

    def __len__(self) -> int:
        return len(self.labels)

    def where(self, index: int) -> str:
        """The name of an image in a message: its file, or its place."""
        return str(self.files[index]) if self.files else f"image {index} of {self.name} ({self.source})"

    def __getitem__(self, index: int) -> tuple[Float[np.ndarray, "h w c"], int]:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} ({self.split}) has {len(self)} images; there is no image {index}")
        if index in self.problems:
            raise DataError(self.problems[index])
        image = self.read(index)
        if image.dtype == np.uint8:
            image = image.astype(np.float32) / np.float32(255)
        elif image.dtype.kind == "f" and ((image >= 0) & (image <= 1)).all():
            image = image.astype(np.float32)
        else:
            raise DataError(
                f"{self.where(index)}: holds {image.dtype} in [{image.min()}, {image.max()}]; an image is uint8, or "
                "floats in [0, 1]"
            )
        return (image[..., None] if image.ndim == 2 else image), int(self.labels[index])


def digest(*parts: bytes | memoryview) -> str:
    """SHA-256 of the parts, one after another."""
    sha = hashlib.sha256()
    for part in parts:
        sha.update(part)
    return sha.hexdigest()
