"""Recognises the network in a PyTorch checkpoint, from the file itself.

Every tensor of the file must be used and every variable of the network filled, with equal shapes. Nothing is dropped,
or left at its initial value, silently.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from qcrs_jax.errors import setting
from qcrs_jax.models import FAMILIES
from qcrs_jax.models.checkpoint import CheckpointError
from qcrs_jax.models.family import Family, Layout, Network, Wrapping

from .choose import Chosen, choose
from .files.tensor import Tensor
from .layouts import beside, layout_of
from .names import has_place


class Recognised(NamedTuple):
    """The content of a checkpoint: its layout, the network that follows from the weights, and the tensors."""

    layout: Layout
    family: Family
    network: Network
    tensors: dict[str, Tensor]
    sigma: float | None  # noise level of the training; only our own exports record it
    sigma_range: tuple[float, float] | None  # lowest and highest level of a training on a range, also only in ours
    possible: dict[str, str]  # normalisations that such files are known to need, where the layout leaves several
    chosen: Chosen
    class_names: tuple[str, ...] | None
    recorded: dict  # image_size and max_pool, which only our own exports record
    notes: tuple[str, ...]
    doubtful: tuple[str, ...]  # names of entries that may be a normalisation, if none was read


def _sigma_range(recorded):
    """(low, high) as our own exports record it, or None."""
    whole = isinstance(recorded, list | tuple) and len(recorded) == 2
    if not whole or not all(isinstance(level, float) and math.isfinite(level) for level in recorded):
        return None
    low, high = recorded
    return (low, high) if 0 < low < high else None


def recognise(
    content, path: Path, field: str | None = None, prefix: str | None = None, leave_out: tuple[str, ...] = ()
) -> Recognised:
    """The network in the content of the checkpoint `path`. `choose` describes the last three arguments.

    Raises:
        CheckpointError: there is no state_dict, or one of an unknown network, or several; or the network is not the one
            that the file's own `arch` names.
    """
    chosen = choose(content, path, field, prefix, leave_out)
    content = content if isinstance(content, dict) else {}
    field, prefix, tensors = chosen.field, chosen.prefix, chosen.tensors
    family, network = _recognised(tensors, prefix, path)
    named = content.get("arch") if field else None
    if isinstance(named, str) and named not in family.names_of(network.arch):
        if any(re.fullmatch(other.arch_names, named) for other in FAMILIES.values()):
            raise CheckpointError(
                f"{path}: its field 'arch' says {named!r}, but the weights are those of {network.arch!r}"
            )
    layout, possible = layout_of(Wrapping(field, prefix, content, tensors), family, network)
    stored = chosen.normalization
    if isinstance(recorded := content.get("normalization"), str):  # recorded by our own exports
        stored = recorded
    if stored is not None:
        layout, possible = layout._replace(normalization=stored), {}
    sigma = content.get("sigma")
    sigma = float(sigma) if isinstance(sigma, int | float) else None
    return Recognised(
        layout,
        family,
        network,
        tensors,
        sigma,
        _sigma_range(content.get("sigma_range")),
        possible,
        chosen,
        _class_names(content, network.num_classes),
        _recorded(content, network.image_shape[-1]),
        chosen.notes,
        () if stored is not None else (*chosen.left_out, *beside(content, field)),
    )


def _recognised(tensors, prefix, path):
    """The family and the Network of the tensors. Raises CheckpointError if no family recognises them."""
    shapes = {key: tensor.shape for key, tensor in tensors.items()}
    family, network, reason = _first_that_knows(shapes)
    for key in tensors:
        for pattern, words in _OTHERS.items():
            if re.search(pattern, key) and not (family and has_place(family, key)):
                raise CheckpointError(f"{path}: its tensor {prefix + key!r} belongs to {words}; known are {known()}")
    if family is None:
        said = f"no tensor {reason}" if isinstance(reason, KeyError) else reason or "no family of networks has such"
        raise CheckpointError(
            f"{path}: its tensors belong to no network known here ({known()}): {said}. "
            f"First names: {', '.join(list(tensors)[:4])}"
        ) from reason
    return family, network


def _first_that_knows(shapes: Mapping[str, tuple[int, ...]]):
    """(family, Network, None) of the first family that recognises the shapes; else (None, None, the first reason)."""
    reasons = []
    for family in FAMILIES.values():
        try:
            if network := family.recognise(shapes):
                return family, network, None
        except (KeyError, ValueError, IndexError, TypeError, ArithmeticError) as error:
            reasons.append(error)
    return None, None, reasons[0] if reasons else None


def _recorded(content, channels):
    """The facts about images and stem that our own exports record."""
    shape, pool, told = content.get("image_shape"), content.get("max_pool"), {}
    if isinstance(shape, list) and len(shape) == 3 and all(type(v) is int for v in shape) and shape[2] == channels:
        told["image_size"] = tuple(shape[:2])
    return told | ({"max_pool": pool} if isinstance(pool, bool) else {})


def as_asked(
    found: Recognised, image_size: int | tuple[int, ...] | None, max_pool: bool | None, path: Path
) -> Recognised:
    """`found` with the facts that no tensor shows: the size of the images, and whether a max pool follows the stem.

    Facts that are not given are taken as usual for such networks, and mentioned in the notes.

    Raises:
        CheckpointError: the network takes images of one size only, or has no stem that a max pool could follow.
    """
    family, network = found.family, found.network
    h, w, channels = network.image_shape
    image_size = found.recorded.get("image_size") if image_size is None else image_size
    max_pool = found.recorded.get("max_pool") if max_pool is None else max_pool
    size = (image_size, image_size) if isinstance(image_size, int) else tuple(image_size or (h, w))
    if len(size) != 2 or not all(1 <= side <= 10_000 for side in size):
        raise CheckpointError(
            f"{path}: {setting('image_size')} is one number of pixels or two, height and width, not {image_size}"
        )
    if family.one_size and size != (h, w):
        raise CheckpointError(
            f"{path}: {family.title} takes images of {h} x {w} alone, as {family.one_size}; "
            f"{setting('image_size')} {size[0]} x {size[1]} is no choice"
        )
    said, options, pool = [], dict(network.options), family.max_pool(network.arch, network.options)
    usual = network.num_classes == 1000 if h == 224 else network.num_classes in (10, 100) and channels == 3
    if image_size is None and not usual and not family.one_size:
        said.append(f"Images of {h} x {w} are assumed, because no tensor shows their size; image_size sets it.")
    if max_pool is not None:
        if pool is None:
            raise CheckpointError(f"{path}: {setting('max_pool')} is of ResNets; a {network.arch} has no such choice")
        options |= {} if max_pool == pool else {"max_pool": max_pool}
    elif pool is False and ("stem" in options or size != (h, w)):
        said.append("No max pool is assumed after the 3x3 stem, because no tensor shows one; max_pool sets one.")
    network = network._replace(image_shape=(*size, channels), options=options)
    return found._replace(network=network, notes=(*found.notes, *said))


def _class_names(content, num_classes):
    """The names of the classes in the order of the logits, if the file has them; else None."""
    for field in ("class_names", "classes"):
        names = content.get(field)
        if isinstance(names, list | tuple) and len(names) == num_classes and all(type(n) is str for n in names):
            return tuple(names)
    numbers = content.get("class_to_idx")
    if isinstance(numbers, dict) and all(type(k) is str and type(v) is int for k, v in numbers.items()):
        if sorted(numbers.values()) == list(range(num_classes)):
            return tuple(sorted(numbers, key=numbers.get))
    return None


def known() -> str:
    """A list, in words, of the networks that are known here."""
    return ", ".join(family.title for family in reversed(FAMILIES.values()))


_OTHERS = {  # names in networks that a user may take for one of ours, and how these differ
    r"(^|\.)conv1\.\d+\.weight$": "a stem of several convolutions, as resnet50d has it, instead of one",
    r"(^|\.)(stem|stages)\.": "a network of a stem and stages, as ResNetV2 and ConvNeXt are, not a plain ResNet",
    r"(^|\.)layer\d\.\d+\.se\.": "an attention layer (squeeze and excitation or a relative), as seresnet50 has it",
}
