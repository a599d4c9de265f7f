"""Image files in folders: which folder is a split, which is a class, and the label of each file."""

import os
import re
from pathlib import Path
from typing import NamedTuple

from ..errors import setting
from .class_order import gap_note, question_of
from .dataset import DataError
from .limits import read_text
from .splits import TAKEN_FOR, is_hidden, is_plain, split_of, split_within

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}

GENERIC = re.compile(r"(images?|imgs?|pics?|pictures?|photos?|jpe?gs?|pngs?)", re.IGNORECASE)
"""Names of folders that hold images and are no classes."""


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
    question: DataError | None = None


def list_folder(root: Path, split: str) -> Listing:
    """The images `root/[split/]CLASS/IMAGE`; classes and files in sorted order.

    A split whose labels are in a file beside its images, as of Tiny-ImageNet's val, is read by that file.

    Raises:
        DataError: no images, or none with labels for this split.
    """
    place = choose_split(root, split)
    _refuse_splits_as_classes(place.folder)
    listing = _annotated(place.folder) or _with_wordnet_ids(by_class(place.folder))
    if not listing.files:
        raise DataError(
            f"{listing.root}: no images found; {setting('dataset')} folder expects {listing.root}/CLASS/IMAGE, with "
            "names that end in " + ", ".join(sorted(SUFFIXES))
        )
    question = listing.question or question_of(listing.classes, listing.root) or _flat_split_question(listing.root)
    gap = gap_note(listing.classes, listing.root)
    notes = place.notes + listing.notes + ((gap,) if gap and not question else ())
    return listing._replace(notes=notes, question=question)


def holds_images(root: Path) -> bool:
    """Whether `root` looks like [split/]CLASS/IMAGE: an image that is not hidden stands in a folder below it."""
    for path, folders, files in os.walk(root, followlinks=True):
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        depth = len(Path(path).relative_to(root).parts)
        if depth and any(map(is_image, files)):
            return True
        if depth >= 4:
            folders.clear()
    return False


class Place(NamedTuple):
    """The folder of a split, and sentences on why it is this one."""

    folder: Path
    notes: tuple[str, ...] = ()


def splits_below(root: Path) -> list[str]:
    """Which of train, test and val are folders of classes, or of ImageNet's images, below `root`."""
    present = set(_split_folders(root).values())
    return [name for name in ("train", "test", "val") if name in present]


def split_folder(root: Path, split: str) -> Path:
    """The folder that `choose_split` finds. Errors as for `choose_split`."""
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
                    f"{root}: {', '.join(path.name for path in mine)} are all called {wanted}; name one as "
                    f"{setting('data_dir')}"
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
            f"Name one as {setting('data_dir')}, as in {setting('data_dir')} {mine[0] if mine else root / '...'}, or "
            "call them train, test and val"
        )
    if present:
        there = ", ".join(sorted(path.name for path in present))
        bare = [path.name for path in _folders(root) if split_of(path.name) == split and path not in present]
        why = f"; the images in {', '.join(bare)} have no labels" if bare else ""
        raise DataError(f"{root}: has {there}, but nothing for {setting('split')} {split}{why}")
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
    """The reason why this folder is the split, if it might be another."""
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
    """The single folder of classes or of splits that `root` holds, if it holds nothing else; else `root`."""
    folders = _folders(root)
    if len(folders) != 1 or any(is_image(path.name) for path in root.iterdir()):
        return Place(root)
    (one,) = folders
    if _split_folders(one):
        return choose_split(one, split)
    classes = [path for path in _folders(one) if not GENERIC.fullmatch(path.name) and _any_image(path)]
    if len(classes) < 2 or any(is_image(path.name) for path in one.iterdir()):
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
    """The error that asks whether a folder beside the classes is a class or a split; None where it is clear."""
    doubtful = [path.name for path in _folders(root) if split_of(path.name) and path.name.lower() != "train"]
    if not doubtful:
        return None
    others = [path.name for path in _folders(root) if path.name not in doubtful]
    return DataError(
        f"{root}: {', '.join(doubtful)} is a split by its name, and stands beside {', '.join(others[:6])} as if it "
        f"were a class. Move it away; or, if it is a class, say so by {setting('class_order')}: text, or a file with "
        "the name of a folder on each line, in the order of the network's classes"
    )


def _folders(root):
    return sorted(path for path in root.iterdir() if path.is_dir() and not is_hidden(path.name))


def by_class(root):
    folders = _folders(root)
    found = {path.name: _images(path) for path in folders}
    if any(found.values()):  # an empty folder keeps the place of its class; a folder called images is no class
        found = {name: images for name, images in found.items() if images or not GENERIC.fullmatch(name)}
    files, labels = [], []
    for label, images in enumerate(found.values()):
        files += images
        labels += [label] * len(images)
    return Listing(root, list(found), files, labels, {})


def _images(folder):
    """The images in a folder and in those below it, in sorted order, without hidden files and folders at any depth."""
    found = []
    for path, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not is_hidden(name)]
        found += [Path(path, name) for name in files if is_image(name)]
    return sorted(found)


def is_image(name):
    return os.path.splitext(name)[1].lower() in SUFFIXES and not is_hidden(name)


def _any_image(folder):
    for _, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not is_hidden(name)]
        if any(map(is_image, files)):
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
    for number, line in enumerate(read_text(file).splitlines(), start=1):
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
        labels.append(classes.index(name) if name is not None and name in classes else -1)
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
    listed = read_text(file).split() if file else []
    classes = sorted(set(listed))
    if listed == classes:
        return classes, ()
    return classes, (
        f"{file}: lists the classes in another order than the sorted one, which is taken, as torchvision's ImageFolder "
        f"does; class_order {file} takes the other",
    )
