"""The experiments as a user runs them, with few images and samples."""

import pickle
import shlex

import numpy as np
import pytest
from checkpoints import cohen, macer, resnet, save
from PIL import Image
from with_torch import ResNet

from qcrs_jax.experiments import cli
from qcrs_jax.experiments.presets import PRESETS, describe
from qcrs_jax.results.records import read_run


def names(command, flag="--out"):
    words = shlex.split(command)
    return [words[words.index(flag) + 1]] if flag in words else []


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_a_description_and_existing_commands(name):
    preset = PRESETS[name]
    assert all((preset.asks, preset.source, preset.takes, preset.expect)) and describe(name).startswith(name)
    for command in preset.commands:
        words = shlex.split(command.format(base="."))
        extra = shlex.split(preset.quick) if words[0] in ("certify", "curve") else []
        cli.parser_of(words[0]).parse_args(words[1:] + extra)


def test_the_list_names_them_all(capsys):
    assert cli.main(["experiment"]) == 0
    assert [line for line in capsys.readouterr().out.splitlines() if line and line[0] != " "] == list(PRESETS)


def quick(name, folder, *words):
    assert cli.main(["experiment", name, "--quick", "--out", str(folder), *map(str, words)]) == 0
    written = [
        file
        for command in PRESETS[name].commands
        for file in sum((names(command, flag) for flag in ("--out", "--plot", "--frontier")), [])
    ]
    assert [file for file in written if not (folder / file).exists() and file != "exceptions.png"] == []


@pytest.mark.slow
def test_regret_from_runs_to_table_and_figure_and_again(tmp_path):
    quick("regret", tmp_path)
    lines = (tmp_path / "gaussian-golden.tsv").read_text()
    table = (tmp_path / "regret.md").read_text()
    assert table.count("gaussian-") == 7 and "Reference: QCRS grid" in table
    quick("regret", tmp_path)  # certifies nothing again
    assert (tmp_path / "gaussian-golden.tsv").read_text() == lines


@pytest.mark.slow
def test_the_frontier(tmp_path):
    quick("frontier", tmp_path)
    assert (tmp_path / "frontier.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "compare.md").read_text().count("QCRS bayesian") == 5


def test_a_quick_run_is_not_taken_for_the_experiment(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["experiment", "acr", "--quick"]) == 2
    assert "--quick needs --out" in capsys.readouterr().err


@pytest.fixture
def base(tmp_path):
    """The folder of the published programs, with networks that were never trained."""
    base = tmp_path / "base"
    for sigma in ("0.25", "0.50"):
        for kind, net, prefix in (
            ("cifar10/resnet110", resnet(110), "1."),
            ("imagenet/resnet50", ResNet((3, 4, 6, 3), 1).eval(), "1.module."),
        ):
            folder = base / "models" / kind / f"noise_{sigma}"
            folder.mkdir(parents=True)
            arch = "cifar_resnet110" if "cifar" in kind else "resnet50"
            save(cohen(net, arch, prefix), folder / "checkpoint.pth.tar")
    (base / "weights").mkdir()
    save(macer(resnet(110)), base / "weights" / "0.50.pth")
    batches = base / "data" / "cifar-10-batches-py"
    batches.mkdir(parents=True)
    data = np.random.default_rng(0).integers(0, 256, (3, 3072), np.uint8)
    (batches / "test_batch").write_bytes(pickle.dumps({b"data": data, b"labels": [0, 1, 2]}))
    flat = base / "data" / "imagenet"
    flat.mkdir()
    Image.new("RGB", (300, 260), (90, 120, 150)).save(flat / "ILSVRC2012_val_00000001.JPEG")
    (flat / "val.txt").write_text("ILSVRC2012_val_00000001.JPEG 65\n")
    return base


@pytest.mark.slow
@pytest.mark.parametrize("name, files", [("cifar10", 3), ("imagenet", 2)])
def test_the_published_runs(base, tmp_path, name, files):
    quick(name, tmp_path / "out", "--base", base)
    runs = [read_run(path) for path in sorted((tmp_path / "out").glob("*.tsv"))]
    assert len(runs) == files
    assert all(run.request["search"]["name"] == "bisection" and len(run.records) == 1 for run in runs)
