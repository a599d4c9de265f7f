"""Names of folders, files and arrays that mean the splits train, test and val, and names that are not data at all."""

import re

SPLITS = ("train", "test", "val")
TAKEN_FOR = {"train": ("train",), "test": ("test", "val"), "val": ("val",)}
"""Which splits serve for the one asked for, the better first: many data sets keep the labels of their test images."""

_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
}
_REST = r"(?:sets?|data|datasets?|imgs?|images?|splits?|folder|dir|samples?)?"
_WORD = re.compile(rf"({'|'.join(sorted(_WORDS, key=len, reverse=True))}){_REST}")
_FILLERS = re.compile(rf"{_REST}|the|my|final")

_SYSTEM = re.compile(
    r"__macosx|__pycache__|thumbs\.db(:.*)?|ehthumbs.*\.db|desktop\.ini|icon\r|lost\+found|system volume information"
    r"|\$recycle\.bin|recycler|#recycle|#snapshot|@(eadir|tmp|recycle|recently-snapshot|sharebin|syno.*)",
    re.IGNORECASE,
)


def is_hidden(name: str) -> bool:
    """Whether a file or folder of this name is the system's and no data: .git, ._a.png, @eaDir, __MACOSX, Thumbs.db."""
    return name.startswith(".") or _SYSTEM.fullmatch(name) is not None


def is_plain(name: str) -> bool:
    """Whether a folder of this name is certainly a split: train, Test, VALID. For training_set the user is asked."""
    return name.lower() in _WORDS


def split_of(name: str) -> str | None:
    """The split that a name means: Train, training_set, test2, valid, Validation-Data; None for others."""
    words = _words(name)
    found = {split for split in map(_split_of_word, words) if split}
    others = [word for word in words if not _split_of_word(word) and not _FILLERS.fullmatch(word)]
    return found.pop() if len(found) == 1 and not others else None


def split_within(name: str) -> str | None:
    """The split that one word of a name means: seg_train, cifar-test, images.val. Class names can have such a word."""
    found = {split for split in map(_split_of_word, _words(name)) if split}
    return found.pop() if len(found) == 1 else None


def _words(name):
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return re.findall(r"[a-z]+", apart.lower())


def _split_of_word(word):
    match = _WORD.fullmatch(word)
    return _WORDS[match[1]] if match else None
