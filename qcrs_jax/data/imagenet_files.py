"""ImageNet's validation images on disk: in folders of classes, or flat with a file of labels."""

import re
from pathlib import Path

from ..errors import quoted, setting
from ..extras import needed_for
from .dataset import DataError
from .image_folders import Listing, by_class, choose_split, is_image
from .limits import Limit, read_text
from .mat_files import check_mat

_META = 2**24  # bytes of the devkit's file of classes
GROUND_TRUTH = "ILSVRC2012_validation_ground_truth.txt"
LABEL_FILES = ("val.txt", "LOC_val_solution.csv", GROUND_TRUTH)


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
    listing = by_class(root)
    if any(re.fullmatch(r"n\d{8}", name) for name in listing.classes):
        if len(listing.classes) != 1000 or not listing.files:
            raise DataError(
                f"{root}: has {len(listing.classes)} folders with {len(listing.files)} images, not ImageNet's 1000 "
                f"classes, so that labels would be wrong; use {setting('dataset')} folder for a data set of your own"
            )
        return listing._replace(notes=notes)
    if listing.files and all(re.fullmatch(r"\d+", name) for name in listing.classes):
        numbered = _devkit_folders(listing)
        return numbered and numbered._replace(notes=notes + numbered.notes)
    if not next(root.glob("ILSVRC2012_val_*"), None):
        return None
    if split == "train":
        raise DataError(f"{root}: holds ImageNet's validation images, and nothing for {setting('split')} train")
    return _flat(root)._replace(notes=notes)


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
            question=DataError(
                f"{root}: its folders are numbers, not WordNet ids, and the order of the classes is not known: the "
                "devkit of ImageNet numbers them in an order of its own, which is neither that of text nor that of the "
                "network's classes. Put the devkit's meta.mat beside them; or name the folders by their WordNet ids; "
                f"or, if the numbers are in the order of the network's classes, say {setting('class_order')} number, "
                "or a file with the name of a folder on each line"
            )
        )
    else:
        return None
    classes = known_to_tfds("labels.txt")
    labels = [classes.index(of_number[numbers[label]]) for label in listing.labels]
    return listing._replace(classes=classes, labels=labels, notes=(note,))


def _official_classes(listing):
    """{folder: WordNet id} by the official names of the validation images in them; {} if these do not decide it."""
    named = [re.fullmatch(r"ILSVRC2012_val_(\d{8})", file.stem) for file in listing.files]
    numbers = [match for match in named if match]
    if len(numbers) < len(named) or len(set(listing.labels)) < len(listing.classes):
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
    files = sorted(path for path in root.iterdir() if is_image(path.name))
    index = {file.stem: i for i, file in enumerate(files)}
    path = _label_file(root)
    lines = _label_lines(path) if path else _numbered(known_to_tfds("validation_labels.txt"))
    labels, seen, problems = [-1] * len(files), {}, {}
    for number, name, text in lines:
        i, label, problem = index.get(Path(name).stem), -1 if text is None else label_of.get(text, -1), None
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
    lines = read_text(path).rstrip().splitlines()
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
        check_mat(path, Limit(_META))
        synsets = scipy.io.loadmat(path, squeeze_me=True)["synsets"]
        return {str(int(s["ILSVRC2012_ID"])): str(s["WNID"]) for s in synsets}
    except Exception as error:
        raise DataError(
            f"{path}: needed to read {GROUND_TRUTH} or the devkit's numbers, but not there or damaged "
            f"({quoted(error)}); both are in the devkit"
        ) from error


def known_to_tfds(name: str) -> list[str]:
    """The lines of TFDS's "labels.txt", the sorted WordNet ids, or "validation_labels.txt", an id for each image."""
    with needed_for("ImageNet"):
        import tensorflow_datasets as tfds  # whose lists of class names it holds

    return tfds.core.tfds_path(f"datasets/imagenet2012/{name}").read_text().split()
