"""Runs the graph of an exported program with JAX, and compares each value with the shape and format in the file."""

import jax
import jax.numpy as jnp
import numpy as np

from qcrs_jax.models.checkpoint import CheckpointError

from . import (
    channels_last,
    elementwise,
    operations,  # noqa: F401  fills the registry
)
from .aliases import renamed
from .channels_last import Last
from .refusals import SUBGRAPHS
from .registry import found
from .schema import Graph, Meta, Node, Ref, refs

_UNUSED = {"device", "layout", "pin_memory", "memory_format", "non_blocking", "requires_grad", "generator", "copy"}
"""Arguments about the place of numbers in memory, which do not change the numbers."""


class Interpreter:
    """A graph, ready to be run."""

    def __init__(self, graph: Graph):
        self._graph = graph
        self._changes = renamed(graph)
        self._inner = {
            i: Interpreter(value)
            for i, node in enumerate(graph.nodes)
            for value in node.arguments.values()
            if isinstance(value, Graph)
        }
        last = {}
        for i, node in enumerate(graph.nodes):
            last.update(dict.fromkeys((*refs(node.arguments), *node.names()), i))
        kept = set(refs(graph.outputs)) | {name for names in self._changes.values() for name in names}
        self._done: dict[int, list[str]] = {}
        for name, i in last.items():
            if name not in kept:
                self._done.setdefault(i, []).append(name)

    def __call__(self, inputs: dict) -> tuple:
        """The outputs of the graph for its inputs by name, as plain arrays."""
        return tuple(channels_last.plain(value) for value in self._run(inputs, {}))

    def _run(self, inputs, symbols):
        values = dict(inputs)
        for name, value in inputs.items():
            if hasattr(value, "dtype"):
                values[name] = self._checked(name, value, symbols)
        for i, node in enumerate(self._graph.nodes):
            results = self._computed(i, node, values, symbols)
            for name, value in _named(node, results):
                values[name] = self._checked(name, value, symbols)
            if i in self._changes:
                changed = values[next(node.names())]
                values.update(dict.fromkeys(self._changes[i], changed))
            for name in self._done.get(i, ()):
                values.pop(name, None)
        return [_resolved(value, values) for value in self._graph.outputs]

    def _computed(self, i, node, values, symbols):
        arguments = {name: _resolved(value, values) for name, value in node.arguments.items()}
        try:
            if node.target in SUBGRAPHS:
                return self._within(self._inner[i], node, arguments, symbols)
            return compute(node.operation, arguments)
        except (CheckpointError, jax.errors.JaxRuntimeError, MemoryError):
            raise
        except Exception as error:  # a damaged graph can fail in any way
            where = f" of {node.module}" if node.module else ""
            words = f"{type(error).__name__}: {str(error)[:300]}"
            raise CheckpointError(f"its operation {node.target}{where} cannot be computed: {words}") from error

    def _within(self, inner, node, arguments, symbols):
        """The results of an inner graph, which PyTorch computes under a setting of its own."""
        if node.target.endswith("autocast") and any(value is True for value in node.arguments.values()):
            raise CheckpointError(
                "computes a part in another number format (autocast); add program = program.run_decompositions({}) "
                "before torch.export.save, and export again"
            )
        given = list(arguments.values())
        place = next(k for k, value in enumerate(given) if isinstance(value, Graph))
        names = inner._graph.inputs
        return tuple(inner._run(dict(zip(names, given[place + 1 :], strict=True)), symbols))

    def _checked(self, name, value, symbols):
        """The value, in the number format that the file records.

        Raises:
            CheckpointError: it has another shape, or another kind of numbers.
        """
        meta = self._graph.values.get(name)
        if meta is None:
            if isinstance(value, int) and not isinstance(value, bool) and abs(value) >= 2**63:
                raise CheckpointError(f"the number {name[:40]} has more than 64 bits")
            return value
        if not hasattr(value, "shape"):
            value = np.asarray(value)
        shape = tuple(value.shape)
        if len(shape) != len(meta.shape) or not all(map(_fits, shape, meta.shape, [symbols] * len(shape))):
            raise CheckpointError(
                f"damaged, or not computed as PyTorch does: {name[:40]} has the shape {shape}, and "
                f"{meta.shape} by the file"
            )
        wanted = elementwise.narrow(meta.dtype)
        if value.dtype == wanted:
            return value
        if _kind(value.dtype) != _kind(wanted):
            raise CheckpointError(
                f"damaged, or not computed as PyTorch does: {name[:40]} has numbers of the format {value.dtype}, and "
                f"{wanted} by the file"
            )
        return value.astype(wanted)


def check_weight(name: str, array: np.ndarray, meta: Meta | None) -> None:
    """Raises CheckpointError unless a weight has the shape and the format that the graph records."""
    if meta is None or array.shape != meta.shape or array.dtype != elementwise.narrow(meta.dtype):
        recorded = "nothing" if meta is None else f"{meta.dtype.name} of the shape {meta.shape}"
        raise CheckpointError(
            f"damaged: the weight {name[:40]} is {array.dtype.name} of the shape {array.shape}, and {recorded} by the "
            "graph; copy the file again"
        )


def compute(name: str, arguments: dict):
    """The result of the operation `name` for its arguments."""
    operation = found(name)
    if operation is None:
        raise CheckpointError(f"the operation {name} is not known")
    arguments = {key: value for key, value in arguments.items() if key not in _UNUSED}
    if operation.lasting:
        first, *others = arguments
        arguments = {first: arguments[first], **{key: channels_last.plain(arguments[key]) for key in others}}
    elif any(isinstance(value, Last) for value in arguments.values()):
        if operation.elementwise:
            if (result := channels_last.elementwise(operation.compute, arguments)) is not None:
                return result
        arguments = {key: channels_last.plain(value) for key, value in arguments.items()}
    else:
        arguments = {key: channels_last.plain(value) for key, value in arguments.items()}
    return operation.compute(**arguments)


def _resolved(value, values):
    if isinstance(value, Ref):
        if value.name not in values:
            raise CheckpointError(
                f"uses {value.name[:40]}, a result that is not computed, such as the places of maxima"
            )
        return values[value.name]
    return [_resolved(item, values) for item in value] if isinstance(value, list) else value


def _named(node: Node, results):
    """(name, value) of each result of a node that has a name."""
    if len(node.results) == 1 and not isinstance(results, tuple):
        results = (results,)
    if node.results and (not isinstance(results, tuple) or len(results) < len(node.results)):
        raise CheckpointError(f"damaged: {node.target} has more results in the file than the operation returns")
    for names, value in zip(node.results, results if isinstance(results, tuple) else ()):
        if isinstance(names, str):
            if value is None:  # a result that is not computed, such as places of maxima
                continue
            yield names, value
        elif names is not None:
            if not isinstance(value, list) or len(value) != len(names):
                raise CheckpointError(f"damaged: {node.target} returns another number of tensors than the file records")
            yield from zip(names, value)


def _fits(size, recorded, symbols):
    """Whether a length is the recorded one. A symbol has one length throughout a call."""
    if isinstance(recorded, str):
        known = symbols.setdefault(recorded, size)
        return not (isinstance(known, int) and isinstance(size, int)) or known == size
    return recorded is None or not isinstance(size, int) or size == recorded


def _kind(dtype):
    if jnp.issubdtype(dtype, jnp.bool_):
        return "truth values"
    if jnp.issubdtype(dtype, jnp.integer):
        return "whole numbers"
    return "complex numbers" if jnp.issubdtype(dtype, jnp.complexfloating) else "numbers"
