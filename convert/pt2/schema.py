"""The graph of an exported program as data: nodes, their arguments, and the recorded type of each value.

Unknown fields are ignored; a node with an unknown kind of argument is refused.

Source: torch/_export/serde/schema.py of PyTorch 2.9 to 2.14, schema major 8.
"""

import dataclasses
import hashlib
import json
import math
import re

import numpy as np

from qcrs_jax.models.checkpoint import CheckpointError
from qcrs_jax.printable import printable

from .archive import AGAIN, STRIDED, dtype_of

MAJOR, LEAST_MINOR = 8, 14
MOST_NODES = 50_000
MOST_NUMBERS = 2**29  # of a value of one image: 2 GiB in float32
_DEEPEST = 8  # graphs within graphs
_SYMBOL = re.compile(r"Symbol\('(\w{1,40})'(?:, \w+=\w+)*\)")
_FLOATS = {"Infinity": math.inf, "-Infinity": -math.inf, "NaN": math.nan}


@dataclasses.dataclass(frozen=True)
class Ref:
    """The value of this name."""

    name: str


@dataclasses.dataclass(frozen=True)
class Meta:
    """The type of a tensor, as the file records it.

    shape: for each axis its length, the name of a symbol, or None for a length that is computed from symbols.
    """

    dtype: np.dtype
    shape: tuple[int | str | None, ...]


@dataclasses.dataclass(frozen=True)
class Node:
    """One operation.

    target: its name in the file, without torch.ops: "aten.conv2d.default".
    arguments: by the names of the ATen schema; a Ref stands for a value.
    results: for each result its name, a tuple of names for a list, or None if it is not used.
    module: the module of the network that it comes from.
    """

    target: str
    arguments: dict
    results: tuple
    module: str

    @property
    def operation(self) -> str:
        """The name without the overload: "conv2d", "_operator.mul"."""
        kind, _, rest = self.target.partition(".")
        return rest.partition(".")[0] if kind == "aten" else self.target

    def names(self):
        """The names of all results."""
        for result in self.results:
            yield from (result,) if isinstance(result, str) else result or ()


@dataclasses.dataclass(frozen=True)
class Graph:
    """Operations in their order. All values are given by `inputs` or by an earlier node."""

    inputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    outputs: tuple
    values: dict[str, Meta]


@dataclasses.dataclass(frozen=True)
class Program:
    """An exported program.

    weights: (kind, name in the archive) of each input of the graph that is a parameter, buffer or constant, and used.
    parameters: those of `weights` that are parameters.
    images: the inputs that are given at each call.
    ranges: (least, most) of each symbol; most may be None.
    digest: SHA-256 of the computation, without the weights.
    stripped: the JSON of it without the exporter's metadata.
    """

    graph: Graph
    weights: dict[str, tuple[str, str]]
    parameters: frozenset[str]
    constants: dict[str, object]
    images: tuple[str, ...]
    outputs: tuple
    ranges: dict[str, tuple[int, int | None]]
    digest: str
    stripped: dict


def read_program(document: dict) -> Program:
    """The program in the JSON of models/model.json.

    Raises:
        CheckpointError: damaged, of another version, or not a pure function of its inputs.
    """
    try:
        return _program(document)
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"damaged: its graph is not as torch.export writes it ({_short(error)})") from error


def _short(error):
    return printable(f"{type(error).__name__}: {str(error)[:100]}")


def _program(document):
    version = document["schema_version"]
    major, minor = version["major"], version["minor"]
    if major != MAJOR or type(minor) is not int or minor < LEAST_MINOR:
        raise CheckpointError(
            f"its graph is of schema {str(major)[:20]}.{str(minor)[:20]}; {MAJOR}.{LEAST_MINOR} and later of {MAJOR} "
            f"are read: {AGAIN}"
        )
    module = document["graph_module"]
    graph = _graph(module["graph"], 0, [0])
    specs = module["signature"]["input_specs"]
    weights, constants, images = _inputs(specs, graph.inputs)
    parameters = frozenset(spec["parameter"]["arg"]["name"] for spec in specs if "parameter" in spec)
    used = set(refs(graph.outputs)).union(*(refs(node.arguments) for node in graph.nodes))
    weights = {name: place for name, place in weights.items() if name in used}
    outputs = _outputs(module["signature"]["output_specs"], graph.outputs)
    ranges = {name: _range(value) for name, value in document.get("range_constraints", {}).items()}
    stripped = {
        "schema_version": {"major": major, "minor": minor},
        "range_constraints": document.get("range_constraints", {}),
        "graph_module": {"graph": _without_metadata(module["graph"]), "signature": module["signature"]},
    }
    told = {name: value for name, value in stripped.items() if name != "schema_version"}
    digest = hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
    return Program(graph, weights, parameters, constants, images, outputs, ranges, digest, stripped)


def _without_metadata(graph):
    """The JSON of a graph, and of graphs within it, without the metadata of the exporter's machine."""

    def plain(argument):
        if isinstance(argument, dict) and "as_graph" in argument:
            inner = argument["as_graph"]
            return {"as_graph": {"name": inner["name"], "graph": _without_metadata(inner["graph"])}}
        return argument

    nodes = [
        {
            "target": node["target"],
            "inputs": [{"name": i["name"], "arg": plain(i["arg"])} for i in node["inputs"]],
            "outputs": node["outputs"],
        }
        for node in graph["nodes"]
    ]
    kept = {name: graph[name] for name in ("inputs", "outputs")}
    values = {
        name: {field: meta[field] for field in ("dtype", "sizes", "layout")}
        for name, meta in graph["tensor_values"].items()
    }
    return {**kept, "nodes": nodes, "tensor_values": values}


def _range(value):
    least, most = value["min_val"], value["max_val"]
    if not all(type(bound) is int for bound in (least, most) if bound is not None):
        raise ValueError("an invalid range")
    return least or 0, most


def _inputs(specs, names):
    """The inputs of the graph, divided into weights, given constants and images."""
    weights, constants, images = {}, {}, []
    for spec in specs:
        ((kind, what),) = spec.items()
        if kind == "parameter":
            weights[what["arg"]["name"]] = ("weights", what["parameter_name"])
        elif kind == "buffer":
            persistent = what.get("persistent", True)
            weights[what["arg"]["name"]] = ("weights" if persistent else "constants", what["buffer_name"])
        elif kind == "tensor_constant":
            weights[what["arg"]["name"]] = ("constants", what["tensor_constant_name"])
        elif kind == "user_input":
            argument = _argument(what["arg"], 0, [0])
            images.append(argument.name if isinstance(argument, Ref) else None)
        elif kind == "constant_input":
            constants[what["name"]] = _argument(what["value"], 0, [0])
        else:
            raise CheckpointError(f"takes an input of the kind {_text(kind)}, which is not read; export plain tensors")
    if not all(isinstance(name, str) for _, name in weights.values()):
        raise ValueError("a weight without a name")
    given = [*weights, *constants, *(name for name in images if name is not None)]
    if len(set(given)) != len(given) or not set(names) <= set(given):
        raise ValueError("the inputs of the graph are not those of its signature")
    return weights, constants, tuple(images)


def _outputs(specs, found):
    """The outputs of the program. A program that changes its own state is refused."""
    if len(specs) != len(found):
        raise ValueError("the outputs of the graph are not those of its signature")
    kept = []
    for spec, value in zip(specs, found):
        ((kind, what),) = spec.items()
        if kind == "user_output":
            if _argument(what["arg"], 0, [0]) != value:
                raise ValueError("the outputs of the graph are not those of its signature")
            kept.append(value)
        elif kind == "buffer_mutation":
            raise CheckpointError(
                f"changes its buffer {_text(what['buffer_name'])} at each call, as a model in training does; call "
                "model.eval() before torch.export"
            )
        else:
            raise CheckpointError(f"has an output of the kind {_text(kind)}, which no classifier has")
    return tuple(kept)


def _text(value):
    return printable(str(value)[:100])


def _graph(found, depth, count):
    """The graph in its JSON; `count` is a list with the number of nodes so far."""
    if depth > _DEEPEST:
        raise CheckpointError(f"has graphs within graphs, more than {_DEEPEST} deep, which are not read")
    inputs = tuple(_argument(value, depth, count) for value in found["inputs"])
    if not all(isinstance(value, Ref) for value in inputs):
        raise ValueError("an input without a name")
    known = {value.name for value in inputs}
    if len(known) != len(inputs):
        raise ValueError("two inputs of one name")
    nodes = []
    for entry in found["nodes"]:
        count[0] += 1
        if count[0] > MOST_NODES:
            raise CheckpointError(f"its graph has more than {MOST_NODES:,} nodes, and is not read")
        node = _node(entry, depth, count)
        for used in refs(node.arguments):
            if used not in known:
                raise ValueError(f"{used[:40]} is used before it is computed")
        for name in node.names():
            if name in known:
                raise ValueError(f"{name[:40]} is computed twice")
            known.add(name)
        nodes.append(node)
    outputs = tuple(_argument(value, depth, count) for value in found["outputs"])
    if lost := [name for name in refs(outputs) if name not in known]:
        raise ValueError(f"its output {lost[0][:40]} is not computed")
    values = {name: _meta(meta, name) for name, meta in found["tensor_values"].items() if name in known}
    return Graph(tuple(value.name for value in inputs), tuple(nodes), outputs, values)


def refs(value):
    """The names of values within an argument."""
    if isinstance(value, Ref):
        yield value.name
    elif isinstance(value, dict):
        for inner in value.values():
            yield from refs(inner)
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from refs(inner)


def _node(entry, depth, count):
    target = entry["target"]
    if not isinstance(target, str) or len(target) > 200:
        raise ValueError("a node without an operation")
    arguments = {}
    for given in entry["inputs"]:
        name = given["name"]
        if not isinstance(name, str) or name in arguments:
            name = f"{name}_{len(arguments)}"  # of operations that take any number
        arguments[name] = _argument(given["arg"], depth, count)
    results = tuple(_result(value) for value in entry["outputs"])
    return Node(_text(target.removeprefix("torch.ops.")), arguments, results, _module(entry))


def _module(entry):
    """The module that a node comes from, for messages."""
    stack = (entry.get("metadata") or {}).get("nn_module_stack")
    if not isinstance(stack, str):
        return ""
    parts = stack.rpartition(";")[2].split(",")
    return _text(parts[1] or "the model itself") if len(parts) > 2 else ""


def _result(value):
    found = _argument(value, _DEEPEST, [0])
    if isinstance(found, Ref):
        return found.name
    if isinstance(found, list) and all(isinstance(item, Ref) for item in found):
        return tuple(item.name for item in found)
    if found is None:
        return None
    raise ValueError("a result without a name")


def _meta(meta, name):
    if meta["layout"] != STRIDED:
        raise CheckpointError(f"the value {name[:40]} is sparse, or of another layout that is not read")
    shape = tuple(_length(size) for size in meta["sizes"])
    if math.prod(size for size in shape if type(size) is int) > MOST_NUMBERS:
        raise CheckpointError(f"the value {name[:40]} has more than {MOST_NUMBERS:,} numbers for each image")
    return Meta(dtype_of(meta["dtype"], f"the value {name[:40]}"), shape)


def _length(size):
    ((kind, value),) = size.items()
    if kind == "as_int":
        if type(value) is not int or not 0 <= value < 2**40:
            raise ValueError("an invalid length")
        return value
    if kind != "as_expr":
        raise ValueError("an invalid length")
    symbol = _SYMBOL.fullmatch(value["expr_str"]) if len(value["expr_str"]) < 1000 else None
    return symbol[1] if symbol else None


def _argument(argument, depth, count):
    """The value of an argument: a number, a text, a Ref, a Graph, or a list of such."""
    if not isinstance(argument, dict) or len(argument) != 1:
        raise ValueError("an invalid argument")
    ((kind, value),) = argument.items()
    if kind == "as_graph":
        return _graph(value["graph"], depth + 1, count)
    if kind not in _ARGUMENTS:
        raise CheckpointError(f"an argument of the unknown kind {_text(kind)}; {AGAIN}")
    return _ARGUMENTS[kind](value)


def _list_of(read):
    def read_all(value):
        if not isinstance(value, list):
            raise ValueError("an invalid list")
        return [read(item) for item in value]

    return read_all


def _ref(value):
    name = value["name"]
    if not isinstance(name, str) or not 0 < len(name) < 1000:
        raise ValueError("a value without a name")
    return Ref(name)


def _optional(value):
    ((kind, inner),) = value.items()
    if kind == "as_none":
        return None
    if kind != "as_tensor":
        raise ValueError("an invalid argument")
    return _ref(inner)


def _int(value):
    if type(value) is not int or not -(2**63) <= value < 2**63:
        raise ValueError("an invalid whole number")
    return value


def _float(value):
    if isinstance(value, str):
        return _FLOATS[value]
    if type(value) not in (int, float):
        raise ValueError("an invalid number")
    return float(value)


def _bool(value):
    if type(value) is not bool:
        raise ValueError("an invalid truth value")
    return value


def _string(value):
    if not isinstance(value, str) or len(value) > 10_000:
        raise ValueError("an invalid text")
    return value


def _symbol_or(read):
    def read_either(value):
        ((kind, inner),) = value.items()
        if kind == "as_name":
            return _ref({"name": inner})
        if kind not in ("as_int", "as_float", "as_bool"):
            raise ValueError("an invalid number")
        return read(inner)

    return read_either


def _dtype(value):
    return dtype_of(value, "an argument")


def _layout(value):
    if value != STRIDED:
        raise CheckpointError("makes sparse tensors, or others of a layout that is not read")


_ARGUMENTS = {
    "as_none": lambda value: None,
    "as_tensor": _ref,
    "as_tensors": _list_of(_ref),
    "as_optional_tensor": _optional,
    "as_optional_tensors": _list_of(_optional),
    "as_int": _int,
    "as_ints": _list_of(_int),
    "as_float": _float,
    "as_floats": _list_of(_float),
    "as_bool": _bool,
    "as_bools": _list_of(_bool),
    "as_string": _string,
    "as_strings": _list_of(_string),
    "as_sym_int": _symbol_or(_int),
    "as_sym_ints": _list_of(_symbol_or(_int)),
    "as_sym_float": _symbol_or(_float),
    "as_sym_floats": _list_of(_symbol_or(_float)),
    "as_sym_bool": _symbol_or(_bool),
    "as_sym_bools": _list_of(_symbol_or(_bool)),
    "as_scalar_type": _dtype,
    "as_memory_format": lambda value: None,
    "as_device": lambda value: None,
    "as_layout": _layout,
}
"""Readers of arguments by their kinds. Memory formats and devices say nothing about numbers."""
