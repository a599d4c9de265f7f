"""Refuses graphs that are no pure function of images, with a list of all reasons and their modules."""

from qcrs_jax.models.checkpoint import CheckpointError

from . import aliases
from .registry import found
from .schema import Graph, Node, refs

FUNCTIONAL = "add program = program.run_decompositions({}) before torch.export.save, and export again"
SUBGRAPHS = {"higher_order.wrap_with_set_grad_enabled", "higher_order.wrap_with_autocast"}
_RANDOM = {
    "bernoulli",
    "dropout_random",
    "exponential",
    "geometric",
    "log_normal",
    "multinomial",
    "native_dropout",
    "normal",
    "poisson",
    "rand",
    "rand_like",
    "randint",
    "randint_like",
    "randn",
    "randn_like",
    "random",
    "randperm",
    "rrelu",
    "uniform",
    "cauchy",
}
_DROPOUTS = {"dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout"}
_NORMS = {"batch_norm", "_native_batch_norm_legit", "_native_batch_norm_legit_functional", "native_batch_norm"}
_DEPENDENT = {"nonzero", "item", "_local_scalar_dense", "masked_select", "unique", "_unique2", "bincount", "nms"}
_MOST = 40  # lines of a message


def check(graph: Graph, images: tuple[str, ...]) -> None:
    """Raises CheckpointError for a graph that is refused. `images` are its inputs that change from call to call."""
    dependent = _dependent(graph, images)
    owners = {id(node): owner for owner in _graphs(graph) for node in owner.nodes}
    shared = [node for owner in _graphs(graph) for node in aliases.shared_writes(owner)]

    def training(node):
        owner = owners[id(node)]
        return _training(node, dependent if owner is graph else None, owner)

    reasons = {
        "random operations, whose results differ from call to call; export a model without them": _random,
        "operations in training mode; call model.eval() before torch.export": training,
        "results whose size depends on the values of an image, which no compiled program can have": _has_no_size,
        "operations that are not supported": _unknown,
        f"shared tensors that are changed in place; {FUNCTIONAL}": lambda n: any(n is node for node in shared),
    }
    said, taken = [], set()
    for reason, holds in reasons.items():
        places = {}
        for node in (node for owner in _graphs(graph) for node in owner.nodes):
            if id(node) not in taken and holds(node):
                taken.add(id(node))
                places.setdefault(node.target, {})[node.module or "the model itself"] = None
        if places:
            lines = [f"  {target} in {_listed(modules)}" for target, modules in list(places.items())[:_MOST]]
            said.append("\n".join([f"it has {reason}:", *lines]))
    if said:
        raise CheckpointError("\n".join(said))


def _listed(modules):
    names = list(modules)
    return ", ".join(names[:8]) + (f", and {len(names) - 8} others" if len(names) > 8 else "")


def _graphs(graph):
    """The graph, and the graphs within it."""
    yield graph
    for node in graph.nodes:
        for value in node.arguments.values():
            if isinstance(value, Graph):
                yield from _graphs(value)


def _random(node):
    return node.operation.rstrip("_") in _RANDOM


def _has_no_size(node):
    return node.operation in _DEPENDENT


def _unknown(node):
    return node.target not in SUBGRAPHS and found(node.operation) is None


def _training(node: Node, dependent, graph):
    """`dependent` has the names of values that depend on the images; None if every value may."""
    name, given = node.operation.rstrip("_"), node.arguments
    if name in _DROPOUTS:
        return given.get("train") is not False and given.get("p") != 0.0
    if name == "scaled_dot_product_attention":
        return bool(given.get("dropout_p"))
    if name not in _NORMS or given.get("training", True) is False:
        return False
    if given.get("running_mean") is not None or name in ("_native_batch_norm_legit_functional", "native_batch_norm"):
        return True
    # Statistics of weights, or of one image, are as good as any number; those of a batch join its images.
    source = given.get("input")
    if source is None or dependent is not None and source.name not in dependent:
        return False
    meta = graph.values.get(source.name)
    return meta is None or not meta.shape or meta.shape[0] != 1


def _dependent(graph, images):
    """The names of the values that depend on the images."""
    found = set(images)
    for node in graph.nodes:
        if not found.isdisjoint(refs(node.arguments)):
            found.update(node.names())
    return found
