"""The normalisation of images before a network: by name, as a text, in a file's tensors, or in a file beside it."""

import json
from pathlib import Path

import numpy as np

from qcrs_jax.errors import UserError, quoted, setting
from qcrs_jax.files import read_regular
from qcrs_jax.models.checkpoint import CheckpointError

from .files.tensor import Tensor

NORMALIZATIONS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "none": ((0.0,), (1.0,)),
    "cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
}


def numbers_of(text: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel of "MEAN,.../STD,...". Raises ValueError for another text."""
    mean, std = (tuple(float(v) for v in part.split(",")) for part in text.split("/"))
    return mean, std


def parse_normalization(text: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel: those of a name in NORMALIZATIONS, or of "MEAN,.../STD,..."."""
    if text in NORMALIZATIONS:
        return NORMALIZATIONS[text]
    try:
        mean, std = numbers_of(text)
    except (ValueError, AttributeError):
        raise CheckpointError(
            f"normalisation {text!r} is neither one of {', '.join(NORMALIZATIONS)} nor MEAN,.../STD,..., which "
            f"{setting('normalization')} takes"
        ) from None
    if max(map(abs, mean)) > 2 or max(std) > 2:
        scaled = "/".join(",".join(f"{v / 255:.4g}" for v in part) for part in (mean, std))
        raise CheckpointError(
            f"normalisation {text!r} is of pixels from 0 to 255; images are in [0, 1] here. If the network takes "
            f"pixels normalised in this way, give {setting('normalization')} {scaled}"
        )
    return mean, std


_LARGEST_CONFIG = 2**22  # bytes


def timm_normalization(path: Path, arch: str) -> str | None:
    """The normalisation in the config.json that timm stores beside its weights; None if there is none.

    Raises:
        CheckpointError: the weights are of another network, which can have exactly the tensors of `arch`: resnetblur50
            and resnetaa50 differ from resnet50 only in pooling.
    """
    file = path.with_name("config.json")
    if path.name not in ("model.safetensors", "pytorch_model.bin") or not file.is_file():
        return None
    try:
        config = json.loads(read_regular(file, _LARGEST_CONFIG))
        named, values = config["architecture"], config["pretrained_cfg"]
        text = "/".join(",".join(str(float(value)) for value in values[name]) for name in ("mean", "std"))
    except (UserError, ValueError, KeyError, TypeError, RecursionError):  # not of timm
        return None
    if named != arch:
        raise CheckpointError(f"{path}: {file} names the network {named}, but its tensors are those of {arch}")
    return text


PAIRS = {  # names of the buffers with the mean and the standard deviation of a normalising layer
    ("mean", "std"),
    ("means", "stds"),
    ("means", "sds"),
    ("mu", "sigma"),
    ("mu", "std"),
    ("new_mean", "new_std"),
    ("pixel_mean", "pixel_std"),
    ("mu", "log_sig"),  # of RS4A, Yang et al. 2020
}
_NORMALISERS = {frozenset(pair): pair for pair in PAIRS}


def split_normalisers(entries: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The tensors of normalising layers, by name, and all others."""
    by_parent = {}
    for name in entries:
        parent, _, last = name.rpartition(".")
        by_parent.setdefault(parent, set()).add(last)
    layers = {parent: pair for parent, names in by_parent.items() for key, pair in _NORMALISERS.items() if key <= names}
    names = {f"{parent}.{last}".lstrip(".") for parent, pair in layers.items() for last in pair}
    return {n: entries[n] for n in entries if n in names}, {n: t for n, t in entries.items() if n not in names}


def stored_normalization(normalisers: dict[str, Tensor], path: Path) -> str | None:
    """The normalisation in the tensors of normalising layers, as `parse_normalization` reads it; None without any.

    Raises:
        CheckpointError: they are damaged, or contain several normalisations.
    """
    found = {}
    for name in normalisers:
        parent = name.rpartition(".")[0]
        found.setdefault(parent, {})[name.rpartition(".")[2]] = normalisers[name]
    texts = {}
    for parent, tensors in found.items():
        pair = _NORMALISERS[frozenset(tensors)]
        try:
            mean, std = (tensors[name].numpy().ravel() for name in pair)
            if len(mean) > 100 or len(std) > 100:
                raise ValueError(f"{len(mean)} and {len(std)} numbers")
            if pair[1] == "log_sig":
                std = np.exp(std)
        except ValueError as error:
            raise CheckpointError(
                f"{path}: the normalisation in {', '.join(normalisers)} is damaged: {quoted(error)}"
            ) from error
        texts["/".join(",".join(str(value) for value in values) for values in (mean, std))] = parent
    if len(texts) > 1:
        raise CheckpointError(
            f"{path}: stores several normalisations: {'; '.join(texts)}; leave all out but one by "
            f"{setting('leave_out')}, of " + ", ".join(f"{parent}." for parent in texts.values())
        )
    return next(iter(texts), None)
