"""What the README shows runs, and its commands exist."""

import re
from pathlib import Path

import numpy as np
import pytest
from qcrs_jax.experiments.cli import COMMANDS

README = (Path(__file__).parents[1] / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture(scope="module")
def examples():
    found = []
    for code in blocks("python"):
        found.append({})
        exec(code, found[-1])
    return found


def test_the_library_s_example(examples):
    names = examples[0]
    assert names["certificate"].prediction == 0 and 0 < names["certificate"].radius < 0.1 * 8 * 3**0.5
    assert names["better"].sigma == names["trace"].sigma


def test_the_example_of_one_s_own_network(examples):
    certificates = examples[1]["certificates"]
    assert certificates.counts.shape == (5, 10) and np.all(certificates.counts.sum(axis=1) == 1000)
    assert np.all((certificates.radius > 0) == (certificates.prediction >= 0)) and certificates.radius.max() > 0


def test_every_command_is_told_and_none_else():
    assert set(re.findall(r"qcrs-jax (\w+)", README)) == set(COMMANDS)


def test_files_that_it_names_are_there():
    for target in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (Path(__file__).parents[1] / target).exists(), target
