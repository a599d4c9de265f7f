"""Errors carry the settings that they name; the library says their names, a command the flags."""

import argparse
import io
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import jax
import numpy as np
import pytest

from qcrs_jax import DDRS, Bayesian, Bisection, Fixed, GoldenSection, Sequential, Soft, Tolerance, bounds, checks
from qcrs_jax.certification.certificate import check_prediction, check_request
from qcrs_jax.certification.export import export_certification
from qcrs_jax.data.load import DataError, load_dataset
from qcrs_jax.errors import SettingError, UserError, quoted, setting, text_of
from qcrs_jax.experiments import cli
from qcrs_jax.experiments.run.pipeline import groups
from qcrs_jax.experiments.run.request import Request
from qcrs_jax.experiments.run.settings import Network
from qcrs_jax.models import Spec
from qcrs_jax.sampling.devices import choose_devices
from qcrs_jax.sampling.smoothing import GAUSSIAN
from qcrs_jax.search import FixedSigma
from qcrs_jax.training import Gaussian, Macer

ROOT = Path(__file__).parents[1]
CORE = [*(ROOT / "qcrs_jax").rglob("*.py"), *(ROOT / "convert").rglob("*.py")]
BELOW_COMMANDS = [
    file for room in ("run", "report", "verification") for file in (ROOT / "experiments" / room).glob("*.py")
]
OTHER_PROGRAMS = ("--gpus-per-task",)  # Slurm's
MARKS = "\ue000", "\ue001"


def test_the_library_names_settings_and_a_command_its_flags():
    error = UserError(f"d.npz: more than {setting('memory_limit')}; see {setting('search.epsilon')}")
    assert str(error) == "d.npz: more than memory_limit; see search.epsilon"
    assert error.settings == ("memory_limit", "search.epsilon")
    names = {"memory_limit": "--memory_limit", "epsilon": "--epsilon"}
    assert error.named(names) == "d.npz: more than --memory_limit; see --epsilon (search.epsilon)"


def test_an_error_around_another_keeps_the_names_of_its_settings():
    inner = SettingError("{n0} must be at least 1")
    outer = UserError(f"r.tsv: {text_of(inner)}")
    assert outer.settings == ("n0",) and outer.named({"n0": "--n0"}) == "r.tsv: --n0 must be at least 1"
    assert str(outer) == "r.tsv: n0 must be at least 1" and text_of(OSError("no")) == "no"


def test_notes_of_an_error_are_shown():
    error = SettingError("{n} is 0")
    error.add_note("The 3 results so far are kept")
    assert error.named({"n": "--n"}) == "--n is 0\nThe 3 results so far are kept"


@pytest.mark.parametrize("file", CORE, ids=lambda file: str(file.relative_to(ROOT)))
def test_the_core_knows_no_flag(file):
    text = re.sub(r"`qcrs-jax [^`]*`", "", file.read_text())
    assert [flag for flag in re.findall(r"(?<![\w-])--[a-z][\w-]*", text) if flag not in OTHER_PROGRAMS] == []


@pytest.mark.parametrize("file", CORE + BELOW_COMMANDS, ids=lambda file: str(file.relative_to(ROOT)))
def test_no_command_line_is_read_below_the_commands(file):
    names = {token.string for token in tokenize.generate_tokens(io.StringIO(file.read_text()).readline)}
    assert not names & {"argparse", "Namespace", "add_argument"}


WRONG = {
    "alpha": lambda: bounds.check_alpha(1.5),
    "alpha ": lambda: bounds.check_asked_alpha(1e-310),
    "n0": lambda: check_request(0.25, 0, 1000, 0.001),
    "n": lambda: check_request(0.25, 1, 1000.5, 0.001),
    "n0 n": lambda: check_request(0.25, 2**31, 1000, 0.001),
    "n alpha": lambda: check_request(0.25, 1, 5, 0.001),
    "n  alpha": lambda: check_prediction(0.25, 2, 0.001),
    "sigma": lambda: checks.check_sigma(-1),
    "sigma_upper": lambda: checks.check_sigma(64, name="sigma_upper"),
    "repeats": lambda: checks.whole_number("repeats", 0),
    "batch_size": lambda: checks.check_execution(abs, 0, None),
    "devices": lambda: checks.check_execution(abs, None, []),
    "value_range": lambda: checks.as_images(np.zeros((2, 2, 1), np.float32), (1, 0)),
    "bound": lambda: Fixed("wilson"),
    "tolerance": lambda: Tolerance(2.0),
    "beta": lambda: Soft(-1.0),
    "decide precision": lambda: Sequential(),
    "decide": lambda: Sequential(decide=-1.0),
    "precision": lambda: Sequential(precision=1.0),
    "alpha_upper": lambda: Sequential(decide=1.0, alpha_upper=2.0),
    "sequence": lambda: Sequential(decide=1.0, sequence="none"),
    "look_every": lambda: Sequential(decide=1.0, look_every=0),
    "n ": lambda: Sequential(decide=1.0).check(1, np.array([1000]), 0.001, False),
    "labels": lambda: Sequential(decide=1.0).check(1, 1000, 0.001, True),
    "n sigma alpha sequence": lambda: Sequential(decide=9.0).check_reach(0.25, 1000, 0.001, GAUSSIAN),
    "objective": lambda: GoldenSection(0.1, 1.0, objective="best"),
    "epsilon": lambda: GoldenSection(0.1, 1.0, epsilon=-1.0),
    "search_n": lambda: Bisection(0.1, 1.0, search_n=0),
    "max_evaluations": lambda: Bayesian(0.1, 1.0, max_evaluations=1),
    "steps": lambda: DDRS(0.1, 1.0, steps=0),
    "platforms": lambda: export_certification(abs, (2, 2, 1), platforms=["abacus"]),
    "arch": lambda: Spec("abacus", 10, (32, 32, 3), (0.0,), (1.0,)),
    "gamma": lambda: Macer(0.25, gamma=-1.0),
    "lbd": lambda: Macer(0.25, lbd=-1.0),
    "sigma ": lambda: Gaussian(0.0),
    "split": lambda: load_dataset("npz", split="validation"),
    "on_error": lambda: load_dataset("npz", on_error="leave"),
    "dataset": lambda: load_dataset("abacus"),
    "dataset data_dir": lambda: load_dataset("folder"),
    "data_dir": lambda: load_dataset("folder", "nowhere"),
    "memory_limit": lambda: load_dataset("npz", ".", memory_limit=-1),
    "image_size": lambda: Network(Path("net.pth"), image_size=(1, 2, 3)),
    "devices ": lambda: choose_devices(jax.local_device_count() + 1),
}


@pytest.mark.parametrize("names", WRONG)
def test_the_error_of_a_setting_names_it(names):
    with pytest.raises(UserError) as error:
        WRONG[names]()
    assert list(dict.fromkeys(error.value.settings)) == names.split()
    assert not set(str(error.value)) & set(MARKS)


def test_the_samples_that_a_budget_stands_for_are_its_own_setting():
    with pytest.raises(SettingError) as error:
        Request(0.25, 1, 5, 0.001, FixedSigma(), Fixed(), budget={"mean": 5, "stop": -1}).check()
    assert error.value.settings == ("budget", "alpha")


def test_a_share_of_alpha_is_no_number_that_was_typed():
    request = Request(0.25, 1, 20, 0.001, FixedSigma(), Fixed(), at_once=True)
    with pytest.raises(SettingError, match=r"simultaneous, 10\d* images: n = 20 samples .* alpha = 1e-") as error:
        request.of_each(10**6)
    assert error.value.settings == ("simultaneous",)


def test_errors_about_the_request_of_a_file_name_no_flags():
    recorded = Request(0.25, 1, 1000, 0.001, FixedSigma(), Fixed()).recorded()
    for change in ({"alpha": 2}, {"n": 5}, {"estimate": {"name": "guess"}}, {"n0": None}):
        with pytest.raises(UserError, match="its request is not one of this version") as error:
            Request.of(recorded | change)
        assert error.value.settings == ()


def test_an_image_that_cannot_be_read_names_the_settings_of_its_error():
    def read():
        raise DataError(f"a.png: larger than {setting('memory_limit')}")

    with pytest.raises(UserError) as error:
        list(groups([(7, read)], 1, None))
    assert error.value.settings == ("memory_limit", "on_error")
    assert str(error.value) == "image 7: a.png: larger than memory_limit\nWith on_error skip such images are left out"


NETWORK = "zoo:fashion_mnist-lenet-sigma0.25"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--left", "-1"], "0 < --left < --sigma_upper"),
        (["--sigma_lower", "-1"], "0 < --sigma_lower < --sigma_upper"),
        (["--N", "5"], "--N = 5 samples can certify nothing at --alpha = 0.001"),
        (["--n", "5"], "--n = 5 samples"),
        (["--budget", "5"], "--budget = 5 samples"),
        (["--max", "0"], "--max 0 leaves no image"),
        (["--data_dir", "nowhere"], "no such file or directory (from --data_dir)"),
        (["--data-dir", "nowhere"], "no such file or directory (from --data_dir)"),
        (["--dataset", "folder", "--data_dir", "d.npz"], "--dataset folder takes a folder"),
        (["--resize", "20"], "--resize 20: must be at least 28"),
        (["--image_size", "32"], "--image_size 32 x 32 is no choice"),
        (["--beta", "8"], "--beta is of the soft certificate; give --certificate soft"),
    ],
)
def test_a_command_shows_the_flag_that_was_typed(tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    np.savez("d.npz", x=np.zeros((2, 28, 28), np.uint8), y=[0, 9])
    words = ["--data_dir", "d.npz", "--sigma", "0.25", *words]
    assert cli.main(["certify", NETWORK, "r.tsv", *words]) == 2
    printed = capsys.readouterr()
    assert said in printed.err and not set(printed.out + printed.err) & set(MARKS)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "already exists; choose another directory or give --overwrite"),
        (["--check", "abacus"], "unknown --check 'abacus'"),
        (["--check", "npz"], "--check npz needs --data_dir"),
        (["--check", "npz", "--skip", "0"], "--skip must be at least 1, not 0"),
        (["--normalization", "mnist"], "which --normalization takes"),
        (["--image_size", "1", "2", "3"], "--image_size takes H or H W, not 3 numbers"),
        (["--prefix", "net."], "--prefix 'net.': no name begins so"),
    ],
)
def test_the_command_that_converts_shows_its_own_flags(tmp_path, capsys, words, said):
    (tmp_path / "notes.txt").touch()
    assert cli.main(["convert", NETWORK, str(tmp_path), *words]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("command", ["convert", "export", "zoo"])
def test_flags_of_the_converter_are_fields_of_settings_and_need_nothing_slow(command):
    parser = cli.parser_of(command)
    assert isinstance(parser, argparse.ArgumentParser) and ("leave_out" in parser.format_help()) == (command != "zoo")
    code = f"import sys; from qcrs_jax.experiments.commands import {command}; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"jax", "flax", "scipy", "torch"} & set(loaded)


def test_messages_of_other_libraries_are_cut_to_one_line():
    assert quoted(ValueError("two\n lines")) == "two lines"
    assert quoted(ValueError("x" * 70_000)) == "x" * 300 + "..."
