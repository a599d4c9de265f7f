"""The notebooks of the site: stored as they ran, and they still run."""

import contextlib
import io
import json
import re

import pytest
from places import ROOT

from qcrs_jax.certification.proportions import BOUNDS
from qcrs_jax.search import SEARCHES

NOTEBOOKS = {path.name: json.loads(path.read_text()) for path in sorted((ROOT / "docs/notebooks").glob("*.ipynb"))}


def code_of(notebook):
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def printed(cell):
    return "".join("".join(output.get("text", ())) for output in cell["outputs"])


@pytest.fixture
def registries():
    """What a notebook registers is forgotten."""
    known = [(table, dict(table)) for table in (BOUNDS, SEARCHES)]
    yield
    for table, before in known:
        table.clear()
        table.update(before)


def test_there_is_one_of_each():
    assert set(NOTEBOOKS) == {"own-network.ipynb", "own-search.ipynb", "own-bound.ipynb"}


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_is_stored_as_it_ran(name):
    cells = code_of(NOTEBOOKS[name])
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell["outputs"]]
    assert {output["output_type"] for output in outputs} <= {"stream", "execute_result", "display_data"}
    assert {output.get("name", "stdout") for output in outputs} == {"stdout"}, "no warnings"
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert len(json.dumps(NOTEBOOKS[name])) < 200_000


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_runs_and_prints_the_stored_output(name, registries, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "notebook"}
    for cell in code_of(NOTEBOOKS[name]):
        with contextlib.redirect_stdout(io.StringIO()) as found:
            exec(compile("".join(cell["source"]), name, "exec"), names)
        number = r"\d+\.?\d*"
        assert re.sub(number, "", found.getvalue()) == re.sub(number, "", printed(cell))
        expected = [float(text) for text in re.findall(number, printed(cell))]
        # Another device may put a copy that is nearly a tie into another class.
        assert [float(text) for text in re.findall(number, found.getvalue())] == pytest.approx(expected, rel=0.1)
