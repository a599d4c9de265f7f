"""Names of networks in PyTorch files, from the tables of their families."""

import functools
import re
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from qcrs_jax.models import FAMILIES
from qcrs_jax.models.family import Family, Leaf


class Place(NamedTuple):
    """The place of a PyTorch tensor.

    variable: path of our variable.
    block: index in its leading axis, along which blocks are stacked; None for the variable itself.
    key: name of the tensor.
    leaf: axes of the tensor.
    order: sorting by this gives PyTorch's order.
    """

    variable: tuple
    block: int | None
    key: str
    leaf: Leaf
    order: tuple[int, ...]


def places(
    family: Family, variables: Iterable[tuple[tuple, tuple[int, ...]]], keys: Collection[str] = ()
) -> Iterator[Place]:
    """The place of every tensor that a network needs, variable by variable.

    Args:
        variables: (path, shape) of each variable.
        keys: names in a file, whose spelling is used; PyTorch's own spelling otherwise.

    Raises:
        ValueError: a variable is missing in the family's table, or two have one name in PyTorch.
    """
    rows = {part.ours: (number, part) for number, part in enumerate(family.parts)}
    first = {}  # the row that a run of blocks begins with
    for number, part in rows.values():
        first.setdefault(_stage(part) or part.theirs, number)
    words = {word for key in keys if family.spellings and has_place(family, key) for word in key.split(".")}
    spelt = {usual: other for usual, other in family.spellings.items() if other in words}
    taken = set()
    for path, shape in variables:
        *modules, name = map(str, path)
        stacked, ours = "rest" in modules, "/".join("*" if m in ("first", "rest") else m for m in modules)
        if ours not in rows or name not in rows[ours][1].leaves:
            raise ValueError(f"the table of {family.title} has no place for the variable {'/'.join(map(str, path))}")
        number, part = rows[ours]
        leaf, theirs = part.leaves[name], ".".join(spelt.get(word, word) for word in part.theirs.split("."))
        rank = list(part.leaves).index(name)
        for block in range(1, shape[0] + 1) if stacked else [0]:
            order = (first[_stage(part) or part.theirs], block, number, rank)
            key = f"{theirs.replace('*', str(block))}.{leaf.name}"
            if key in taken:
                raise ValueError(f"the table of {family.title} gives {key!r} to two variables")
            taken.add(key)
            yield Place(path, block - 1 if stacked else None, key, leaf, order)


def _stage(part):
    """The beginning of the names of a part's stage; "" if it is in no stage."""
    return part.theirs.rpartition("*")[0]


def is_idle(family: Family, key: str, keys: Collection[str]) -> bool:
    """Whether no network computes with `key` of `keys`: a counter, or the copy of a module, which never runs."""
    module, _, rest = key.partition(".")
    copy = module in family.never_run and f"{family.never_run[module]}.{rest}" in keys
    return copy or key.endswith(".num_batches_tracked")


def has_place(family: Family, key: str) -> bool:
    """Whether a tensor with the name `key` may belong to a network of `family`."""
    return _patterns((family,)).part.fullmatch(key) is not None


def in_own_layers(key: str) -> bool:
    """Whether `key` is in a module with a name that the networks here use, whatever its number."""
    return _patterns(tuple(FAMILIES.values())).module.match(key) is not None


def stems(keys: Iterable[str]) -> list[str]:
    """The prefixes under which there is a network, or at least the first layer of one."""
    families = tuple(FAMILIES.values())
    ends, pattern = tuple({family.stem for family in families}), _patterns(families).stem
    return [match[1] for key in keys if key.endswith(ends) and (match := pattern.match(key))]


class _Patterns(NamedTuple):
    part: re.Pattern
    module: re.Pattern
    stem: re.Pattern


@functools.lru_cache(maxsize=16)
def _patterns(families):
    """Patterns of the names of all parts, of the top modules, and of a network's first layer, which is no block."""
    parts, modules, blocks, first = set(), set(), set(), set()
    for family in families:
        first.add(re.escape(family.stem))
        for part in family.parts:
            names = "|".join(re.escape(leaf.name) for leaf in part.leaves.values())
            spelt = r"\.".join(_either(word, family.spellings) for word in part.theirs.split("."))
            parts.add(rf"{spelt}\.({names}|num_batches_tracked)")
            top, *_ = part.theirs.split(".")
            copies = [copy for copy, module in family.never_run.items() if module == top]
            for name in (top, family.spellings.get(top, top), *copies):
                modules.add(_numbered(name))
                if stage := _stage(part):
                    blocks.add(_numbered(name + stage[len(top) :]) + r"\d+\.")
    block = rf"(?!(?:.*\.)?(?:{'|'.join(sorted(blocks)) or '(?!)'})(?:{'|'.join(sorted(first))})$)"
    return _Patterns(
        re.compile("|".join(sorted(parts))),
        re.compile(rf"({'|'.join(sorted(modules))})\."),
        re.compile(rf"^{block}((?:.*\.)?)(?:{'|'.join(sorted(first))})$", re.DOTALL),
    )


def _either(word, spellings):
    """The regular expression for a word of a name in all its spellings."""
    if word == "*":
        return r"\d+"
    return rf"({re.escape(word)}|{re.escape(spellings[word])})" if word in spellings else re.escape(word)


def _numbered(name):
    """The regular expression for a name with any numbers in the place of its own."""
    return re.sub(r"\d+", lambda _: r"\d+", re.escape(name))
