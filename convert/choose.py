"""Chooses the tensors of a checkpoint that belong to the network: the dictionary that holds them, and their prefix.

If only one network is possible, it is taken. If several are possible, the user is asked. Nothing is left out silently.
"""

import dataclasses
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from qcrs_jax.errors import setting
from qcrs_jax.models.checkpoint import CheckpointError

from .files.tensor import Storage, Tensor
from .files.unpickle import ODD_KEYS, SAVE_WEIGHTS_ALONE, Unused
from .names import in_own_layers, stems
from .normalization import split_normalisers, stored_normalization

TOP = "."  # the name of the file as a whole among its fields
DEEP, MANY = 4, 10_000  # how deep and how many containers are looked through


@dataclasses.dataclass(frozen=True)
class Chosen:
    """The tensors of the network in a checkpoint.

    field: path of the dictionary that holds them; None for the file as a whole.
    prefix: beginning of their names.
    tensors: tensors by name, without the prefix.
    normalization: normalisation in a layer stored beside them, as "MEAN,.../STD,...", or None.
    left_out: names of tensors and other entries that are not used, because the user asked for that.
    notes: sentences for the user.
    """

    field: str | None
    prefix: str
    tensors: dict[str, Tensor]
    normalization: str | None
    left_out: tuple[str, ...]
    notes: tuple[str, ...]


def choose(content, path: Path, field: str | None, prefix: str | None, leave_out: tuple[str, ...]) -> Chosen:
    """The network's tensors in the `content` of the checkpoint `path`.

    Args:
        field: dictionary to take, as the messages name it; None asks if several are possible.
        prefix: beginning of the network's names; tensors without it are left out. None asks if several are possible.
        leave_out: beginnings of names that do not belong to the network.

    Raises:
        CheckpointError: there is no network, or several, or tensors that do not belong to it. The message names them
            and the option.
    """
    found, entries, notes = _dictionary(content, path, field)
    left_out = [str(key) for key in entries if isinstance(key, str) and key.startswith(leave_out)] if leave_out else []
    idle = [start for start in leave_out if not any(name.startswith(start) for name in left_out)]
    if idle:
        raise CheckpointError(f"{path}: {setting('leave_out')} {idle[0]!r}: no name in {_called(found)} begins so")
    entries = {key: value for key, value in entries.items() if not left_out or key not in set(left_out)}
    _check_tensors(entries, path, found)
    normalisers, tensors = split_normalisers(entries)
    normalization = stored_normalization(normalisers, path)
    if normalization is not None:
        notes.append(f"The file stores the normalisation: {', '.join(normalisers)}.")
    asked = prefix is not None
    prefix, said = _prefix(tensors, path, prefix)
    stray = _strays(tensors, prefix)
    if asked:
        left_out += stray
    else:
        others = tuple(other for other in stems(tensors) if other != prefix)
        if unexpected := [name for name in stray if not name.startswith(others)]:
            _refuse_strays(unexpected, prefix, path)
    notes += said
    parts = [name for name in left_out if name.startswith(prefix) and in_own_layers(name[len(prefix) :])]
    if parts:
        raise CheckpointError(
            f"{path}: {setting('leave_out')}: {parts[0]!r} is a part of the network's own layers, and cannot be "
            "left out"
        )
    if left_out:
        notes.append(f"Left out, as requested: {listed(left_out)}.")
    gone = set(stray)
    kept = {name[len(prefix) :]: tensor for name, tensor in tensors.items() if name not in gone}
    return Chosen(None if found == TOP else found, prefix, kept, normalization, tuple(left_out), tuple(notes))


def _containers(content) -> Iterator[tuple[str, dict]]:
    """(path, dictionary) for each dictionary in `content`, itself first."""
    queue, seen = [(TOP, content, 0)], set()
    while queue and len(seen) < MANY:
        name, value, depth = queue.pop(0)
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, dict):
            yield name, value
        if depth < DEEP:
            items = value.items() if isinstance(value, dict) else enumerate(value)
            inner = ((str(key)[:100], v) for key, v in items if isinstance(v, dict | list | tuple))
            room = max(MANY - len(queue), 0)
            queue += [
                (key if name == TOP else f"{name}.{key}", v, depth + 1) for key, v in itertools.islice(inner, room)
            ]


def _dictionary(content, path, field):
    """(path, dictionary, notes) of the dictionary that holds the network."""
    if isinstance(content, Unused):
        raise CheckpointError(
            f"{path}: holds a whole object ({content.name}), not the weights alone; {SAVE_WEIGHTS_ALONE}: "
            "torch.save(model.state_dict(), ...)"
        )
    if not isinstance(content, dict | list | tuple):
        raise CheckpointError(
            f"{path}: holds a {type(content).__name__}, not a dictionary with weights; save the model's state_dict"
        )
    dictionaries = dict(_containers(content))
    if field is not None:
        if field not in dictionaries:
            none = f"it has no fields; leave {setting('field')} out"
            others = f"there are {listed(dictionaries)}" if dictionaries else none
            raise CheckpointError(f"{path}: {setting('field')} {field!r} is no dictionary in it; {others}")
        return field, dictionaries[field], []
    holding = {name: d for name, d in dictionaries.items() if any(isinstance(v, Tensor) for v in d.values())}
    networks = {name: d for name, d in holding.items() if stems(key for key in d if isinstance(key, str))}
    if len(networks) > 1:
        first, *rest = networks
        if not all(_equal(networks[first], networks[name]) for name in rest):
            raise CheckpointError(
                f"{path}: holds the weights of several networks, in its fields {listed(networks)}; choose one by "
                f"{setting('field')}, as in {setting('field')} {first}"
            )
        others = f"The fields {listed(networks)} hold the same weights; one of them is used."
        return first, networks[first], [others]
    if networks:
        (found,) = networks
        rest = [name for name in holding if name not in (found, TOP) and any(isinstance(k, str) for k in holding[name])]
        rest = [name for name in rest if not re.search(r"optim|scaler|sched|(^|\.)opt(\.|$)", name)]
        notes = [f"The weights are those of its field {found!r}; not read: {listed(rest)}."] if rest else []
        return found, networks[found], notes
    for name in ("net", "state_dict", *sorted(holding, key=lambda name: -len(holding[name]))):
        if name in holding or (isinstance(dictionaries.get(name), dict) and name != TOP):
            if name == TOP and not all(isinstance(value, Tensor) for value in content.values()):
                break
            return name, dictionaries[name], []
    fields = ", ".join(str(key)[:100] for key in list(content)[:8]) if isinstance(content, dict) else "none"
    unread = [f"{key} ({v.name})" for key, v in content.items() if isinstance(v, Unused)] if fields != "none" else []
    raise CheckpointError(
        f"{path}: no state_dict found: looked for a dictionary of tensors in its fields and in the file as a whole, "
        f"whose fields are: {fields}; save the model's state_dict"
        + (f". Objects are not read: {listed(unread)}" if unread else "")
    )


def _check_tensors(entries, path, found):
    """Raises an error unless the dictionary holds only tensors, under names."""
    if not entries:
        raise CheckpointError(f"{path}: {_called(found)} is empty, so no state_dict; save the model's state_dict")
    for key, value in entries.items():
        if key is ODD_KEYS or not isinstance(key, str):
            raise CheckpointError(f"{path}: {_called(found)} is no state_dict: it has keys that are no texts")
        if not isinstance(value, Tensor):
            what = "a storage" if isinstance(value, Storage) else f"a {type(value).__name__}"
            what = f"{value.name!r}, which is not read" if isinstance(value, Unused) else what
            raise CheckpointError(
                f"{path}: {_called(found)} is no state_dict: {key[:100]!r} is not a tensor but {what}; "
                f"{setting('leave_out')} {key[:100]} opens the rest without it, if it is not of the network"
            )


def _called(found):
    return "the file as a whole" if found == TOP else f"its field {found!r}"


def _group(tensors, prefix, stems):
    """The tensors of the network under `prefix`, without it, and without other networks below it."""
    below = tuple(other for other in stems if other != prefix and other.startswith(prefix))
    return {
        name[len(prefix) :]: tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix) and not (below and name.startswith(below))
    }


def _strays(tensors, prefix):
    """The names that do not belong to the network under `prefix`."""
    below = tuple(other for other in stems(tensors) if other != prefix and other.startswith(prefix))
    return [name for name in tensors if not name.startswith(prefix) or (below and name.startswith(below))]


def _prefix(tensors, path, given):
    """The network's prefix, and notes on the choice."""
    found = stems(tensors)
    if given is not None:
        if not any(name.startswith(given) for name in tensors):
            raise CheckpointError(
                f"{path}: {setting('prefix')} {given!r}: no name begins so; first names: {listed(tensors, 4)}"
            )
        return given, []
    if not found:
        return "", []
    if len(found) == 1:
        (only,) = found
        inside = len(_group(tensors, only, found))
        return only if 2 * inside >= len(tensors) or inside >= 8 else "", []
    groups = {stem: _group(tensors, stem, found) for stem in found}
    first, *rest = found
    same = all(_equal(groups[first], groups[other]) for other in rest)
    if same:
        return first, [f"The network is stored under {listed(found)} with the same weights in each."]
    if attacked := _attacked(found, groups):
        return attacked, [
            f"The network is stored under {listed(found)}, with other weights in each; those of {attacked!r} are used, "
            "as the program that writes such files loads them last. The setting prefix chooses the other."
        ]
    raise CheckpointError(
        f"{path}: holds several networks, whose names begin with {listed(found)}; choose one by {setting('prefix')}, "
        f"as in {setting('prefix')} {first or repr(first)}"
    )


def _attacked(stems, groups):
    """The prefix that counts in files of the robustness library, which store one network in two places; else None."""
    for plain in stems:
        inner = plain.removesuffix("model.") + "attacker.model."
        if len(stems) == 2 and plain.endswith("model.") and inner in stems and _alike(groups[plain], groups[inner]):
            return inner
    return None


def _alike(ours, theirs):
    """Whether two state_dicts have the same names and shapes."""
    both = all(isinstance(v, Tensor) for d in (ours, theirs) for v in d.values())
    return both and ours.keys() == theirs.keys() and all(t.shape == theirs[name].shape for name, t in ours.items())


def _equal(ours, theirs):
    """Whether two state_dicts hold the same numbers under the same names."""
    if not _alike(ours, theirs):
        return False
    return all(
        t.dtype == theirs[name].dtype and np.array_equal(t.view(), theirs[name].view()) for name, t in ours.items()
    )


def _refuse_strays(names, prefix, path):
    raise CheckpointError(
        f"{path}: tensor {names[0]!r} lacks the prefix {prefix!r} of the others; if it is not of the network, "
        f"{setting('prefix')} {prefix or repr('')} opens the network alone and leaves out: {listed(names)}"
    )


def listed(names, most: int = 10) -> str:
    names = [str(name)[:100] or "''" for name in names]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
