"""The directions of the design: what may import what."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {"qcrs_jax": "qcrs_jax", "qcrs_jax.convert": "convert", "qcrs_jax.experiments": "experiments"}
COMMANDS = """cli runner inputs cost request guarantees budget pipeline batch_size arguments agreement certify
    verify verify_inputs verify_lines verify_sidecar trusted_paths
    predict table compare plot memory visualize curve quasiconcavity simulate sequential train
    experiment export_program demo benchmark tpu tpu_benchmark first_look class_names data_sets full_card
    bench/gpu bench/gpu_check bench/networks bench/parts bench/reference bench/report
    bench/sides bench/theirs""".split()
OUTER = ("qcrs_jax.convert", "qcrs_jax.experiments", "convert", "experiments", "torch")


def imports(package, file, module_level=False):
    """Absolute names of what `file` of `package` imports, each alias of a `from` import too."""
    tree = ast.parse(file.read_text())
    found = set()
    for node in tree.body if module_level else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            base = ".".join(parts[: len(parts) - node.level + 1]) if node.level else ""
            module = ".".join(filter(None, (base, node.module)))
            found |= {module, *(f"{module}.{alias.name}" for alias in node.names)}
    return found


def within(names, *packages):
    return sorted(n for n in names if any(n == p or n.startswith(p + ".") for p in packages))


def core_files():
    root = ROOT / "qcrs_jax"
    return sorted(str(f.relative_to(root)) for f in root.rglob("*.py"))


def core_imports(name, **options):
    file = ROOT / "qcrs_jax" / name
    return imports(".".join(["qcrs_jax", *Path(name).parts[:-1]]), file, **options)


def test_relative_imports_are_resolved(tmp_path):
    file = tmp_path / "m.py"
    file.write_text("from . import a\nfrom .b import c\nfrom ..d import e\ndef f():\n    import g.h\n")
    expected = {"p.q", "p.q.a", "p.q.b", "p.q.b.c", "p.d", "p.d.e"}
    assert imports("p.q", file) == expected | {"g.h"}
    assert imports("p.q", file, module_level=True) == expected


@pytest.mark.parametrize("name", core_files())
def test_the_core_never_imports_convert_experiments_or_torch(name):
    assert within(core_imports(name), *OUTER) == []


def test_the_list_of_public_names_is_the_one_exception():
    stub = imports("qcrs_jax", ROOT / "qcrs_jax" / "__init__.pyi")
    outer = {".".join(name.split(".")[:4]) for name in within(stub, *OUTER)}
    assert {name for name in outer if name != "qcrs_jax.convert.load.load_classifier"} == {
        "qcrs_jax.convert.load",
        "qcrs_jax.experiments.run.library",
    }
    for name in core_files():
        strings = {
            node.value
            for node in ast.walk(ast.parse((ROOT / "qcrs_jax" / name).read_text()))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        outer = [s for s in strings if s.startswith(("convert.", ".convert", "experiments.", ".experiments"))]
        assert outer == [], name


GROUND = {"errors", "extras", "files", "machine", "printable", "version"}
WINGS = {
    "bounds": set(),
    "checks": set(),
    "sampling": {"checks"},
    "search": {"bounds", "sampling"},
    "certification": {"bounds", "checks", "sampling", "search"},
    "models": set(),
    "data": set(),
    "results": set(),
    "analysis": {"bounds", "certification", "results", "search"},
    "training": {"checks", "models", "sampling"},
    **dict.fromkeys(GROUND, set()),
}
"""What each wing of the library may import, beside itself and the ground that all stand on."""


def wing(module):
    """The wing of `qcrs_jax.wing...`; None of another package, and of the package itself."""
    package, _, rest = module.partition(".")
    return rest.split(".")[0] or None if package == "qcrs_jax" else None


@pytest.mark.parametrize("name", [name for name in core_files() if name != "__init__.py"])
def test_wings_import_no_wing_above_them(name):
    own = Path(name).parts[0].removesuffix(".py")
    seen = {wing(module) for module in core_imports(name)} - {None, own}
    assert {other for other in seen if other in WINGS} <= WINGS[own] | GROUND
    assert seen <= WINGS.keys(), f"{name} imports what is in no wing"


def test_the_wings_have_no_circle():
    left = dict(WINGS)
    while left:
        free = [name for name, needs in left.items() if not needs & left.keys()]
        assert free, f"a circle of {sorted(left)}"
        left = {name: needs for name, needs in left.items() if name not in free}


@pytest.mark.parametrize("name", ["bounds.py", "search/maximisers.py", "search/posterior.py"])
def test_mathematics_imports_nothing_of_the_package_but_its_errors(name):
    names = set(within(core_imports(name), "qcrs_jax"))
    assert names - {"qcrs_jax", "qcrs_jax.errors", "qcrs_jax.errors.SettingError"} == set()


def test_convert_imports_neither_experiments_nor_torch():
    for file in (ROOT / "convert").rglob("*.py"):
        if file.name == "__main__.py":  # the command of the program, run as a module: imported in its function
            assert within(imports("qcrs_jax.convert", file, module_level=True), "qcrs_jax.experiments") == []
            continue
        assert within(imports("qcrs_jax.convert", file), "qcrs_jax.experiments", "torch") == [], file.name


@pytest.mark.parametrize(
    "name", ["table.py", "compare.py", "plot.py", "memory.py", "quasiconcavity.py", "search_figure.py", "figures.py"]
)
def test_tables_and_plots_read_results_files_only(name):
    file = ROOT / "experiments" / name
    modules = ("certification", "sampling", "search", "models")
    lazy = ("certify", "predict", "search_sigma", "sample_counts", "save_classifier", "load_classifier")
    computing = [f"qcrs_jax.{m}" for m in modules + lazy]
    names = imports("qcrs_jax.experiments", file)
    assert within(names, *computing, "qcrs_jax.convert", "qcrs_jax.experiments.run.certify", "torch") == []
    if name not in ("search_figure.py", "figures.py"):  # a file of its own kind; none
        assert within(names, "qcrs_jax.results.records", "qcrs_jax.results.shards", "qcrs_jax.analysis.curves"), (
            "it reads results files"
        )
    assert within(imports("qcrs_jax.experiments", file, module_level=True), "jax", "flax", "jaxlib") == []


@pytest.mark.parametrize("name", ["data/source.py", "data/sources.py"])
def test_the_names_of_data_sources_are_light_to_import(name):
    allowed = ("collections", "dataclasses", "pathlib", "pkgutil", "typing", "qcrs_jax.data.source")
    names = core_imports(name, module_level=True)
    assert within(names, *allowed) == sorted(names)


@pytest.mark.parametrize("name", [name for name in core_files() if name.startswith("results/")])
def test_what_tables_and_plots_stand_on_needs_no_jax(name):
    assert within(core_imports(name), "jax", "flax") == []


def test_commands_import_jax_only_when_they_run():
    for package, folder in FOLDERS.items():
        if package == "qcrs_jax.experiments":
            for name in COMMANDS:
                names = imports(package, ROOT / folder / f"{name}.py", module_level=True)
                assert within(names, "jax", "flax", "torch", "tensorflow", "tensorflow_datasets") == [], name
