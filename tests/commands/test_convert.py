"""The convert command as a user runs it, with and without PyTorch on the machine."""

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import program
import pytest
from checkpoints import cohen, images, lenet_file, resnet, save
from places import ROOT

from qcrs_jax.convert.load import load_classifier
from qcrs_jax.models.checkpoint import restore_classifier

SCRIPT = Path(sys.executable).parent / "qcrs-jax"
# A None in sys.modules makes `import torch` fail, as on a machine that has no PyTorch.
NO_TORCH = "import sys; sys.modules['torch'] = None; from qcrs_jax.experiments.cli import main; sys.exit(main())"
COMMANDS = {
    "module": [sys.executable, "-m", "convert"],
    "script": [str(SCRIPT), "convert"],
    "no torch": [sys.executable, "-c", NO_TORCH, "convert"],
}


def run(*arguments, command=None):
    """The command in this process, which saves a start, or one of COMMANDS."""
    if command is None:
        return program.qcrs_jax("convert", *arguments, cwd=ROOT, ok=False)
    env = {**os.environ, "JAX_PLATFORMS": "cpu"}
    line = [*COMMANDS[command], *map(str, arguments)]
    return subprocess.run(line, cwd=ROOT, env=env, capture_output=True, text=True, timeout=300)


@pytest.mark.slow_for("script", "module")
@pytest.mark.parametrize("command", COMMANDS)
def test_converts(tmp_path, command):
    if command == "script" and not SCRIPT.exists():
        pytest.skip("the package is not installed with its command")
    path = save(cohen(resnet(20), "cifar_resnet20"), tmp_path / "net.pth.tar", legacy=command == "no torch")
    done = run(path, tmp_path / "out", command=command)
    assert (done.returncode, done.stderr) == (0, "")
    parameters = sum(p.numel() for p in resnet(20).parameters())
    for words in (str(path), "Cohen layout", "cifar_resnet20", f"{parameters:,} parameters", "cifar10"):
        assert words in done.stdout
    converted = restore_classifier(tmp_path / "out")
    assert converted.spec.source["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert converted.spec.source["file"] == "net.pth.tar"
    assert converted.fingerprint() == load_classifier(path).fingerprint()


def assert_error(done, *words):
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("qcrs-jax: error: ")
    assert "Traceback" not in done.stderr
    for word in words:
        assert str(word) in done.stderr


def test_overwriting_needs_the_flag(tmp_path):
    path, out = lenet_file(tmp_path), tmp_path / "out"
    out.mkdir()
    (out / "notes.txt").write_text("mine")
    assert_error(run(path, out, "--overwrite"), out, "left alone")
    assert (out / "notes.txt").read_text() == "mine"
    (out / "notes.txt").unlink()
    assert run(path, out).returncode == 0
    assert_error(run(path, out), out, "--overwrite")
    assert run(path, out, "--overwrite", "--normalization", "0.5/0.25").returncode == 0
    spec = restore_classifier(out).spec
    assert (spec.mean, spec.std) == ((0.5,), (0.25,))


def test_mistakes_give_one_line_and_leave_nothing_behind(tmp_path):
    good, text, cut = lenet_file(tmp_path), tmp_path / "text.pth", tmp_path / "cut.pth"
    text.write_text("hello")
    cut.write_bytes(good.read_bytes()[:5000])
    out = tmp_path / "out"
    assert_error(run(tmp_path / "none.pth", out), tmp_path / "none.pth", "no such file")
    assert_error(run(text, out), text, "not a PyTorch checkpoint")
    assert_error(run(cut, out), cut, "truncated")
    assert_error(run(good, out, "--normalization", "mnist"), "'mnist'", "cifar10")
    assert not out.exists()


def test_usage_names_the_arguments():
    done = run()
    assert done.returncode == 2
    assert "CHECKPOINT" in done.stderr and "OUT_DIR" in done.stderr


@pytest.mark.slow
def test_check_measures_clean_and_noisy_accuracy(tmp_path):
    path = lenet_file(tmp_path)
    x = images(30, (28, 28, 1))
    labels = np.asarray(load_classifier(path).classify(jnp.asarray(x))).argmax(axis=-1)
    labels[:6] = (labels[:6] + 1) % 10  # 24 of 30 are right
    np.savez(tmp_path / "d.npz", x=x, y=labels, class_names=[str(i) for i in range(10)])
    check = ["--check", "npz", "--data_dir", tmp_path / "d.npz", "--skip", 1, "--sigma"]
    done = run(path, tmp_path / "out", *check, 100)
    assert done.returncode == 0, done.stderr
    assert "accuracy on 30 images of d" in done.stdout and "0.8000 clean" in done.stdout
    assert float(done.stdout.split()[-5]) < 0.8
    assert f"{24 / 30:.4f} under noise of 0" in run(path, tmp_path / "out2", *check, 0).stdout


def test_check_refuses_a_data_set_that_does_not_fit_before_it_writes(tmp_path):
    np.savez(tmp_path / "d.npz", x=images(3, (28, 28, 1)), y=[0, 1, 2])
    path = lenet_file(tmp_path)
    done = run(path, tmp_path / "out", "--check", "npz", "--data_dir", tmp_path / "d.npz")
    assert_error(done, path, "10 classes", "has 3")
    assert not (tmp_path / "out").exists()
