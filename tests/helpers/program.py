"""Runs the program as a user does, and checks the files that it writes."""

import contextlib
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from qcrs_jax.experiments import cli
from qcrs_jax.results.records import read_run
from qcrs_jax.sampling.smoothing import noise_of

PROGRAM = str(Path(sys.executable).with_name("qcrs-jax"))


SMALL = "--dataset npz --data_dir data.npz --sigma 0.25 --N 200 --N0 20 --gradient_n 50 --seed 0".split()
SMALL += ["--noise", "gaussian"]  # by which the library draws


METHODS = {
    "cohen": ["--method", "cohen"],
    **{s: ["--search", s] for s in ("golden", "bisection", "shrinking", "bayesian")},
    "grid": "--search grid --epsilon 0.1 --objective lcb".split(),
    "ddrs": "--method ddrs --ddrs_steps 4 --ddrs_draws 10 --ddrs_step_size 0.1".split(),
}


PUBLISHED = {
    "cohen": "./models/cifar10/resnet110/noise_0.25/checkpoint.pth.tar cifar_exp --sigma 0.25 --epsilon 0.03 "
    + "--left 0.08 --right 0.9 --epsilon_step 0.4 --skip 1",
    "macer": "./weights/0.50.pth macer_exp --sigma 0.50 --epsilon 0.03 --left 0.12 --right 1.9 "
    + "--epsilon_step 0.2 --macer --skip 20",
}


def qcrs_jax(*words, cwd, ok=True):
    """Runs a command as a user does: in this process, which saves time, unless its flags change the start of JAX."""
    words = [*map(str, words)]
    if {"--devices", "--distributed"} & set(words):
        done = subprocess.run([PROGRAM, *words], cwd=cwd, capture_output=True, text=True)
    else:
        out, err = io.StringIO(), io.StringIO()
        with contextlib.chdir(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                status = cli.main(words)
            except SystemExit as stop:  # argparse's
                status = stop.code or 0
        done = subprocess.CompletedProcess(words, status, out.getvalue(), err.getvalue())
    assert not ok or done.returncode == 0, done.stderr
    return done


def refused(*words, cwd):
    """The only message of a command that must exit with status 2. It runs in this process, which saves time."""
    messages = io.StringIO()
    with contextlib.chdir(cwd), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(messages):
        try:
            status = cli.main([*map(str, words)])
        except SystemExit as stop:  # argparse's
            status = stop.code
    text = messages.getvalue()
    assert status == 2, text
    assert text.count("error:") == 1
    return text


def assert_certificates(path, n=200, alpha=0.001):
    """Asserts that everything in a results file follows from its raw counts."""
    run = read_run(path)
    lost = noise_of(run.request).lost
    for record in run.records:
        assert sum(record.counts) == n
        selected = int(np.argmax(record.counts0))
        k = record.counts[selected]
        pa_lower = max(stats.beta.ppf(alpha, k, n - k + 1) - lost, 0.0) if k else 0.0
        assert record.pa_lower == pytest.approx(pa_lower, rel=1e-9)
        if pa_lower < 0.5:
            assert (record.predict, record.radius) == (-1, 0.0)
        else:
            assert record.predict == selected
            radius = float(np.float32(record.sigma)) * stats.norm.ppf(pa_lower)
            assert record.radius == pytest.approx(radius, rel=1e-9)


def fill(root, inputs):
    weights, x = inputs
    (root / "lenet.pth").write_bytes(weights)
    np.savez(root / "data.npz", x=x, y=[4, 1, 4, 3, 4, 5], class_names=[str(i) for i in range(10)])
    return root


PREDICT = "--dataset npz --data_dir data.npz --sigma 0.25 --seed 0 --noise gaussian".split()


COHEN_FORMAT = "idx\tlabel\tpredict\tradius\tcorrect\ttime\n{}"


QCRS_FORMAT = "idx\tlabel\tpredict\tradius\tcorrect\tbest_sigma\tpABar\ttime\n{}"


def unwrapped(text):
    return " ".join(text.split())


RADII = ["--radii", "0", "0.25", "0.5"]
