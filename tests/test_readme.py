"""What the README shows runs, and its commands exist."""

import re
from pathlib import Path

import pytest
from qcrs_jax.experiments.cli import COMMANDS

README = (Path(__file__).parents[1] / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("code", blocks("python"))
def test_the_library_s_example_runs(code):
    names = {}
    exec(code, names)
    assert names["certificate"].prediction == 0 and 0 < names["certificate"].radius < 0.1 * 8 * 3**0.5
    assert names["better"].sigma == names["trace"].sigma


def test_every_command_is_told_and_none_else():
    assert set(re.findall(r"qcrs-jax (\w+)", README)) == set(COMMANDS)


def test_files_that_it_names_are_there():
    for target in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (Path(__file__).parents[1] / target).exists(), target
