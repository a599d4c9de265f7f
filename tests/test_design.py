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


def test_the_table_of_lazy_names_is_the_one_exception():
    for name in core_files():
        strings = {
            node.value
            for node in ast.walk(ast.parse((ROOT / "qcrs_jax" / name).read_text()))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }
        outer = [s for s in strings if s.startswith(("convert.", ".convert", "experiments.", ".experiments"))]
        assert outer == (["convert.load"] if name == "__init__.py" else []), name
    from qcrs_jax.convert import load

    import qcrs_jax

    assert qcrs_jax.load_classifier is load.load_classifier


@pytest.mark.parametrize("name", ["bounds.py", "search/maximisers.py", "search/posterior.py"])
def test_bounds_and_search_import_nothing_of_the_package(name):
    assert within(core_imports(name), "qcrs_jax") == []


def test_convert_imports_neither_experiments_nor_torch():
    for file in (ROOT / "convert").rglob("*.py"):
        if file.name == "__main__.py":  # the command, run as a module
            continue
        assert within(imports("qcrs_jax.convert", file), "qcrs_jax.experiments", "torch") == [], file.name


@pytest.mark.parametrize(
    "name", ["table.py", "compare.py", "plot.py", "memory.py", "quasiconcavity.py", "search_figure.py", "figures.py"]
)
def test_tables_and_plots_read_results_files_only(name):
    file = ROOT / "experiments" / name
    modules = ("sequential", "certificate", "sampling", "search", "models", "checkpoint")
    lazy = ("certify", "predict", "search_sigma", "sample_counts", "save_classifier", "load_classifier")
    computing = [f"qcrs_jax.{m}" for m in modules + lazy]
    names = imports("qcrs_jax.experiments", file)
    assert within(names, *computing, "qcrs_jax.convert", "qcrs_jax.experiments.certify", "torch") == []
    if name not in ("search_figure.py", "figures.py"):  # a file of its own kind; none
        assert within(names, "qcrs_jax.records", "qcrs_jax.shards", "qcrs_jax.curves"), "it reads results files"
    assert within(imports("qcrs_jax.experiments", file, module_level=True), "jax", "flax", "jaxlib") == []


@pytest.mark.parametrize("name", ["records.py", "shards.py", "metrics.py", "memory.py"])
def test_what_tables_and_plots_stand_on_needs_no_jax(name):
    names = core_imports(name)
    assert within(names, "jax", "flax") == []
    inside = {n.split(".")[1] for n in within(names, "qcrs_jax") if "." in n}
    assert inside <= {"records", "errors", "account", "files", "sidecar"}


def test_commands_import_jax_only_when_they_run():
    for package, folder in FOLDERS.items():
        if package == "qcrs_jax.experiments":
            for name in COMMANDS:
                names = imports(package, ROOT / folder / f"{name}.py", module_level=True)
                assert within(names, "jax", "flax", "torch", "tensorflow", "tensorflow_datasets") == [], name
