"""Recognises what network a PyTorch checkpoint holds, from the file itself, and names its parts in ours.

Every tensor of the file has to be used and every variable of the network filled, with equal shapes: nothing is
dropped or left at its initial value in silence.
"""

import re
from collections import OrderedDict
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from flax import nnx

from qcrs_jax.checkpoint import CheckpointError, fill
from qcrs_jax.models import ARCHITECTURES, Classifier, Spec, build

from .torch_file import Tensor

NORMALIZATIONS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "none": ((0.0,), (1.0,)),
}


class Layout(NamedTuple):
    """How a checkpoint wraps its state_dict.

    name: of the programs that write it.
    normalization: a name in NORMALIZATIONS, or None where the layout does not tell.
    """

    name: str
    normalization: str | None


class Recognised(NamedTuple):
    """What a checkpoint holds: its layout, the Spec's fields that follow from the weights, and the tensors."""

    layout: Layout
    arch: str
    num_classes: int
    image_shape: tuple[int, int, int]
    options: dict
    tensors: dict[str, Tensor]
    sigma: float | None  # of the noise it was trained with; our own exports tell


def recognise(content, path: Path) -> Recognised:
    """What network the content of the checkpoint `path` holds.

    Raises:
        CheckpointError: no state_dict, or one of no network that we know; or a network other than the one that
            the file's own `arch` names.
    """
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path}: holds a {type(content).__name__}, not a dictionary with weights; save the model's state_dict"
        )
    field = next((f for f in ("net", "state_dict") if isinstance(content.get(f), dict)), None)
    state_dict = content[field] if field else content
    tensors = {k: v for k, v in state_dict.items() if isinstance(k, str) and isinstance(v, Tensor)}
    if not tensors or len(tensors) < len(state_dict):
        fields = ", ".join(map(str, list(content)[:8]))
        raise CheckpointError(
            f"{path}: no state_dict found: looked for a dictionary of tensors in the fields 'net' and 'state_dict' "
            f"and in the file as a whole, whose fields are: {fields}"
        )
    stems = [key.removesuffix("conv1.weight") for key in tensors if re.fullmatch(r"(\w+\.)*?conv1\.weight", key)]
    prefix = min(stems, key=len, default="")
    stray = [key for key in tensors if not key.startswith(prefix)]
    if stray:
        raise CheckpointError(f"{path}: tensor {stray[0]!r} lacks the prefix {prefix!r} of the others")
    tensors = {key.removeprefix(prefix): tensor for key, tensor in tensors.items()}
    try:
        arch, num_classes, image_shape, options = _network(tensors)
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise CheckpointError(
            f"{path}: its tensors are of no network known here (ResNets of CIFAR and of ImageNet, LeNet): {error}. "
            f"First names: {', '.join(list(tensors)[:4])}"
        ) from error
    named = content.get("arch") if field else None
    if isinstance(named, str) and re.fullmatch(r"(cifar_)?resnet\d+|lenet", named) and named != arch:
        raise CheckpointError(f"{path}: its field 'arch' says {named!r}, but the weights are those of {arch!r}")
    layout = _layout(field, prefix, tensors)
    if isinstance(recorded := content.get("normalization"), str):  # our own exports tell
        layout = layout._replace(normalization=recorded)
    sigma = content.get("sigma")
    sigma = float(sigma) if isinstance(sigma, int | float) else None
    return Recognised(layout, arch, num_classes, image_shape, options, tensors, sigma)


def _layout(field, prefix, tensors):
    if field == "net":
        return Layout("MACER", "none")
    imagenet = tensors["conv1.weight"].shape[-1] == 7
    if prefix in ("1.", "1.module.") and field == "state_dict":
        return Layout("Cohen", "imagenet" if imagenet else "cifar10")
    if prefix == "module." and "linear.weight" in tensors:
        return Layout("Idelbayev", "imagenet")
    if imagenet and field is None:
        return Layout("torchvision", "imagenet")
    return Layout("state_dict", None)


def _network(tensors):
    """The architecture's name, classes, image shape and options, from the names and shapes of the tensors."""
    width, channels, size, _ = tensors["conv1.weight"].shape
    if "fc2.weight" in tensors:
        if (width, size) != (20, 5):
            raise ValueError(f"conv1.weight has {width} filters of size {size}")
        return "lenet", tensors["fc2.weight"].shape[0], (28, 28, channels), {}
    blocks = tuple(len({k.split(".")[1] for k in tensors if k.startswith(f"layer{i}.")}) for i in (1, 2, 3, 4))
    inner = tensors["layer1.0.conv2.weight"].shape[0] // width if "layer1.0.bn3.weight" in tensors else None
    for arch, make in ARCHITECTURES.items():  # noqa: B007
        shape = getattr(make, "keywords", {})
        if (shape.get("blocks", ()) + (0,))[:4] == blocks and shape["width"] == width and shape["bottleneck"] == inner:
            break
    else:
        raise ValueError(f"the stem has {width} filters, the layers {blocks} blocks")
    stem = f"{size}x{size}"
    options = {} if stem == shape["stem"] else {"stem": stem}
    if inner is None and not any(name in key for key in tensors for name in _SHORTCUTS):
        options["shortcut"] = "option_a"
    side = 224 if stem == "7x7" else 32
    return arch, tensors[_head(tensors)].shape[0], (side, side, channels), options


_SHORTCUTS = (".downsample.", ".shortcut.")  # as torchvision and as Kuangliu's repository name it


def _head(tensors):
    return "linear.weight" if "linear.weight" in tensors else "fc.weight"


def to_classifier(found: Recognised, mean, std, source: dict, path: Path) -> Classifier:
    """The Flax classifier with the weights of `found`, strict both ways.

    Raises:
        CheckpointError: a tensor that the network lacks, a variable that the file lacks, or unequal shapes.
    """
    try:
        spec = Spec(found.arch, found.num_classes, found.image_shape, mean, std, found.options, source)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    model = nnx.eval_shape(lambda: build(spec))
    flat = nnx.to_flat_state(nnx.state(model))
    unused = {key for key in found.tensors if not key.endswith(".num_batches_tracked")}
    theirs = {"fc": _head(found.tensors).removesuffix(".weight")}
    theirs["shortcut"] = "shortcut" if any(".shortcut." in key for key in found.tensors) else "downsample"
    weights = {}
    for name, variable in flat:
        arrays = []
        for key in _torch_keys(name, variable.shape, theirs):
            if key not in found.tensors:
                raise CheckpointError(f"{path}: {found.arch} needs tensor {key!r}, which the file lacks")
            unused.discard(key)
            try:
                arrays.append(_to_flax(found.tensors[key].numpy(), name[-1]))
            except (ValueError, KeyError) as error:
                raise CheckpointError(f"{path}: tensor {key!r} is damaged: {error}") from error
        shape = variable.shape[1:] if "rest" in name else variable.shape
        for key, array in zip(_torch_keys(name, variable.shape, theirs), arrays, strict=True):
            if array.shape != shape:
                raise CheckpointError(
                    f"{path}: tensor {key!r} has shape {found.tensors[key].shape}, which does not fit {found.arch}: "
                    f"in our order {array.shape} instead of {shape}"
                )
            if not np.isfinite(array).all():
                raise CheckpointError(f"{path}: tensor {key!r} has values that are not finite")
        weights[name] = np.stack(arrays) if "rest" in name else arrays[0]
    if unused:
        raise CheckpointError(
            f"{path}: {found.arch} has no place for tensor {min(unused)!r}"
            + (f" and {len(unused) - 1} more" if len(unused) > 1 else "")
        )
    return Classifier(spec, fill(model, nnx.traversals.unflatten_mapping(weights)))


_NORM_LEAVES = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


def _torch_keys(name, shape, theirs):
    """The PyTorch keys of our variable: one, or one for each block where blocks are stacked.

    `theirs` gives the names that vary, of the head and of the projections.
    """
    *modules, leaf = name
    if modules[0].startswith("layer"):
        layer, position, *modules = modules
        blocks = range(1, shape[0] + 1) if position == "rest" else [0]
        prefixes = [f"{layer}.{block}." for block in blocks]
    else:
        prefixes = [""]
    match modules:
        case ["shortcut", part]:
            module = f"{theirs['shortcut']}.{'conv norm'.split().index(part)}"
        case [unit, "norm"]:
            module = unit.replace("conv", "bn")
        case [unit, *_]:
            module = theirs["fc"] if unit == "fc" else unit
    leaf = _NORM_LEAVES[leaf] if modules[-1] == "norm" else {"kernel": "weight"}.get(leaf, leaf)
    return [f"{prefix}{module}.{leaf}" for prefix in prefixes]


def _to_flax(array, leaf):
    """PyTorch's axes (out, in, h, w) in Flax's order (h, w, in, out); vectors as they are."""
    array = np.asarray(array, np.float32)
    if leaf != "kernel":
        return array
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.transpose()


def to_state_dict(classifier: Classifier) -> OrderedDict[str, np.ndarray]:
    """The weights of `classifier` under PyTorch's names, without a prefix, in PyTorch's order and axes."""
    weights = {}
    for name, variable in nnx.to_flat_state(nnx.state(classifier.model)):
        array = np.asarray(variable[...])
        keys = _torch_keys(name, array.shape, {"fc": "fc", "shortcut": "downsample"})
        for key, part in zip(keys, array if "rest" in name else [array], strict=True):
            weights[key] = _to_torch(part, name[-1])
            if key.endswith(".running_var"):
                weights[key.removesuffix("running_var") + "num_batches_tracked"] = np.zeros((), np.int64)
    return OrderedDict(sorted(weights.items(), key=lambda item: [_rank(part) for part in item[0].split(".")]))


_ORDER = "conv1 bn1 conv2 bn2 conv3 bn3 downsample layer1 layer2 layer3 layer4 fc fc1 fc2".split()
_ORDER += "weight bias running_mean running_var num_batches_tracked".split()


def _rank(part):
    return int(part) if part.isdigit() else _ORDER.index(part)


def _to_torch(array, leaf):
    """The inverse of `_to_flax`."""
    if leaf != "kernel":
        return array
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.transpose()


def count_parameters(model: nnx.Module) -> int:
    """Trainable numbers of the network, batch statistics left out."""
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
