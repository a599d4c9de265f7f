"""The public names, their signatures, and the schema of a sidecar: none changes unnoticed."""

import ast
import importlib
import inspect
import os
import sys
from importlib import resources
from pathlib import Path

import public_face
import pytest

import qcrs_jax

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "qcrs_jax"


def test_the_public_face_is_the_one_on_record():
    recorded = public_face.FILE.read_text(encoding="utf-8")
    assert public_face.face() == recorded, (
        "The public names, their signatures or the sidecar's schema changed. If that is meant, say it in CHANGELOG.md "
        "and write the record again: python tests/helpers/public_face.py"
    )


def test_each_public_name_stands_once_and_is_found():
    (stub,) = PACKAGE.glob("*.pyi")
    imports = [node for node in ast.parse(stub.read_text()).body if isinstance(node, ast.ImportFrom)]
    names = [alias for node in imports for alias in node.names]
    assert all(alias.asname == alias.name for alias in names), "a type checker takes `x as x` for public"
    assert [alias.name for alias in names] == qcrs_jax.__all__ and len(set(qcrs_jax.__all__)) == len(names)
    assert set(qcrs_jax.__all__) <= set(dir(qcrs_jax))
    for node in imports:
        home = importlib.import_module(f".{node.module}", "qcrs_jax")
        for alias in node.names:
            assert getattr(qcrs_jax, alias.name) is getattr(home, alias.name), alias.name
    with pytest.raises(AttributeError, match="no attribute 'certifi'"):
        qcrs_jax.certifi  # noqa: B018


def test_the_package_says_that_it_has_types():
    assert resources.files("qcrs_jax").joinpath("py.typed").is_file()


def test_the_package_of_a_checkout_is_the_one_that_is_installed():
    """convert and experiments are links: the folders stand beside the package, and nothing is copied."""
    for name in ("convert", "experiments"):
        assert os.readlink(PACKAGE / name) == f"../{name}"
        assert importlib.import_module(f"qcrs_jax.{name}").__path__ == [str(Path(qcrs_jax.__file__).parent / name)]
    assert qcrs_jax.__path__ == [str(Path(qcrs_jax.__file__).parent)]


@pytest.mark.parametrize("name", ["convert.zoo", "experiments.cli"])
def test_the_folders_beside_the_package_are_no_packages_of_their_own(name, monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    with pytest.raises(ImportError, match=f"qcrs_jax.{name.partition('.')[0]}"):
        importlib.import_module(name)


OURS = ("qcrs_jax", "convert", "experiments")


def test_no_file_is_imported_under_two_names():
    for name in ("qcrs_jax.experiments.cli", "qcrs_jax.convert.load", *public_homes()):
        importlib.import_module(name)
    names = {}
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        of_us = file and any(Path(file).resolve().is_relative_to(ROOT / folder) for folder in OURS)
        if of_us and name != "__main__":
            names.setdefault(Path(file).resolve(), set()).add(name)
    assert all(len(alike) == 1 for alike in names.values()), {f: n for f, n in names.items() if len(n) > 1}
    assert len(names) > 60


def public_homes():
    return {value.__module__ for name in qcrs_jax.__all__ if hasattr(value := getattr(qcrs_jax, name), "__module__")}


def test_a_walk_through_the_package_meets_no_file_twice():
    files = [file.resolve() for file in PACKAGE.rglob("*.py")]
    assert len(set(files)) == len(files) and not any("convert" in file.parts[-2:] for file in files)


@pytest.mark.parametrize("name", ["GoldenSection", "Bisection", "Shrinking", "Grid", "Bayesian", "DDRS"])
def test_a_bracket_has_two_ends(name):
    search = getattr(qcrs_jax, name)
    assert inspect.signature(search).parameters["sigma_upper"].default is inspect.Parameter.empty
    with pytest.raises(TypeError, match="missing .*'sigma_upper'"):
        search(0.08)


def test_the_record_of_a_signature_and_of_a_rule():
    def function(a, *, b: int = 3) -> "dict[str, int]": ...

    class Often:
        def __init__(self, rule, times):
            self.rule, self.times = rule, times

    def rule(value):
        """it should be 7"""

    assert public_face.signature("f", function) == ["f(a, *, b: int = 3) -> 'dict[str, int]'"]
    assert public_face.schema({"x": {"y": Often(rule, 3)}}) == ["    x: an object", "    x.y: often (times 3), 7"]
    assert public_face.laid_out("f", ["a" * 70, "b" * 70], "") == ["f(", f"    {'a' * 70},", f"    {'b' * 70},", ")"]
