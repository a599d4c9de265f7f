"""`qcrs-jax demo` as a user runs it."""

import re

import numpy as np
import pytest
from program import assert_certificates
from readme import README

from qcrs_jax.convert.zoo import resolve
from qcrs_jax.experiments import cli
from qcrs_jax.experiments.commands import demo
from qcrs_jax.experiments.commands.method import request_of
from qcrs_jax.results.metrics import certified_accuracy, columns, summarise
from qcrs_jax.results.records import read_run


@pytest.mark.slow
def test_demo(tmp_path, monkeypatch, capsys):
    small = "--dataset npz --sigma 0.25 --N 100 --N0 20 --gradient_n 20 --skip 250 --macer".split()
    monkeypatch.setattr(demo, "COMMON", small)
    assert cli.main(["demo", "--out", str(tmp_path / "demo")]) == 0
    text = capsys.readouterr().out
    samples = 2 * (120 + 13 * 20 + 120 + 20 * 100 + 120)  # the searches draw 20 and 100 at a sigma
    assert text.startswith(f"The demo certifies 2 images by 3 methods, {samples:,} noisy copies at most.\n")
    runs = [read_run(tmp_path / "demo" / f"{name}.tsv") for name in ("cohen", "bisection", "bayesian")]
    for run in runs:
        assert [r.idx for r in run.records] == [0, 250]
        assert_certificates(run.path, n=100)
    assert runs[0].images == runs[1].images
    assert {r.sigma for r in runs[0].records} == {0.25} and runs[1].input_specific
    assert "Cohen, sigma 0.25 (cohen.tsv)" in text and "QCRS bayesian, sigma 0.25 (bayesian.tsv)" in text
    assert (tmp_path / "demo/certified_accuracy.png").read_bytes().startswith(b"\x89PNG")
    report = (tmp_path / "demo/report.html").read_text()
    assert text.rstrip().endswith(str(tmp_path / "demo" / "report.html")) and "QCRS bayesian" in report
    assert report.count("data:image/png") == 2, "thumbnails of the images that come with the package"
    # The printed commands are commands of this program.
    printed = [line.split()[1:] for line in text.splitlines() if line.startswith("qcrs-jax ")]
    assert [words[0] for words in printed] == ["certify"] * 3
    assert cli.main(printed[0]) == 0
    assert "2 of 2 images are done" in capsys.readouterr().out


@pytest.mark.slow
def test_the_demo_gives_the_table_of_the_readme(tmp_path):
    assert cli.main(["demo", "--out", str(tmp_path)]) == 0
    page = README.partition("## The demo")[2]
    expected = re.findall(r"^\| (?:Cohen|QCRS).*?\| \**([\d.]+)\**(.*) \| ([\d ]+) \|$", page, re.MULTILINE)
    assert len(expected) == 3
    for name, (acr, accuracies, samples) in zip(demo.RUNS, expected):
        run = read_run(tmp_path / f"{name}.tsv")
        found = summarise(run)
        assert found.acr == pytest.approx(float(acr), abs=0.01)  # a copy that is nearly a tie may go the other way
        assert found.samples == pytest.approx(float(samples.replace(" ", "")), rel=0.02)
        shares = [float(text) for text in re.findall(r"[\d.]+", accuracies)]
        found = certified_accuracy(*columns(run), np.array([0, 0.25, 0.5, 0.75, 1]))
        np.testing.assert_allclose(found, shares, atol=1.5 / 32)


def test_the_demo_as_it_ships_parses():
    parser = cli.parser_of("certify")
    assert len(np.load(demo.IMAGES)["y"]) == demo.EMBEDDED
    for flags in demo.RUNS.values():
        args = parser.parse_args([demo.CHECKPOINT, "r.tsv", "--data_dir", str(demo.IMAGES), *demo.COMMON, *flags])
        assert request_of(args).n == 5_000
        assert resolve(args.checkpoint).is_file() and args.data_dir.is_file()
