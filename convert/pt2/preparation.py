"""Prepares a graph for speed: batch normalisation folded into convolutions, and kernels in the order of XLA.

XLA's convolutions on a CPU are 60 times slower inside a loop where a kernel is not (h, w, in, out), and depthwise ones
are slow everywhere: a sum over shifted images is 4 to 25 times faster. For 3x3 convolutions of many channels Winograd's
algorithm is 1.3 to 2 times as fast. With few channels two columns at a time are faster; since JAX 0.11, several images
side by side (`models.layers.Form`).
"""

import dataclasses

import numpy as np

from qcrs_jax.models.layers import Form, joined_kernel
from qcrs_jax.models.winograd import FEWEST, turned_kernel

from .schema import Graph, Ref, refs

_NORMS = {"batch_norm", "_native_batch_norm_legit_no_training"}
_CONVOLUTIONS = {"conv1d", "conv2d", "conv3d", "convolution"}


def prepared(
    graph: Graph, weights: dict[str, np.ndarray], platform: str, beside: int | None = None
) -> tuple[Graph, dict[str, np.ndarray]]:
    """The graph with its weights for inference on `platform`, a name of JAX's: the same, but for rounding.

    `beside` is how many images stand side by side on a CPU; 1 for none, None for what is fastest with this JAX.
    """
    beside = Form.of("cpu").beside if beside is None else beside
    graph, weights = folded(graph, weights)
    added, nodes = {}, []
    for node in graph.nodes:
        kernel = _kernel(node, weights)
        if kernel is None:
            nodes.append(node)
            continue
        arguments = {name: v for name, v in node.arguments.items() if name not in ("transposed", "output_padding")}
        kernel, name = kernel.transpose(2, 3, 1, 0), arguments["weight"].name
        target, shape = "ours.convolution", _shape(node, graph)
        if platform == "cpu" and _is_depthwise(kernel, arguments):
            target = "ours.depthwise"
        elif platform == "cpu" and _keeps_shape(kernel, arguments, shape):
            few = kernel.shape[3] <= FEW
            if min(kernel.shape[2:]) >= FEWEST:
                target, kernel, name = "ours.winograd", turned_kernel(kernel), f"{name}.turned"
            elif beside > 1 and _is_beside(kernel, shape):
                target, arguments["count"] = "ours.beside", beside
                if few and shape[2] % 2 == 0:
                    kernel, name = joined_kernel(kernel, 2, -4), f"{name}.rows"
            elif few and shape[3] % 2 == 0:
                target, kernel, name = "ours.joined", joined_kernel(kernel, 2, -3), f"{name}.columns"
        added.setdefault(f"{name}.hwio", np.ascontiguousarray(kernel))
        arguments["weight"] = Ref(f"{name}.hwio")
        nodes.append(dataclasses.replace(node, target=target, arguments=arguments))
    graph = dataclasses.replace(graph, nodes=tuple(nodes))
    return graph, _used(graph, {**weights, **added})


MOST_SHIFTS = 121  # largest kernel that is computed as a sum
FEW = 16  # channels
SHORT = 65536  # columns of a row, times channels in and out


def _is_depthwise(kernel, arguments):
    """Whether a kernel (h, w, in, out) is depthwise, and small enough for a sum."""
    h, w, inputs, outputs = kernel.shape
    return inputs == 1 and arguments.get("groups", 1) == outputs > 1 and h * w <= MOST_SHIFTS


def _shape(node, graph):
    """The shape of the images that a convolution returns; () where rows and columns are not recorded as numbers."""
    meta = graph.values.get(node.results[0])
    shape = meta.shape if meta is not None else ()
    return shape if len(shape) == 4 and all(type(size) is int for size in shape[2:]) else ()


def _keeps_shape(kernel, arguments, shape):
    """Whether a kernel (h, w, in, out) is 3x3 with a padding of 1, and nothing else, for images of a known shape."""
    plain = all(arguments.get(name, 1) in (1, [1], [1, 1]) for name in ("stride", "dilation", "groups"))
    around = arguments.get("padding") in (1, [1], [1, 1])
    return bool(shape) and kernel.shape[:2] == (3, 3) and kernel.dtype == np.float32 and plain and around


def _is_beside(kernel, shape):
    """Whether images are faster side by side: where a row takes little work, but not for the few channels of images."""
    return kernel.shape[2] >= 8 and kernel.shape[2] * kernel.shape[3] * shape[3] <= SHORT


def _kernel(node, weights):
    """The kernel of a convolution of images if it is a weight, else None."""
    given = node.arguments.get("weight")
    if (
        node.operation not in ("conv2d", "convolution")
        or node.arguments.get("transposed")
        or not isinstance(given, Ref)
    ):
        return None
    kernel = weights.get(given.name)
    return kernel if kernel is not None and kernel.ndim == 4 else None


def _used(graph, weights):
    """The weights that the graph uses."""
    used = set(refs(graph.outputs)).union(*(refs(node.arguments) for node in graph.nodes))
    return {name: array for name, array in weights.items() if name in used}


def folded(graph: Graph, weights: dict[str, np.ndarray]) -> tuple[Graph, dict[str, np.ndarray]]:
    """The graph with each convolution and its batch normalisation made one convolution, with weights folded in float64.

    A pair is folded if nothing else uses the output of the convolution, and all its weights are in float32.
    """
    uses = {}
    for node in graph.nodes:
        for name in refs(node.arguments):
            uses[name] = uses.get(name, 0) + 1
    for name in refs(graph.outputs):
        uses[name] = uses.get(name, 0) + 1
    makers = {name: node for node in graph.nodes for name in node.names()}
    added, gone, replaced = {}, set(), {}
    for node in graph.nodes:
        conv = _convolution_before(node, makers, uses)
        if conv is None or (made := _made(node, conv, weights, uses)) is None:
            continue
        result = node.results[0]
        names = f"{result}.weight", f"{result}.bias"
        added |= dict(zip(names, made))
        arguments = {**conv.arguments, "weight": Ref(names[0]), "bias": Ref(names[1])}
        order = [
            "input",
            "weight",
            "bias",
            *(name for name in conv.arguments if name not in ("input", "weight", "bias")),
        ]
        arguments = {name: arguments[name] for name in order}
        replaced[id(node)] = dataclasses.replace(conv, arguments=arguments, results=(result,))
        gone.add(id(conv))
    nodes = tuple(replaced.get(id(node), node) for node in graph.nodes if id(node) not in gone)
    graph = dataclasses.replace(graph, nodes=nodes)
    return graph, _used(graph, {**weights, **added})


def _convolution_before(node, makers, uses):
    """The convolution whose result only the batch normalisation `node` uses, or None."""
    source = node.arguments.get("input")
    if node.operation not in _NORMS or not isinstance(source, Ref) or uses.get(source.name) != 1:
        return None
    if node.arguments.get("training", False) is not False or not isinstance(node.results[0], str):
        return None
    conv = makers.get(source.name)
    known = conv is not None and conv.operation in _CONVOLUTIONS and not conv.arguments.get("transposed")
    return conv if known else None


def _made(norm, conv, weights, uses):
    """The weight and bias of the convolution and the normalisation together, or None."""
    if any(name in uses for result in norm.results[1:] for name in (result,) if isinstance(name, str)):
        return None
    given = [norm.arguments.get(name) for name in ("weight", "bias", "running_mean", "running_var")]
    given += [conv.arguments.get("weight"), conv.arguments.get("bias")]
    arrays = [None if value is None else weights.get(getattr(value, "name", None)) for value in given]
    if any(value is not None and (array is None or array.dtype != np.float32) for value, array in zip(given, arrays)):
        return None
    scale, shift, mean, variance, kernel, bias = (None if a is None else a.astype(np.float64) for a in arrays)
    if mean is None or variance is None or kernel is None or mean.shape != kernel.shape[:1]:
        return None
    factor = (1.0 if scale is None else scale) / np.sqrt(variance + norm.arguments["eps"])
    if not np.isfinite(factor).all():
        return None
    offset = (0.0 if shift is None else shift) + ((0.0 if bias is None else bias) - mean) * factor
    kernel = kernel * factor.reshape((-1,) + (1,) * (kernel.ndim - 1))
    return kernel.astype(np.float32), offset.astype(np.float32)
