"""Opens any checkpoint: a converted directory, or a PyTorch file, which is converted on the fly."""

import dataclasses
import hashlib
from collections.abc import Sequence
from numbers import Integral
from pathlib import Path

from qcrs_jax.errors import setting, text_of
from qcrs_jax.files import check_regular, reads
from qcrs_jax.models import Classifier, family_of
from qcrs_jax.models.checkpoint import (
    EXPORTED,
    CheckpointError,
    is_classifier,
    is_denoiser,
    restore_classifier,
    restore_denoiser,
)
from qcrs_jax.models.denoiser import Denoiser

from .choose import listed
from .files.stand_ins import unpacked
from .files.torch_file import load
from .fill import to_classifier
from .normalization import numbers_of, parse_normalization, timm_normalization
from .pt2.archive import is_exported
from .pt2.classifier import open_exported
from .recognise import as_asked, recognise
from .zoo import resolve


@dataclasses.dataclass(frozen=True)
class Opening:
    """The answers of the user to what a PyTorch file leaves open; None where there is no answer.

    Attributes:
        normalization: "cifar10", "cifar100", "imagenet", "none", or "MEAN,.../STD,..." per channel.
        field: dictionary of the file that holds the weights.
        prefix: beginning of the network's names; tensors without it are left out.
        leave_out: beginnings of the names of tensors that do not belong to the network.
        image_size: height and width of the images in pixels, or one number for both.
        max_pool: whether a 3x3 max pool of stride 2 follows the stem.
    """

    normalization: str | None = None
    field: str | None = None
    prefix: str | None = None
    leave_out: tuple[str, ...] = ()
    image_size: int | tuple[int, ...] | None = None
    max_pool: bool | None = None

    def __post_init__(self):
        size = self.image_size if isinstance(self.image_size, tuple) else (self.image_size,)
        kinds = {
            "normalization": self.normalization is None or isinstance(self.normalization, str),
            "field": self.field is None or isinstance(self.field, str),
            "prefix": self.prefix is None or isinstance(self.prefix, str),
            "leave_out": all(isinstance(start, str) for start in self.leave_out),
            "image_size": size == (None,) or all(isinstance(side, Integral) for side in size),
            "max_pool": self.max_pool is None or isinstance(self.max_pool, bool),
        }
        for name, right in kinds.items():
            if not right:
                raise CheckpointError(
                    f"{setting(name)} cannot be {getattr(self, name)!r}; see the arguments of load_classifier"
                )


@reads("path", CheckpointError)
def load_classifier(
    path: str | Path,
    normalization: str | None = None,
    *,
    field: str | None = None,
    prefix: str | None = None,
    leave_out: str | Sequence[str] = (),
    image_size: int | Sequence[int] | None = None,
    max_pool: bool | None = None,
) -> Classifier:
    """Opens the classifier in `path`. Its `classify` is the jit-compatible function, its `spec` the metadata.

    No PyTorch is needed. `spec.source["notes"]` lists, in sentences, everything that had to be assumed because the file
    does not say it.

    Args:
        path: a directory that `qcrs-jax convert` or `train` wrote, the file in it, a PyTorch file, a program of
            torch.export (`.pt2`) that takes images in [0, 1], or `zoo:NAME`. No PyTorch is needed.
        normalization: "cifar10", "cifar100", "imagenet", "none", or "MEAN,.../STD,..." per channel. None takes it from
            the PyTorch file, if its layout or its tensors determine it.
        field: dictionary of a PyTorch file that holds the weights; None takes the only one.
        prefix: beginning of the network's names in the file; tensors without it are left out. None takes the only
            network, and refuses tensors that do not belong to it.
        leave_out: beginnings of the names of tensors that do not belong to the network.
        image_size: height and width of the images in pixels, or one number for both, for networks that take any size.
        max_pool: whether a 3x3 max pool of stride 2 follows the stem; None assumes one behind a 7x7 stem alone.

    A converted classifier already records all of this. Arguments that are given must agree with it.

    Raises:
        CheckpointError: the file cannot be opened; the message names the file, what is wrong with it and the remedy.
    """
    leave_out = (leave_out,) if isinstance(leave_out, str) else tuple(leave_out)
    image_size = tuple(image_size) if isinstance(image_size, Sequence) else image_size
    return open_classifier(path, Opening(normalization, field, prefix, leave_out, image_size, max_pool))


@reads("path", CheckpointError)
def open_classifier(path: str | Path, opening: Opening) -> Classifier:
    """The classifier in `path`. Errors as for `load_classifier`."""
    if str(path).startswith("python:"):
        raise CheckpointError(f"{path}: a classifier of Python is for certify, predict, curve and visualize alone")
    path = resolve(path)
    if not path.exists():
        raise CheckpointError(f"{path}: no such file or directory")
    check_regular(path, CheckpointError)
    if (path / EXPORTED).is_file():
        return _open_exported(path / EXPORTED, opening)
    if is_denoiser(path):
        raise CheckpointError(
            f"{path}: is a denoiser, and no classifier; name the classifier here, and the denoiser as "
            f"{setting('denoiser')}"
        )
    if is_classifier(path):
        classifier = restore_classifier(path)
        _check_agrees(classifier.spec, opening, path)
        return classifier
    if path.is_dir():
        raise CheckpointError(f"{path}: {unpacked(path)}")
    return convert_file(path, opening)


def _check_agrees(spec, opening, path):
    """Raises CheckpointError unless a converted classifier agrees with the arguments of the user."""
    normalization, size, pool = opening.normalization, opening.image_size, opening.max_pool
    again = "convert the PyTorch file again for another"
    if normalization is not None and parse_normalization(normalization) != (spec.mean, spec.std):
        raise CheckpointError(
            f"{path}: was converted with the normalisation {spec.mean} / {spec.std}, not {normalization} "
            f"({setting('normalization')}); {again}"
        )
    size = (size, size) if isinstance(size, int) else size
    if size is not None and tuple(size) != spec.image_shape[:2]:
        raise CheckpointError(
            f"{path}: was converted for images of {spec.image_shape}, not of {tuple(size)} ({setting('image_size')}); "
            f"{again}"
        )
    if pool is not None and pool != bool(family_of(spec.arch).max_pool(spec.arch, spec.options)):
        raise CheckpointError(
            f"{path}: was converted with {'no' if pool else 'a'} max pool behind the stem ({setting('max_pool')}); "
            f"{again}"
        )
    for name in ("field", "prefix", "leave_out"):
        if getattr(opening, name) not in (None, (), _said(spec, name)):
            raise CheckpointError(f"{path}: is a converted classifier, which has no {setting(name)} to choose; {again}")


def _said(spec, name):
    value = spec.source.get(name)
    return tuple(value) if isinstance(value, list) else value


@reads("path", CheckpointError)
def convert_file(path: Path, opening: Opening | None = None) -> Classifier:
    """The classifier in the PyTorch file `path`. Errors as for `load_classifier`."""
    opening = opening or Opening()
    if is_exported(path):
        return _open_exported(path, opening)
    found = recognise(load(path), path, opening.field, opening.prefix, opening.leave_out)
    found = as_asked(found, opening.image_size, opening.max_pool, path)
    notes, normalization = list(found.notes), opening.normalization
    if normalization is not None and found.chosen.normalization is not None:
        if parse_normalization(normalization) != numbers_of(found.chosen.normalization):
            notes.append(f"The normalisation {normalization} is used, as requested, and not the file's own.")
    normalization = normalization or timm_normalization(path, found.network.arch) or _assumed(found)
    if normalization is None:
        raise CheckpointError(_ask_normalization(found, path))
    if opening.normalization is None and (found.layout.name, normalization) == ("Cohen", "cifar10"):
        notes.append(f"CIFAR-10's normalisation, as Cohen's files have it; some of SmoothAdv's need {_SMOOTHADV}.")
    try:
        mean, std = parse_normalization(normalization)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {text_of(error)}") from error
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    source = {"file": path.name, "sha256": digest, "layout": found.layout.name, "normalization": normalization}
    if found.sigma is not None:
        source["sigma"] = found.sigma
    if found.sigma_range is not None:
        source["sigma_range"] = list(found.sigma_range)
    source |= {n: getattr(opening, n) for n in ("field", "prefix", "image_size") if getattr(opening, n) is not None}
    source |= {n: list(v) for n, v in (("leave_out", opening.leave_out), ("notes", notes)) if v}
    return to_classifier(found, mean, std, source, path)


def _open_exported(path, opening):
    """The classifier of an exported program, which leaves little open."""
    if opening.normalization not in (None, "none"):
        raise CheckpointError(
            f"{path}: is an exported program, which takes images in [0, 1] and has its normalisation within it; export "
            f"a module that normalises, in place of {setting('normalization')} {opening.normalization}"
        )
    for name in ("field", "prefix", "leave_out", "max_pool"):
        if getattr(opening, name) not in (None, ()):
            raise CheckpointError(f"{path}: is an exported program, which has no {setting(name)} to choose")
    size = opening.image_size
    return open_exported(path, (size, size) if isinstance(size, int) else size and tuple(size))


_SMOOTHADV = "0.4914,0.4822,0.4465/1,1,1"


def _assumed(found):
    """The normalisation that the file stores, or that its layout implies; None where either may be wrong.

    A part that was left out of the file, or an entry beside the weights, may be the normalisation itself.
    """
    return None if found.doubtful else found.layout.normalization


def _ask_normalization(found, path):
    """The question how images are normalised, with the known answers for such files."""
    possible = dict(found.possible)
    if found.layout.normalization is not None:
        possible[found.layout.normalization] = f"of the layout {found.layout.name}"
    known = " or ".join(f"{name} ({who})" for name, who in possible.items())
    if found.doubtful:
        known += f"; but {listed(found.doubtful)} of the file may contradict it"
    channels, classes = found.network.image_shape[-1], found.network.num_classes
    form = "MEAN/STD" if channels == 1 else "MEAN,MEAN,MEAN/STD,STD,STD"
    return (
        f"{path}: the layout ({found.layout.name}, images of {channels} channel(s), {classes} classes) does not show "
        f"how images are normalised. {f'Known for such files: {known}. ' if known else ''}"
        f"Give it by {setting('normalization')} cifar10, cifar100, imagenet, none, or {form}"
    )


def load_denoiser(path: str | Path) -> Denoiser:
    """Opens the denoiser in `path`, for `Denoised`.

    Args:
        path: a directory that `qcrs-jax train --method denoiser` wrote, the file in it, or `zoo:NAME`.

    Raises:
        CheckpointError: it cannot be opened; the message names the file, what is wrong with it and the remedy.
        UserError: the zoo has no such name.
    """
    return restore_denoiser(resolve(path))
