"""Data sets of image files: any folder of classes, and ImageNet as torchvision prepares it for evaluation."""

import dataclasses
import io
import os
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from .class_order import gap_note, question_of
from .dataset import DataError, Dataset, digest
from .splits import TAKEN_FOR, is_hidden, is_plain, split_of, split_within

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF", "PPM")  # Pillow knows others that start programs

GENERIC = re.compile(r"(images?|imgs?|pics?|pictures?|photos?|jpe?gs?|pngs?)", re.IGNORECASE)
"""Names of folders that hold images, and say nothing of their class."""

GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
LABEL_FILES = ("val.txt", "LOC_val_solution.csv", GROUND_TRUTH)


class Listing(NamedTuple):
    """Image files with their labels.

    root: the folder.
    classes: names of the classes, in the order of the labels.
    files: the images, in order.
    labels: the label of each, -1 where there is none.
    problems: index -> what is wrong with that image's label.
    notes, question: as of a Dataset.
    """

    root: Path
    classes: list[str]
    files: list[Path]
    labels: list[int]
    problems: dict[int, str]
    notes: tuple[str, ...] = ()
    question: str | None = None


def folder(root: Path, split: str) -> Dataset:
    """The images of `list_folder` at their own size."""
    return _dataset("folder", split, list_folder(root, split), np.asarray)


def imagenet(root: Path, split: str) -> Dataset | None:
    """The images of `list_imagenet`, resized and cropped to (224, 224, 3); None if it is not below `root`."""
    listing = list_imagenet(root, split)
    return None if listing is None else _dataset("imagenet", split, listing, resize_and_crop)


def list_folder(root: Path, split: str) -> Listing:
    """The images `root/[split/]CLASS/IMAGE`; classes and files in sorted order.

    A split whose labels are in a file beside its images, as of Tiny-ImageNet's val, is read by that file.

    Raises:
        DataError: no images, or none with labels for this split.
    """
    place = choose_split(root, split)
    _refuse_splits_as_classes(place.folder)
    listing = _annotated(place.folder) or _with_wordnet_ids(_by_class(place.folder))
    if not listing.files:
        raise DataError(
            f"{listing.root}: no images found; --dataset folder expects {listing.root}/CLASS/IMAGE, with names that "
            "end in " + ", ".join(sorted(SUFFIXES))
        )
    question = listing.question or question_of(listing.classes, listing.root) or _flat_split_question(listing.root)
    gap = gap_note(listing.classes, listing.root)
    notes = place.notes + listing.notes + ((gap,) if gap and not question else ())
    return listing._replace(notes=notes, question=question)


def list_imagenet(root: Path, split: str) -> Listing | None:
    """ImageNet's images below `root`; None if they are not there.

    Either 1000 folders of classes, `root/[val/]n01440764/IMAGE` and so on, or the flat official folder of validation
    images in the order of their names. The labels of the latter come from a file in or beside it: `val.txt` with lines
    `ILSVRC2012_val_00000001.JPEG 65`, labels counting from 0 in the sorted order of the WordNet ids; or the devkit's
    ILSVRC2012_validation_ground_truth.txt with its meta.mat; or Kaggle's LOC_val_solution.csv; or else from the list
    that TFDS has. Folders 1 to 1000 with the devkit's numbers are read by its meta.mat, or by the official names of the
    validation images in them.

    Raises:
        DataError: files are there, but not as described.
    """
    if not root.is_dir():
        return None
    place = choose_split(root, split)
    root = place.folder
    notes = tuple(note for note in place.notes if not note.endswith("taken for test"))  # ImageNet's has no labels
    listing = _by_class(root)
    if any(re.fullmatch(r"n\d{8}", name) for name in listing.classes):
        if len(listing.classes) != 1000 or not listing.files:
            raise DataError(
                f"{root}: has {len(listing.classes)} folders with {len(listing.files)} images, not ImageNet's 1000 "
                "classes, so that labels would be wrong; use --dataset folder for a data set of your own"
            )
        return listing._replace(notes=notes)
    if listing.files and all(re.fullmatch(r"\d+", name) for name in listing.classes):
        numbered = _devkit_folders(listing)
        return numbered and numbered._replace(notes=notes + numbered.notes)
    if not next(root.glob("ILSVRC2012_val_*"), None):
        return None
    if split == "train":
        raise DataError(f"{root}: holds ImageNet's validation images, and nothing for split train (--split)")
    return _flat(root)._replace(notes=notes)


def holds_images(root: Path) -> bool:
    """Whether `root` looks like [split/]CLASS/IMAGE: an image that is not hidden stands in a folder below it."""
    for path, folders, files in os.walk(root, followlinks=True):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        depth = len(Path(path).relative_to(root).parts)
        if depth and any(map(_is_image, files)):
            return True
        if depth >= 4:
            folders.clear()
    return False


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


class Place(NamedTuple):
    """The folder of a split, and sentences on why it is this one."""

    folder: Path
    notes: tuple[str, ...] = ()


def splits_below(root: Path) -> list[str]:
    """Which of train, test and val are folders of classes, or of ImageNet's images, below `root`."""
    present = set(_split_folders(root).values())
    return [name for name in ("train", "test", "val") if name in present]


def split_folder(root: Path, split: str) -> Path:
    """The folder that `choose_split` finds. Raises what it raises."""
    return choose_split(root, split).folder


def choose_split(root: Path, split: str) -> Place:
    """The folder of a split: one below `root`, or `root` itself if it is not split.

    Folders are known by their names, in small letters or capitals, train, training, Test, valid and so on, and by what
    they hold: a class that happens to be called train holds images. Where no labels are kept for test, val is taken. A
    folder that holds nothing but one folder of classes or of splits is passed through.

    Raises:
        DataError: it is split, but not into this one, into several by this name, or by names such as test_set.
    """
    present = _split_folders(root)
    for wanted in TAKEN_FOR[split]:
        mine = sorted(path for path, name in present.items() if name == wanted)
        if len(mine) > 1:
            exact = [path for path in mine if path.name == wanted]
            if not exact:
                raise DataError(
                    f"{root}: {', '.join(path.name for path in mine)} are all called {wanted}; name one as data_dir "
                    "(--data_dir)"
                )
            mine = exact
        if mine:
            inner = _inner(mine[0], split)
            return Place(inner.folder, _notes_on(root, mine[0], wanted, split, present) + inner.notes)
    if doubtful := _doubtful_splits(root):
        mine = [path for path, name in doubtful.items() if name in TAKEN_FOR[split]]
        names = ", ".join(sorted(path.name for path in {**present, **doubtful}))
        raise DataError(
            f"{root}: holds {names}: these are splits by their names, not classes, and none of them is called {split}. "
            f"Name one as data_dir (--data_dir {mine[0] if mine else root / '...'}), or call them train, test and val"
        )
    if present:
        there = ", ".join(sorted(path.name for path in present))
        bare = [path.name for path in _folders(root) if split_of(path.name) == split and path not in present]
        why = f"; the images in {', '.join(bare)} have no labels" if bare else ""
        raise DataError(f"{root}: has {there}, but nothing for --split {split}{why}")
    inner = _inner(root, split)
    if inner.folder != root:
        return inner
    called = split_of(root.resolve().name)
    if called not in (None, *TAKEN_FOR[split]):
        return Place(root, (f"{root}: is called {called}, and is taken for {split} as it is",))
    if called is None and split != "test":
        return Place(root, (f"{root}: is not divided into splits; all of its images are taken for {split}",))
    return Place(root)


def _notes_on(root, folder, wanted, split, present):
    """Why this folder is the split, where it might be another."""
    if wanted != split:
        unlabelled = [path.name for path in _folders(root) if split_of(path.name) == split and path not in present]
        why = f"the images in {unlabelled[0]} have no labels" if unlabelled else f"there is no {split}"
        notes = (f"{root}: {why}; {folder.name} is taken for {split}",)
    else:
        notes = ()
    beside = [path.name for path in _folders(root) if path not in present and split_of(path.name) is None]
    beside = [name for name in beside if len(present) == 1 and _any_image(root / name)]
    if beside:
        notes += (
            f"{root}: {folder.name} is taken for the split of this name, and {', '.join(beside[:6])} beside it is left "
            "out. If these are classes, rename the folder",
        )
    return notes


def _inner(root, split):
    """What `root` holds if that is a single folder of classes or of splits, else `root`."""
    folders = _folders(root)
    if len(folders) != 1 or any(_is_image(path.name) for path in root.iterdir()):
        return Place(root)
    (one,) = folders
    if _split_folders(one):
        return choose_split(one, split)
    classes = [path for path in _folders(one) if not GENERIC.fullmatch(path.name) and _any_image(path)]
    if len(classes) < 2 or any(_is_image(path.name) for path in one.iterdir()):
        return Place(root)
    return Place(one, (f"{root}: holds nothing but {one.name}, whose folders are taken for the classes",))


def _split_folders(root):
    """{folder of labelled images: split} of the folders right below `root`."""
    if not root.is_dir():
        return {}
    plain = {path: split_of(path.name) for path in _folders(root) if is_plain(path.name)}
    return {path: split for path, split in plain.items() if _is_labelled(path)}


def _doubtful_splits(root):
    """{folder: split} of those below `root` that hold folders of classes, and are splits by a word in their names."""
    folders = [path for path in _folders(root) if not is_plain(path.name)]
    sure = {path: split_of(path.name) for path in folders if split_of(path.name) and _is_labelled(path)}
    within = {path: split_within(path.name) for path in folders if split_within(path.name) and _is_labelled(path)}
    return within if len(set(within.values())) > 1 else sure


def _is_labelled(folder):
    """Whether a folder holds folders of classes, a file of labels, or ImageNet's validation images."""
    classes = any(not GENERIC.fullmatch(path.name) for path in _folders(folder))
    return classes or any(folder.glob("ILSVRC2012_val_*")) or _annotations(folder) is not None


def _refuse_splits_as_classes(folder):
    """Raises DataError where all folders are splits by their names, or there is nothing that could be a class."""
    folders = [path for path in _folders(folder) if _any_image(path)]
    names = ", ".join(path.name for path in folders)
    if folders and all(map(split_of, (path.name for path in folders))):
        raise DataError(
            f"{folder}: {names} are splits by their names, not classes, and their images have no labels; a split holds "
            f"CLASS/IMAGE, as in {folder / folders[0].name}/CLASS/IMAGE"
        )
    nothing_else = folders and all(GENERIC.fullmatch(path.name) for path in folders)
    if nothing_else and _annotations(folder) is None:
        raise DataError(
            f"{folder}: its images, in {names}, have no labels: {names} is the name of no class. A data set in folders "
            "holds CLASS/IMAGE"
        )


def _flat_split_question(root):
    """Why it is not known whether a folder beside those of the classes is a class or a split; None where it is."""
    doubtful = [path.name for path in _folders(root) if split_of(path.name) and path.name.lower() != "train"]
    if not doubtful:
        return None
    others = [path.name for path in _folders(root) if path.name not in doubtful]
    return (
        f"{root}: {', '.join(doubtful)} is a split by its name, and stands beside {', '.join(others[:6])} as if it "
        "were a class. Move it away; or, if it is a class, say so by class_order (--class_order): text, or a file with "
        "the name of a folder on each line, in the order of the network's classes"
    )


def _folders(root):
    return sorted(path for path in root.iterdir() if path.is_dir() and not is_hidden(path.name))


def _by_class(root):
    folders = _folders(root)
    found = {path.name: _images(path) for path in folders}
    if any(found.values()):  # an empty folder keeps the place of its class, but images is none
        found = {name: images for name, images in found.items() if images or not GENERIC.fullmatch(name)}
    files, labels = [], []
    for label, images in enumerate(found.values()):
        files += images
        labels += [label] * len(images)
    return Listing(root, list(found), files, labels, {})


def _images(folder):
    """The images in a folder and in those below it, in sorted order, without what is hidden at any depth."""
    found = []
    for path, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not is_hidden(name)]
        found += [Path(path, name) for name in files if _is_image(name)]
    return sorted(found)


def _is_image(name):
    return os.path.splitext(name)[1].lower() in SUFFIXES and not is_hidden(name)


def _any_image(folder):
    for _, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not is_hidden(name)]
        if any(map(_is_image, files)):
            return True
    return False


def _annotations(folder):
    """The file of labels beside the images of a split, as Tiny-ImageNet's val_annotations.txt; None without one."""
    files = sorted(path for path in folder.glob("*_annotations.txt") if not is_hidden(path.name))
    named = [path for path in files if split_of(path.name.removesuffix("_annotations.txt"))]
    return named[0] if named else None


def _annotated(folder):
    """The listing of a split by its file of labels, lines of a file and a class; None if classes are folders there."""
    file = _annotations(folder)
    if file is None or any(not GENERIC.fullmatch(path.name) for path in _folders(folder)):
        return None
    class_of, problems_of = {}, {}
    for number, line in enumerate(file.read_text(errors="replace").splitlines(), start=1):
        words = line.split("\t") if "\t" in line else line.split()
        if len(words) < 2:
            problems_of[words[0] if words else ""] = f"{file}, line {number}: is not a file and a class"
        elif class_of.setdefault(words[0], words[1]) != words[1]:
            problems_of[words[0]] = f"{file}, line {number}: gives {words[0]} another class than a line before"
    classes, notes = _wordnet_ids(folder)
    if not classes:
        train = [path for path, split in _split_folders(folder.parent).items() if split == "train"]
        classes = [path.name for path in _folders(train[0])] if train else sorted(set(class_of.values()))
        notes = () if train else (f"{file}: its {len(classes)} classes are taken for all there are",)
    files, labels, problems = _images(folder), [], {}
    for i, path in enumerate(files):
        name = class_of.get(path.name)
        labels.append(classes.index(name) if name in classes else -1)
        if path.name in problems_of:
            problems[i], labels[i] = problems_of[path.name], -1
        elif name is None:
            problems[i] = f"{file}: has no line for {path.name}"
        elif name not in classes:
            problems[i] = f"{file}: {path.name} is of {name}, which is no class of {folder.parent}"
    return Listing(folder, classes, files, labels, problems, notes)


def _with_wordnet_ids(listing):
    """The listing with the classes of wnids.txt, if there is one that has them all: some may be without images."""
    classes, notes = _wordnet_ids(listing.root)
    if not classes or not set(listing.classes) <= set(classes):
        return listing
    labels = [classes.index(listing.classes[label]) for label in listing.labels]
    return listing._replace(classes=classes, labels=labels, notes=notes)


def _wordnet_ids(folder):
    """The sorted classes in a wnids.txt in or above the folder of a split, and notes on its order; [] without one."""
    file = next((path / "wnids.txt" for path in (folder, folder.parent) if (path / "wnids.txt").is_file()), None)
    listed = file.read_text(errors="replace").split() if file else []
    classes = sorted(set(listed))
    if listed == classes:
        return classes, ()
    return classes, (
        f"{file}: lists the classes in another order than the sorted one, which is taken, as torchvision's ImageFolder "
        f"does; class_order (--class_order) {file} takes the other",
    )


def _devkit_folders(listing):
    """ImageNet's images in folders of numbers; None where these can be those of another data set.

    The devkit numbers the classes in an order of its own, from 1. Which class a number is follows from its meta.mat, or
    from the images' official names, if each class has some.
    """
    root, numbers = listing.root, [int(name) for name in listing.classes]
    official = _official_classes(listing)
    meta = next((place / "meta.mat" for place in _devkit_places(root) if (place / "meta.mat").is_file()), None)
    ids = _devkit_ids(meta) if meta else {}
    if meta and all(str(number) in ids for number in numbers):
        of_number = {number: ids[str(number)] for number in numbers}
        for name, number in zip(listing.classes, numbers):
            if official and official[name] != of_number[number]:
                raise DataError(
                    f"{root / name}: holds images of {official[name]} by their names, but {meta} says that class "
                    f"{number} is {of_number[number]}; name the folders by their WordNet ids"
                )
        note = f"{root}: the numbers of its folders are those of {meta}"
    elif official and len(set(official.values())) == len(official) == 1000:
        of_number = {int(name): wordnet_id for name, wordnet_id in official.items()}
        note = f"{root}: the class of each folder is that of the validation images in it, by their official names"
    elif len(numbers) == 1000:
        return listing._replace(
            question=(
                f"{root}: its folders are numbers, not WordNet ids, and the order of the classes is not known: the "
                "devkit of ImageNet numbers them in an order of its own, which is neither that of text nor that of the "
                "network's classes. Put the devkit's meta.mat beside them; or name the folders by their WordNet ids; "
                "or, if the numbers are in the order of the network's classes, say class_order (--class_order) number, "
                "or a file with the name of a folder on each line"
            )
        )
    else:
        return None
    classes = known_to_tfds("labels.txt")
    labels = [classes.index(of_number[numbers[label]]) for label in listing.labels]
    return listing._replace(classes=classes, labels=labels, notes=(note,))


def _official_classes(listing):
    """{folder: WordNet id} by the official names of the validation images in them; {} where these do not tell."""
    numbers = [re.fullmatch(r"ILSVRC2012_val_(\d{8})", file.stem) for file in listing.files]
    if not all(numbers) or len(set(listing.labels)) < len(listing.classes):
        return {}
    known, found = known_to_tfds("validation_labels.txt"), {}
    for number, label in zip(numbers, listing.labels):
        place = int(number[1]) - 1
        if not 0 <= place < len(known) or found.setdefault(listing.classes[label], known[place]) != known[place]:
            return {}
    return found


def _flat(root):
    """The listing of the flat folder. A line of the label file without an image has an index too, behind the others."""
    wordnet_ids = known_to_tfds("labels.txt")
    label_of = {name: i for i, name in enumerate(wordnet_ids)} | {str(i): i for i in range(len(wordnet_ids))}
    files = sorted(path for path in root.iterdir() if _is_image(path.name))
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
    places = _devkit_places(root)
    return next((place / name for name in LABEL_FILES for place in places if (place / name).is_file()), None)


def _devkit_places(root):
    return [root, root.parent, *sorted(root.parent.glob("ILSVRC2012_devkit*/data"))]


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
            f"{path}: needed to read {GROUND_TRUTH} or the devkit's numbers, but not there or damaged ({error}); both "
            "are in the devkit"
        ) from error


def known_to_tfds(name: str) -> list[str]:
    """The lines of TFDS's "labels.txt", the sorted WordNet ids, or "validation_labels.txt", an id for each image."""
    import tensorflow_datasets as tfds

    return tfds.core.tfds_path(f"datasets/imagenet2012/{name}").read_text().split()


def _dataset(name, split, listing, prepare):
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
        lambda index: decode(files[index], str(files[index]), prepare),
        digest(names.encode(), labels.tobytes()),
        problems,
        files,
        notes,
        question,
    )
