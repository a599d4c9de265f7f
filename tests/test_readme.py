"""The code that the README and the pages of the site show runs, and the commands in them are those of the program."""

import re
import shutil
import tomllib

import jax
import numpy as np
import pytest
from places import ROOT
from readme import PAGES, README, blocks, blocks_of, commands

import qcrs_jax
from qcrs_jax.experiments.cli import COMMANDS, parser_of
from qcrs_jax.experiments.commands.method import cascade_of, request_of
from qcrs_jax.experiments.commands.sweep import sweep_of
from qcrs_jax.models.checkpoint import write_denoiser
from qcrs_jax.models.denoiser import Denoiser, DenoiserSpec, build_denoiser
from qcrs_jax.results import sidecar
from qcrs_jax.results.records import PREDICT_COLUMNS, Record

EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
RESULTS = ROOT / "experiments/results/cifar10_frontier/cohen.tsv"
OTHERS = {
    *("--extra-index-url", "--no-deps", "--target", "--inplace"),  # of pip and jupyter
    *("--gpus-per-task", "--ntasks-per-node"),  # of Slurm
    "--xla_jf_bf16_propagation",
    *("--pack-images", "--parts", "--write-reference"),  # of the check of a GPU
    *("--data-binary", "--bundle", "--certificate-identity", "--certificate-oidc-issuer"),  # of curl and cosign
}
"""Flags of other programs."""


def run(*words):
    """The code of the one Python example that has all `words`, and the names it defines."""
    (code,) = [code for code in blocks("python") if all(word in code for word in words)]
    names = {}
    exec(code, names)
    return code, names


def run_page(page, folder):
    """Runs the Python of a page, block after block, in a folder with the files that it reads; what it defines."""
    text, names = "\n".join(blocks_of(PAGES[page], "python")), {"__name__": "page"}
    for name in re.findall(r'read_results\("(.*?)"\)', text) if "run(" not in text else ():
        for end in ("", ".json"):
            shutil.copy(f"{RESULTS}{end}", folder / f"{name}{end}")
    for code in blocks_of(PAGES[page], "python"):
        exec(compile(code, page, "exec"), names)
    return names


OWN_TESTS = {
    *("README.md", "docs/start/library.md", "docs/guides/networks.md"),  # below
    "docs/guides/exported-program.md",  # tests/certification/test_export.py, beside the program that it reads
    "docs/guides/denoised.md",  # below
    "docs/guides/pytorch-programs.md",  # tests/convert/test_pt2_openings.py, with models
}


@pytest.mark.slow_for("docs/collapse.md", "docs/guides/cascade.md", "docs/guides/attack.md")
@pytest.mark.parametrize("page", [page for page in PAGES if blocks_of(PAGES[page], "python") and page not in OWN_TESTS])
def test_the_python_of_a_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_page(page, tmp_path)


def test_the_example_of_the_readme():
    code, names = run("qcrs = certify(")
    assert len(code.splitlines()) <= 9
    assert names["cohen"].prediction == 0 and 0 < names["cohen"].radius < names["qcrs"].radius < 0.1 * 8 * 3**0.5


@pytest.mark.slow
def test_the_library_s_example(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = run_page("docs/start/library.md", tmp_path)
    assert names["certificate"].prediction == 0 and 0 < names["certificate"].radius < 0.1 * 8 * 3**0.5
    assert names["better"].sigma == names["trace"].sigma
    assert len(names["again"].records) == 6


@pytest.mark.slow
def test_the_example_of_a_denoiser(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "convert/weights/fashion_mnist-lenet-sigma0.25.pth", "model.pth")
    write_denoiser(Denoiser(spec := DenoiserSpec((28, 28, 1), 2), build_denoiser(spec)), "my_denoiser")
    names = run_page("docs/guides/denoised.md", tmp_path)
    assert names["certificate"].counts.sum() == 1000 and 0.1 <= names["certificate"].sigma <= 1


@pytest.mark.slow
@pytest.mark.parametrize("imports", ["from flax import", "import equinox", "import haiku"])
def test_the_examples_of_one_s_own_network(imports):
    pytest.importorskip(imports.split()[1])
    code, names = run(imports)
    assert len([line for line in code.splitlines() if line.strip() and "import " not in line]) <= 10
    assert sum(leaf.size for leaf in jax.tree.leaves(names["bound"])) == 192 * 32 + 32 + 32 * 10 + 10, "arguments"
    certificates = names["certificates"]
    assert certificates.counts.shape == (5, 10) and np.all(certificates.counts.sum(axis=1) == 1000)
    assert np.all((certificates.radius > 0) == (certificates.prediction >= 0)) and certificates.radius.max() > 0
    # Each library's own call gives the class that the noise leaves most often.
    logits = names["bound"](names["images"])
    assert logits.shape == (5, 10) and np.mean(logits.argmax(-1) == certificates.counts.argmax(-1)) >= 0.8


def test_every_example_of_a_network_is_tested():
    codes = blocks_of(PAGES["docs/guides/networks.md"], "python")
    assert len(codes) == 5 and len([code for code in codes if "certificates = certify(" in code]) == 3


@pytest.mark.slow
def test_the_example_of_a_network_that_knows_the_noise():
    _, names = run("NoiseConditional(")
    assert names["certificate"].prediction == 0 and names["certificate"].radius > 0


def test_the_file_with_a_network_of_one_s_own():
    _, names = run("def load():")
    images = np.random.default_rng(0).random((2, 8, 8, 3), np.float32)
    classify = names["load"]()
    assert classify(images).shape == (2, 10) and len(jax.tree.leaves(classify)) == 1


@pytest.mark.parametrize("page", [page for page in PAGES if commands(PAGES[page])])
def test_the_commands_of_a_page_are_possible(page):
    for name, *words in commands(PAGES[page]):
        if name.startswith("-"):
            continue  # `qcrs-jax --version`
        args = parser_of(name).parse_args(words)
        if name in ("certify", "predict", "curve"):
            sweep_of(args)
        if name in ("certify", "visualize", "export-program"):
            (cascade_of if args.method == "cascade" else request_of)(args)


def test_the_pages_describe_every_command_and_no_other():
    assert set(re.findall(r"qcrs-jax ([a-z][\w-]*)", "\n".join(PAGES.values()))) == set(COMMANDS)


def test_every_flag_that_a_page_names_is_one():
    known = {name for command in COMMANDS for name in parser_of(command).complete()._option_string_actions}
    for page, text in PAGES.items():
        named = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", text, re.IGNORECASE))
        assert named <= known | OTHERS | {"--help"}, page


def test_the_extras_that_pages_install_are_there():
    for page, text in PAGES.items():
        for extras in re.findall(r"pip install (?:-e )?'(?:\.|qcrs_jax)\[([\w,]+)\]'", text):
            assert set(extras.split(",")) <= set(EXTRAS), page


def test_files_that_pages_link_to_are_there():
    for page, text in PAGES.items():
        for target in re.findall(r"\]\((?!http|#)([^)#\s]+)", text):
            place = (ROOT / page).parent / target
            made = (ROOT / page).parent / target.replace(".md", ".ipynb")  # a page is made of each notebook
            command = re.fullmatch(r".*reference/commands/([\w-]+)\.md", place.as_posix())
            assert place.exists() or made.exists() or command and command[1] in COMMANDS, f"{page}: {target}"


def test_the_readme_can_be_read_in_three_minutes():
    lines = README.splitlines()
    assert len(lines) <= 150
    assert [line for line in lines if line.startswith("python3 -m venv")][0].endswith("qcrs-jax demo")
    assert next(line for line in lines if "pytest" in line).endswith('-m pytest -m "not slow"')


def test_the_demo_s_table_is_the_same_everywhere():
    figures = [re.findall(r"[\d.]+", line.partition("|")[2].partition("|")[2]) for line in README.splitlines()]
    rows = [row for row in figures if len(row) >= 8 and row[0].startswith("0.")]
    page = [" ".join(re.findall(r"[\d.]+", line)) for line in PAGES["docs/start/program.md"].splitlines()]
    assert len(rows) == 3
    for acr, *accuracies in rows:
        assert any(f"{acr} {' '.join(accuracies[:5])}" in line for line in page), acr


def test_the_first_table_is_that_of_the_results():
    rows = [line.split("|") for line in README.splitlines() if line.startswith(("| Cohen", "| QCRS"))][:4]
    lines = [line for line in RESULTS.with_name("table.md").read_text().splitlines() if ".tsv)" in line]
    table = [[float(cell.strip(" *")) for cell in line.split("|")[3:-3]] for line in lines]
    for _, _, _, acr, *shares, samples, _ in rows:
        (found,) = [row for row in table if f"{row[0]:.3f}" == acr.strip() and list(map(float, shares)) == row[2:6]]
        assert found, samples


def test_the_reference_has_every_public_name():
    told = re.findall(r"^::: qcrs_jax\.(\w+)$", PAGES["docs/reference/api.md"], re.MULTILINE)
    assert sorted(told) == sorted(qcrs_jax.__all__)


def test_the_reference_has_every_column_and_every_field_of_a_sidecar():
    page = PAGES["docs/reference/results.md"]
    fields = [name for name, field in Record.__dataclass_fields__.items()]
    of_sidecars = [*sidecar._SIDECAR, *sidecar._REQUEST, *sidecar._PROVENANCE, *sidecar._INPUTS["classifier"]]
    for name in [*Record.columns(fields), *fields, *of_sidecars, *sidecar._INPUTS["dataset"]]:
        assert f"`{name}`" in page, name
    assert f"`{' '.join(column for column in PREDICT_COLUMNS)}`" in page
