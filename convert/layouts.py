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

from qcrs_jax.models import ARCHITECTURES, Classifier, Spec, architecture, build
from qcrs_jax.models.checkpoint import CheckpointError, fill

from .choose import PARTS, Chosen, choose, listed
from .torch_file import Tensor

NORMALIZATIONS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "none": ((0.0,), (1.0,)),
    "cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
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
    possible: dict[str, str]  # normalisations that such files are known to need, where the layout leaves several
    chosen: Chosen
    class_names: tuple[str, ...] | None
    recorded: dict  # the image_size and max_pool that our own exports tell
    notes: tuple[str, ...]
    doubtful: tuple[str, ...]  # names of what may be a normalisation that is not read, where none is


_NORMALISES = re.compile(r"(data_?)?(mean|std|mu|sd|norm|normali[sz]|preprocess|transform)\w*", re.IGNORECASE)
_SETTINGS = ("args", "config", "hparams", "hyper_parameters", "opt", "cfg")


def _beside(content, field):
    """Names of entries beside the weights that may tell how images are normalised."""
    if field is None:
        return ()
    return tuple(name for name in content if isinstance(name, str) and _NORMALISES.fullmatch(name))


def _named(content, name):
    """The text of the entry `name`, or of that entry of the settings that a training program keeps; "" for none."""
    places = [content, *(content[key] for key in _SETTINGS if isinstance(content.get(key), dict))]
    return next((place[name] for place in places if type(place.get(name)) is str), "")


def recognise(
    content, path: Path, field: str | None = None, prefix: str | None = None, leave_out: tuple[str, ...] = ()
) -> Recognised:
    """What network the content of the checkpoint `path` holds; `choose` describes the last three arguments.

    Raises:
        CheckpointError: no state_dict, or one of no network that we know, or several; or a network other than the one
            that the file's own `arch` names.
    """
    chosen = choose(content, path, field, prefix, leave_out)
    content = content if isinstance(content, dict) else {}
    field, prefix, tensors = chosen.field, chosen.prefix, chosen.tensors
    for key in tensors:
        for pattern, words in _OTHERS.items():
            if re.search(pattern, key):
                raise CheckpointError(f"{path}: its tensor {prefix + key!r} belongs to {words}; known are {KNOWN}")
    try:
        arch, num_classes, image_shape, options = _network(tensors)
    except (KeyError, ValueError, IndexError, TypeError, ArithmeticError) as error:
        reason = f"no tensor {error}" if isinstance(error, KeyError) else error
        raise CheckpointError(
            f"{path}: its tensors are of no network known here ({KNOWN}): {reason}. "
            f"First names: {', '.join(list(tensors)[:4])}"
        ) from error
    named = content.get("arch") if field else None
    names = (arch, arch.removeprefix("cifar_"))  # `resnet32` of CIFAR's programs is a CIFAR network of depth 32
    if isinstance(named, str) and re.fullmatch(r"(cifar_)?resnet\d+|lenet", named) and named not in names:
        raise CheckpointError(f"{path}: its field 'arch' says {named!r}, but the weights are those of {arch!r}")
    layout, possible = _layout(content, field, prefix, arch, image_shape, num_classes, options, tensors)
    stored = chosen.normalization
    if isinstance(recorded := content.get("normalization"), str):  # our own exports tell
        stored = recorded
    if stored is not None:
        layout, possible = layout._replace(normalization=stored), {}
    sigma = content.get("sigma")
    sigma = float(sigma) if isinstance(sigma, int | float) else None
    class_names = _class_names(content, num_classes)
    told = _recorded(content, image_shape[-1])
    return Recognised(
        layout,
        arch,
        num_classes,
        image_shape,
        options,
        tensors,
        sigma,
        possible,
        chosen,
        class_names,
        told,
        chosen.notes,
        () if stored is not None else (*chosen.left_out, *_beside(content, field)),
    )


def _recorded(content, channels):
    """What our own exports tell of the images and the stem."""
    shape, pool, told = content.get("image_shape"), content.get("max_pool"), {}
    if isinstance(shape, list) and len(shape) == 3 and all(type(v) is int for v in shape) and shape[2] == channels:
        told["image_size"] = tuple(shape[:2])
    return told | ({"max_pool": pool} if isinstance(pool, bool) else {})


def as_asked(
    found: Recognised, image_size: int | tuple[int, ...] | None, max_pool: bool | None, path: Path
) -> Recognised:
    """`found` with what no tensor tells: the size of the images, and whether a max pool follows the stem.

    What is not given is taken as such networks mostly have it, and said in the notes.

    Raises:
        CheckpointError: the network takes images of one size only, or has no stem that a max pool could follow.
    """
    h, w, channels = found.image_shape
    image_size = found.recorded.get("image_size") if image_size is None else image_size
    max_pool = found.recorded.get("max_pool") if max_pool is None else max_pool
    size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size or (h, w))
    if len(size) != 2 or not all(1 <= side <= 10_000 for side in size):
        raise CheckpointError(f"{path}: image_size is one number of pixels or two, height and width, not {image_size}")
    if found.arch == "lenet" and size != (h, w):
        raise CheckpointError(
            f"{path}: LeNet takes images of {h} x {w} alone, as its layer fc1 has a weight for every pixel of them; "
            f"image_size {size[0]} x {size[1]} is no choice"
        )
    said, options = [], dict(found.options)
    usual = found.num_classes == 1000 if h == 224 else found.num_classes in (10, 100) and channels == 3
    if image_size is None and not usual and found.arch != "lenet":
        said.append(f"Images of {h} x {w} are assumed, as no tensor tells their size; --image_size sets it.")
    if max_pool is not None:
        if found.arch in ("lenet", "cifar_wide_resnet"):
            raise CheckpointError(f"{path}: max_pool is of ResNets; a {found.arch} has no such choice")
        default = options.get("stem", architecture(found.arch).keywords["stem"]) == "7x7"
        options |= {} if max_pool == default else {"max_pool": max_pool}
    elif options.get("stem") == "3x3" or (found.arch.startswith("cifar_resnet") and size != (h, w)):
        said.append("No max pool is assumed behind its 3x3 stem, as no tensor tells it; --max_pool sets one.")
    return found._replace(image_shape=(*size, channels), options=options, notes=(*found.notes, *said))


def _class_names(content, num_classes):
    """The names of the classes in the order of the logits, where the file has them; else None."""
    for field in ("class_names", "classes"):
        names = content.get(field)
        if isinstance(names, list | tuple) and len(names) == num_classes and all(type(n) is str for n in names):
            return tuple(names)
    numbers = content.get("class_to_idx")
    if isinstance(numbers, dict) and all(type(k) is str and type(v) is int for k, v in numbers.items()):
        if sorted(numbers.values()) == list(range(num_classes)):
            return tuple(sorted(numbers, key=numbers.get))
    return None


KNOWN = "ResNets of CIFAR and of ImageNet, wide ResNets of CIFAR, LeNet"

_OTHERS = {  # names in networks that a user may take for one of ours, and how these differ
    r"(^|\.)conv1\.\d+\.weight$": "a stem of several convolutions, as resnet50d has it, instead of one",
    r"(^|\.)(stem|stages)\.": "a network of a stem and stages, as ResNetV2 and ConvNeXt are, not a plain ResNet",
    r"(^|\.)layer\d\.\d+\.se\.": "an attention layer (squeeze and excitation or a relative), as seresnet50 has it",
}


def _layout(content, field, prefix, arch, image_shape, num_classes, options, tensors):
    """The layout, with a normalisation only where every program that writes such files normalises so.

    And the normalisations that such files are known to need, with who needs them, where there are several.
    """
    imagenet, channels = image_shape[0] == 224, image_shape[-1]
    layout = _known_layout(content, field, prefix, arch, imagenet, options, tensors)
    option_a = options.get("shortcut") == "option_a"
    if layout.name == "Idelbayev" and ("best_prec1" not in content or "arch" in content or num_classes != 10):
        layout = Layout("state_dict", None)
    if layout.normalization == "none":
        return layout, {}
    if channels != 3:
        single = {"none": "most programs for such images", "0.1307/0.3081": "many for MNIST"} if channels == 1 else {}
        return layout._replace(normalization=None), single
    named = " ".join(filter(None, (_named(content, name) for name in ("arch", "dataset")))).lower()
    if layout.normalization == "cifar10":
        if re.search(r"cifar[-_]?100", named):
            return layout._replace(normalization="cifar100"), {}
        if num_classes != 10 or re.search(r"svhn|gtsrb|stl|tiny|mnist|imagenet|cinic|celeba", named):
            known = {"cifar100": "networks of CIFAR-100"} if num_classes == 100 else {}
            known["cifar10"] = f"{layout.name}'s own networks of CIFAR-10, and programs that left it as it was"
            return layout._replace(normalization=None), known
    if layout.normalization == "imagenet" and imagenet and num_classes != 1000:
        known = {"imagenet": "networks of ImageNet, and those trained on from them"}
        known |= {"cifar10": "networks of CIFAR-10 with this stem"} if num_classes == 10 else {}
        known |= {"cifar100": "networks of CIFAR-100 with this stem"} if num_classes == 100 else {}
        return layout._replace(normalization=None), known
    if layout.normalization is None and option_a:
        return layout, {"imagenet": "Idelbayev's own files", "cifar10": "long-tail papers that build on them"}
    return layout, {}


def _known_layout(content, field, prefix, arch, imagenet, options, tensors):
    """The layout, with the normalisation of the programs that it is named after."""
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
    if width == 16 and inner is None and blocks[3] == 0 and len({*blocks[:3]}) == 1 and blocks[0]:
        arch = f"cifar_resnet{6 * blocks[0] + 2}"
        known = {arch: architecture(arch)}
    else:
        known = ARCHITECTURES
    for arch, make in known.items():  # noqa: B007
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
        spec = Spec(
            found.arch, found.num_classes, found.image_shape, mean, std, found.options, source, found.class_names
        )
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
            if found.tensors[key].dtype.kind == "c":
                raise CheckpointError(f"{path}: tensor {key!r} has complex numbers, which {found.arch} has not")
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
        unused = sorted(unused)
        outside = [found.chosen.prefix + key for key in unused if not PARTS.match(key)]
        raise CheckpointError(
            f"{path}: {found.arch} has no place for tensor {unused[0]!r}"
            + (f" and {len(unused) - 1} more: {listed(unused)}" if len(unused) > 1 else "")
            + (
                f"; if it is not of the network, --leave_out {outside[0]} (leave_out= of load_classifier) opens the "
                f"rest without it. Such are: {listed(outside)}"
                if len(outside) == len(unused)
                else ""
            )
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
