"""The figure of a search and the file of its counts."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from qcrs_jax.bounds import predictive_table
from qcrs_jax.experiments import cli
from qcrs_jax.experiments.commands import demo
from qcrs_jax.experiments.report import search_figure
from qcrs_jax.results.records import read_run
from qcrs_jax.search.maximisers import golden_evaluations

COMMON = [str(demo.CHECKPOINT), "--dataset", "npz", "--data_dir", str(demo.IMAGES), "--sigma", "0.25"]
COMMON += "--left 0.08 --right 0.9 --epsilon 0.1 --N 200 --N0 20 --gradient_n 50".split()
SMALL = [*COMMON, "--curve_n", "60", "--sigmas", "0.1", "0.8", "4"]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """The folder of a figure of two images, and the content of the file behind it."""
    root = tmp_path_factory.mktemp("drawn")
    assert cli.main(["visualize", *SMALL, "--index", "5", "3", "--out", str(root / "f.png")]) == 0
    return root, json.loads((root / "f.json").read_text())


def refused(words, capsys):
    assert cli.main(words) == 2
    return capsys.readouterr().err


def test_the_file_has_all_that_the_figure_shows(drawn):
    root, content = drawn
    assert (root / "f.png").read_bytes().startswith(b"\x89PNG")
    request = content["request"]
    assert [image["idx"] for image in content["images"]] == [5, 3]
    assert len(request["sigmas"]) == 5 and float(np.float32(0.25)) in request["sigmas"]
    for image in content["images"]:
        assert [sum(row) for row in image["curve"]] == [60] * 5
        assert len(image["search"]["sigmas"]) == golden_evaluations(0.08, 0.9, 0.1)
        assert image["search"]["sigmas"][0] == image["cohen"]["sigma"] == 0.25
        assert image["qcrs"]["sigma"] in image["search"]["sigmas"]
        for k, sigma, radius in zip(*(image["search"][name] for name in ("successes", "sigmas", "radii"))):
            assert radius == pytest.approx(sigma * predictive_table(50, 200, 0.001)[k], rel=1e-4, abs=1e-6)


@pytest.mark.slow
def test_the_certificates_are_those_of_certify(drawn):
    root, content = drawn
    for method in ("cohen", "qcrs"):
        path = root / f"{method}.tsv"
        flags = [*COMMON[1:], "--method", method, "--max", "6", "--skip", "5", "--seed", "0"]
        assert cli.main(["certify", COMMON[0], str(path), *flags]) == 0
        record = read_run(path).records[-1]
        shown = content["images"][0][method]
        assert record.idx == 5 and record.counts == tuple(shown["counts"]) and record.counts0 == tuple(shown["counts0"])
        assert (record.radius, record.sigma, record.predict) == (shown["radius"], shown["sigma"], shown["predict"])


def test_the_strip_is_the_image_under_growing_noise(drawn):
    _, content = drawn
    strip = content["images"][0]["strip"]
    sigmas = [copy["sigma"] for copy in strip]
    assert sigmas == sorted(sigmas) and sigmas[0] == 0
    pixels = [np.asarray(Image.open(io.BytesIO(base64.b64decode(copy["png"])))).astype(float) / 255 for copy in strip]
    clean = np.load(demo.IMAGES)["x"][5].squeeze() / 255
    np.testing.assert_allclose(pixels[0], clean, atol=1e-6)
    within = np.all([(0 < p) & (p < 1) for p in pixels[1:4]], axis=0)  # where nothing was clipped
    noises = [(p - clean)[within] / sigma for p, sigma in zip(pixels[1:4], sigmas[1:4])]
    assert within.sum() > 50 and 0.5 < noises[0].std() < 1.2
    for noise in noises[1:]:
        np.testing.assert_allclose(noise, noises[0], atol=0.05)  # the same noise at all sigmas


@pytest.mark.slow
def test_the_figure_is_drawn_again_from_the_file_alone(drawn, monkeypatch, capsys):
    import matplotlib

    root, content = drawn
    monkeypatch.setitem(matplotlib.rcParams, "svg.fonttype", "none")  # text stays text
    assert cli.main(["plot", str(root / "f.json"), "--out", str(root / "again.svg")]) == 0
    text = (root / "again.svg").read_text()
    for image in content["images"]:
        assert f"image {image['idx']}: {content['request']['dataset']['class_names'][image['label']]}" in text
        for name in ("cohen", "qcrs"):
            said = "abstains" if image[name]["predict"] < 0 else f"radius {image[name]['radius']:.3f}"
            assert said in text
    assert "certified with N = 200" in text and "confidence band" in text and "held fixed" in text


@pytest.mark.slow
def test_colours_and_a_fixed_sigma_can_be_drawn(drawn, tmp_path):
    _, content = drawn
    stream = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(stream, "PNG")
    image = content["images"][0]
    strip = [{**copy, "png": base64.b64encode(stream.getvalue()).decode()} for copy in image["strip"]]
    fixed = {**image, "strip": strip, "qcrs": None, "search": None}
    path = tmp_path / "fixed.json"
    path.write_text(json.dumps({**content, "images": [fixed]}))
    search_figure.draw(path, tmp_path / "fixed.pdf")
    assert (tmp_path / "fixed.pdf").read_bytes().startswith(b"%PDF")


def test_impossible_figures_are_refused(drawn, tmp_path, capsys):
    root, _ = drawn
    words = ["visualize", *SMALL, "--index", "5", "--out"]
    out = str(tmp_path / "f.png")
    assert ".png, .pdf or .svg" in refused([*words, str(tmp_path / "f.jpg")], capsys)
    for flags, message in (
        (["--sigmas", "0.5", "0.1", "4"], "0 < LO < HI"),
        (["--sigmas", "0.1", "0.5", "4.5"], "COUNT"),
        (["--curve_n", "0"], "--curve_n"),
        (["--N", "9"], "is 10"),
        (["--certificate", "soft"], "--certificate soft"),
        (["--index", "500"], "images 0 to 499"),
    ):
        assert message in refused([*words, out, *flags], capsys)
    (tmp_path / "f.json").write_text('{"request": {}}')
    assert "would replace" in refused([*words, out], capsys)
    assert not (tmp_path / "f.png").exists()
    assert "not a file that" in refused(["plot", str(tmp_path / "f.json"), "--out", out], capsys)
