"""Data sets of TensorFlow Datasets, downloaded, written and read without TensorFlow.

TFDS's own generators need the package tensorflow. Ours take the same files, from the same addresses, with TFDS's
checksums, and write ArrayRecord files. Files of either format, ArrayRecord or TFRecord, are read.
"""

import functools
import io
import os
import socket
import tarfile
import urllib.parse
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import setting
from ..extras import MissingPackage, needed_for
from ..files import open_regular
from . import image_files, image_folders, imagenet_files, tfds_order
from .arrays import read_idx
from .crc32c import masked_crc32c
from .dataset import DataError, Dataset, digest
from .limits import Limit, check_classes

_LIMIT = Limit()
NAMES = {"imagenet": "imagenet2012"}


def load(
    name: str,
    data_dir: str | Path | None,
    split: str,
    looked: list[Path],
    prepare: bool = True,
    limit: Limit = _LIMIT,
) -> Dataset:
    """The data set `name` as TFDS stores it below `data_dir`. It is downloaded and prepared if it is not there.

    Args:
        looked: other places where it was looked for, for the message.
        prepare: whether missing files may be downloaded, and the order of the images stored on disk.

    Raises:
        DataError: it is missing and cannot be obtained, or it is damaged.
    """
    theirs = NAMES.get(name, name)
    part = "validation" if theirs == "imagenet2012" and split in ("test", "val") else split
    try:
        builder = _builder(theirs, data_dir)
    except MissingPackage:
        raise
    except Exception as error:
        raise DataError(
            f"{data_dir or 'TFDS'}: cannot read the files of TFDS for {name}: {_first_line(error)}"
        ) from error
    if not builder.is_prepared() and not prepare:
        raise DataError(
            f"data set {name} ({split}) was not found, nor has TensorFlow Datasets prepared it; nothing is downloaded "
            f"here. Name its folder as {setting('data_dir')}"
        )
    if not builder.is_prepared():
        try:
            _require_connection(builder)
            write(theirs, data_dir, GENERATORS[theirs])
        except MissingPackage:
            raise
        except Exception as error:
            places = "\n".join(f"  {place.absolute()}" for place in [*looked, Path(builder.data_dir)])
            raise DataError(
                f"data set {name} ({split}) was not found. Looked in\n{places}\n"
                f"and asked TensorFlow Datasets to download it: {type(error).__name__}: {_first_line(error)}\n"
                f"Put its original files into one of these folders, name the folder as {setting('data_dir')}, or use "
                f"{setting('dataset')} folder or npz.{_hint(data_dir, looked)}"
            ) from error
        builder = _builder(theirs, data_dir)
    folder = Path(builder.data_dir)
    try:
        check_classes(builder.info.features["label"].num_classes, folder)
        rows = _rows(builder, part)
        order, labels = tfds_order.remembered(folder, part, builder.info.splits[part].filepaths, rows, keep=prepare)
    except (DataError, MissingPackage):
        raise
    except Exception as error:
        raise DataError(
            f"{folder}: TFDS cannot read the split {part} of {name} there: {type(error).__name__}: "
            f"{_first_line(error)}\nMove the folder away, to have it prepared again"
        ) from error
    identity = f"{builder.info.full_name} {split} {len(rows)}".encode()
    fit = image_files.resize_and_crop if name == "imagenet" else np.asarray

    def read(index):
        where = f"{folder}, image {index} of split {part}"
        try:
            row = rows[int(order[index])]
        except Exception as error:
            raise DataError(f"{where}: cannot be read: {_first_line(error)}") from error
        if row["label"] != labels[index]:
            raise DataError(
                f"{where}: has another label than {tfds_order.NAME.format(part)} has for it; delete that file"
            )
        return image_files.decode(io.BytesIO(row["image"]), where, fit, limit)

    return Dataset(
        name,
        split,
        f"TFDS {builder.info.full_name}",
        builder.info.features["label"].names,
        labels,
        read,
        digest(identity, labels.tobytes()),
    )


def _hint(data_dir, looked):
    """A sentence on other forms of the data set in the places where it was looked for."""
    if data_dir is not None and image_folders.holds_images(Path(data_dir)):
        return (
            f" {data_dir} holds images in folders: read them with {setting('dataset')} folder, if their folders are "
            "the classes."
        )
    archives = sorted({str(file) for place in looked for file in place.glob("*.tar.gz")} if looked else ())
    return f" Archives have to be unpacked: {', '.join(archives[:4])}." if archives else ""


def _tfds() -> Any:
    """The package TFDS."""
    with needed_for("a data set of TensorFlow Datasets"):
        import importlib_resources  # noqa: F401  TFDS imports it when it first uses it
        import tensorflow_datasets as tfds
    return tfds


def _builder(name, data_dir):
    """TFDS's builder for the files on disk, or else for a data set that can be prepared there."""
    tfds = _tfds()
    builder = tfds.builder(name, data_dir=data_dir)
    versions = sorted(Path(builder.data_dir).parent.glob("*/dataset_info.json"))
    return builder if builder.is_prepared() or not versions else tfds.builder_from_directory(versions[-1].parent)


def _rows(builder, split):
    """The examples of a split by index, their images still encoded."""
    tfds = _tfds()
    for file in builder.info.splits[split].filepaths:
        open_regular(file).close()
    decoders = {"image": tfds.decode.SkipDecoding()}
    if builder.info.file_format.value == "tfrecord":  # which TFDS reads with TensorFlow alone
        parse = functools.partial(builder.info.features.deserialize_example_np, decoders=decoders)
        return _TFRecords(builder.info.splits[split].filepaths, parse)
    with needed_for("a data set in ArrayRecord files"):
        import array_record.python.array_record_data_source  # noqa: F401  TFDS reads with it
    return builder.as_data_source(split=split, decoders=decoders)


class _TFRecords(Sequence):
    """The records of TFRecord files by index: length (8 bytes), its checksum (4), content, its checksum (4).

    Both checksums are compared; that of a content when it is read.
    """

    def __init__(self, files, parse):
        self._parse, self._places = parse, []
        for file in map(Path, files):
            size, start = file.stat().st_size, 0
            with open_regular(file) as stream:
                while start < size:
                    stream.seek(start)
                    length = int.from_bytes(_checked(stream, 8, file), "little")
                    self._places.append((file, start + 12, length))
                    start += length + 16
            if start != size:
                raise ValueError(f"{file} is cut short, or no TFRecord file")

    def __len__(self):
        return len(self._places)

    def __getitem__(self, index):
        file, start, length = self._places[index]
        with open_regular(file) as stream:
            stream.seek(start)
            return self._parse(_checked(stream, length, file))


def _checked(stream, length, file):
    """The next bytes of a TFRecord file, confirmed by the checksum behind them. Raises ValueError otherwise."""
    start = stream.tell()
    content, crc = stream.read(length), stream.read(4)
    if len(content) < length or len(crc) < 4:
        raise ValueError(f"{file} is cut short, or no TFRecord file")
    if masked_crc32c(content) != int.from_bytes(crc, "little"):
        raise ValueError(f"{file} is damaged, or no TFRecord file: the checksum at byte {start + length} differs")
    return content


def write(name: str, data_dir: str | Path | None, generate: Callable) -> Path:
    """Prepares TFDS's data set `name` below `data_dir` and returns its folder.

    Args:
        generate: (TFDS's builder, its download manager) -> {split: iterable of examples}. An example has an encoded or
            a PIL image, a label, and the other features of the data set; ids are filled in.

    Raises:
        DataError: it is there already.
    """
    with needed_for("a data set in ArrayRecord files"):
        import array_record.python.array_record_module  # noqa: F401  TFDS writes with it

    tfds = _tfds()
    base, same_name = tfds.builder_cls(name), name

    class Builder(base, **{"skip_registration": True}):
        name = same_name
        url_infos = base.url_infos

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split, rows) for split, rows in generate(self, dl_manager).items()}

        def _generate_examples(self, split, rows):
            for i, row in enumerate(rows):
                yield i, ({"id": f"{split}_{i:05d}"} if "id" in self.info.features else {}) | row

    builder = Builder(data_dir=data_dir, file_format="array_record")
    if builder.is_prepared():
        raise DataError(f"{builder.data_dir}: is there already; take it away first, or choose another folder")
    builder.download_and_prepare()
    return Path(builder.data_dir)


def _first_line(error):
    return (str(error).splitlines() or [""])[0]


def _require_connection(builder) -> None:
    """Fails at once, with the reason, where TFDS would fail after minutes."""
    if builder.name == "imagenet2012" or _manual(builder).is_dir():  # TFDS uses files that are already there
        return
    host = urllib.parse.urlparse(next(iter(builder.url_infos))).hostname
    if not any(os.environ.get(v) for v in ("http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")):
        try:
            socket.getaddrinfo(host, 443)
        except OSError as error:
            raise ConnectionError("this machine has no connection to the internet") from error


def _manual(builder):
    """The folder of files that were fetched by hand."""
    return Path(builder.data_dir).parents[1] / "downloads/manual"


def _download(builder, manager, *names) -> list[Path]:
    """The downloaded and verified files. Addresses and checksums of the data set are TFDS's."""
    urls = {info.filename: url for url, info in builder.url_infos.items()}
    return [Path(path) for path in manager.download([urls[name] for name in names])]


def _content(tar, member) -> bytes:
    """The content of a file in an archive."""
    stream = tar.extractfile(member)
    if stream is None:
        raise ValueError(f"{member.name} is no file")
    return stream.read()


def _examples(images, labels, **others) -> Iterable[dict]:
    from PIL import Image

    for i, image in enumerate(images):
        more = {key: values[i] for key, values in others.items()}
        yield {"image": Image.fromarray(image.squeeze()), "label": int(labels[i])} | more


def _cifar(builder, manager):
    """The binary version: a byte for each label, then 3072 of the image, channels first."""
    small = builder.name == "cifar10"
    keys = ["label"] if small else ["coarse_label", "label"]
    names = ["batches.meta.txt"] if small else ["coarse_label_names.txt", "fine_label_names.txt"]
    (path,) = _download(builder, manager, "cifar-10-binary.tar.gz" if small else "cifar-100-binary.tar.gz")
    with tarfile.open(path) as tar:
        files = {Path(member.name).name: _content(tar, member) for member in tar if member.isfile()}
    for key, file in zip(keys, names):
        builder.info.features[key].names = files[file].decode().split()

    def examples(*batches):
        rows = np.frombuffer(b"".join(files[batch] for batch in batches), np.uint8).reshape(-1, len(keys) + 3072)
        images = rows[:, len(keys) :].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        columns = {key: rows[:, i].astype(int) for i, key in enumerate(keys)}
        return _examples(np.ascontiguousarray(images), columns.pop("label"), **columns)

    train = [f"data_batch_{i}.bin" for i in range(1, 6)] if small else ["train.bin"]
    return {"train": examples(*train), "test": examples("test_batch.bin" if small else "test.bin")}


def _mnist(builder, manager):
    splits = {}
    for split, stem in (("train", "train"), ("test", "t10k")):
        files = _download(builder, manager, f"{stem}-images-idx3-ubyte.gz", f"{stem}-labels-idx1-ubyte.gz")
        splits[split] = _examples(*map(read_idx, files))
    return splits


def _svhn(builder, manager):
    """Only the splits train and test: the extra images, 1.3 GB, are for training alone."""
    import scipy.io

    splits = {}
    for split in ("train", "test"):
        content = scipy.io.loadmat(_download(builder, manager, f"{split}_32x32.mat")[0])
        # Images are in the last axis, and the digit 0 has label 10.
        splits[split] = _examples(np.moveaxis(content["X"], -1, 0), content["y"].ravel().astype(int) % 10)
    return splits


def _imagenet(builder, manager):
    """The validation images, from the archive that has to be fetched by hand."""
    path = _manual(builder) / "ILSVRC2012_img_val.tar"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: not there; ImageNet has to be fetched from image-net.org by hand")
    labels = imagenet_files.known_to_tfds("validation_labels.txt")

    def examples():
        with tarfile.open(path) as tar:
            for member in tar:
                number = int(Path(member.name).stem.removeprefix("ILSVRC2012_val_"))
                yield {
                    "image": _content(tar, member),
                    "label": labels[number - 1],
                    "file_name": member.name,
                }

    return {"validation": examples()}


GENERATORS = {
    "cifar10": _cifar,
    "cifar100": _cifar,
    "mnist": _mnist,
    "fashion_mnist": _mnist,
    "svhn_cropped": _svhn,
    "imagenet2012": _imagenet,
}
