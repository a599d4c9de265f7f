"""Randomized-smoothing certification in JAX: Cohen's RS, QCRS and DDRS.

Names are imported when they are first used, so the help of a command appears at once. `__init__.pyi` lists them.
"""

import ast
import importlib
from pathlib import Path

_HOME = {
    alias.name: f".{statement.module}"
    for statement in ast.parse(Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")).body
    if isinstance(statement, ast.ImportFrom)
    for alias in statement.names
}
"""The module of each public name."""

__all__ = list(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]  (the stub names them)


def __getattr__(name):
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name], __name__), name)
    globals()[name] = value
    return value


def __dir__():
    return sorted([*globals(), *__all__])
