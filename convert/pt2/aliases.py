"""Operations that change a tensor in place, in a graph that is not functional.

Such an operation returns the changed tensor, and all names of the tensor then refer to it. If a view of the tensor, or
a tensor of which it is a view, is used later, the graph is refused, because JAX has no views.
"""

from .registry import found, in_place
from .schema import Graph, Node, Ref, refs


def target_of(node: Node) -> str | None:
    """The name of the tensor that a node changes, or None."""
    if not in_place(node.operation) or not node.arguments:
        return None
    first = next(iter(node.arguments.values()))
    return first.name if isinstance(first, Ref) else None


def renamed(graph: Graph) -> dict[int, tuple[str, ...]]:
    """{place of a node that changes a tensor: names that refer to the changed tensor afterwards}."""
    same: dict[str, set[str]] = {}
    changes = {}
    for i, node in enumerate(graph.nodes):
        target = target_of(node)
        if target is None:
            continue
        names = same.setdefault(target, {target})
        changes[i] = tuple(names)
        for result in node.names():
            names.add(result)
            same[result] = names
    return changes


def shared_writes(graph: Graph) -> list[Node]:
    """The nodes that change a tensor of which a view, or which is a view of another, is used later."""
    if not any(target_of(node) for node in graph.nodes):
        return []
    last = {}
    for i, node in enumerate(graph.nodes):
        last.update(dict.fromkeys(refs(node.arguments), i))
    last.update(dict.fromkeys(refs(graph.outputs), len(graph.nodes)))
    family, same, written = {}, {}, []
    for i, node in enumerate(graph.nodes):
        target, operation = target_of(node), found(node.operation)
        if target is not None:
            own = same.setdefault(target, {target})
            others = family.get(target, {target}) - own
            if target in graph.inputs or any(last.get(name, -1) > i for name in others):
                written.append(node)
            kin = family.setdefault(target, {target})
            for name in node.names():
                own.add(name)
                same[name] = own
                kin.add(name)
                family[name] = kin
        elif operation is not None and operation.view:
            first = next((value.name for value in node.arguments.values() if isinstance(value, Ref)), None)
            if first is not None:
                kin = family.setdefault(first, {first})
                for name in node.names():
                    kin.add(name)
                    family[name] = kin
    return written
