"""Classifiers on disk: a directory with the weights as Orbax writes them and the metadata as JSON.

OUT_DIR/classifier.json   the Spec: architecture, classes, normalisation, source and its SHA-256
OUT_DIR/weights/          every variable of the network, batch statistics included
"""

import dataclasses
import json
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from .errors import UserError
from .models import Classifier, Spec, build

FORMAT = 1


class CheckpointError(UserError):
    """A checkpoint that cannot be opened; the message names the file, what is wrong and the remedy."""


def save_classifier(classifier: Classifier, path: str | Path, overwrite: bool = False) -> None:
    """Writes `classifier` to the directory `path`.

    The metadata are written last: a directory that was cut short is not taken for a classifier.

    Raises:
        CheckpointError: `path` exists and is not an empty directory, and `overwrite` is off.
    """
    path = Path(path).absolute()
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        if not overwrite:
            raise CheckpointError(f"{path}: already exists; choose another directory or pass --overwrite")
        if not (path / "classifier.json").is_file():
            raise CheckpointError(f"{path}: holds something else than a classifier and is left alone")
        shutil.rmtree(path)
    write_classifier(classifier, path)


def write_classifier(classifier: Classifier, path: str | Path) -> None:
    """Writes `classifier` into the directory `path`, beside whatever else that holds."""
    import orbax.checkpoint as ocp

    path = Path(path).absolute()
    path.mkdir(parents=True, exist_ok=True)
    weights = nnx.to_pure_dict(nnx.state(classifier.model))
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(path / "weights", weights, force=True)
    metadata = {"format": FORMAT, **dataclasses.asdict(classifier.spec)}
    (path / "classifier.json").write_text(json.dumps(metadata, indent=2) + "\n")


def restore_classifier(path: str | Path) -> Classifier:
    """The classifier in the directory `path`, as `save_classifier` wrote it.

    Raises:
        CheckpointError: not such a directory, or one that is incomplete or of another structure.
    """
    import orbax.checkpoint as ocp

    path = Path(path).absolute()
    file = path / "classifier.json"
    if not file.is_file():
        raise CheckpointError(f"{path}: no classifier.json, so not a directory that `qcrs-jax convert` wrote")
    try:
        fields = json.loads(file.read_text())
        if fields.pop("format") != FORMAT:
            raise ValueError(f"its format is not {FORMAT}: written by another version of qcrs_jax")
        for name in ("image_shape", "mean", "std"):
            fields[name] = tuple(fields[name])
        spec = Spec(**fields)
        model = nnx.eval_shape(lambda: build(spec))
    except Exception as error:  # damaged metadata can fail in any way
        raise CheckpointError(f"{file}: not the metadata of a classifier: {error}") from error
    target = nnx.to_pure_dict(nnx.state(model))
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            weights = checkpointer.restore(path / "weights", target)
    except Exception as error:  # Orbax raises many kinds; each says what is missing or does not fit
        raise CheckpointError(
            f"{path / 'weights'}: cannot be restored as {spec.arch}; convert the checkpoint again. {error}"
        ) from error
    return Classifier(spec, fill(model, weights))


def fill(model: nnx.Module, weights: dict) -> nnx.Module:
    """`model`, made abstract by `nnx.eval_shape`, with the arrays of the nested dict `weights`, in float32.

    They go through the host: Orbax ties what it restores to one device, which would tie later computations to it too.
    """
    state = nnx.state(model)
    nnx.replace_by_pure_dict(state, jax.tree.map(lambda a: jnp.asarray(np.asarray(a), jnp.float32), weights))
    nnx.update(model, state)
    return model
