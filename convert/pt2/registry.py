"""The operations by their names in ATen, without the overload.

A function of the registry has the argument names and the defaults of the ATen schema: nodes leave out arguments that
    equal
their default. It takes arrays, numbers, texts, number formats of NumPy, and lists of these; it returns an array, a
tuple for several results, or a list for one result that is a list. JAX has no strides: views and copies are the same.
"""

import dataclasses
from collections.abc import Callable

from qcrs_jax.models.checkpoint import CheckpointError


@dataclasses.dataclass(frozen=True)
class Operation:
    """An operation.

    elementwise: each number of the result depends only on the numbers in the same place.
    lasting: also accepts and returns images with channels last (`channels_last.Last`).
    view: in PyTorch the result may be the memory of the first argument.
    """

    compute: Callable
    elementwise: bool = False
    lasting: bool = False
    view: bool = False


OPERATIONS: dict[str, Operation] = {}


def operation(*names: str, elementwise: bool = False, lasting: bool = False, view: bool = False) -> Callable:
    """A decorator: registers the function under these names."""

    def register(function):
        for name in names:
            assert name not in OPERATIONS, name
            OPERATIONS[name] = Operation(function, elementwise, lasting, view)
        return function

    return register


def elementwise(*names: str, view: bool = False) -> Callable:
    """A decorator: registers an elementwise function under these names."""
    return operation(*names, elementwise=True, view=view)


def found(name: str) -> Operation | None:
    """The operation of a name, where relu_ is relu, without the change in place. None for an unknown name."""
    if name not in OPERATIONS and in_place(name):
        return OPERATIONS.get(name[:-1])
    return OPERATIONS.get(name)


def in_place(name: str) -> bool:
    """Whether an operation of this name changes its first argument."""
    return name.endswith("_") and not name.endswith("__")


def check_size(numbers, what: str) -> None:
    """Raises CheckpointError if an operation without large inputs would create too large an array."""
    if isinstance(numbers, int) and numbers > MOST_MADE:
        raise CheckpointError(f"{what} would make {numbers:,} numbers; at most {MOST_MADE:,} are made")


MOST_MADE = 2**26
