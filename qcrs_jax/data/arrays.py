"""Data sets that are arrays: .npz files, and the original files of CIFAR-10, CIFAR-100, SVHN and MNIST's relatives."""

import contextlib
import gzip
import math
import re
import struct
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from ..errors import quoted, setting
from ..files import open_regular
from .cifar_pickle import unpickle
from .dataset import DataError, Dataset, digest
from .limits import MOST_CLASSES, Limit, check_classes, read_text
from .mat_files import check_mat
from .npz_archive import Archive
from .source import Source
from .splits import SPLITS, TAKEN_FOR, is_hidden, split_of

CIFAR10 = "airplane automobile bird cat deer dog frog horse ship truck".split()
DIGITS = [str(i) for i in range(10)]
GARMENTS = "T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot".split(",")
CIFAR100 = """apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
    castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant
    flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree
    motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate
    poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk skyscraper snail snake spider
    squirrel streetcar sunflower sweet_pepper table tank telephone television tiger tractor train trout tulip turtle
    wardrobe whale willow_tree wolf woman worm""".split()


_LIMIT = Limit()
_META = 2**20  # bytes of a file of names
_NUMBERS = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "uint64", "int64", "single", "double")


def _dataset(name, split, source, class_names, x, y, labels_in, problems=None, notes=()):
    if not len(y):
        raise DataError(f"{source}: holds no images")
    problems = dict(problems or {})
    for i in np.flatnonzero((y < 0) | (y >= len(class_names))).tolist():
        problems[i] = (
            f"{labels_in}: image {i} has label {y[i]}, but labels are 0 to {len(class_names) - 1}, one for each of the "
            "class_names"
        )
    fingerprint = digest(str((x.shape, x.dtype)).encode(), np.ascontiguousarray(x).data, y.tobytes())
    read = lambda i: x[i]  # noqa: E731
    return Dataset(name, split, str(source), class_names, y, read, fingerprint, problems, notes=notes, held=x.nbytes)


def cifar10(root: Path, split: str, limit: Limit = _LIMIT) -> Dataset | None:
    """The files test_batch and data_batch_1 to 5, or the same with .bin; None if they are not in `root`.

    The names of the classes come from the file `batches.meta` in the same folder; without it they are the well-known
    ones.
    """
    names = ["test_batch"] if split == "test" else [f"data_batch_{i}" for i in range(1, 6)]
    found = _cifar(root, names, "labels", 10, "CIFAR-10", limit)
    if found is None:
        return None
    names = _names((root / "batches.meta", root / "batches.meta.txt"), "label_names", CIFAR10, "CIFAR-10")
    return _dataset("cifar10", split, root, names, *found, root)


def cifar100(root: Path, split: str, limit: Limit = _LIMIT) -> Dataset | None:
    """The files test and train, or the same with .bin, and the fine labels; None if they are not in `root`.

    The names of the classes come from the file `meta` in the same folder; without it they are the well-known ones.
    """
    if not holds_cifar100(root):
        return None
    found = _cifar(root, [split], "fine_labels", 100, "CIFAR-100", limit)
    if found is None:
        return None
    names = _names((root / "meta", root / "fine_label_names.txt"), "fine_label_names", CIFAR100, "CIFAR-100")
    return _dataset("cifar100", split, root, names, *found, root)


def holds_cifar10(root: Path) -> bool:
    """Whether some of CIFAR-10's original files are in `root`."""
    return any((root / name).is_file() for name in ("test_batch", "data_batch_1", "test_batch.bin", "data_batch_1.bin"))


def holds_cifar100(root: Path) -> bool:
    """Whether some of CIFAR-100's original files are in `root`: files called test and train can be anything."""
    files = [root / name for name in ("test", "train", "test.bin", "train.bin") if (root / name).is_file()]
    named = root.name.startswith(("cifar-100", "cifar100"))
    return bool(files) and (named or any((root / name).is_file() for name in ("meta", "fine_label_names.txt")))


def holds_svhn(root: Path) -> bool:
    """Whether SVHN's original files of cropped digits are in `root`."""
    return any((root / f"{split}_32x32.mat").is_file() for split in ("train", "test"))


def _cifar(root, names, labels_key, classes, what, limit):
    """Images and labels of the batches `names`, of the Python or of the binary version; None if they are not there."""
    binary = not (root / names[0]).is_file()
    if binary:
        names = [f"{name}.bin" for name in names]
        if not (root / names[0]).is_file():
            return None
    files = [root / name for name in names]
    limit.check(sum(file.stat().st_size for file in files if file.is_file()), files[0])
    images, labels = [], []
    for file in files:
        try:
            content = limit.read(file)
            data, y = _cifar_rows(content, classes) if binary else _cifar_batch(content, labels_key)
            if not len(y) or y.min() < 0 or y.max() >= classes:
                raise ValueError(f"its labels are not 0 to {classes - 1}")
            images.append(data.reshape(len(y), 3, 32, 32).transpose(0, 2, 3, 1))
            labels.append(y)
        except DataError:
            raise
        except Exception as error:
            said = f"not a batch of {what}, or a damaged one ({quoted(error)})"
            raise DataError(f"{file}: {said}; download it again") from error
    return np.concatenate(images), np.concatenate(labels)


def _cifar_batch(content, labels_key):
    batch = unpickle(content)
    data, labels = batch["data"], batch[labels_key]
    if not isinstance(data, np.ndarray) or data.dtype != np.uint8:
        raise ValueError("its data are no array of bytes")
    whole = labels.dtype.kind in "iu" if isinstance(labels, np.ndarray) else set(map(type, labels)) == {int}
    if not whole:
        raise ValueError("its labels are no whole numbers")
    return data, np.asarray(labels, np.int64)


def _cifar_rows(content, classes):
    """The binary version: of CIFAR-100 a coarse label, then a label, then the image, channels first."""
    head = 1 if classes == 10 else 2
    rows = np.frombuffer(content, np.uint8).reshape(-1, head + 3072)
    return rows[:, head:], rows[:, head - 1].astype(np.int64)


def _names(files, key, usual, what):
    """The names of the classes in the first of `files` that exists, under `key`; or else the `usual` ones."""
    for file in files:
        if not file.is_file():
            continue
        try:
            if file.suffix == ".txt":
                names = read_text(file).split()
            else:
                names = unpickle(Limit(_META).read(file))[key]
                if not all(type(name) in (bytes, str) for name in names):
                    raise ValueError("its names are no texts")
                names = _texts(names)
            if len(names) != len(usual):
                raise ValueError(f"it has {len(names)} names")
            return names
        except Exception as error:
            raise DataError(
                f"{file}: not the names of {what}'s classes, or damaged ({quoted(error)}); download it again, or "
                "move it away"
            ) from error
    return usual


def svhn(root: Path, split: str, limit: Limit = _LIMIT) -> Dataset | None:
    """The cropped digits in {split}_32x32.mat, whose label 10 is the digit 0; None if the file is not in `root`."""
    file = root / f"{split}_32x32.mat"
    if not file.is_file():
        return None
    import scipy.io

    try:
        check_mat(file, limit)
        for name, shape, kind in scipy.io.whosmat(file):
            if name in ("X", "y") and kind not in _NUMBERS:
                raise ValueError(f"{name} {shape} holds no numbers, but {kind}")
        content = scipy.io.loadmat(file, variable_names=["X", "y"])
        x, y = np.moveaxis(content["X"], -1, 0), content["y"].ravel().astype(np.int64)
        if x.dtype != np.uint8 or x.ndim != 4 or x.shape[-1] != 3 or len(x) != len(y):
            raise ValueError(f"X {content['X'].shape} {x.dtype} and y {content['y'].shape} are not images and labels")
        if len(y) and (y.min() < 0 or y.max() > 10 or {0, 10} <= set(y.tolist())):
            raise ValueError("its labels are not 1 to 10, where 10 is the digit 0")
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{file}: not a file of SVHN, or a damaged one ({quoted(error)}); download it again") from error
    return _dataset("svhn_cropped", split, root, DIGITS, np.ascontiguousarray(x), y % 10, file)


def mnist(root: Path, split: str, limit: Limit = _LIMIT) -> Dataset | None:
    """MNIST in IDX files; None if they are not in `root`."""
    return _idx("mnist", DIGITS, root, split, limit)


def fashion_mnist(root: Path, split: str, limit: Limit = _LIMIT) -> Dataset | None:
    """Fashion-MNIST in IDX files; None if they are not in `root`."""
    return _idx("fashion_mnist", GARMENTS, root, split, limit)


def _idx(name, class_names, root, split, limit):
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
    x, y = (read_idx(file, limit) for file in files)
    if x.ndim != 3 or y.ndim != 1 or len(x) != len(y):
        raise DataError(
            f"{files[0]} and {files[1]}: shapes {x.shape} and {y.shape} are not of as many images as labels; download "
            "them again"
        )
    return _dataset(name, split, root, class_names, x[..., None], y.astype(np.int64), files[1])


def read_idx(file: Path, limit: Limit = _LIMIT) -> UInt8[np.ndarray, "..."]:
    """The array in an IDX file, gzipped or not: 0, 0, type 8, number of axes; big-endian sizes; data.

    Raises:
        DataError: damaged, or of another type, or larger than `limit`.
    """
    try:
        with open_regular(file) as plain:
            gzipped = plain.read(2) == b"\x1f\x8b"
            plain.seek(0)
            stream = gzip.GzipFile(fileobj=plain) if gzipped else plain
            zeros, kind, ndim = struct.unpack(">HBB", stream.read(4))
            shape = struct.unpack(f">{ndim}I", stream.read(4 * ndim))
            if zeros != 0 or kind != 8:
                raise ValueError("no IDX header of bytes")
            size = math.prod(shape)
            limit.check(size, file)
            data = stream.read(size + 1)  # one more, to see where it ends
        if len(data) != size:
            there = "more" if len(data) > size else f"{len(data)}"
            raise ValueError(f"its header says {size} bytes, but the file has {there}")
        return np.frombuffer(data, np.uint8).reshape(shape)
    except DataError:
        raise
    except (ValueError, struct.error, OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file}: not an IDX file, or a damaged one ({quoted(error)}); download it again") from error


def npz(path: Path, split: str, limit: Limit = _LIMIT) -> Dataset:
    """The images and labels of a split in the .npz file `path`, or in the file of the split in the folder `path`.

    Raises:
        DataError: it does not exist, or is not as `load_dataset` describes.
    """
    notes = ()
    if path.is_dir():
        path, notes = _npz_below(path, split)
    if _is_npy(path):
        raise DataError(
            f"{path}: is a single array (.npy), without labels. Put both into one file: "
            f"np.savez('{path.stem}.npz', x=np.load('{path.name}'), y=labels)"
        )
    try:
        with open_regular(path) as stream, Archive(stream, path, limit) as archive:
            x_key, y_key, more = _npz_keys(path, archive.files, split)
            limit.check(sum(map(archive.size, (x_key, y_key))), path)
            x, y = archive[x_key], archive[y_key]
            names = _npz_class_names(archive)
    except DataError:
        raise
    except Exception as error:
        raise DataError(f"{path}: not an .npz file, or a damaged one ({quoted(error)})") from error
    if y.ndim == 2 and y.shape[1] == 1 and y.shape[:1] == x.shape[:1]:
        y = y[:, 0]
    if x.ndim not in (3, 4) or y.shape != x.shape[:1] or not x.size:
        one_hot = "; store y.argmax(1) if its rows are one-hot" if y.ndim == 2 else ""
        raise DataError(
            f"{path}: {x_key} {x.shape} must be (m, h, w) or (m, h, w, c), and {y_key} {y.shape} must be (m,){one_hot}"
        )
    if x.ndim == 4 and x.shape[-1] not in (1, 3) and x.shape[1] in (1, 3):
        raise DataError(f"{path}: {x_key} {x.shape} looks like (m, c, h, w); store {x_key}.transpose(0, 2, 3, 1)")
    if y.dtype.kind not in "iu":
        remedy = f"{y_key}.astype(int)"
        if y.dtype.kind not in "fb":
            remedy = f"class_names, {y_key} = np.unique({y_key}, return_inverse=True)"
        raise DataError(f"{path}: {y_key} must hold labels 0, 1, 2, ..., not {y.dtype}; store {remedy}")
    if x.dtype.kind not in "biuf":
        raise DataError(f"{path}: {x_key} must be uint8, or floats in [0, 1], not {x.dtype}")
    problems = {}
    if x.dtype != np.uint8:
        axes = tuple(range(1, x.ndim))
        bad = ~((x >= 0) & (x <= 1)).all(axis=axes) if x.dtype.kind == "f" else np.ones(len(x), bool)
        if 2 * bad.sum() > len(x):
            raise DataError(
                f"{path}: {x_key} must be uint8, or floats in [0, 1], not {x.dtype} in [{x.min()}, {x.max()}]; store "
                f"{x_key}.astype(np.uint8) if these are 0 to 255, or rescale {x_key}"
            )
        for i in np.flatnonzero(bad).tolist():
            problems[i] = f"{path}: {x_key}[{i}] must lie in [0, 1], but lies in [{x[i].min()}, {x[i].max()}]"
    elif x.max() == 1:
        raise DataError(
            f"{path}: {x_key} is uint8 with no value above 1, which would be nearly black, of 255; store "
            f"{x_key}.astype(np.float32) if 1 is white"
        )
    if not names and int(y.max()) >= MOST_CLASSES:
        raise DataError(
            f"{path}: {y_key} has a label {y.max()}, but labels are 0, 1, 2, ..., at most {MOST_CLASSES - 1}; give the "
            "names of the classes as class_names, or mend the label"
        )
    names = names or [str(i) for i in range(max(int(y.max()), 0) + 1)]
    check_classes(len(names), path)
    return _dataset(path.stem, split, path, names, x, y.astype(np.int64), path, problems, notes + more)


_IMAGES = {"x": "x", **dict.fromkeys(("image", "images", "img", "imgs", "data"), "images")}
_LABELS = {"y": "x", **dict.fromkeys(("label", "labels", "target", "targets"), "images")}
_CLASS_NAMES = ("classes", "label_names", "target_names", "names")


def _npz_keys(path, keys, split):
    """The keys of a split's images and of its labels, and notes on the choice."""
    found = {}
    for key in keys:
        if part := _npz_part(key):
            found.setdefault(part, []).append(key)
    pairs = {
        (where, family): (found[where, "images", family], found[where, "labels", family])
        for where, kind, family in found
        if kind == "images" and (where, "labels", family) in found
    }
    if not pairs:
        # Labels of any family go with the only images of a split, and the other way round.
        images, labels = ({where: k for (where, kind, _), k in found.items() if kind == one} for one in _KINDS)
        pairs = {
            (where, ""): (images[where], labels[where])
            for where in images
            if where in labels and (where or (None, "images", "x") in found)
        }
    if not pairs:
        raise DataError(
            f"{path}: needs arrays x and y, but holds {', '.join(keys)}. Known too are images and labels, data and "
            "labels, and any of these pairs of a split: x_test and y_test, test_images and test_labels"
        )
    there = {where for where, _ in pairs}
    chosen = next((where for where in TAKEN_FOR[split] if where in there), None)
    if chosen is None and there != {None}:
        had = ", ".join(sorted(where for where in there if where))
        raise DataError(
            f"{path}: holds {had}, but nothing for {setting('split')} {split}; its arrays are {', '.join(keys)}"
        )
    mine = [pair for (where, _), pair in pairs.items() if where == chosen]
    if len(mine) > 1 or any(len(one) > 1 for one in mine[0]):
        several = ", ".join(key for pair in mine for one in pair for key in one)
        raise DataError(f"{path}: holds several arrays of images or of labels: {several}; keep one of each")
    ((x_key,), (y_key,)), notes = mine[0], ()
    if chosen is None and split != "test":
        notes = (f"{path}: is not divided into splits; all of its images are taken for {split}",)
    elif chosen not in (None, split):
        notes = (f"{path}: has no images and labels for {split}; {x_key} and {y_key} are taken",)
    return x_key, y_key, notes


_KINDS = ("images", "labels")


def _npz_part(key):
    """(split or None, "images" or "labels", which pair of names) of a key; None for others."""
    words = [w for w in re.split(r"[^a-z0-9]+", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", key).lower()) if w]
    short = {"tr": "train", "te": "test", "xtrain": "x train", "ytrain": "y train", "xtest": "x test"}
    short |= {"ytest": "y test", "xval": "x val", "yval": "y val", "xvalid": "x val", "yvalid": "y val"}
    words = [one for word in words for one in short.get(word, word).split()]
    roles = [word for word in words if word in _IMAGES or word in _LABELS]
    splits = [split_of(word) for word in words if word not in roles]
    if len(roles) != 1 or None in splits or len(splits) > 1:
        return None
    kind = "images" if roles[0] in _IMAGES else "labels"
    return splits[0] if splits else None, kind, (_IMAGES | _LABELS)[roles[0]]


def _npz_class_names(archive):
    if "class_names" in archive.files:
        return _texts(_checked_names(archive, "class_names"))
    for key in _CLASS_NAMES:
        with contextlib.suppress(ValueError):  # an array of objects, which is not ours
            if key in archive.files and (names := _checked_names(archive, key)).ndim == 1 and names.dtype.kind in "US":
                return _texts(names)
    return None


def _checked_names(archive, key):
    names = archive[key]
    if names.dtype.kind not in "USiu" or names.ndim != 1:
        raise ValueError(f"{key} is no list of texts")
    check_classes(len(names), key)
    return names


def _texts(names):
    return [name.decode() if isinstance(name, bytes) else str(name) for name in names]


def _npz_below(folder, split):
    """The file of a split in a folder, and notes on the choice."""
    files = sorted(file for file in folder.iterdir() if file.suffix == ".npz" and not is_hidden(file.name))
    for wanted in TAKEN_FOR[split]:
        mine = [file for file in files if split_of(file.stem) == wanted]
        exact = [file for file in mine if file.name == f"{wanted}.npz"]
        if len(mine) > 1 and not exact:
            raise DataError(
                f"{folder}: {', '.join(f.name for f in mine)} are all called {wanted}; name one as "
                f"{setting('data_dir')}"
            )
        if mine:
            file = (exact or mine)[0]
            taken = () if wanted == split else (f"{folder}: has no {split}.npz; {file.name} is taken",)
            return file, taken
    arrays = sorted(file.name for file in folder.glob("*.npy"))
    has = ""
    if files:
        has = f" It holds {', '.join(file.name for file in files)}: name one of these as {setting('data_dir')}."
    elif arrays:
        has = f" It holds single arrays, {', '.join(arrays)}: put images and labels into one file by np.savez."
    raise DataError(
        f"{folder / f'{split}.npz'}: no such file; {setting('dataset')} npz takes a file, or a folder that holds "
        f"it.{has}"
    )


def _is_npy(path):
    with open_regular(path) as stream:
        return stream.read(6) == b"\x93NUMPY"


CIFAR10_FILES = Source(
    cifar10,
    ("cifar-10-batches-py", "", "cifar10/cifar-10-batches-py", "cifar-10-batches-bin"),
    holds_cifar10,
    tuple(CIFAR10),
    in_tfds=True,
)
CIFAR100_FILES = Source(
    cifar100,
    ("cifar-100-python", "", "cifar100/cifar-100-python", "cifar-100-binary"),
    holds_cifar100,
    tuple(CIFAR100),
    in_tfds=True,
)
MNIST_FILES = Source(mnist, ("", "mnist", "MNIST/raw"), classes=tuple(DIGITS), in_tfds=True)
FASHION_MNIST_FILES = Source(
    fashion_mnist,
    ("", "fashion_mnist", "fashion-mnist", "FashionMNIST/raw"),
    classes=tuple(GARMENTS),
    in_tfds=True,
)
SVHN_FILES = Source(svhn, ("", "svhn_cropped", "svhn", "SVHN"), holds_svhn, tuple(DIGITS), in_tfds=True)
NPZ = Source(npz, splits=SPLITS, given=True)
