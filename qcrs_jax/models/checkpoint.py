"""Classifiers on disk: a directory with one file, which opens on every kind of device and in every process.

OUT_DIR/classifier.safetensors   every variable of the network, batch statistics included, in float32. The metadata in
                                 its header hold the Spec as JSON, a format number and the SHA-256 of the weights.

Of an exported PyTorch program it is OUT_DIR/classifier.pt2, which the converter reads and writes. Of a denoiser it is
OUT_DIR/denoiser.safetensors, of the same form.

Earlier versions wrote OUT_DIR/classifier.json and OUT_DIR/weights/ (Orbax). Those directories can still be read.
"""

import dataclasses
import hashlib
import json
import math
import shutil
import struct
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import safetensors
from flax import nnx
from safetensors.numpy import save

from ..errors import UserError, quoted, setting
from ..extras import MissingPackage, needed_for
from ..files import check_regular, is_partial, read_regular, reads, replacing
from ..models import Classifier, Spec, abstract
from .denoiser import Denoiser, DenoiserSpec, build_denoiser

FILE = "classifier.safetensors"
EXPORTED = "classifier.pt2"
DENOISER = "denoiser.safetensors"
FORMAT = 2
_OLD_FORMAT = 1
_OLD_FILES = ("classifier.json", "weights")
_OLD_PARTIAL = FILE + ".partial"  # left behind by an interrupted write of an earlier version
_HEADER = 2**22  # bytes of a header; that of a ResNet-152 takes a hundredth


class CheckpointError(UserError):
    """A checkpoint that cannot be opened; the message names the file, what is wrong and the remedy."""


def save_classifier(classifier: Classifier, path: str | Path, overwrite: bool = False) -> None:
    """Writes `classifier` to the directory `path`. An interrupted write is never taken for a classifier.

    An earlier classifier stays until the new one replaces it as a whole.

    Args:
        classifier: a classifier, as `load_classifier` returns it.
        path: the directory; it is made if it does not exist.
        overwrite: whether a classifier that `path` already holds may be replaced.

    Raises:
        CheckpointError: `path` exists and is not an empty directory, and `overwrite` is False; or it holds something
            else than a classifier.
    """
    path = Path(path).absolute()
    if path.exists() and (not path.is_dir() or not all(map(_is_left, path.iterdir()))):
        if not overwrite:
            raise CheckpointError(f"{path}: already exists; choose another directory or give {setting('overwrite')}")
        if not is_classifier(path) or not path.is_dir():
            raise CheckpointError(f"{path}: holds something else than a classifier and is left alone")
    written = _write(classifier, path)
    for file in path.iterdir():
        if file.name != written:
            _remove(file)


def write_classifier(classifier: Classifier, path: str | Path) -> None:
    """Writes `classifier` into the directory `path`. It replaces an earlier classifier and leaves all other files."""
    path = Path(path).absolute()
    written = _write(classifier, path)
    others = [path / name for name in (FILE, EXPORTED, *_OLD_FILES) if name != written]
    for file in others + [file for file in path.iterdir() if _is_left(file)]:
        _remove(file)


def _write(classifier, path):
    """Writes the file of `classifier` in the directory `path`, whole or not at all; returns its name."""
    packed = getattr(classifier, "packed", None)  # of one that has a file of its own kind
    name, content = packed() if packed is not None else (FILE, _packed(classifier, "classifier"))
    path.mkdir(parents=True, exist_ok=True)
    with replacing(path / name) as file:
        file.write(content)
    return name


def _packed(network, kind):
    """The bytes of the file of a classifier or a denoiser, the `kind`."""
    description = json.dumps(
        {"format": FORMAT, "weights_sha256": network.fingerprint(), **dataclasses.asdict(network.spec)}
    )
    metadata = {kind: description, "sha256": _sum(description)}
    weights = {name: np.asarray(variable[...], np.float32, order="C") for name, variable in _variables(network.model)}
    return save(weights, metadata)


def write_denoiser(denoiser: Denoiser, path: str | Path) -> None:
    """Writes `denoiser` into the directory `path`, which keeps all other files."""
    path = Path(path)
    path.mkdir(parents=True, exist_ok=True)
    with replacing(path / DENOISER) as file:
        file.write(_packed(denoiser, "denoiser"))


def is_denoiser(path: str | Path) -> bool:
    """Whether `path` is a directory with a denoiser, or the file in it."""
    path = Path(path)
    return (path / DENOISER).is_file() or _holds(path, "denoiser")


@reads("path", CheckpointError)
def restore_denoiser(path: str | Path) -> Denoiser:
    """Opens the denoiser in `path`.

    Args:
        path: a directory that `write_denoiser` wrote, or the file in it.

    Raises:
        CheckpointError: it cannot be opened; the message names the file, what is wrong with it and the remedy.
    """
    path = Path(path)
    if not path.exists():
        raise CheckpointError(f"{path}: no such file or directory")
    if not is_denoiser(path):
        found = "holds a classifier" if is_classifier(path) else f"holds no {DENOISER}"
        raise CheckpointError(
            f"{path}: {found}, and is no denoiser; `qcrs-jax train OUT_DIR --method denoiser` trains one"
        )
    return _restore_file(path / DENOISER if path.is_dir() else path, "denoiser")


def _is_left(file):
    """Whether an interrupted write has left `file`."""
    return file.name == _OLD_PARTIAL or is_partial(file.name)


def _remove(path):
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _variables(model):
    """(name, variable) for every variable of the network."""
    return [("/".join(map(str, name)), variable) for name, variable in nnx.to_flat_state(nnx.state(model))]


def _sum(text):
    return hashlib.sha256(text.encode()).hexdigest()


def is_classifier(path: str | Path) -> bool:
    """Whether `path` is a directory with a classifier, of the present or the earlier form, or the file in it."""
    path = Path(path)
    if path.is_dir():
        return any((path / name).is_file() for name in (FILE, EXPORTED, _OLD_FILES[0]))
    return _holds(path, "classifier")


def _holds(file, kind):
    """Whether `file` is one of ours that holds a network of this kind."""
    if file.suffix != ".safetensors" or not file.is_file():
        return False
    try:
        return kind in _metadata(file)
    except Exception:  # a damaged file can fail in any way; reading it gives the error
        return False


def restore_classifier(path: str | Path) -> Classifier:
    """The classifier in the directory `path`, or in its file, as `save_classifier` wrote it.

    Raises:
        CheckpointError: `path` is no such directory, or is incomplete or of another structure, or its weights are not
            those that were written.
    """
    path = Path(path).absolute()
    if not path.is_dir():
        return _restore_file(path)
    if (path / FILE).is_file():
        return _restore_file(path / FILE)
    if (path / _OLD_FILES[0]).is_file():
        return _restore_old(path)
    if (path / EXPORTED).is_file():
        raise CheckpointError(f"{path}: holds an exported program, which load_classifier opens")
    cut = " A write to it was cut off; convert again." if any(map(_is_left, path.iterdir())) else ""
    raise CheckpointError(f"{path}: holds no {FILE}, so not a directory that `qcrs-jax convert` or `train` wrote.{cut}")


def _metadata(file):
    """The metadata in the header of a safetensors file, {} for none."""
    check_regular(file)
    with open(file, "rb") as content:
        (length,) = struct.unpack("<Q", content.read(8))
    if length > _HEADER:
        raise ValueError(f"its header is longer than {_HEADER >> 20} MiB")
    with safetensors.safe_open(file, framework="numpy") as content:
        return content.metadata() or {}


def _restore_file(file, kind="classifier"):
    """The classifier or the denoiser, the `kind`, in a file of ours."""
    try:
        metadata = _metadata(file)
        if kind not in metadata:
            raise ValueError(f"its header does not describe a {kind}")
        if metadata.get("sha256") != _sum(metadata[kind]):
            raise ValueError(f"the description of the {kind} in its header was changed after it was written")
        fields = json.loads(metadata[kind])
        spec, model, written = _described(fields, FORMAT, kind)
    except Exception as error:  # damaged metadata can fail in any way
        raise CheckpointError(f"{file}: not a whole file of a {kind} ({quoted(error)}); {_REMEDY}") from error
    variables = dict(_variables(model))
    try:
        with safetensors.safe_open(file, framework="numpy") as content:
            if changed := variables.keys() ^ set(content.keys()):
                raise ValueError(f"{min(changed)!r} is only in one of the file and the network")
            weights = {name: content.get_tensor(name) for name in variables}
        network = _KINDS[kind](spec, fill(model, _nested(weights)))
    except Exception as error:
        said = f"its weights are not those of a {spec.arch} ({quoted(error)})"
        raise CheckpointError(f"{file}: {said}; {_REMEDY}") from error
    if network.fingerprint() != written:
        raise CheckpointError(f"{file}: its weights are not those that were written: their SHA-256 differs; {_REMEDY}")
    return network


_KINDS = {"classifier": Classifier, "denoiser": Denoiser}
_REMEDY = "copy it again, or convert the checkpoint again"


def _described(fields, version, kind="classifier") -> tuple[Any, nnx.Module, str | None]:
    """The spec, the abstract network, and the SHA-256 of the weights (None in the earlier form) of a description."""
    if fields.pop("format") != version:
        raise ValueError(f"its format is not {version}: written by another version of qcrs_jax")
    written = fields.pop("weights_sha256") if version > _OLD_FORMAT else None
    _check_types(fields)
    if kind == "denoiser":
        spec = DenoiserSpec(**{**fields, "image_shape": tuple(fields["image_shape"])})
        return spec, nnx.eval_shape(lambda: build_denoiser(spec)), written
    for name in ("image_shape", "mean", "std"):
        fields[name] = tuple(fields[name])
    if fields.get("class_names") is not None:
        fields["class_names"] = tuple(fields["class_names"])
    spec = Spec(**fields)
    return spec, abstract(spec), written


_MOST = 2**20  # of numbers in a description


def _check_types(fields):
    """Raises ValueError where a field of a description is of another type than `save_classifier` writes."""

    def whole(value):
        return type(value) is int and 0 < value < _MOST

    def numbers(value):
        return isinstance(value, list) and 0 < len(value) < _MOST and all(type(v) in (int, float) for v in value)

    def texts(value):
        return isinstance(value, list) and len(value) < _MOST and all(isinstance(v, str) for v in value)

    def source(value):
        if not isinstance(value, dict):
            return False
        sigma = value.get("sigma", 1.0)
        levels = value.get("sigma_range", [1.0, 1.0])
        if not numbers(levels) or len(levels) != 2 or not all(map(math.isfinite, levels)):
            return False
        return texts(value.get("notes", [])) and type(sigma) in (int, float) and math.isfinite(sigma)

    kinds = {
        "arch": (lambda value: isinstance(value, str), "a text"),
        "width": (whole, "a number of channels"),
        "num_classes": (whole, "a number of classes"),
        "image_shape": (lambda value: numbers(value) and len(value) == 3 and all(map(whole, value)), "three sizes"),
        "mean": (numbers, "a list of numbers"),
        "std": (numbers, "a list of numbers"),
        "options": (lambda value: isinstance(value, dict), "a table of options"),
        "source": (source, "a table, with a number as sigma, two as sigma_range and texts as notes"),
        "class_names": (lambda value: value is None or texts(value), "a list of texts"),
    }
    for name, (fits, what) in kinds.items():
        if name in fields and not fits(fields[name]):
            raise ValueError(f"its {name} must be {what}, not {str(fields[name])[:100]}")


def _nested(weights):
    """A nested dict of the arrays under names with slashes; numbers among the names are those of a list's items."""
    flat = {tuple(int(p) if p.isdigit() else p for p in name.split("/")): value for name, value in weights.items()}
    return nnx.traversals.unflatten_mapping(flat)


def _restore_old(path):
    """The classifier in a directory of the earlier form."""
    file, folder = (path / name for name in _OLD_FILES)
    try:
        spec, model, _ = _described(json.loads(read_regular(file, _HEADER)), _OLD_FORMAT)
    except Exception as error:  # damaged metadata can fail in any way
        raise CheckpointError(f"{file}: not the metadata of a classifier: {quoted(error)}") from error
    try:
        classifier = Classifier(spec, fill(model, _restore_arrays(folder, nnx.to_pure_dict(nnx.state(model)))))
    except MissingPackage:
        raise
    except Exception as error:  # Orbax raises many kinds; each says what is missing or does not fit
        raise CheckpointError(
            f"{folder}: cannot be restored as {spec.arch}; convert the checkpoint again. {quoted(error)}"
        ) from error
    return classifier


def _restore_arrays(folder, target):
    """The arrays that Orbax wrote to `folder`, as NumPy arrays; the devices that held them are not needed.

    This process reads alone and waits for no other, whether it is one of several or not.
    """
    with needed_for("a classifier in a directory of the earlier form"):
        import orbax.checkpoint as ocp

    alone, here = None, jax.process_index()
    if jax.process_count() > 1:
        alone = ocp.options.MultiprocessingOptions(
            primary_host=here, active_processes={here}, barrier_sync_key_prefix=f"process{here}"
        )
    options: dict[str, Any] = {} if alone is None else {"multiprocessing_options": alone}
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), target)
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(**options), **options) as checkpointer:
        return checkpointer.restore(folder, args=ocp.args.PyTreeRestore(item=target, restore_args=as_numpy))


def fill(model: nnx.Module, weights: dict) -> nnx.Module:
    """`model`, made abstract by `nnx.eval_shape`, with the arrays of the nested dict `weights`, in float32.

    The arrays go through the host, so they are not bound to a device.

    Raises:
        ValueError: an array has another shape than the model's variable.
    """
    state = nnx.state(model)
    expected = jax.tree.map(lambda leaf: tuple(leaf.shape), nnx.to_pure_dict(state))
    jax.tree.map(_check_shape, weights, expected, is_leaf=lambda leaf: not isinstance(leaf, dict))
    nnx.replace_by_pure_dict(state, jax.tree.map(lambda a: jnp.asarray(np.asarray(a), jnp.float32), weights))
    nnx.update(model, state)
    return model


def _check_shape(array, shape):
    if tuple(array.shape) != shape:
        raise ValueError(f"an array of shape {tuple(array.shape)} instead of {shape}")
