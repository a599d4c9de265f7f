"""The order of the classes, which decides the labels. The user is asked for it if the names do not determine it."""

import dataclasses
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..errors import quoted, setting
from .dataset import DataError, Dataset, digest
from .limits import Limit, check_classes

DEVKIT_NUMBERS = list(range(1, 1001))
"""Numbers of ImageNet's classes in its devkit, which are not in the order of the WordNet ids."""

_ORDER = 2**24  # bytes of a file of names


def in_class_order(dataset: Dataset, order: str | Path | Sequence[str] | None) -> Dataset:
    """`dataset` with the labels of another order of its classes. The images keep their indices.

    Args:
        order: "number" or "text", by the names of the classes; a file with the name of a class on each line; or the
            names themselves. A name that is not in the data set is a class without images. None keeps the order.

    Raises:
        DataError: the order is not known and not given, or it does not fit the names of the classes.
    """
    if order is None:
        if dataset.question:
            raise dataset.question
        return dataset
    names, where = _wanted(dataset, order)
    here, there = set(dataset.class_names), set(names)
    for whose, them in ((where, names), (dataset.source, dataset.class_names)):
        if len(set(them)) < len(them):
            twice = next(name for name in them if them.count(name) > 1)
            raise DataError(f"{whose}: has the class {twice!r} twice; an order of classes needs each once")
    if missing := sorted(here - there):
        raise DataError(
            f"{where}: lacks {_few(missing)} of {dataset.source}; it needs the name of each class on its own line, "
            f"as in {_few(dataset.class_names)}"
        )
    position = {name: i for i, name in enumerate(names)}
    mapped = np.array([position[name] for name in dataset.class_names], np.int64)
    labels = np.asarray(dataset.labels, np.int64)
    inside = (labels >= 0) & (labels < len(mapped))
    moved = np.where(inside, mapped[np.where(inside, labels, 0)], labels)
    notes = tuple(note for note in dataset.notes if "class_order" not in note)  # which it answers
    if extra := sorted(there - here):
        notes += (f"{where}: {len(extra)} of its {len(names)} classes have no images here: {_few(extra)}",)
    fingerprint = dataset.fingerprint
    if not np.array_equal(moved, labels):
        fingerprint = digest(f"{fingerprint}, other labels".encode(), moved.tobytes())
    return dataclasses.replace(
        dataset, class_names=names, labels=moved, fingerprint=fingerprint, notes=notes, question=None
    )


def question_of(names: list[str], root: Path) -> DataError | None:
    """The error that asks for the order of these class folders of `root`; None if it is known.

    It is not known if the names are numbers, or begin alike and continue with a number, and the order of the numbers is
    not that of the texts. Programs of both kinds are in use, and their labels differ. It is not known either for 1 to
    1000.
    """
    numbers = _numbers(names)
    if numbers is None:
        whole = [name for name in names if re.fullmatch(r"\d+", name)]
        if sorted(whole) == by_number(whole):
            return None
    elif by_number(names) == sorted(names) and sorted(numbers) != DEVKIT_NUMBERS:
        return None
    numbered, text = by_number(names), sorted(names)
    asked = (
        f"{root}: the folders of its classes have numbers, and the order of the classes is not known: "
        f"by number ({_few(numbered)}) or by text, as torchvision's ImageFolder sorts them ({_few(text)}). Say it by "
        f"{setting('class_order')}: number, text, or a file with the name of a folder on each line, in the order of "
        "the network's classes"
    )
    if numbers is not None and sorted(numbers) == DEVKIT_NUMBERS:
        asked += (
            ". If these are ImageNet's classes by the numbers of its devkit, neither is right: put the devkit's "
            "meta.mat beside them and read them as imagenet, or name the folders by their WordNet ids"
        )
    return DataError(asked)


def by_number(names: list[str]) -> list[str]:
    """The names in the order of the numbers in them; those without one come last, by text."""
    numbers = _numbers(names)
    if numbers is not None:
        return [name for _, name in sorted(zip(numbers, names))]
    return sorted(names, key=lambda name: (0, int(name), name) if re.fullmatch(r"\d+", name) else (1, 0, name))


def gap_note(names: list[str], root: Path) -> str | None:
    """A sentence on class folders 0, 1, 3: labels count the folders. None where the numbers have no gap."""
    if not names or not all(re.fullmatch(r"\d+", name) for name in names):
        return None
    numbers = sorted(map(int, names))
    if any(numbers == list(range(start, start + len(names))) for start in (0, 1)):
        return None
    return (
        f"{root}: the numbers of its class folders have gaps ({_few(by_number(names))}); labels count the folders. An "
        "empty folder keeps the place of a class without images"
    )


def _wanted(dataset, order):
    """(names in the order asked for, where it comes from)."""
    names = list(dataset.class_names)
    if isinstance(order, (list, tuple)):
        return [str(name) for name in order], "class_order"
    if str(order) == "text":
        return sorted(names), "class_order text"
    if str(order) == "number":
        if _numbers(names) is None and not any(re.fullmatch(r"\d+", name) for name in names):
            raise DataError(
                f"{setting('class_order')} number: the classes of {dataset.source} have no numbers: {_few(names)}"
            )
        return by_number(names), "class_order number"
    file = Path(order)
    try:
        odd = any(_is_odd(name) for name in names)  # names of folders that are not UTF-8 keep their bytes
        text = Limit(_ORDER).read(file).decode("utf-8-sig", "surrogateescape" if odd else "strict")
        lines = text.splitlines()
    except (OSError, ValueError) as error:
        raise DataError(
            f"{setting('class_order')} {order}: is neither number nor text, nor a file that can be read: "
            f"{quoted(error)}"
        ) from error
    wanted = [line.strip() for line in lines if line.strip()]
    check_classes(len(wanted), file)
    if not wanted:
        raise DataError(
            f"{file}: names no class; {setting('class_order')} takes a file with the name of a class on each line"
        )
    return wanted, str(file)


def _is_odd(name):
    return any("\udc80" <= letter <= "\udcff" for letter in name)


def _numbers(names):
    """The number of each name: of 7, -1, class_7, 7_cat; None where not all have one at the same place."""
    if names and all(re.fullmatch(r"[+-]?\d+", name) for name in names):
        return [int(name) for name in names]
    matches = [match for name in names if (match := re.fullmatch(r"(\D*)(\d+)(\D.*)?", name, re.DOTALL))]
    if not names or len(matches) < len(names):
        return None
    numbers = [int(match[2]) for match in matches]
    alike = len({match[1] for match in matches}) == 1 and len(set(numbers)) == len(numbers)
    return numbers if alike else None


def _few(names, most=6):
    return ", ".join(names[:most]) + (f", ... ({len(names)} in all)" if len(names) > most else "")
