"""What the README shows runs, and its commands exist."""

import re
from pathlib import Path

import jax
import numpy as np
import pytest
from readme import README, blocks

from qcrs_jax.experiments.cli import COMMANDS


def run(*words):
    """The code of the one Python example that has all `words`, and the names it defines."""
    (code,) = [code for code in blocks("python") if all(word in code for word in words)]
    names = {}
    exec(code, names)
    return code, names


def test_the_library_s_example():
    _, names = run("settings = GoldenSection(")
    assert names["certificate"].prediction == 0 and 0 < names["certificate"].radius < 0.1 * 8 * 3**0.5
    assert names["better"].sigma == names["trace"].sigma


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


def test_every_command_is_told_and_none_else():
    assert set(re.findall(r"qcrs-jax (\w[\w-]*)", README)) == set(COMMANDS)


def test_files_that_it_names_are_there():
    for target in re.findall(r"\]\((?!http)([^)]+)\)", README):
        assert (Path(__file__).parents[1] / target).exists(), target
