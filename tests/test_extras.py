"""Each optional package belongs to an extra, and where it is missing the message names both."""

import ast
import importlib.metadata
import importlib.util
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from checkpoints import lenet_file, old_directory
from with_torch import REASON

from qcrs_jax.convert.load import load_classifier
from qcrs_jax.data.load import load_dataset
from qcrs_jax.errors import UserError
from qcrs_jax.experiments import cli
from qcrs_jax.experiments.presets import IMAGES
from qcrs_jax.extras import EXTRAS, MissingPackage, needed_for

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
RESULTS = ROOT / "experiments" / "results" / "cifar10_frontier"
ZOO = "zoo:fashion_mnist-lenet-sigma0.25"
DATA = ["--dataset", "npz", "--data_dir", str(IMAGES)]


def named(requirements):
    """The names of requirements, as pip compares them."""
    return {re.sub("[-_.]+", "-", re.match(r"[\w.-]+", one)[0]).lower() for one in requirements}


def distributions(package):
    return named(importlib.metadata.packages_distributions()[package])


def absent(monkeypatch, *packages):
    """As if these packages were not installed."""
    for name in list(sys.modules):
        if name.partition(".")[0] in packages:
            monkeypatch.setitem(sys.modules, name, None)
    for name in packages:
        monkeypatch.setitem(sys.modules, name, None)


def said(capsys, *words) -> str:
    """The one line of a command that ends with status 2."""
    assert cli.main([*map(str, words)]) == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "error:" in line]
    return line


def test_the_library_has_few_direct_dependencies():
    assert len(PROJECT["dependencies"]) <= 8


@pytest.mark.parametrize("package", EXTRAS)
def test_the_extra_installs_the_package(package):
    if EXTRAS[package] == "bench":  # of PyTorch, without which the other tests run too
        pytest.importorskip(package, reason=REASON)
    extras = PROJECT["optional-dependencies"]
    assert distributions(package) & named(extras[EXTRAS[package]])
    if EXTRAS[package] not in ("cli", "bench"):
        (whole,) = [one for one in extras["cli"] if one.startswith("qcrs_jax[")]
        assert EXTRAS[package] in re.findall(r"\w+", whole.removeprefix("qcrs_jax"))


def test_the_tests_have_all_that_the_program_needs():
    extras = PROJECT["optional-dependencies"]
    for extra, part in (("core-test", "cli"), ("test", "core-test"), ("dev", "test")):
        assert f"qcrs_jax[{part}]" in extras[extra]


def files():
    for folder in ("qcrs_jax", "convert", "experiments"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            if "bench" not in file.parts:
                yield file


def imported(node):
    if isinstance(node, ast.Import):
        return {alias.name.partition(".")[0] for alias in node.names}
    return {node.module.partition(".")[0]} if isinstance(node, ast.ImportFrom) and not node.level else set()


@pytest.mark.slow
def test_every_import_is_a_dependency_or_an_extra():
    foreign, needed = {}, named(PROJECT["dependencies"])
    for file in files():
        tree = ast.parse(file.read_text())
        covered = {
            id(inner)
            for node in ast.walk(tree)
            if isinstance(node, ast.With) and "needed_for" in ast.unparse(node.items[0].context_expr)
            for inner in ast.walk(node)
        }
        for node in ast.walk(tree):
            for package in imported(node) - sys.stdlib_module_names - {"qcrs_jax"}:
                if package in EXTRAS:
                    assert id(node) in covered, f"{file.name}: {package} is optional: import it within needed_for"
                else:
                    foreign.setdefault(package, file.name)
    missing = {package: file for package, file in foreign.items() if not distributions(package) & needed}
    assert missing == {}, "imported, and neither a dependency nor in qcrs_jax/extras.py"


def test_the_message_names_the_package_who_needs_it_and_the_extra(monkeypatch):
    absent(monkeypatch, "matplotlib")
    with pytest.raises(MissingPackage) as error, needed_for("a plot"):
        import matplotlib.pyplot  # noqa: F401
    assert (error.value.package, error.value.extra) == ("matplotlib", "plots") and isinstance(error.value, UserError)
    assert str(error.value) == (
        "a plot needs the package matplotlib: pip install 'qcrs_jax[plots]', or 'qcrs_jax[cli]' for all that the "
        "program needs"
    )


def test_other_import_errors_are_raised_unchanged():
    with pytest.raises(ModuleNotFoundError, match="no_such_package"), needed_for("a plot"):
        import no_such_package  # noqa: F401
    with pytest.raises(ImportError, match="cannot import name 'no_such_name'"), needed_for("a plot"):
        from ast import no_such_name  # noqa: F401


COMMANDS = {
    "certify": ("tqdm", ["certify", ZOO, "out.tsv", *DATA, "--sigma", 0.25, "--N", 100, "--max", 1]),
    "predict": ("tqdm", ["predict", ZOO, "out.tsv", *DATA, "--sigma", 0.25, "--N", 100, "--max", 1]),
    "curve": ("tqdm", ["curve", ZOO, "out.tsv", *DATA, "--sigma", 0.25, "--max", 1]),
    "agreement": ("tqdm", ["agreement", ZOO, *DATA, "--sigma", 0.25, "--N", 100, "--max", 1]),
    "visualize": ("tqdm", ["visualize", ZOO, *DATA, "--sigma", 0.25, "--index", 0, "--out", "out.png"]),
    "visualize, plot": ("matplotlib", ["visualize", ZOO, *DATA, "--sigma", 0.25, "--index", 0, "--out", "out.png"]),
    "plot": ("matplotlib", ["plot", RESULTS / "cohen.tsv", "--out", "out.png"]),
    "compare": ("matplotlib", ["compare", RESULTS / "cohen.tsv", RESULTS / "golden.tsv", "--plot", "out.png"]),
    "quasiconcavity": ("matplotlib", ["quasiconcavity", RESULTS / "cohen.tsv", "--out", "out.png"]),
    "demo": ("matplotlib", ["demo", "--out", "out"]),
    "experiment": ("matplotlib", ["experiment", "acr", "--out", "out", "--quick"]),
    "export-program": ("flatbuffers", ["export-program", ZOO, "out.jax", "--sigma", 0.25, "--method", "cohen"]),
    "train": ("optax", ["train", "out", *DATA, "--arch", "lenet", "--sigma", 0.25]),
    "train, state": ("orbax", ["train", "out", *DATA, "--arch", "lenet", "--sigma", 0.25]),
    "train, curve": ("matplotlib", ["train", "out", *DATA, "--arch", "lenet", "--sigma", 0.25]),
    "benchmark": ("torch", ["benchmark"]),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_names_the_extra_that_it_lacks(name, monkeypatch, capsys, tmp_path):
    package, words = COMMANDS[name]
    absent(monkeypatch, package)
    monkeypatch.chdir(tmp_path)
    line = said(capsys, *words)
    assert f"needs the package {package}: pip install 'qcrs_jax[{EXTRAS[package]}]'" in line
    assert not list(tmp_path.iterdir()), "before anything is written"


@pytest.mark.parametrize("package", ["tensorflow_datasets", "importlib_resources"])
def test_a_data_set_that_only_tfds_has(package, monkeypatch, capsys, tmp_path):
    absent(monkeypatch, package)
    monkeypatch.chdir(tmp_path)
    words = ["certify", ZOO, "out.tsv", "--dataset", "cifar10", "--data_dir", tmp_path, "--sigma", 0.25]
    expected = f"needs the package {package}: pip install 'qcrs_jax[data]'"
    assert expected in said(capsys, *words)
    with pytest.raises(MissingPackage, match=re.escape(expected)):
        load_dataset("cifar10", tmp_path, tfds="read")
    (tmp_path / "ILSVRC2012_val_00000001.JPEG").write_bytes(b"")
    if package == "tensorflow_datasets":
        with pytest.raises(MissingPackage, match="ImageNet needs the package tensorflow_datasets"):
            load_dataset("imagenet", tmp_path)


def test_array_record_is_missed_before_a_download(monkeypatch, tmp_path):
    monkeypatch.setattr("qcrs_jax.data.tfds_files._require_connection", lambda builder: None)
    absent(monkeypatch, "array_record")
    with pytest.raises(MissingPackage, match=r"ArrayRecord files needs the package array_record.*\[data\]"):
        load_dataset("fashion_mnist", tmp_path)


@pytest.mark.slow
def test_a_directory_of_the_earlier_form_needs_orbax(monkeypatch, tmp_path):
    folder = tmp_path / "old"
    folder.mkdir()
    old_directory(load_classifier(lenet_file(tmp_path)), folder)
    absent(monkeypatch, "orbax")
    with pytest.raises(
        MissingPackage, match=r"the earlier form needs the package orbax: pip install 'qcrs_jax\[train\]'"
    ):
        load_classifier(folder)


def test_a_folder_of_images_and_arrays_need_no_extra(monkeypatch, tmp_path):
    absent(monkeypatch, *EXTRAS)
    np.savez(tmp_path / "test.npz", x=np.zeros((2, 8, 8, 3), np.uint8), y=np.array([0, 1]))
    assert len(load_dataset("npz", tmp_path)) == 2
    assert len(load_dataset(None, IMAGES)) == 500


LIBRARY = """
import sys
for name in {blocked}:
    sys.modules[name] = None
import jax, jax.numpy as jnp, qcrs_jax
from qcrs_jax.results.records import read_run
for name in qcrs_jax.__all__:
    getattr(qcrs_jax, name)
classify = lambda x: jnp.stack([x.mean((1, 2, 3)), 1 - x.mean((1, 2, 3))], axis=-1)
certificate = qcrs_jax.certify(classify, jnp.ones((4, 4, 1)), 0.25, key=jax.random.key(0), n=1000)
classifier = qcrs_jax.load_classifier({checkpoint!r})
qcrs_jax.save_classifier(classifier, {saved!r})
print(certificate.prediction, certificate.radius > 0, classifier.spec.arch, len(read_run({results!r}).records))
from qcrs_jax.experiments.cli import main
main(["--help"])
"""


@pytest.mark.slow
def test_the_library_needs_no_extra(tmp_path):
    """In a process that has none of them; Optax and Orbax are there in any case, as Flax needs them."""
    program = LIBRARY.format(
        blocked=sorted(EXTRAS.keys() - {"optax", "orbax"}),
        checkpoint=str(lenet_file(tmp_path)),
        saved=str(tmp_path / "saved"),
        results=str(RESULTS / "cohen.tsv"),
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("0 True lenet 250\nusage: qcrs-jax")


def test_without_the_bench_its_command_says_so(monkeypatch, capsys):
    find = importlib.util.find_spec
    gone = lambda name, *more: None if name.endswith(".bench") else find(name, *more)  # noqa: E731
    monkeypatch.setattr(importlib.util, "find_spec", gone)
    for words in ([], ["--tpu", "folder"], ["--depths", "20", "110"]):
        assert said(capsys, "benchmark", *words).startswith("qcrs-jax: error: benchmark needs a checkout")
