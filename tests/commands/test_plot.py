"""`qcrs-jax plot` as a user runs it."""

import pytest
from program import qcrs_jax, refused


@pytest.mark.parametrize(("ending", "magic"), [("png", b"\x89PNG\r\n"), ("pdf", b"%PDF-"), ("svg", b"<?xml")])
def test_plot(results, ending, magic):
    done = qcrs_jax("plot", "cohen_a.tsv", "qcrs.tsv", "--out", f"p.{ending}", cwd=results)
    content = (results / f"p.{ending}").read_bytes()
    assert content.startswith(magic) and len(content) > 3000
    assert done.stdout.strip() == f"p.{ending}"


def test_plot_writes_the_acr_and_warns_of_different_images(results, monkeypatch):
    import matplotlib

    from qcrs_jax.experiments.report import plot

    monkeypatch.setitem(matplotlib.rcParams, "svg.fonttype", "none")  # text stays text
    paths = [results / "cohen_a.tsv", results / "qcrs.tsv"]
    plot.plot(paths, results / "p.svg", names=["first name", "second name"])
    text = (results / "p.svg").read_text()
    assert "first name: ACR 0.2500" in text and "second name: ACR 0.4500" in text
    assert "not comparable" not in text
    plot.plot([*paths, results / "others.tsv"], results / "p.svg")
    assert "not comparable" in (results / "p.svg").read_text()


def test_impossible_plots_are_refused(results):
    for name in ("p.jpeg", "p"):
        assert ".png, .pdf or .svg" in refused("plot", "qcrs.tsv", "--out", name, cwd=results)
    assert "--names has 2 entries for 1" in refused(
        "plot", "qcrs.tsv", "--out", "p.png", "--names", "a", "b", cwd=results
    )
    assert "--width must be" in refused("plot", "qcrs.tsv", "--out", "p.png", "--width", "0", cwd=results)
    assert "nowhere" in refused("plot", "qcrs.tsv", "--out", "nowhere/p.png", cwd=results)
    assert not list(results.glob("p*"))


def test_the_figure_of_a_search_takes_no_flags_of_curves(tmp_path):
    (tmp_path / "f.json").write_text("{}")
    for flags in (["--title", ""], ["--names", "a"], ["--style", "paper"], ["--width", "4"], ["--p_a"]):
        assert "go with results files" in refused("plot", "f.json", "--out", "f.png", *flags, cwd=tmp_path)


def test_the_flags_of_a_plot(results):
    words = ["plot", "qcrs.tsv", "--style", "paper", "--width", "4", "--title", "", "--p_a", "--out", "p.svg"]
    qcrs_jax(*words, cwd=results)
    assert 'width="288pt"' in (results / "p.svg").read_text(), "4 inches of 72 points"
