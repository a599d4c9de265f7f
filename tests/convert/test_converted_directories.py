"""Converted directories and the options of opening, as commands use them: in one process and in several."""

import contextlib
import io
import json
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from checkpoints import cohen, images, lenet_file, old_directory, prefixed, resnet, save
from with_torch import CifarResNet, randomise, torch

from qcrs_jax.convert.load import load_classifier
from qcrs_jax.experiments import cli
from qcrs_jax.models.checkpoint import FILE, save_classifier
from qcrs_jax.results.records import read_run, read_sidecar

PROGRAM = str(Path(sys.executable).with_name("qcrs-jax"))
FLAGS = "--dataset npz --data_dir data.npz --sigma 0.25 --method cohen --N 100 --N0 10 --max 2".split()


def run(*words, cwd, status=0):
    """What the command prints, or its error message if it must fail; run in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        found = cli.main([*map(str, words)])
    assert found == status, err.getvalue()
    return (err if status else out).getvalue()


def counts(path):
    return [(record.idx, record.counts0, record.counts) for record in read_run(path).records]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("directories")
    np.savez(folder / "data.npz", x=images(2, (28, 28, 1)), y=[0, 1], class_names=[str(i) for i in range(10)])
    classifier = load_classifier(lenet_file(folder))
    save_classifier(classifier, folder / "new")
    (folder / "old").mkdir()
    old_directory(classifier, folder / "old", "TPU_0(process=0,(0,0,0,0))")
    run("certify", "lenet.pth", "one.tsv", *FLAGS, cwd=folder)
    return folder


@pytest.mark.parametrize("form", ["new", f"new/{FILE}", "old"])
def test_every_form_of_a_classifier_gives_the_counts_of_the_file_it_was_made_of(folder, form):
    name = f"{form.replace('/', '-')}.tsv"
    run("certify", form, name, *FLAGS, cwd=folder)
    assert counts(folder / name) == counts(folder / "one.tsv")


@pytest.mark.slow
@pytest.mark.parametrize("form", ["new", "old"])
def test_two_processes_share_a_run_on_a_converted_directory(folder, form):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    words = [PROGRAM, "certify", form, f"{form}-hosts.tsv", *FLAGS, "--devices", "1", "--distributed"]
    words += ["--coordinator", address]
    pipes = {"cwd": folder, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    hosts = [subprocess.Popen([*words, "--process", f"{i}/2"], **pipes) for i in (1, 2)]
    said = [host.communicate(timeout=300) for host in hosts]
    assert [host.returncode for host in hosts] == [0, 0], said
    assert counts(folder / f"{form}-hosts.tsv") == counts(folder / "one.tsv")


def test_convert_refuses_converted_classifiers_and_folders(folder, tmp_path):
    for form in ("new", f"new/{FILE}", "old"):
        assert "is a converted classifier already" in run("convert", form, tmp_path / "out", cwd=folder, status=2)
    assert "open a file in it" in run("convert", ".", tmp_path / "out", cwd=folder, status=2)
    assert not (tmp_path / "out").exists()


OPTIONS = "--field ema --prefix model. --normalization none --image_size 16 20 --max_pool".split()


@pytest.fixture
def optional(tmp_path):
    """A file of two networks that opens with these options alone, and two images."""
    torch.manual_seed(0)
    net = randomise(CifarResNet(8))
    extra = {"criterion.weight": torch.ones(3)}
    content = {"ema": {**prefixed(net, "model."), **extra}, "model": resnet(20).state_dict()}
    save(content, tmp_path / "net.pth")
    x = images(2, (16, 20, 3))
    np.savez(tmp_path / "data.npz", x=x, y=[0, 1], class_names=[str(i) for i in range(10)])
    return tmp_path


@pytest.mark.slow
def test_the_options_of_opening_decide_a_run_and_are_recorded(optional):
    tmp_path, flags = optional, OPTIONS
    assert "--field" in run("certify", "net.pth", "x.tsv", *FLAGS, cwd=tmp_path, status=2)
    said = run("certify", "net.pth", "certified.tsv", *FLAGS, *flags, cwd=tmp_path)
    assert said.count("net.pth: note: Left out, as requested: criterion.weight.") == 1
    recorded = read_sidecar(tmp_path / "certified.tsv")["request"]["classifier"]
    assert recorded["options"] == {"max_pool": True} and recorded["image_shape"] == [16, 20, 3]
    said = run("convert", "net.pth", "converted", *flags, cwd=tmp_path)
    assert "max_pool True" in said and "note: Left out" in said and "(16, 20, 3)" in said
    said = run("certify", "converted", "again.tsv", *FLAGS, cwd=tmp_path)
    assert said.count("note: Left out") == 1
    assert counts(tmp_path / "again.tsv") == counts(tmp_path / "certified.tsv")
    assert "not of (32, 32)" in run("certify", "converted", "x.tsv", *FLAGS, "--image_size", 32, cwd=tmp_path, status=2)
    assert "--image_size takes H or H W" in run(
        "certify", "net.pth", "x.tsv", *FLAGS, *flags, "--image_size", 1, 2, 3, cwd=tmp_path, status=2
    )
    # Other options are another run: the results file is not gone on with.
    changed = run("certify", "net.pth", "certified.tsv", *FLAGS, *flags, "--no-max_pool", cwd=tmp_path, status=2)
    assert "max_pool" in changed
    # And a run is done over with the options that it was started with.
    assert "verified" in run("verify", "certified.tsv", "--recount", "all", cwd=tmp_path)


@pytest.mark.slow
def test_the_options_of_opening_reach_every_command(optional):
    tmp_path, flags, data = optional, OPTIONS, "--dataset npz --data_dir data.npz".split()
    run("certify", "net.pth", "certified.tsv", *FLAGS, *flags, cwd=tmp_path)
    recorded = read_sidecar(tmp_path / "certified.tsv")["request"]["classifier"]
    small = ["--sigma", 0.25, *data, "--max", 1]
    for words in (
        ["predict", "net.pth", "predicted.tsv", *small, "--N", 20],
        ["curve", "net.pth", "curve.tsv", "--sigma", 0.25, *data, "--max", 1, "--sigmas", 0.2, 0.3, 3, "--curve_n", 20],
        ["agreement", "net.pth", *small, "--N", 20],
        ["visualize", "net.pth", *small[:-2], "--index", 0, "--N", 20, "--N0", 10, "--method", "cohen", "--curve_n", 20]
        + ["--sigmas", 0.2, 0.3, 3, "--out", "figure.png"],
        ["export", "net.pth", "exported.pth"],
        ["export-program", "net.pth", "program.jax", "--sigma", 0.25, "--method", "cohen", "--platforms", "cpu"],
    ):
        assert "note: Left out, as requested: criterion.weight." in run(*words, *flags, cwd=tmp_path), words
    exported = load_classifier(tmp_path / "exported.pth")
    assert exported.spec.image_shape == (16, 20, 3) and exported.spec.options == {"max_pool": True}
    assert exported.fingerprint() == recorded["weights_sha256"]


TRAIN = "train out --dataset npz --data_dir data --sigma 0.25 --schedule onecycle --batch 8 --epochs 1".split()


def test_train_refuses_these_options_without_a_file(tmp_path):
    assert "--prefix describes the file of --init" in run(*TRAIN, "--prefix", "model.", cwd=tmp_path, status=2)


@pytest.mark.slow
def test_train_starts_from_a_file_with_these_options(tmp_path):
    (tmp_path / "data").mkdir()
    for split in ("train", "test"):
        names = ["b", "a", *"cdefghij"]
        np.savez(tmp_path / "data" / f"{split}.npz", x=images(8, (16, 16, 3)), y=np.arange(8), class_names=names)
    torch.manual_seed(0)
    extra = {"criterion.weight": torch.ones(3)}
    save({"state_dict": {**prefixed(randomise(CifarResNet(8)), "model."), **extra}}, tmp_path / "net.pth")
    flags = ["--prefix", "model.", "--image_size", 16, "--normalization", "none"]
    assert "note: Left out" in run(*TRAIN, "--init", "net.pth", *flags, cwd=tmp_path)
    spec = load_classifier(tmp_path / "out").spec
    assert spec.class_names == ("b", "a", *"cdefghij") and spec.image_shape == (16, 16, 3)
    run("export", "out", "out.pth", cwd=tmp_path)
    again = load_classifier(tmp_path / "out.pth").spec
    assert again.class_names == spec.class_names and again.image_shape == spec.image_shape


def test_an_invalid_number_of_pixels_is_refused(tmp_path):
    with pytest.raises(SystemExit), contextlib.redirect_stderr(io.StringIO()) as err:
        cli.main(["certify", "--image_size", "64", "net.pth", "out.tsv", "--sigma", "1"])
    assert "give other arguments before --image_size" in err.getvalue()


def test_a_sidecar_of_a_file_opened_without_options_is_as_before(folder):
    recorded = read_sidecar(folder / "one.tsv")["request"]["classifier"]
    assert sorted(recorded) == ["arch", "mean", "options", "std", "weights_sha256"]
    network = json.loads((folder / "one.tsv.json").read_text())["provenance"]["settings"]["network"]
    assert "field" not in network and "image_size" not in network


def test_cohen_s_files_say_which_normalisation_is_taken(tmp_path):
    save(cohen(resnet(20), "cifar_resnet20"), tmp_path / "net.pth")
    assert "note: CIFAR-10's normalisation" in run("convert", "net.pth", "out", cwd=tmp_path)
