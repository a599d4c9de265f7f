"""Recognises what network a PyTorch checkpoint holds, from the file itself, and names its parts in ours.

Every tensor of the file has to be used and every variable of the network filled, with equal shapes: nothing is
dropped or left at its initial value in silence.
"""

import math
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
    for key in tensors:
        for pattern, words in _OTHERS.items():
            if re.search(pattern, key):
                raise CheckpointError(f"{path}: its tensor {key!r} belongs to {words}; known are {KNOWN}")
    stems = [key.removesuffix("conv1.weight") for key in tensors if re.fullmatch(r"(\w+\.)*?conv1\.weight", key)]
    prefix = min(stems, key=len, default="")
    if 2 * sum(key.startswith(prefix) for key in tensors) < len(tensors):  # not that of a stem
        prefix = ""
    stray = {key: tensor for key, tensor in tensors.items() if not key.startswith(prefix)}
    stored = _stored_normalization(stray, path)
    if stray and stored is None:
        raise CheckpointError(f"{path}: tensor {next(iter(stray))!r} lacks the prefix {prefix!r} of the others")
    tensors = {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key not in stray}
    try:
        arch, num_classes, image_shape, options = _network(tensors)
    except (KeyError, ValueError, IndexError, TypeError, ArithmeticError) as error:
        reason = f"no tensor {error}" if isinstance(error, KeyError) else error
        raise CheckpointError(
            f"{path}: its tensors are of no network known here ({KNOWN}): {reason}. "
            f"First names: {', '.join(list(tensors)[:4])}"
        ) from error
    named = content.get("arch") if field else None
    if isinstance(named, str) and re.fullmatch(r"(cifar_)?resnet\d+|lenet", named) and named != arch:
        raise CheckpointError(f"{path}: its field 'arch' says {named!r}, but the weights are those of {arch!r}")
    layout = _layout(content, field, prefix, arch, image_shape[0] == 224, options, tensors)
    if isinstance(recorded := content.get("normalization"), str):  # our own exports tell
        stored = recorded
    if stored is not None:
        layout = layout._replace(normalization=stored)
    sigma = content.get("sigma")
    sigma = float(sigma) if isinstance(sigma, int | float) else None
    return Recognised(layout, arch, num_classes, image_shape, options, tensors, sigma)


KNOWN = "ResNets of CIFAR and of ImageNet, wide ResNets of CIFAR, LeNet"

_OTHERS = {  # names in networks that a user may take for one of ours, and how these differ
    r"(^|\.)conv1\.\d+\.weight$": "a stem of several convolutions, as resnet50d has it, instead of one",
    r"(^|\.)(stem|stages)\.": "a network of a stem and stages, as ResNetV2 and ConvNeXt are, not a plain ResNet",
    r"(^|\.)layer\d\.\d+\.se\.": "an attention layer (squeeze and excitation or a relative), as seresnet50 has it",
}


def _stored_normalization(stray, path):
    """The normalisation in the tensors beside the network, as `parse_normalization` reads it; None if there is none.

    Robust self-training (Carmon et al. 2019) stores mean and std, RS4A (Yang et al. 2020) mu and log_sig.
    """
    named = {key.rsplit(".", 1)[-1]: tensor for key, tensor in stray.items()}
    try:
        match sorted(named):
            case ["mean", "std"] if len(stray) == 2:
                mean, std = (named[name].numpy().ravel() for name in ("mean", "std"))
            case ["log_sig", "mu"] if len(stray) == 2:
                mean, std = named["mu"].numpy().ravel(), np.exp(named["log_sig"].numpy().ravel())
            case _:
                return None
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: the normalisation in {', '.join(stray)} is damaged: {error}") from error
    return "/".join(",".join(str(value) for value in values) for values in (mean, std))


def _layout(content, field, prefix, arch, imagenet, options, tensors):
    """The layout, with a normalisation only where every program that writes such files normalises so."""
    if content.get("normalize_input") is False:
        return Layout("RST", "none")
    if field == "net":
        if prefix == "" and "acc" not in content and (arch == "lenet" or arch.startswith("cifar_resnet")):
            return Layout("MACER", "none")
        return Layout("net", None)  # Kuangliu's programs and their many relatives
    if prefix in ("1.", "1.module.") and field == "state_dict":
        return Layout("Cohen", "imagenet" if imagenet else "cifar10")
    if not options.get("stem_norm", True):
        return Layout("DDRS", "cifar10")
    if field == "state_dict" and "optimizer_param" in content:
        if prefix == "" and arch == "cifar_wide_resnet":
            return Layout("DDRS", "cifar10")
        if prefix == "module." and imagenet:
            return Layout("ANCER", "none")
        return Layout("DDRS", None)  # of ImageNet, where its programs normalise or only centre
    if prefix == "module." and options.get("shortcut") == "option_a" and "linear.weight" in tensors:
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
    if "block1.layer.0.conv1.weight" in tensors:
        return "cifar_wide_resnet", tensors["fc.weight"].shape[0], (32, 32, channels), _wide_options(tensors)
    blocks = tuple(len({k.split(".")[1] for k in tensors if k.startswith(f"layer{i}.")}) for i in (1, 2, 3, 4))
    inner, inputs = tensors["layer1.0.conv2.weight"].shape[:2]
    if inputs < inner:
        raise ValueError("layer1.0.conv2 is a convolution in groups, as those of ResNeXt are")
    inner = inner // width if "layer1.0.bn3.weight" in tensors else None
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
    if stem == "7x7" and not any(key.startswith("bn1.") for key in tensors):
        # DDRS's network of CIFAR-10; the softmax at its end is left out, as it changes no answer
        options["stem_norm"], side = False, 32
    return arch, tensors[_head(tensors)].shape[0], (side, side, channels), options


def _wide_options(tensors):
    """Depth and widening of a wide ResNet."""
    blocks = [len({k.split(".")[2] for k in tensors if k.startswith(f"block{i}.layer.")}) for i in (1, 2, 3)]
    width = tensors["block1.layer.0.conv1.weight"].shape[0]
    if len(set(blocks)) > 1 or width < 16 or width % 16:
        raise ValueError(f"a wide ResNet with {blocks} blocks, whose first stage has {width} channels")
    return {"depth": 6 * blocks[0] + 4, "widen": width // 16}


_SHORTCUTS = (".downsample.", ".shortcut.")  # as torchvision and as Kuangliu's repository name it


def _head(tensors):
    return "linear.weight" if "linear.weight" in tensors else "fc.weight"


def _idle(key, tensors):
    """Whether no network computes with `key`: counters, and the second first stage of TRADES, which never runs."""
    return key.endswith(".num_batches_tracked") or (key.startswith("sub_block1.") and key[4:] in tensors)


def to_classifier(found: Recognised, mean, std, source: dict, path: Path) -> Classifier:
    """The Flax classifier with the weights of `found`, strict both ways.

    Raises:
        CheckpointError: a tensor that the network lacks, a variable that the file lacks, or unequal shapes.
    """
    try:
        spec = Spec(found.arch, found.num_classes, found.image_shape, mean, std, found.options, source)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    try:
        model = nnx.eval_shape(lambda: build(spec))
    except Exception as error:  # no classes, a stem of another size: networks fail in many ways
        raise CheckpointError(
            f"{path}: the sizes of its tensors are those of no {found.arch} ({type(error).__name__}: "
            f"{str(error)[:200]}); copy the file again"
        ) from error
    flat = nnx.to_flat_state(nnx.state(model))
    unused = {key for key in found.tensors if not _idle(key, found.tensors)}
    theirs = {"fc": _head(found.tensors).removesuffix(".weight")}
    theirs["shortcut"] = "shortcut" if any(".shortcut." in key for key in found.tensors) else "downsample"
    weights = {}
    for name, variable in flat:
        array = _aligned(variable.shape)
        keys = _torch_keys(name, variable.shape, theirs)
        for key, part in zip(keys, array if "rest" in name else [array], strict=True):
            if key not in found.tensors:
                raise CheckpointError(f"{path}: {found.arch} needs tensor {key!r}, which the file lacks")
            unused.discard(key)
            values = _to_flax(found.tensors[key].view(), name[-1])
            if values.shape != part.shape:
                raise CheckpointError(
                    f"{path}: tensor {key!r} has shape {found.tensors[key].shape}, which does not fit {found.arch}: "
                    f"in our order {values.shape} instead of {part.shape}"
                )
            part[...] = values
            if not np.isfinite([part.min(initial=0), part.max(initial=0)]).all():
                raise CheckpointError(f"{path}: tensor {key!r} has values that are not finite")
        weights[name] = array
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
    wide = modules[0].startswith("block")
    if wide or modules[0].startswith("layer"):
        stage, position, *modules = modules
        blocks = range(1, shape[0] + 1) if position == "rest" else [0]
        prefixes = [f"{stage}.{'layer.' if wide else ''}{block}." for block in blocks]
    else:
        prefixes = [""]
    match modules:
        case ["norm"]:
            module = "bn1"
        case ["shortcut"]:
            module = "convShortcut"
        case ["shortcut", part]:
            module = f"{theirs['shortcut']}.{'conv norm'.split().index(part)}"
        case [unit, "norm"]:
            module = "bn2" if wide else unit.replace("conv", "bn")
        case [unit, *_]:
            module = theirs["fc"] if unit == "fc" else unit
    leaf = _NORM_LEAVES[leaf] if modules[-1] == "norm" else {"kernel": "weight"}.get(leaf, leaf)
    return [f"{prefix}{module}.{leaf}" for prefix in prefixes]


def _to_flax(array, leaf):
    """PyTorch's axes (out, in, h, w) in Flax's order (h, w, in, out); vectors as they are."""
    if leaf != "kernel":
        return array
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.transpose()


def _aligned(shape):
    """An array of float32 that JAX takes over as it is: it copies those that do not begin at a multiple of 64 bytes."""
    size = 4 * math.prod(shape)
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(np.float32).reshape(shape)


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
    return OrderedDict(sorted(weights.items(), key=lambda item: _rank(item[0])))


_ORDER = "layer conv1 block1 block2 block3 bn1 conv2 bn2 conv3 bn3 downsample convShortcut".split()
_ORDER += "layer1 layer2 layer3 layer4 fc fc1 fc2 weight bias running_mean running_var num_batches_tracked".split()


def _rank(key):
    parts = key.split(".")
    if parts[0].startswith("block"):  # where normalisation comes before the convolution of its number
        parts = [{"bn1": "conv1", "conv1": "bn1", "bn2": "conv2", "conv2": "bn2"}.get(part, part) for part in parts]
    return [int(part) if part.isdigit() else _ORDER.index(part) for part in parts]


def _to_torch(array, leaf):
    """The inverse of `_to_flax`."""
    if leaf != "kernel":
        return array
    return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.transpose()


def count_parameters(model: nnx.Module) -> int:
    """Trainable numbers of the network, batch statistics left out."""
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
