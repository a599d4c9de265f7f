"""Moves the weights of a network between PyTorch's names and axes and ours, strictly: every tensor, every variable."""

import math
from collections import OrderedDict
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from qcrs_jax.errors import setting
from qcrs_jax.models import Classifier, Spec, abstract, family_of
from qcrs_jax.models.checkpoint import CheckpointError, fill

from .choose import listed
from .names import in_own_layers, is_idle, places
from .recognise import Recognised


def to_classifier(found: Recognised, mean, std, source: dict, path: Path) -> Classifier:
    """The Flax classifier with the weights of `found`, strict both ways.

    Raises:
        CheckpointError: a tensor has no place in the network, a variable is missing in the file, or shapes differ.
    """
    network = found.network
    try:
        spec = Spec(*network[:3], mean, std, network.options, source, found.class_names)
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    try:
        model = abstract(spec)
    except Exception as error:  # no classes, a stem of another size: networks fail in many ways
        raise CheckpointError(
            f"{path}: the sizes of its tensors are those of no {spec.arch} ({type(error).__name__}: "
            f"{str(error)[:200]}); copy the file again"
        ) from error
    weights = {name: _aligned(variable.shape) for name, variable in nnx.to_flat_state(nnx.state(model))}
    unused = {key for key in found.tensors if not is_idle(found.family, key, found.tensors)}
    for place in places(found.family, _shapes(weights), found.tensors):
        if place.key not in found.tensors:
            raise CheckpointError(f"{path}: {spec.arch} needs tensor {place.key!r}, which the file lacks")
        unused.discard(place.key)
        _put(found.tensors[place.key], place, weights, f"{path}: tensor {place.key!r}", spec.arch)
    if unused:
        raise CheckpointError(f"{path}: {spec.arch} has no place for tensor {_unplaced(unused, found)}")
    return Classifier(spec, fill(model, nnx.traversals.unflatten_mapping(weights)))


def _put(tensor, place, weights, called, arch):
    """Copies a tensor of the file to its place. Raises CheckpointError if it does not fit."""
    part = weights[place.variable] if place.block is None else weights[place.variable][place.block]
    theirs, leaf = tensor.shape, place.leaf
    if tensor.dtype.kind == "c":
        raise CheckpointError(f"{called} has complex numbers, which {arch} has not")
    misfit = f"{called} has shape {theirs}, which does not fit {arch}:"
    if len(theirs) != len(leaf.theirs.split()):
        raise CheckpointError(f"{misfit} its axes should be {leaf.theirs}")
    values = _turned(tensor.view(), leaf.theirs, leaf.ours)
    if values.shape != part.shape:
        raise CheckpointError(f"{misfit} in our order {values.shape} instead of {part.shape}")
    part[...] = values
    if not np.isfinite([part.min(initial=0), part.max(initial=0)]).all():
        raise CheckpointError(f"{called} has values that are not finite")


def _unplaced(unused, found):
    """The names of tensors without a place in the network, and the option that leaves them out, if that is allowed."""
    unused = sorted(unused)
    outside = [found.chosen.prefix + key for key in unused if not in_own_layers(key)]
    words = f"{unused[0]!r}" + (f" and {len(unused) - 1} more: {listed(unused)}" if len(unused) > 1 else "")
    if len(outside) < len(unused):
        return words
    return (
        f"{words}; if it is not of the network, {setting('leave_out')} {outside[0]} opens the rest without it. Such "
        f"are: {listed(outside)}"
    )


def to_state_dict(classifier: Classifier) -> OrderedDict[str, np.ndarray]:
    """The weights of `classifier` under PyTorch's names, without a prefix, in PyTorch's order and axes."""
    arrays = {name: np.asarray(variable[...]) for name, variable in nnx.to_flat_state(nnx.state(classifier.model))}
    weights = OrderedDict()
    for place in sorted(places(family_of(classifier.spec.arch), _shapes(arrays)), key=lambda place: place.order):
        array = arrays[place.variable] if place.block is None else arrays[place.variable][place.block]
        weights[place.key] = _turned(array, place.leaf.ours, place.leaf.theirs)
        if place.leaf.name == "running_var":
            weights[place.key.removesuffix("running_var") + "num_batches_tracked"] = np.zeros((), np.int64)
    return weights


def _shapes(arrays):
    return [(name, array.shape) for name, array in arrays.items()]


def _turned(array, before, after):
    """The array with its axes, which `before` names, in the order of `after`."""
    axes = before.split()
    return array.transpose([axes.index(axis) for axis in after.split()])


def _aligned(shape):
    """A float32 array that JAX adopts without a copy: it copies those that do not begin at a multiple of 64 bytes."""
    size = 4 * math.prod(shape)
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(np.float32).reshape(shape)


def count_parameters(model: nnx.Module) -> int:
    """The number of trainable numbers of the network, without batch statistics."""
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))
