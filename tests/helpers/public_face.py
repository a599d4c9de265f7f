"""The public face as a text: every public name with its signature, and the rules of a sidecar.

`python tests/helpers/public_face.py` writes it to public_face.txt, with which test_face.py compares it.
"""

import ast
import dataclasses
import inspect
import textwrap
import types
from pathlib import Path

import qcrs_jax
from qcrs_jax.results import sidecar

FILE = Path(__file__).with_name("public_face.txt")
WIDTH = 120


def face() -> str:
    """The text of public_face.txt."""
    names = [line for name in sorted(qcrs_jax.__all__) for line in described(name, getattr(qcrs_jax, name))]
    return "\n".join([*names, "", "sidecar", *schema(sidecar._SIDECAR), ""])


def described(name, value) -> list[str]:
    """The lines on one name: a function; a class with its fields, properties and methods; or a number."""
    if not callable(value):
        return [f"{name} = {value!r}"]
    if not isinstance(value, type):
        return signature(name, value)
    own = [part for part in value.__mro__ if part.__module__.startswith("qcrs_jax")]
    fields = [] if inspect.isabstract(value) else parameters(value, annotations(own))
    lines = laid_out(f"class {name}", fields, "")
    inherited = {field.name for field in dataclasses.fields(value)} if dataclasses.is_dataclass(value) else set()
    for attribute in sorted({key for part in own for key in vars(part)} - inherited - {*getattr(value, "_fields", ())}):
        found = inspect.getattr_static(value, attribute)
        if attribute.startswith("_"):
            continue
        if isinstance(found, property):
            lines.append(f"    {attribute}: property")
        elif isinstance(found, types.FunctionType | classmethod | staticmethod):
            lines += [f"    {line}" for line in signature(attribute, getattr(found, "__func__", found))]
        else:
            lines.append(f"    {attribute} = {found!r}")
    return lines


def signature(name, function) -> list[str]:
    """Annotations are given as they stand in the source, which is the same with every version of Python and JAX."""
    (node,) = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(function)))).body
    arguments = [node for node in ast.walk(node.args) if isinstance(node, ast.arg) and node.annotation]
    words = parameters(function, {argument.arg: ast.unparse(argument.annotation) for argument in arguments})
    return laid_out(name, words, f" -> {ast.unparse(node.returns)}" if node.returns else "")


def annotations(classes) -> dict[str, str]:
    """The annotations of these classes' fields, as they stand in the source; the first class goes first."""
    texts = {}
    for part in reversed(classes):
        (node,) = ast.parse(textwrap.dedent(inspect.getsource(part))).body
        texts |= {line.target.id: ast.unparse(line.annotation) for line in node.body if isinstance(line, ast.AnnAssign)}
    return texts


def parameters(function, texts) -> list[str]:
    """Each parameter, with its annotation and its default; "*" before those that are given by name alone."""
    words = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind == parameter.KEYWORD_ONLY and not any(word.startswith("*") for word in words):
            words.append("*")
        star = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        kind = f": {texts[name]}" if name in texts else ""
        words.append(
            f"{star}{name}{kind}" + ("" if parameter.default is parameter.empty else f" = {parameter.default!r}")
        )
    return words


def laid_out(head, words, tail) -> list[str]:
    """A signature on one line, or with a parameter on each where it is long."""
    line = f"{head}({', '.join(words)}){tail}"
    return [line] if len(line) <= WIDTH else [f"{head}(", *(f"    {word}," for word in words), f"){tail}"]


def schema(rule, name="", words=()) -> list[str]:
    """A line for each field of a sidecar: its name and its rule."""
    while hasattr(rule, "rule"):  # classes around a rule: Needed, Nullable, Several and the like
        more = ", ".join(f"{key} {value}" for key, value in vars(rule).items() if key != "rule")
        words, rule = (*words, type(rule).__name__.lower() + (f" ({more})" if more else "")), rule.rule
    if isinstance(rule, sidecar.Either):
        return schema(rule.of_others, name, (*words, "either")) + schema(rule.of_objects, name, (*words, "or"))
    if isinstance(rule, dict):
        own = [f"    {name}: {', '.join((*words, 'an object'))}"] if name else []
        return own + [line for key, inner in rule.items() for line in schema(inner, f"{name}.{key}".lstrip("."))]
    said = (rule.__doc__ or rule.__name__).removeprefix("it should be ")
    return [f"    {name}: {', '.join((*words, said))}"]


if __name__ == "__main__":
    FILE.write_text(face(), encoding="utf-8")
