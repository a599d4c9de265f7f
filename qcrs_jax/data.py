"""Data sets as (h, w, c) float32 images in [0, 1] and integer labels, by index."""

import dataclasses
import gzip
import hashlib
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Float, UInt8

from .errors import UserError
from .files import reads

DATASETS = (
    "cifar10",
    "cifar100",
    "mnist",
    "fashion_mnist",
    "svhn_cropped",
    "imagenet",
    "imagenet2012",
    "folder",
    "npz",
)
DEFAULT_DIRS = ("data", "dataset_cache", ".")

_CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck".split()
CLASSES = {
    "cifar10": _CIFAR10,
    "mnist": [str(i) for i in range(10)],
    "fashion_mnist": "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot".split(","),
}


class DataError(UserError):
    """A data set that is missing or damaged; the message names where it looked or the file, and the remedy."""


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Images and labels by index: `image, label = dataset[i]`, image (h, w, c) float32 in [0, 1].

    Attributes:
        name: the name it was asked by.
        split: "train" or "test".
        source: where it was found.
        class_names: names of the classes, in the order of the labels.
        labels: the label of every image.
        read: index -> raw image, uint8 (h, w, c) or (h, w), or float in [0, 1].
        fingerprint: SHA-256 of what identifies the images and their order.
        problems: index -> why that image or its label cannot be used; reading it raises DataError.
        files: the file of each image, where they have files of their own.
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

    def __len__(self) -> int:
        return len(self.labels)

    def where(self, index: int) -> str:
        """What to call an image in a message: its file, or where it is."""
        return str(self.files[index]) if self.files else f"image {index} of {self.name} ({self.source})"

    def __getitem__(self, index: int) -> tuple[Float[np.ndarray, "h w c"], int]:
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} ({self.split}) has {len(self)} images; there is no image {index}")
        if index in self.problems:
            raise DataError(self.problems[index])
        image = self.read(index)
        image = image.astype(np.float32) / np.float32(255) if image.dtype == np.uint8 else image.astype(np.float32)
        return (image[..., None] if image.ndim == 2 else image), int(self.labels[index])


@reads("data_dir", DataError)
def load_dataset(name: str, data_dir: str | Path | None = None, split: str = "test", on_error: str = "stop") -> Dataset:
    """The data set `name`, from files on disk or through TensorFlow Datasets.

    Args:
        name: "cifar10", "mnist" or "fashion_mnist": their original files below `data_dir`, else TFDS, which
            downloads what it lacks. "cifar100" or "svhn_cropped": TFDS. "imagenet" or "imagenet2012": its validation
            images, in folders of classes, or flat with a label file, or from TFDS, resized and cropped to
            (224, 224, 3). "folder": `data_dir/[split/]CLASS/IMAGE`, classes and files in sorted order. "npz": the
            file `data_dir`, or `data_dir/SPLIT.npz`, with x (m, h, w[, c]), uint8 or in [0, 1], y, and class_names
            where y lacks the last classes.
        data_dir: where to look; by default ./data, ./dataset_cache and the current folder.
        split: "train" or "test".
        on_error: "stop" raises where a label, or an image of an array, does not fit; "skip" leaves that to the
            image's turn, `dataset[i]`.

    Raises:
        DataError: missing or damaged; says where it looked and what to do.
    """
    if split not in ("train", "test"):
        raise DataError(f"split must be train or test, not {split!r}")
    dataset = _find("imagenet" if name == "imagenet2012" else name, data_dir, split)
    if dataset.problems and on_error == "stop":
        first, *others = dataset.problems.values()
        more = f", and {len(others)} more do not fit" if others else ""
        raise DataError(f"{first}{more}. Mend it, or leave such images out with --on_error skip")
    return dataset


def _find(name, data_dir, split):
    from . import image_files, tfds_files  # which need what this module defines

    if name in ("folder", "npz"):
        if data_dir is None:
            raise DataError(f"--dataset {name} needs --data_dir: where the images are")
        root = Path(data_dir)
        if not root.exists():
            raise DataError(f"{root}: no such file or directory (from --data_dir)")
        if name == "folder" and not root.is_dir():
            raise DataError(f"{root}: is a file; --dataset folder takes a folder of CLASS/IMAGE")
        return image_files.folder(root, split) if name == "folder" else _npz(root, split)
    if name not in _SUBFOLDERS:
        raise DataError(f"unknown data set {name!r}; known are {', '.join(DATASETS)}")
    looked = []
    for root in [Path(data_dir)] if data_dir is not None else [Path(d) for d in DEFAULT_DIRS]:
        for sub in _SUBFOLDERS[name]:
            looked.append(root / sub)
            if name == "imagenet":
                found = image_files.imagenet(root / sub, split)
            else:
                found = _cifar10_batches(root / sub, split) if name == "cifar10" else _idx(name, root / sub, split)
            if found is not None:
                return found
    return tfds_files.load(name, data_dir, split, looked)


_SUBFOLDERS = {
    "cifar10": ("cifar-10-batches-py", "", "cifar10/cifar-10-batches-py"),
    "cifar100": (),  # these two through TFDS alone
    "svhn_cropped": (),
    "mnist": ("", "mnist", "MNIST/raw"),
    "fashion_mnist": ("", "fashion_mnist", "fashion-mnist", "FashionMNIST/raw"),
    "imagenet": ("imagenet", "ILSVRC2012", ""),
}


def digest(*parts: bytes | memoryview) -> str:
    """SHA-256 of the parts, one after another."""
    sha = hashlib.sha256()
    for part in parts:
        sha.update(part)
    return sha.hexdigest()


def _arrays(name, split, source, class_names, x, y, labels_in, problems=None):
    if not len(y):
        raise DataError(f"{source}: holds no images")
    problems = dict(problems or {})
    for i in np.flatnonzero((y < 0) | (y >= len(class_names))).tolist():
        problems[i] = (
            f"{labels_in}: image {i} has label {y[i]}, but labels are 0 to {len(class_names) - 1}, one for each of the "
            "class_names"
        )
    fingerprint = digest(str((x.shape, x.dtype)).encode(), np.ascontiguousarray(x).data, y.tobytes())
    return Dataset(name, split, str(source), class_names, y, lambda i: x[i], fingerprint, problems)


class _ArrayUnpickler(pickle.Unpickler):
    """Opens the pickles of CIFAR-10, which hold arrays, bytes and lists, and nothing else."""

    def find_class(self, module, name):
        if module in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray"):
            if name in ("_reconstruct", "ndarray", "dtype"):
                return getattr(np._core.multiarray if name == "_reconstruct" else np, name)
        raise pickle.UnpicklingError(f"names {module}.{name}, which is not part of CIFAR-10")


def _cifar10_batches(root, split):
    names = ["test_batch"] if split == "test" else [f"data_batch_{i}" for i in range(1, 6)]
    if not (root / names[0]).is_file():
        return None
    images, labels = [], []
    for name in names:
        file = root / name
        try:
            with open(file, "rb") as stream:
                batch = _ArrayUnpickler(stream, encoding="bytes").load()
            data, y = np.asarray(batch[b"data"], np.uint8), np.asarray(batch[b"labels"], np.int64)
            if not len(y) or y.min() < 0 or y.max() > 9:
                raise ValueError("its labels are not 0 to 9")
            images.append(data.reshape(len(y), 3, 32, 32).transpose(0, 2, 3, 1))
            labels.append(y)
        except Exception as error:
            raise DataError(
                f"{file}: not a batch of CIFAR-10, or a damaged one ({error}); download it again"
            ) from error
    return _arrays("cifar10", split, root, _CIFAR10, np.concatenate(images), np.concatenate(labels), root)


def _idx(name, root, split):
    stem = {"train": "train", "test": "t10k"}[split]
    files = []
    for kind in ("images-idx3-ubyte", "labels-idx1-ubyte"):
        candidates = [root / f"{stem}-{k}{z}" for k in (kind, kind.replace("-idx", ".idx")) for z in ("", ".gz")]
        files.append(next((f for f in candidates if f.is_file()), None))
    if files == [None, None]:
        return None
    if None in files:
        present = next(f.name for f in files if f)
        raise DataError(f"{root}: holds {present}, but not the other of images and labels; put both there")
    x, y = (read_idx(file) for file in files)
    if x.ndim != 3 or y.ndim != 1 or len(x) != len(y):
        raise DataError(
            f"{files[0]} and {files[1]}: shapes {x.shape} and {y.shape} are not of as many images as labels; download "
            "them again"
        )
    return _arrays(name, split, root, CLASSES[name], x[..., None], y.astype(np.int64), files[1])


def read_idx(file: Path) -> UInt8[np.ndarray, "..."]:
    """The array in an IDX file, gzipped or not: 0, 0, type 8, number of axes; big-endian sizes; data.

    Raises:
        DataError: damaged, or of another type.
    """
    try:
        data = file.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        zeros, kind, ndim = struct.unpack(">HBB", data[:4])
        shape = struct.unpack(f">{ndim}I", data[4 : 4 + 4 * ndim])
        if zeros != 0 or kind != 8:
            raise ValueError("no IDX header of bytes")
        return np.frombuffer(data, np.uint8, offset=4 + 4 * ndim).reshape(shape)
    except (ValueError, struct.error, OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file}: not an IDX file, or a damaged one ({error}); download it again") from error


def _npz(path, split):
    if path.is_dir():
        path = path / f"{split}.npz"
        if not path.is_file():
            raise DataError(f"{path}: no such file; --dataset npz takes a file, or a folder that holds it")
    try:
        with np.load(path) as archive:
            missing = {"x", "y"} - set(archive.files)
            if missing:
                raise DataError(f"{path}: needs arrays x and y, but holds {', '.join(archive.files)}")
            x, y = archive["x"], archive["y"]
            names = [str(n) for n in archive["class_names"]] if "class_names" in archive.files else None
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{path}: not an .npz file, or a damaged one ({error})") from error
    if x.ndim not in (3, 4) or y.shape != x.shape[:1] or not x.size:
        raise DataError(f"{path}: x {x.shape} must be (m, h, w) or (m, h, w, c), and y {y.shape} must be (m,)")
    if x.ndim == 4 and x.shape[-1] not in (1, 3) and x.shape[1] in (1, 3):
        raise DataError(f"{path}: x {x.shape} looks like (m, c, h, w); store x.transpose(0, 2, 3, 1)")
    if y.dtype.kind not in "iu":
        raise DataError(f"{path}: y must hold labels 0, 1, 2, ..., not {y.dtype}; store y.astype(int)")
    problems = {}
    if x.dtype != np.uint8:
        axes = tuple(range(1, x.ndim))
        bad = ~((x >= 0) & (x <= 1)).all(axis=axes) if x.dtype.kind == "f" else np.ones(len(x), bool)
        if 2 * bad.sum() > len(x):
            raise DataError(
                f"{path}: x must be uint8, or floats in [0, 1], not {x.dtype} in [{x.min()}, {x.max()}]; store "
                "x.astype(np.uint8) if these are 0 to 255, or rescale x"
            )
        for i in np.flatnonzero(bad).tolist():
            problems[i] = f"{path}: x[{i}] must lie in [0, 1], but lies in [{x[i].min()}, {x[i].max()}]"
    names = names or [str(i) for i in range(max(int(y.max()), 0) + 1)]
    return _arrays(path.stem, split, path, names, x, y.astype(np.int64), path, problems)
