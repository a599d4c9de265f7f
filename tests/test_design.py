"""The directions of the design: the imports that are allowed."""

import ast
from pathlib import Path

import pytest

from qcrs_jax.extras import EXTRAS

ROOT = Path(__file__).parents[1]
FOLDERS = {"qcrs_jax": "qcrs_jax", "qcrs_jax.convert": "convert", "qcrs_jax.experiments": "experiments"}
OUTER = ("qcrs_jax.convert", "qcrs_jax.experiments", "convert", "experiments", "torch")


IMPORT = (ast.Import, ast.ImportFrom)


def imports(package, file, module_level=False):
    """Absolute names of what `file` of `package`, or its text, imports, each alias of a `from` import too."""
    tree = ast.parse(file if isinstance(file, str) else file.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
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


def inner_imports(package, file):
    """Absolute names of what functions of `file` import."""
    functions = [node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.FunctionDef)]
    text = "\n".join(ast.unparse(node) for f in functions for node in ast.walk(f) if isinstance(node, IMPORT))
    return imports(package, text)


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
    assert outer - {"qcrs_jax.convert.load.load_classifier", "qcrs_jax.convert.load.load_denoiser"} == {
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
    "models": {"sampling"},
    "data": set(),
    "results": set(),
    "analysis": {"bounds", "certification", "checks", "results", "sampling", "search"},
    "training": {"checks", "models", "sampling"},
}
"""What each wing of the library may import, beside itself and the ground that all stand on."""
ROOMS = {
    "presets": set(),
    "report": set(),
    "run": {"report"},
    "verification": {"run"},
    "bench": {"presets", "run", "verification"},
    "commands": {"bench", "presets", "report", "run", "verification"},
    "cli": {"commands", "run"},
}
"""What each room of the program may import, beside itself, the library and the converter."""
LAZY = {"run/library.py": {"verification"}, "bench/parts.py": {"cli"}}
"""The exceptions, of functions alone: the library's `verify`, and the GPU check, which runs commands."""
PARTS = {"qcrs_jax": WINGS | dict.fromkeys(GROUND, set()), "qcrs_jax.experiments": ROOMS}


def files_of(package):
    """The modules of a package, as paths within it; links to other packages are not followed."""
    root = ROOT / FOLDERS[package]
    return sorted(str(file.relative_to(root)) for file in root.rglob("*.py"))


def imports_of(package, name, **options):
    return imports(".".join([package, *Path(name).parts[:-1]]), ROOT / FOLDERS[package] / name, **options)


def part(package, module):
    """The wing or room of `package.part...`; None of another package, and of the package itself."""
    rest = module.removeprefix(f"{package}.") if module.startswith(f"{package}.") else ""
    return rest.split(".")[0] or None


@pytest.mark.parametrize(
    ("package", "name"),
    [(package, name) for package in PARTS for name in files_of(package) if name != "__init__.py"],
)
def test_a_wing_imports_no_higher_wing(package, name):
    table, own = PARTS[package], Path(name).parts[0].removesuffix(".py")
    ground = GROUND if package == "qcrs_jax" else set()
    seen = {part(package, module) for module in imports_of(package, name)} - {None, own}
    assert seen <= table.keys(), f"{name} imports what is in no wing"
    assert seen - LAZY.get(name, set()) <= table[own] | ground
    assert not {part(package, m) for m in imports_of(package, name, module_level=True)} & LAZY.get(name, set())


@pytest.mark.parametrize("package", PARTS)
def test_the_wings_have_no_circle(package):
    assert circle(PARTS[package]) == {}


def circle(graph):
    """What is left of a graph of names when all are taken away that need none of the others."""
    left = dict(graph)
    while free := [name for name, needs in left.items() if not needs & left.keys()]:
        left = {name: needs for name, needs in left.items() if name not in free}
    return left


@pytest.mark.parametrize("package", FOLDERS)
def test_the_modules_have_no_circle(package):
    """Imports in functions count too; `from package import module` needs the module alone."""
    modules = {}
    for name in files_of(package):
        dotted = ".".join([package, *Path(name).with_suffix("").parts]).removesuffix(".__init__")
        modules[dotted] = imports_of(package, name)
    graph = {}
    for module, needs in modules.items():
        above = {need for need in needs if any(other.startswith(f"{need}.") for other in needs & modules.keys())}
        graph[module] = (needs & modules.keys()) - above - {module}
    assert {module: sorted(needs & graph.keys()) for module, needs in circle(graph).items()} == {}


def test_a_circle_is_found():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": set()}).keys() == {"a", "b", "c"}


def functions_with_args(file):
    """The names of functions of a file that have a parameter called `args`."""
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
    for node in (node for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, kinds)):
        every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        if any(argument.arg == "args" for argument in every):
            yield getattr(node, "name", "lambda")


def test_parsed_arguments_stay_in_the_commands():
    found = {
        f"{folder}/{name}": functions
        for package, folder in FOLDERS.items()
        for name in files_of(package)
        if not name.startswith("commands/") and (functions := [*functions_with_args(ROOT / folder / name)])
    }
    found.pop("experiments/cli.py", None)
    assert {place for place, functions in found.items() if functions != ["main"]} == set()
    assert found.keys() <= {"experiments/bench/gpu_check.py"}


@pytest.mark.parametrize("name", [n for n in files_of("qcrs_jax.experiments") if n.startswith(("commands/", "cli."))])
def test_no_command_asks_which_arguments_it_has(name):
    """Settings without a flag have their defaults, so that each can simply be read."""
    calls = [
        node for node in ast.walk(ast.parse((ROOT / "experiments" / name).read_text())) if isinstance(node, ast.Call)
    ]
    texts = [ast.unparse(call) for call in calls]
    assert [text for text in texts if text.startswith(("hasattr(args,", "getattr(args,"))] == []


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


PROGRAMS = {
    "qcrs_jax.convert": {"files", "pt2"},
    "qcrs_jax": {"convert", "errors", "files", "models", "printable", "sampling"},
}
"""What the wing of exported programs may import: the readers of files, and of the library the ground and the models."""


@pytest.mark.parametrize("name", [name for name in files_of("qcrs_jax.convert") if name.startswith("pt2/")])
def test_exported_programs_stand_on_the_readers_of_files_alone(name):
    names = imports_of("qcrs_jax.convert", name)
    for package, allowed in PROGRAMS.items():
        assert {part(package, module) for module in names} - {None} <= allowed


@pytest.mark.parametrize("name", [name for name in files_of("qcrs_jax.convert") if name.startswith("pt2/")])
def test_nothing_of_an_exported_program_can_be_run(name):
    tree = ast.parse((ROOT / "convert" / name).read_text())
    called = {node.func.id for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)}
    assert not called & {"eval", "exec", "compile", "__import__"}
    assert within(imports_of("qcrs_jax.convert", name), "pickle", "importlib", "sympy", "subprocess") == []


@pytest.mark.parametrize("name", [n for n in files_of("qcrs_jax.experiments") if n.startswith("report/")])
def test_tables_and_plots_read_results_files_only(name):
    modules = ("certification", "sampling", "models", "convert")
    lazy = ("certify", "predict", "search_sigma", "sample_counts", "save_classifier", "load_classifier")
    pure = ("certification.sequential", "sampling.smoothing")  # bounds, and radii of noises
    names = {n for n in imports_of("qcrs_jax.experiments", name) if not any(part in n for part in pure)}
    assert within(names, *(f"qcrs_jax.{m}" for m in modules + lazy), "torch") == []
    assert within(imports_of("qcrs_jax.experiments", name, module_level=True), "jax", "flax", "jaxlib") == []


INNER = (*EXTRAS, "PIL", "scipy", "fcntl", "jax.experimental.multihost_utils")
"""What functions may import: packages of extras, slow ones of SciPy, and what not every system has."""
INNER_OF_OURS = {
    "qcrs_jax.experiments": {
        "cli.py": "run.full_card",
        "report/figures.py": "analysis",
        "run/library.py": "verification",
    },
    "qcrs_jax.convert": {"__main__.py": "experiments.cli"},
}
"""Modules of ours that are imported in functions, as they are slow or stand above."""


@pytest.mark.parametrize(
    ("package", "name"),
    [
        (p, n)
        for p in FOLDERS
        for n in files_of(p)
        if not n.startswith(("commands/", "bench/", "convert", "experiments"))
    ],
)
def test_imports_stand_at_the_top_of_modules(package, name):
    """But in commands, where --help has to be quick, and in the bench, which runs where packages are missing."""
    file = ROOT / FOLDERS[package] / name
    names = inner_imports(".".join([package, *Path(name).parts[:-1]]), file)
    ours = INNER_OF_OURS.get(package, {}).get(name, "nothing")
    assert {n for n in names if n not in within(names, *INNER) and f".{ours}" not in n} == set()


@pytest.mark.parametrize("name", ["data/source.py", "data/sources.py"])
def test_the_names_of_data_sources_are_light_to_import(name):
    allowed = ("collections", "dataclasses", "pathlib", "pkgutil", "typing", "qcrs_jax.data.source")
    names = core_imports(name, module_level=True)
    assert within(names, *allowed) == sorted(names)


@pytest.mark.parametrize("name", [name for name in core_files() if name.startswith("results/")])
def test_modules_under_tables_and_plots_need_no_jax(name):
    assert within(core_imports(name), "jax", "flax") == []


@pytest.mark.parametrize("name", [n for n in files_of("qcrs_jax.experiments") if n.startswith(("commands/", "cli."))])
def test_commands_import_nothing_slow_at_their_top(name):
    slow = ("jax", "flax", "torch", "tensorflow", "tensorflow_datasets", "scipy", "matplotlib", "optax", "orbax")
    assert within(imports_of("qcrs_jax.experiments", name, module_level=True), *slow) == []
