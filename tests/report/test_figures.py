"""The files of the figures: fonts that venues take, bands, and names as they are."""

import json
from pathlib import Path

import numpy as np
import pytest
from requests_made import certificates

from qcrs_jax.analysis.curves import Curves
from qcrs_jax.experiments.report import compare, figures, plot, quasiconcavity, search_figure
from qcrs_jax.experiments.report import training_curve as train
from qcrs_jax.experiments.report.styles import METHODS, styles
from qcrs_jax.results.metrics import certified_accuracy, certified_accuracy_interval, columns
from qcrs_jax.results.records import Run, read_run

HEADER = "idx\tlabel\tpredict\tradius\tcorrect\tbest_sigma\tpABar\ttime\n"


def write_run(path, radii):
    lines = [f"{i}\t1\t1\t{radius}\t1\t0.25\t0.9\t0:00:01\n" for i, radius in enumerate(radii)]
    path.write_text(HEADER + "".join(lines))
    return path


@pytest.fixture
def runs(tmp_path):
    rng = np.random.default_rng(0)
    return [write_run(tmp_path / f"{name}.tsv", rng.uniform(0.1, 2, 30).round(3)) for name in ("first", "second")]


def draw_plot(runs, out):
    plot.plot(runs, out)


def draw_images(runs, out):
    compare.plot(read_run(runs[0]), [read_run(runs[1])], out)


def draw_frontier(runs, out):
    reference, other = map(read_run, runs)
    for run, samples in ((reference, 100), (other, 200)):
        for i, record in enumerate(run.records):
            run.records[i] = record.__class__(**{**record.__dict__, "counts0": (1,), "counts": (samples,)})
    compare.frontier(reference, [other], out)


def draw_exceptions(runs, out):
    counts = np.array([[[900, 100], [550, 450], [900, 100]]])
    request = {"dataset": {"class_names": ["a$b$", "c"]}, "sigma": 0.2}
    curves = Curves(np.array([0]), np.array([0]), np.array([0.1, 0.2, 0.9]), 0, counts, 1000, request)
    assert quasiconcavity.draw_exceptions([curves], 0.001, out) == 1


def draw_training(runs, out):
    train.plot_log([train.Epoch(1, 0.5, 1.0, 0.5, 0.5, 0.5, 0.5)] * 2, out, "a network")


DRAWINGS = [draw_plot, draw_images, draw_frontier, draw_exceptions, draw_training]


def check_fonts(path):
    content = path.read_bytes()
    if path.suffix == ".pdf":
        assert b"/Type3" not in content and b"/FontFile2" in content, "TrueType fonts are in the file"
    else:
        assert b"FontType 3" not in content and b"/FontType 42" in content


@pytest.mark.slow_for("draw_training-ps", "draw_images-pdf")
@pytest.mark.parametrize(("draw", "ending"), [*((draw, "pdf") for draw in DRAWINGS), (draw_training, "ps")])
def test_no_figure_has_fonts_of_type_3(tmp_path, monkeypatch, runs, draw, ending):
    import matplotlib

    monkeypatch.setitem(matplotlib.rcParams, "pdf.fonttype", 3)  # as matplotlib has it
    monkeypatch.setitem(matplotlib.rcParams, "ps.fonttype", 3)
    draw(runs, tmp_path / f"figure.{ending}")
    check_fonts(tmp_path / f"figure.{ending}")


def test_every_figure_is_saved_in_one_place():
    """No other module opens pyplot or saves a figure."""
    folder = Path(figures.__file__).parent
    for file in folder.glob("*.py"):
        text = file.read_text()
        assert file.name == "figures.py" or not ("savefig" in text or "matplotlib.pyplot" in text), file.name


def test_the_search_figure_has_no_fonts_of_type_3(tmp_path):
    certificate = {"sigma": 0.25, "radius": 0.1, "predict": 0}
    image = {
        "idx": 0,
        "label": 1,
        "curve": [[90, 10], [80, 20]],
        "cohen": certificate,
        "qcrs": None,
        "search": None,
        "strip": [],
    }
    pixel = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
    image["strip"] = [{"sigma": sigma, "png": pixel} for sigma in (0.0, 0.25)]
    request = {
        "dataset": {"class_names": ["a$b$", "_c"]},
        "sigmas": [0.25, 0.5],
        "sigma": 0.25,
        "curve_n": 100,
        "alpha": 0.001,
        "n": 100,
        "qcrs": None,
    }
    data = tmp_path / "f.json"
    data.write_text(json.dumps({"kind": "visualize", "request": request, "provenance": {}, "images": [image]}))
    search_figure.draw(data, tmp_path / "f.pdf")
    check_fonts(tmp_path / "f.pdf")


def test_the_plot_has_bands_of_the_exact_intervals(tmp_path, monkeypatch, runs):
    drawn = []
    monkeypatch.setattr(plot, "save", lambda figure, out: drawn.append(figure))
    plot.plot(runs, tmp_path / "p.png")
    (axes,) = drawn[0].axes
    for path, line, band in zip(runs, axes.lines, axes.collections, strict=True):
        at, curve = line.get_data()
        assert line.get_drawstyle() == "steps-pre"
        correct, radius = columns(read_run(path))
        np.testing.assert_array_equal(curve, certified_accuracy(correct, radius, at))
        assert set(radius[correct]) <= set(at), "each step is where it is"
        low, high = certified_accuracy_interval(correct, radius, at)
        points = band.get_paths()[0].vertices
        for place in (0, 10, 20, 29):
            found = np.unique(points[points[:, 0] == at[place], 1])
            assert np.isclose(found[:, None], [low[place], high[place]]).any(axis=0).all()
            assert low[place] <= curve[place] <= high[place]
    (legend,) = drawn[0].legends
    assert "95% intervals for all images like these" in legend.get_title().get_text()
    for text in legend.get_texts():
        assert text.get_text().endswith(")") and "ACR 1." in text.get_text()


def test_a_run_whose_images_depend_on_each_other_has_no_band(tmp_path, monkeypatch, runs):
    drawn = []
    monkeypatch.setattr(plot, "save", lambda figure, out: drawn.append(figure))
    made = {"request": {"stored_balls": {}}, "provenance": {}}
    (tmp_path / "second.tsv.json").write_text(json.dumps(made))
    plot.plot(runs, tmp_path / "p.png")
    assert len(drawn[0].axes[0].lines) == 2 and len(drawn[0].axes[0].collections) == 1
    texts = [text.get_text() for text in drawn[0].legends[0].get_texts()]
    assert texts[0].endswith(")") and not texts[1].endswith(")")


@pytest.mark.parametrize(("radii", "ends"), [([0.5] * 30, "ACR 0.5000"), ([0.1, 0.3], "ACR 0.2000")])
def test_figures_without_an_interval_of_the_acr_show_none(tmp_path, monkeypatch, radii, ends):
    drawn = []
    monkeypatch.setattr(plot, "save", lambda figure, out: drawn.append(figure))
    plot.plot([write_run(tmp_path / "run.tsv", radii)], tmp_path / "p.png")
    assert drawn[0].legends[0].get_texts()[0].get_text().endswith(ends)


def test_names_are_shown_as_they_are(tmp_path, monkeypatch):
    """No dollars begin mathematics, and no underscore hides a run."""
    drawn = []
    monkeypatch.setattr(plot, "save", lambda figure, out: (figure.canvas.draw(), drawn.append(figure)))
    files = [write_run(tmp_path / name, [0.1, 0.3]) for name in ("_x.tsv", "a$_{$.tsv")]
    plot.plot(files, tmp_path / "p.png")
    texts = [text.get_text().split(":")[0] for text in drawn[0].legends[0].get_texts()]
    assert texts == [" _x.tsv", r"a\$_{\$.tsv"]


def test_a_method_has_its_colour_in_every_figure_and_each_run_its_own_line():
    made = [certificates("cohen"), certificates("qcrs"), certificates("qcrs")]
    runs = [Run(Path(str(i)), [], {"request": request}) for i, request in enumerate(made)]
    found, search = styles(runs), made[1]["search"]["name"]
    assert found[0].colour == METHODS["cohen"] and found[1].colour == found[2].colour == METHODS[search]
    assert len({style.dash for style in found}) == 3
    assert styles(runs[1:])[0].colour == METHODS[search], "beside other runs too"
    logs = [Run(Path(str(i)), [], {}) for i in range(3)]
    assert len({style.colour for style in styles(logs)}) == 3
    assert len({style.colour for style in styles([*runs[1:], *runs[1:]])}) == 4, "many runs of one method"


def test_long_names_stay_within_the_figure(tmp_path, monkeypatch, runs):
    drawn = []
    monkeypatch.setattr(plot, "save", lambda figure, out: drawn.append(figure))
    for look in figures.LOOKS.values():
        plot.plot(runs, tmp_path / "p.png", names=["a name of many words " * 8] * len(runs), look=look)
        drawn[-1].draw_without_rendering()
        box = drawn[-1].legends[0].get_window_extent()
        assert box.x0 >= 0 and box.x1 <= drawn[-1].bbox.x1


def test_a_figure_for_a_paper(tmp_path, monkeypatch, runs):
    drawn = []
    monkeypatch.setattr(plot, "save", lambda figure, out: drawn.append(figure))
    plot.plot(runs, tmp_path / "p.pdf", look=figures.LOOKS["paper"])
    plot.plot(runs, tmp_path / "p.pdf", look=figures.Look(width=5.0))
    plot.plot(runs, tmp_path / "p.pdf", title="", p_a=True)
    paper, wide, both = drawn
    assert paper.get_size_inches()[0] == 3.25 and wide.get_size_inches()[0] == 5.0
    assert (
        paper.axes[0].get_title() == "" and wide.axes[0].get_title() == "30 images" and both.axes[0].get_title() == ""
    )
    assert {text.get_fontsize() for text in paper.legends[0].get_texts()} == {8.0}
    assert paper.axes[0].xaxis.label.get_fontsize() == 8.0 and wide.axes[0].xaxis.label.get_fontsize() > 8.0
    curves, distribution = both.axes
    assert curves.lines[0].get_linestyle() == "-" and curves.lines[1].get_linestyle() == "--"
    x, share = distribution.lines[0].get_data()
    assert share[0] == 0 and share[-1] == 1 and distribution.lines[0].get_drawstyle() == "steps-post"
    np.testing.assert_array_equal(share, np.where(1 - 10.0**-x >= 0.9, 1.0, 0.0))
    assert [tick.get_text() for tick in distribution.get_xticklabels()] == ["0.5", "0.9", "0.99"]


def test_the_frontier_shows_the_gain(tmp_path, monkeypatch, runs):
    drawn = []
    monkeypatch.setattr(compare, "save", lambda figure, out: drawn.append(figure))
    draw_frontier(runs, tmp_path / "f.png")
    (figure,) = drawn
    (axes,) = figure.axes
    first, second = (np.mean([record.radius for record in read_run(path).records]) for path in runs)
    heights = [container.lines[0].get_ydata()[0] for container in axes.containers]
    assert heights == [0, pytest.approx(second - first)] and axes.get_ylabel() == "gain in ACR"
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["first.tsv: +0.0000", f"second.tsv: {second - first:+.4f}"] and not axes.texts
