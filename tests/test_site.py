"""The site's own code: the command reference, formulas, notebooks and links. `.ci/docs` builds the whole."""

import importlib.util
import json

import pytest
from places import ROOT

from qcrs_jax.experiments.cli import COMMANDS, parser_of

pytest.importorskip("mkdocs", reason="needs the extra docs")


def hook(name):
    spec = importlib.util.spec_from_file_location(name, ROOT / f"docs/hooks/{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_s_page_has_every_flag_with_its_help(command):
    page, parser = hook("command_reference").page_of(command), parser_of(command).complete()
    assert page.startswith(f"# qcrs-jax {command}\n")
    for action in parser._actions:
        if not action.dest.startswith("help"):
            assert all(f"`{name}`" in page for name in action.option_strings), action.dest
            assert action.help.split()[0].strip("`,:") in page, action.dest
    assert page.count("```") % 2 == 0 and "%%" not in page and "%(default" not in page


def test_the_table_of_commands_has_each_with_its_first_sentence():
    table = hook("command_reference").table()
    assert all(f"[`qcrs-jax {name}`]({name}.md)" in table for name in COMMANDS)
    assert "Certify a data set: the radius of every image" in table


def test_formulas_become_mathml():
    pytest.importorskip("latex2mathml")
    formulas = hook("formulas")
    made = formulas.on_page_content(r'<p>of <span class="arithmatex">\(\sigma &lt; 1\)</span></p>')
    assert made.startswith('<p>of <span class="formula"><math') and "<mo>&#x0003C;</mo>" in made
    with pytest.raises(Exception, match=r"not known: \\nosuch"):
        formulas.on_page_content(r'<div class="arithmatex">\[\nosuch{x}\]</div>')


def test_a_notebook_s_page_has_its_text_code_outputs_and_figures():
    notebook = json.loads((ROOT / "docs/notebooks/own-bound.ipynb").read_text())
    page, pictures = hook("notebooks").page_of(notebook, "own-bound")
    assert page.startswith("# Your own bound") and "class Hoeffding(Bound):" in page and "hoeffding: fails with" in page
    assert list(pictures) == ["own-bound-1.png"] and pictures["own-bound-1.png"].startswith(b"\x89PNG")
    assert "(own-bound-1.png)" in page and "(own-bound.ipynb)" in page
