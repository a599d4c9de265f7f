"""Classifiers of one's own, named python:FILE.py:FUNCTION, through the whole program."""

import json

import jax
import numpy as np
import pytest

from qcrs_jax.experiments import cli
from qcrs_jax.experiments.run.python_classifier import open_python

SHAPE = (4, 4, 1)
NET = """
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
import sizes

def apply(weights, images):
    return images.reshape(len(images), -1) @ weights

def load():
    return Partial(apply, jnp.asarray(np.random.default_rng({seed}).normal(size=(16, 3)), jnp.float32))

def captured():
    weights = jnp.asarray(np.random.default_rng(sizes.SEED).normal(size=(16, 3)), jnp.float32)
    return lambda images: apply(weights, images)

def fails():
    raise OSError("no weights here")

def text():
    return "logits"

def flat():
    return lambda images: images @ jnp.ones(7)
"""
WORDS = "--dataset npz --data_dir data.npz --sigma 0.25 --N0 10 --N 50 --gradient_n 20 --left 0.1 --right 0.9".split()


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "net.py").write_text(NET.replace("{seed}", "0"))
    (tmp_path / "sizes.py").write_text("SEED = 1\n")
    x = np.random.default_rng(2).uniform(size=(4, *SHAPE)).astype(np.float32)
    np.savez(tmp_path / "data.npz", x=x, y=[0, 1, 2, 0], class_names=["a", "b", "c"])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(capsys, *words):
    """Exit status of a command, and what it said."""
    status = cli.main([str(word) for word in words])
    said = capsys.readouterr()
    return status, said.out + said.err


@pytest.mark.parametrize("words", ["--normalization cifar10", "--macer", "--field w", "--no-max_pool", "--leave_out a"])
def test_facts_about_a_file_of_weights_are_refused(folder, capsys, words):
    status, said = command(capsys, "certify", "python:net.py:load", "results.tsv", *WORDS, *words.split())
    assert status == 2 and f"{words.split()[0]} describes a file of weights" in said


@pytest.mark.slow
def test_it_has_the_whole_program(folder, capsys):
    run = ("certify", "python:net.py:load", "results.tsv", *WORDS, "--seed", 0)
    status, said = command(capsys, *run, "--max", 2)
    assert status in (0, None) and "python:net.py:load: net.py:load, 3 classes" in said
    recorded = json.loads((folder / "results.tsv.json").read_text())["request"]["classifier"]
    assert recorded["arch"] == "net.py:load" and len(recorded["options"]["file_sha256"]) == 64
    status, said = command(capsys, *run)  # goes on
    assert "2 of 4 images are done" in said and len((folder / "results.tsv").read_text().splitlines()) == 5
    assert command(capsys, "table", "results.tsv")[0] in (0, None)
    status, said = command(capsys, "predict", "python:net.py:load", "answers.tsv", *WORDS[:6], "--N", 50)
    assert status in (0, None)


def test_verify_runs_no_file_that_a_sidecar_names(folder, capsys):
    command(capsys, "certify", "python:net.py:load", "results.tsv", *WORDS, "--max", 2)
    for flags in ((), ("--trust_paths",)):
        status, said = command(capsys, "verify", "results.tsv", *flags)
        assert status == 2 and "would run that file; it was not run" in said and "--checkpoint" in said
    status, said = command(capsys, "verify", "results.tsv", "--checkpoint", "python:net.py:load", "--recount", "all")
    assert status == 0 and "all 2 lines were drawn again and verified" in said


def test_another_program_or_other_weights_are_another_run(folder, capsys):
    run = ("certify", "python:net.py:load", "results.tsv", *WORDS)
    command(capsys, *run, "--max", 2)
    (folder / "net.py").write_text(NET.replace("{seed}", "7"))
    status, said = command(capsys, *run)
    assert status == 2 and "classifier.weights_sha256" in said and "classifier.options.file_sha256" in said


def test_arrays_that_are_captured_count_as_weights(folder):
    first = open_python("python:net.py:captured", SHAPE)
    (folder / "sizes.py").write_text("SEED = 5\n")
    import sizes

    sizes.SEED = 5  # as in another process
    other = open_python("python:net.py:captured", SHAPE)
    assert first.spec == other.spec and first.fingerprint() != other.fingerprint()
    assert (
        open_python("python:net.py:load", SHAPE).fingerprint() == open_python("python:net.py:load", SHAPE).fingerprint()
    )
    assert len(jax.tree.leaves(open_python("python:net.py:load", SHAPE).classify)) == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("python:net.py", "write python:FILE.py:FUNCTION"),
        ("python:net.txt:load", "write python:FILE.py:FUNCTION"),
        ("python:other.py:load", "there is no file other.py"),
        ("python:net.py:open", "net.py has no function open"),
        ("python:net.py:fails", "fails() failed: OSError: no weights here"),
        ("python:net.py:text", "text() returned a str"),
        ("python:net.py:flat", "takes no images of shape (1, 4, 4, 1)"),
        ("python:broken.py:load", "broken.py cannot be run: SyntaxError"),
    ],
)
def test_functions_that_return_no_classifier_are_refused(folder, capsys, name, message):
    (folder / "broken.py").write_text("def load(:\n")
    status, said = command(capsys, "certify", name, "results.tsv", *WORDS)
    assert status == 2 and message in said and not (folder / "results.tsv").exists()


def test_it_computes_as_it_is_written(folder, capsys):
    status, said = command(capsys, "certify", "python:net.py:load", "results.tsv", *WORDS, "--dtype", "bfloat16")
    assert status == 2 and "--dtype bfloat16 is for checkpoints" in said
    status, said = command(capsys, "convert", "python:net.py:load", "out")
    assert status == 2
