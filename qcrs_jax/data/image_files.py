"""Data sets of image files: any folder of classes, and ImageNet as torchvision prepares it for evaluation."""

import contextlib
import dataclasses
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from ..errors import quoted, setting, text_of
from ..files import open_regular
from .dataset import DataError, Dataset, digest
from .image_folders import list_folder
from .imagenet_files import list_imagenet
from .limits import MOST_PIXELS, Limit
from .source import Source
from .splits import SPLITS

FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")  # Pillow knows others that start programs
_LIMIT = Limit()
_BYTES_OF_A_PIXEL = 11  # decoded, converted and copied


def folder(root: Path, split: str, limit: Limit = _LIMIT) -> Dataset:
    """The images of `list_folder` at their own size."""
    if root.is_file():
        name = setting("dataset")
        raise DataError(f"{root}: is a file; {name} folder takes a folder of CLASS/IMAGE, {name} npz a file")
    return _dataset("folder", split, list_folder(root, split), np.asarray, limit)


def imagenet(root: Path, split: str, limit: Limit = _LIMIT) -> Dataset | None:
    """The images of `list_imagenet`, resized and cropped to (224, 224, 3); None if it is not below `root`."""
    listing = list_imagenet(root, split)
    return None if listing is None else _dataset("imagenet", split, listing, resize_and_crop, limit)


def decode(
    file: Path | io.BufferedIOBase, name: str, prepare=np.asarray, limit: Limit = _LIMIT
) -> UInt8[np.ndarray, "h w"] | UInt8[np.ndarray, "h w 3"]:
    """The pixels of an encoded image after `prepare`: (h, w) if it is grey, else RGB, (h, w, 3).

    Palettes are looked up, transparency is dropped, and the first frame of an animation is taken.

    Raises:
        DataError: not an image, or a damaged one, or larger than `limit`. The message calls it `name`.
    """
    try:
        with _opened(file) as stream, Image.open(stream, formats=FORMATS) as image:
            _check_size(*image.size, name, limit)
            mode = image.mode
            if not mode.startswith(("I", "F")):
                grey = mode in ("L", "1", "LA", "La")
                return prepare(image if mode in ("L", "RGB") else image.convert("L" if grey else "RGB"))
    except DataError as error:
        raise error if name in str(error) else DataError(f"{name}: {text_of(error)}") from error
    except Exception as error:  # whatever a decoder of Pillow meets in a damaged file
        raise DataError(f"{name}: not an image, or a damaged one ({quoted(error)})") from error
    raise DataError(
        f"{name}: has more than 8 bits a channel (mode {mode}); convert it to 8 bits, or use {setting('dataset')} npz "
        "with floats"
    )


def _opened(file) -> contextlib.AbstractContextManager[Any]:
    """The file as a stream. One that is open already stays open for its owner."""
    return contextlib.nullcontext(file) if isinstance(file, io.IOBase) else open_regular(file)


def _check_size(width, height, name, limit):
    """Raises DataError for an image without pixels, or with so many that decoding would take too much memory."""
    if not width * height:
        raise DataError(f"{name}: has no pixels, {width} x {height}")
    if width * height > MOST_PIXELS:
        raise DataError(
            f"{name}: has {width} x {height} pixels, more than the {MOST_PIXELS} that are read; make it smaller, or "
            f"leave it out with {setting('on_error')} skip"
        )
    limit.check(_BYTES_OF_A_PIXEL * width * height, name)


def resize_and_crop(image: Image.Image, short: int = 256, h: int = 224, w: int = 224) -> UInt8[np.ndarray, "{h} {w} 3"]:
    """The short side resized to `short`, bilinear with antialias, and the central (h, w), as torchvision does it."""
    scale = min(image.size)
    if not scale:
        raise DataError("has no pixels")
    width, height = (int(short * side / scale) for side in image.size)
    if width * height > MOST_PIXELS:
        raise DataError(
            f"its sides, {image.size[0]} and {image.size[1]}, differ too much: resized it has {width} x {height} pixels"
        )
    left, top = round((width - w) / 2), round((height - h) / 2)
    resized = image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized.crop((left, top, left + w, top + h)))


def resized(dataset: Dataset, resize: int, h: int, w: int) -> Dataset:
    """`dataset`, its images of 8 bits a channel prepared by `resize_and_crop`.

    Raises:
        DataError: `resize`, the short side, is less than h or w.
    """
    if resize < max(h, w):
        raise DataError(
            f"{setting('resize')} {resize}: must be at least {max(h, w)}, the size of the images that the network takes"
        )

    def read(index):
        image = dataset.read(index)
        if image.dtype != np.uint8:
            raise DataError(
                f"{dataset.where(index)}: holds {image.dtype}; {setting('resize')} takes images of 8 bits a channel"
            )
        grey = image.ndim == 2 or image.shape[2] == 1
        try:
            pixels = resize_and_crop(Image.fromarray(image.reshape(image.shape[:2]) if grey else image), resize, h, w)
        except DataError as error:
            raise DataError(f"{dataset.where(index)}: {text_of(error)}") from error
        return pixels[..., :1] if grey else pixels

    fingerprint = digest(f"{dataset.fingerprint} short side {resize}, centre {h} {w}".encode())
    return dataclasses.replace(dataset, read=read, fingerprint=fingerprint)


def _dataset(name, split, listing, prepare, limit):
    root, classes, files, labels, problems, notes, question = listing
    sizes = [file.stat().st_size if file.is_file() else None for file in files]
    names = "\n".join(f"{file.parent.name}/{file.name} {size}" for file, size in zip(files, sizes))
    labels = np.array(labels, np.int64)
    return Dataset(
        name,
        split,
        str(root),
        classes,
        labels,
        lambda index: decode(files[index], str(files[index]), prepare, limit),
        digest(os.fsencode(names), labels.tobytes()),
        problems,
        files,
        notes,
        question,
    )


IMAGENET_FILES = Source(imagenet, ("imagenet", "ILSVRC2012", ""), splits=SPLITS, in_tfds=True)
FOLDER = Source(folder, splits=SPLITS, given=True)
