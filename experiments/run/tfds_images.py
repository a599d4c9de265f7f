"""Makes a data set of TFDS from image files: ArrayRecord files, with no network and no TensorFlow."""

import io
import tarfile
from pathlib import Path

from PIL import Image

from qcrs_jax.data.image_files import decode
from qcrs_jax.data.image_folders import Listing, list_folder, split_folder, splits_below
from qcrs_jax.data.imagenet_files import list_imagenet
from qcrs_jax.data.load import DataError
from qcrs_jax.data.sources import known_classes
from qcrs_jax.data.splits import TAKEN_FOR, is_hidden
from qcrs_jax.data.tfds_files import write
from qcrs_jax.errors import quoted


def prepare(name: str, splits: dict[str, Listing], data_dir: Path) -> Path:
    """Writes TFDS's data set `name` below `data_dir` and returns its folder.

    Args:
        splits: "train" or "test" -> the images of that split.

    Raises:
        DataError: the data set exists already, a class does not belong to it, or an image is damaged or has another
            shape.
    """

    def generate(builder, manager):
        feature = builder.info.features["label"]
        if name == "cifar100":  # TFDS takes their names from what it would download; they are in this order there
            feature.names = _hundred(next(iter(splits.values())))
        elif names := known_classes(name):
            feature.names = list(names)
        theirs = {"test": "validation"} if name == "imagenet2012" else {}
        return {theirs.get(split, split): _examples(builder, listing) for split, listing in splits.items()}

    return write(name, data_dir, generate)


def unpacked(path, scratch):
    """The folder, or the content of the tar file, without outer folders that hold only one folder."""
    if path.is_dir():
        return path
    try:
        with tarfile.open(path) as tar:
            tar.extractall(scratch, filter="data")
    except tarfile.TarError as error:
        raise DataError(
            f"{path}: not a tar file of images, or a damaged one ({quoted(error)}); give a folder of images instead"
        ) from error
    while not splits_below(scratch) and len(inside := _visible(scratch)) == 1 and inside[0].is_dir():
        scratch = inside[0]
    return scratch


def _visible(folder):
    return [path for path in folder.iterdir() if not is_hidden(path.name)]


def listings(name, root):
    present = splits_below(root)
    wanted = [split for split in ("train", "test") if set(TAKEN_FOR[split]) & set(present)] or ["test"]
    listings = {}
    for split in wanted:
        flat = name == "imagenet2012" and not any(map(Path.is_dir, split_folder(root, split).iterdir()))
        listings[split] = list_imagenet(root, split) if flat else list_folder(root, split)
        if listings[split] is None:
            raise DataError(f"{root}: holds neither folders of classes nor ILSVRC2012_val_00000001.JPEG and so on")
        for problem in listings[split].problems.values():
            raise DataError(problem)
    return listings


def _hundred(listing):
    if len(listing.classes) != 100:
        raise DataError(f"{listing.root}: has {len(listing.classes)} folders of classes; CIFAR-100 has 100")
    return listing.classes


def _examples(builder, listing):
    features = builder.info.features
    names = features["label"].names
    label_of = {str(i): i for i in range(len(names))} | {name: i for i, name in enumerate(names)}
    for strange in sorted(set(listing.classes) - set(label_of)):
        raise DataError(
            f"{listing.root / strange}: {builder.name} has no such class; it has {', '.join(names[:10])}"
            + (", ..." if len(names) > 10 else "")
        )
    for file, label in zip(listing.files, listing.labels):
        row = {"image": _encoded(file, features["image"].shape), "label": label_of[listing.classes[label]]}
        others = {"file_name": file.name, "coarse_label": -1}  # -1: not known
        yield row | {key: value for key, value in others.items() if key in features}


def _encoded(file, shape):
    """The content of an image file: as it is if it is a PNG or a JPEG of this shape, (h, w, c), else as a PNG."""
    pixels = decode(file, str(file))
    if None in shape:
        shape = (*pixels.shape[:2], shape[-1])
    if pixels.shape[:2] != shape[:2] or pixels.ndim == 3 and shape[-1] == 1:
        raise DataError(f"{file}: has shape {pixels.shape}, but the images of this data set have {shape}")
    mode = "L" if shape[-1] == 1 else "RGB"
    with Image.open(file) as image:
        if image.format in ("PNG", "JPEG") and image.mode == mode:
            return file.read_bytes()
    stream = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(stream, "png")
    return stream.getvalue()
