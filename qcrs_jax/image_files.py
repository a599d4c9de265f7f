"""Data sets of image files: any folder of classes, and ImageNet as torchvision prepares it for evaluation."""

import re
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from .data import DataError, Dataset, digest

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}


def folder(root: Path, split: str) -> Dataset:
    """The images `root/[split/]CLASS/IMAGE` at their own size; classes and files in sorted order.

    Raises:
        DataError: no images, or none for this split.
    """
    root = _split_folder(root, split)
    classes, files, labels = _by_class(root)
    if not files:
        raise DataError(f"{root}: no images found; --dataset folder expects {root}/CLASS/IMAGE")
    return _dataset("folder", split, root, classes, files, labels, np.asarray)


def imagenet(root: Path, split: str) -> Dataset | None:
    """ImageNet below `root`, resized and cropped to (224, 224, 3); None if it is not there.

    Either 1000 folders of classes, `root/[val/]n01440764/IMAGE` and so on, or the flat official folder of validation
    images with a file `val.txt` beside or in it, of lines `ILSVRC2012_val_00000001.JPEG 65`: labels count from 0 in the
    sorted order of the WordNet ids.

    Raises:
        DataError: files are there, but not as described; names the file, and the line.
    """
    if not root.is_dir():
        return None
    root = _split_folder(root, split)
    classes, files, labels = _by_class(root)
    if any(re.fullmatch(r"n\d{8}", name) for name in classes):
        if len(classes) != 1000 or not files:
            raise DataError(
                f"{root}: has {len(classes)} folders with {len(files)} images, not ImageNet's 1000 classes, so "
                "that labels would be wrong; use --dataset folder for a data set of your own"
            )
        return _dataset("imagenet", split, root, classes, files, labels, resize_and_crop)
    if not next(root.glob("ILSVRC2012_val_*"), None):
        return None
    lists = [path for path in (root / "val.txt", root.parent / "val.txt") if path.is_file()]
    if not lists:
        raise DataError(f"{root}: has images, but no val.txt with lines 'NAME LABEL' in it or beside it")
    files, labels = [], []
    for number, line in enumerate(lists[0].read_text().splitlines(), start=1):
        try:
            name, label = line.split()
            labels.append(int(label))
        except ValueError:
            raise DataError(f"{lists[0]}, line {number}: {line!r} is not a name and a label") from None
        files.append(root / name)
        if not 0 <= labels[-1] < 1000 or not files[-1].is_file():
            raise DataError(f"{lists[0]}, line {number}: no file {files[-1]}, or no label of 0 to 999: {label}")
    return _dataset("imagenet", split, root, [str(i) for i in range(1000)], files, labels, resize_and_crop)


def resize_and_crop(image: Image.Image) -> UInt8[np.ndarray, "224 224 3"]:
    """The short side resized to 256, bilinear with antialias, and the central 224 x 224, as torchvision does it."""
    width, height = image.size
    short = min(width, height)
    width, height = int(256 * width / short), int(256 * height / short)
    left, top = round((width - 224) / 2), round((height - 224) / 2)
    resized = image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized.crop((left, top, left + 224, top + 224)))


def _split_folder(root, split):
    names = {"test": ("test", "val"), "train": ("train",)}[split]
    present = [name for name in ("train", "test", "val") if (root / name).is_dir()]
    if present and not set(present) & set(names):
        raise DataError(f"{root}: has {', '.join(present)}, but nothing for --split {split}")
    return next((root / name for name in names if name in present), root)


def _by_class(root):
    classes = sorted(path.name for path in root.iterdir() if path.is_dir())
    files, labels = [], []
    for label, name in enumerate(classes):
        found = sorted(path for path in (root / name).iterdir() if path.suffix.lower() in SUFFIXES)
        files += found
        labels += [label] * len(found)
    return classes, files, labels


def _dataset(name, split, root, classes, files, labels, prepare):
    def read(index):
        try:
            with Image.open(files[index]) as image:
                if image.mode.startswith(("I", "F")):
                    raise OSError(f"more than 8 bits a channel, mode {image.mode}; use --dataset npz with floats")
                return prepare(image if image.mode in ("RGB", "L") else image.convert("RGB"))
        except OSError as error:
            raise DataError(f"{files[index]}: not an image, or a damaged one ({error})") from error

    listing = "\n".join(f"{file.parent.name}/{file.name} {file.stat().st_size}" for file in files)
    fingerprint = digest(listing.encode(), np.array(labels, np.int64).tobytes())
    return Dataset(name, split, str(root), classes, np.array(labels), read, fingerprint)
