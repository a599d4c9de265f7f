"""A device that is full, or taken by somebody else, gives one line with its remedy."""

import subprocess

import jax
import pytest

from qcrs_jax.experiments import cli
from qcrs_jax.experiments.commands import benchmark
from qcrs_jax.experiments.run import full_card

TAKEN = [
    "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1073741824 bytes.",
    "Unable to initialize backend 'cuda': INTERNAL: no supported devices found for platform CUDA (you may need to ...",
    "INTERNAL: failed call to cuInit: CUDA_ERROR_OUT_OF_MEMORY: out of memory",
    "FAILED_PRECONDITION: DNN library initialization failed. Look at the errors above for more details.",
    "INTERNAL: Failed to create cuBLAS handle: CUBLAS_STATUS_ALLOC_FAILED",
]


@pytest.fixture(autouse=True)
def no_card(monkeypatch):
    monkeypatch.setattr(full_card, "in_use", lambda: "")


@pytest.mark.parametrize("text", TAKEN)
@pytest.mark.parametrize("kind", [RuntimeError, jax.errors.JaxRuntimeError])
def test_a_command_says_it_in_one_line(monkeypatch, capsys, text, kind):
    def run(args):
        raise kind(text + "\nand what stood above")

    monkeypatch.setattr(benchmark, "run", run)
    assert cli.main(["benchmark"]) == 2
    said = capsys.readouterr().err
    assert len(said.splitlines()) == 1 and said.startswith("qcrs-jax: error: the device's memory is full")
    assert "CUDA_VISIBLE_DEVICES" in said and text[:100] in said


@pytest.mark.parametrize("error", [RuntimeError("INTERNAL: something else"), ValueError("out of memory")])
def test_other_errors_are_raised_as_they_are(monkeypatch, error):
    def run(args):
        raise error

    monkeypatch.setattr(benchmark, "run", run)
    with pytest.raises(type(error)):
        cli.main(["benchmark"])


def test_use_of_the_cards_is_shown_if_the_driver_reports_it(monkeypatch):
    monkeypatch.undo()
    answers = {"two": "71680, 81920\n512, 81920\n", "none": "", "odd": "[N/A], [N/A]\n"}

    def tell(name):
        done = subprocess.CompletedProcess([], 0, stdout=answers[name])
        monkeypatch.setattr(subprocess, "run", lambda *args, **options: done)
        return full_card.in_use()

    assert tell("two") == " (70.0 of 80.0 GiB in use, 0.5 of 80.0 GiB in use)"
    assert tell("none") == tell("odd") == ""

    def missing(*args, **options):
        raise FileNotFoundError("nvidia-smi")

    monkeypatch.setattr(subprocess, "run", missing)
    assert full_card.in_use() == ""
