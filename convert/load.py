"""Opens any checkpoint: a converted directory, or a PyTorch file, which is converted on the fly."""

import hashlib
import json
from pathlib import Path

from qcrs_jax.checkpoint import CheckpointError, restore_classifier
from qcrs_jax.files import reads
from qcrs_jax.models import Classifier

from .layouts import NORMALIZATIONS, recognise, to_classifier
from .torch_file import load
from .zoo import resolve


@reads("path", CheckpointError)
def load_classifier(path: str | Path, normalization: str | None = None) -> Classifier:
    """The classifier in `path`: its `classify` is the jit-compatible function, its `spec` the metadata.

    Args:
        path: a directory that `qcrs-jax convert` or `train` wrote, a PyTorch file, or `zoo:NAME`. No PyTorch is needed.
        normalization: "cifar10", "imagenet", "none", or "MEAN,.../STD,..." per channel; None takes it from the PyTorch
            file's layout where that tells. A converted directory must agree with it.

    Raises:
        CheckpointError: names the file, what is wrong with it and the remedy.
    """
    path = resolve(path)
    if not path.exists():
        raise CheckpointError(f"{path}: no such file or directory")
    if path.is_dir():
        classifier = restore_classifier(path)
        spec = classifier.spec
        if normalization is not None and parse_normalization(normalization) != (spec.mean, spec.std):
            raise CheckpointError(
                f"{path}: was converted with the normalisation {spec.mean} / {spec.std}, not {normalization}; "
                "convert the PyTorch file again for another"
            )
        return classifier
    return convert_file(path, normalization)


@reads("path", CheckpointError)
def convert_file(path: Path, normalization: str | None = None) -> Classifier:
    """The classifier in the PyTorch file `path`. Arguments and errors as for `load_classifier`."""
    found = recognise(load(path), path)
    normalization = normalization or _timm_normalization(path, found.arch) or found.layout.normalization
    if normalization is None:
        raise CheckpointError(
            f"{path}: the layout ({found.layout.name}) does not tell how images are normalised; say it with "
            "--normalization cifar10, imagenet, none, or MEAN,MEAN,MEAN/STD,STD,STD"
        )
    mean, std = parse_normalization(normalization)
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    source = {"file": path.name, "sha256": digest, "layout": found.layout.name, "normalization": normalization}
    if found.sigma is not None:
        source["sigma"] = found.sigma
    return to_classifier(found, mean, std, source, path)


def _timm_normalization(path, arch):
    """The normalisation in the config.json that timm keeps beside its weights; None if there is none.

    Raises:
        CheckpointError: the weights are of another network, which can have the very tensors of `arch`: resnetblur50 and
            resnetaa50 differ from resnet50 in pooling alone.
    """
    file = path.with_name("config.json")
    if path.name not in ("model.safetensors", "pytorch_model.bin") or not file.is_file():
        return None
    try:
        config = json.loads(file.read_text())
        named, values = config["architecture"], config["pretrained_cfg"]
        text = "/".join(",".join(str(float(value)) for value in values[name]) for name in ("mean", "std"))
    except (ValueError, KeyError, TypeError):  # not of timm
        return None
    if named != arch:
        raise CheckpointError(f"{path}: {file} says that it is a {named}, but its tensors are those of {arch}")
    return text


def parse_normalization(text: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel: those of a name in NORMALIZATIONS, or of "MEAN,.../STD,..."."""
    if text in NORMALIZATIONS:
        return NORMALIZATIONS[text]
    try:
        mean, std = (tuple(float(v) for v in part.split(",")) for part in text.split("/"))
        return mean, std
    except ValueError:
        raise CheckpointError(
            f"normalisation {text!r} is neither one of {', '.join(NORMALIZATIONS)} nor MEAN,.../STD,..."
        ) from None
