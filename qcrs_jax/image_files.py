"""Data sets of image files: any folder of classes, and ImageNet as torchvision prepares it for evaluation."""

import dataclasses
import io
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from .data import DataError, Dataset, digest

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")  # Pillow knows others that start programs

SPLIT_FOLDERS = {"train": ("train",), "test": ("test", "val")}
GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
LABEL_FILES = ("val.txt", "LOC_val_solution.csv", GROUND_TRUTH)


class Listing(NamedTuple):
    """Image files with their labels.

    root: the folder.
    classes: names of the classes, in the order of the labels.
    files: the images, in order.
    labels: the label of each, -1 where there is none.
    problems: index -> what is wrong with that image's label.
    """

    root: Path
    classes: list[str]
    files: list[Path]
    labels: list[int]
    problems: dict[int, str]


def folder(root: Path, split: str) -> Dataset:
    """The images of `list_folder` at their own size."""
    return _dataset("folder", split, list_folder(root, split), np.asarray)


def imagenet(root: Path, split: str) -> Dataset | None:
    """The images of `list_imagenet`, resized and cropped to (224, 224, 3); None if it is not below `root`."""
    listing = list_imagenet(root, split)
    return None if listing is None else _dataset("imagenet", split, listing, resize_and_crop)


def list_folder(root: Path, split: str) -> Listing:
    """The images `root/[split/]CLASS/IMAGE`; classes and files in sorted order.

    Raises:
        DataError: no images, or none for this split.
    """
    root = split_folder(root, split)
    listing = _by_class(root)
    if not listing.files:
        raise DataError(
            f"{root}: no images found; --dataset folder expects {root}/CLASS/IMAGE, with names that end in "
            + ", ".join(sorted(SUFFIXES))
        )
    return listing


def list_imagenet(root: Path, split: str) -> Listing | None:
    """ImageNet's images below `root`; None if they are not there.

    Either 1000 folders of classes, `root/[val/]n01440764/IMAGE` and so on, or the flat official folder of validation
    images in the order of their names. The labels of the latter come from a file in or beside it: `val.txt` with lines
    `ILSVRC2012_val_00000001.JPEG 65`, labels counting from 0 in the sorted order of the WordNet ids; or the devkit's
    ILSVRC2012_validation_ground_truth.txt with its meta.mat; or Kaggle's LOC_val_solution.csv; or else from the list
    that TFDS has.

    Raises:
        DataError: files are there, but not as described.
    """
    if not root.is_dir():
        return None
    root = split_folder(root, split)
    listing = _by_class(root)
    if any(re.fullmatch(r"n\d{8}", name) for name in listing.classes):
        if len(listing.classes) != 1000 or not listing.files:
            raise DataError(
                f"{root}: has {len(listing.classes)} folders with {len(listing.files)} images, not ImageNet's 1000 "
                "classes, so that labels would be wrong; use --dataset folder for a data set of your own"
            )
        return listing
    return _flat(root) if next(root.glob("ILSVRC2012_val_*"), None) else None


def decode(
    file: Path | io.BufferedIOBase, name: str, prepare=np.asarray
) -> UInt8[np.ndarray, "h w"] | UInt8[np.ndarray, "h w 3"]:
    """The pixels of an encoded image, what `prepare` makes of them: (h, w) if it is grey, else RGB, (h, w, 3).

    Palettes are looked up, transparency is dropped, and of an animation the first frame is taken.

    Raises:
        DataError: not an image, or a damaged one; calls it `name`.
    """
    try:
        with Image.open(file, formats=FORMATS) as image:
            mode = image.mode
            if not mode.startswith(("I", "F")):
                grey = mode in ("L", "1", "LA", "La")
                return prepare(image if mode in ("L", "RGB") else image.convert("L" if grey else "RGB"))
    except Exception as error:  # whatever a decoder of Pillow meets in a damaged file
        raise DataError(f"{name}: not an image, or a damaged one ({error})") from error
    raise DataError(
        f"{name}: has more than 8 bits a channel (mode {mode}); convert it to 8 bits, or use --dataset npz with floats"
    )


def resize_and_crop(image: Image.Image, short: int = 256, h: int = 224, w: int = 224) -> UInt8[np.ndarray, "{h} {w} 3"]:
    """The short side resized to `short`, bilinear with antialias, and the central (h, w), as torchvision does it."""
    scale = min(image.size)
    width, height = (int(short * side / scale) for side in image.size)
    left, top = round((width - w) / 2), round((height - h) / 2)
    resized = image.convert("RGB").resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(resized.crop((left, top, left + w, top + h)))


def resized(dataset: Dataset, short: int, h: int, w: int) -> Dataset:
    """`dataset`, its images of 8 bits a channel prepared by `resize_and_crop`.

    Raises:
        DataError: `short` is less than h or w.
    """
    if short < max(h, w):
        raise DataError(
            f"--resize {short}: must be at least {max(h, w)}, the size of the images that the network takes"
        )

    def read(index):
        image = dataset.read(index)
        if image.dtype != np.uint8:
            raise DataError(f"{dataset.where(index)}: holds {image.dtype}; --resize takes images of 8 bits a channel")
        grey = image.ndim == 2 or image.shape[2] == 1
        pixels = resize_and_crop(Image.fromarray(image.reshape(image.shape[:2]) if grey else image), short, h, w)
        return pixels[..., :1] if grey else pixels

    fingerprint = digest(f"{dataset.fingerprint} short side {short}, centre {h} {w}".encode())
    return dataclasses.replace(dataset, read=read, fingerprint=fingerprint)


def splits_below(root: Path) -> list[str]:
    """Which of train, test and val are folders of classes, or of ImageNet's images, below `root`."""

    def is_split(path):
        # A class that happens to be called train holds images.
        return path.is_dir() and (any(map(Path.is_dir, path.iterdir())) or any(path.glob("ILSVRC2012_val_*")))

    return [name for name in ("train", "test", "val") if is_split(root / name)]


def split_folder(root: Path, split: str) -> Path:
    """The folder of the split "train" or "test": one below `root`, or `root` itself if it is not split.

    Raises:
        DataError: it is split, but not into this one.
    """
    present = splits_below(root)
    for name in SPLIT_FOLDERS[split]:
        if name in present:
            return root / name
    if present:
        raise DataError(f"{root}: has {', '.join(present)}, but nothing for --split {split}")
    return root


def _by_class(root):
    classes = sorted(path.name for path in root.iterdir() if path.is_dir() and not path.name.startswith("."))
    files, labels = [], []
    for label, name in enumerate(classes):
        found = _images((root / name).rglob("*"))
        files += found
        labels += [label] * len(found)
    return Listing(root, classes, files, labels, {})


def _images(paths):
    return sorted(path for path in paths if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))


def _flat(root):
    """The listing of the flat folder. A line of the label file without an image has an index too, behind the others."""
    wordnet_ids = known_to_tfds("labels.txt")
    label_of = {name: i for i, name in enumerate(wordnet_ids)} | {str(i): i for i in range(len(wordnet_ids))}
    files = _images(root.iterdir())
    index = {file.stem: i for i, file in enumerate(files)}
    path = _label_file(root)
    lines = _label_lines(path) if path else _numbered(known_to_tfds("validation_labels.txt"))
    labels, seen, problems = [-1] * len(files), {}, {}
    for number, name, text in lines:
        i, label, problem = index.get(Path(name).stem), label_of.get(text, -1), None
        if i is None:
            if path is None:  # some of the images are enough
                continue
            problem = f"there is no image {name!r} in {root}"
            i = len(files)
            files.append(root / name)
            labels.append(-1)
        if text is None:
            problem = f"{name!r} is not a name and a label"
        elif i in seen:
            problem = f"{name} is there already, in line {seen[i]}"
        elif label < 0 and not problem:
            problem = f"{text!r} is neither a label of 0 to 999 nor the WordNet id of a class"
        labels[i], seen[i] = label, number
        if problem:
            labels[i], problems[i] = -1, f"{path}, line {number}: {problem}"
    for i in sorted(set(range(len(files))) - set(seen)):
        problems[i] = f"{path or 'TFDS'}: has no line for {files[i].name}"
    return Listing(root, wordnet_ids, files, labels, problems)


def _label_file(root):
    places = [root, root.parent, *sorted(root.parent.glob("ILSVRC2012_devkit*/data"))]
    return next((place / name for name in LABEL_FILES for place in places if (place / name).is_file()), None)


def _label_lines(path):
    """Yields (number of the line, name of the image, its label as text or None)."""
    lines = path.read_text(errors="replace").rstrip().splitlines()
    if path.name == GROUND_TRUTH:
        ids = _devkit_ids(path.with_name("meta.mat"))
        yield from _numbered([ids.get(line.strip(), f"number {line} of the devkit") for line in lines])
        return
    for number, line in enumerate(lines, start=1):
        if path.suffix == ".csv":  # a header; then NAME,WORDNET_ID LEFT TOP RIGHT BOTTOM ...
            line = " ".join(re.split(r"[,\s]+", line)[:2])
            if line.startswith("ImageId"):
                continue
        words = line.split()
        yield (number, *words) if len(words) == 2 else (number, line, None)


def _numbered(labels):
    return [(n, f"ILSVRC2012_val_{n:08d}.JPEG", label) for n, label in enumerate(labels, start=1)]


def _devkit_ids(path):
    """{"1": WordNet id} of the devkit's own numbers, which are not in the order of the WordNet ids."""
    import scipy.io

    try:
        synsets = scipy.io.loadmat(path, squeeze_me=True)["synsets"]
        return {str(int(s["ILSVRC2012_ID"])): str(s["WNID"]) for s in synsets}
    except Exception as error:
        raise DataError(
            f"{path}: needed to read {GROUND_TRUTH}, but not there or damaged ({error}); both are in the devkit"
        ) from error


def known_to_tfds(name: str) -> list[str]:
    """The lines of TFDS's "labels.txt", the sorted WordNet ids, or "validation_labels.txt", an id for each image."""
    import tensorflow_datasets as tfds

    return tfds.core.tfds_path(f"datasets/imagenet2012/{name}").read_text().split()


def _dataset(name, split, listing, prepare):
    root, classes, files, labels, problems = listing
    sizes = [file.stat().st_size if file.is_file() else None for file in files]
    names = "\n".join(f"{file.parent.name}/{file.name} {size}" for file, size in zip(files, sizes))
    labels = np.array(labels, np.int64)
    return Dataset(
        name,
        split,
        str(root),
        classes,
        labels,
        lambda index: decode(files[index], str(files[index]), prepare),
        digest(names.encode(), labels.tobytes()),
        problems,
        files,
    )
