"""--noise: records, resuming, verification, tables and figures of runs with other noises."""

import json

import numpy as np
import pytest
from program import SMALL, qcrs_jax, refused

from qcrs_jax import Sequential, Soft, Tolerance, read_results, run, verify
from qcrs_jax.data.dataset import Dataset
from qcrs_jax.experiments.cli import main
from qcrs_jax.experiments.commands import demo
from qcrs_jax.results.records import read_sidecar
from qcrs_jax.sampling.smoothing import Gaussian, GridGaussian, Uniform

IMAGES = np.random.default_rng(3).integers(0, 256, (4, 6, 6, 3)).astype(np.float32) / np.float32(255)
LABELS = np.array([0, 1, 2, 0])


def classify(images):
    return 3 * images.mean((1, 2))


def certified(folder, noise, **options):
    path = folder / f"{noise.name}.tsv"
    return run(classify, (IMAGES, LABELS), path, 0.1, n=400, noise=noise, seed=0, batch_size=8, devices=1, **options)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("noise")
    return {noise.name: certified(folder, noise) for noise in (Gaussian(), GridGaussian(), Uniform())}


@pytest.mark.slow
def test_the_sidecar_has_the_noise_and_its_norm(runs):
    assert "smoothing" not in runs["gaussian"].request and runs["gaussian"].norm == "L2"
    assert runs["grid"].request["smoothing"] == {"name": "grid", "norm": "L2", "steps": 255}
    assert runs["uniform"].request["smoothing"] == {"name": "uniform", "norm": "L1"}
    assert runs["uniform"].norm == "L1"
    assert len({made.request["noise"] for made in runs.values()}) == 3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["grid", "uniform"])
def test_such_a_file_is_verified_and_continued_with_its_noise_alone(runs, name, tmp_path):
    path = runs[name].path
    assert any("verified" in line for line in verify(path, classify, (IMAGES, LABELS), recount=4))
    part = tmp_path / path.name
    lines = path.read_text().splitlines(keepends=True)
    certified(tmp_path, GridGaussian() if name == "grid" else Uniform(), stop=2)
    done = certified(tmp_path, GridGaussian() if name == "grid" else Uniform())
    assert [r.counts for r in done.records] == [r.counts for r in read_results(path).records] and len(lines) == 5
    with pytest.raises(ValueError, match="noise"):
        run(classify, (IMAGES, LABELS), part, 0.1, n=400, noise=Gaussian(), seed=0, batch_size=8, devices=1)


@pytest.mark.slow
def test_a_forged_norm_is_found(runs, tmp_path):
    sidecar = json.loads((path := runs["uniform"].path).with_name("uniform.tsv.json").read_text())
    (tmp_path / "r.tsv").write_bytes(path.read_bytes())
    for forged in ({"name": "uniform", "norm": "L2"}, {"name": "gaussian", "norm": "L1"}):
        (tmp_path / "r.tsv.json").write_text(
            json.dumps({**sidecar, "request": {**sidecar["request"], "smoothing": forged}})
        )
        with pytest.raises(ValueError):
            verify(tmp_path / "r.tsv", classify, (IMAGES, LABELS), recount=0)


@pytest.mark.slow
def test_tables_and_plots_keep_norms_apart(runs, tmp_path, capsys):
    l2, grid, l1 = (str(runs[name].path) for name in ("gaussian", "grid", "uniform"))
    main(["table", l2, grid, l1])
    text = capsys.readouterr().out
    assert "noise grid (grid.tsv)" in text and "made on 2" in text
    assert "radii of L1" in text and "rounded to the grid of the pixels" in text and "do not compare them" in text
    for command in (["plot", l2, l1, "--out", str(tmp_path / "p.png")], ["compare", l2, l1]):
        assert "of L1, and" in refused(*command, cwd=tmp_path) and not (tmp_path / "p.png").exists()
    main(["plot", l1, "--out", str(tmp_path / "p.svg")])
    assert (tmp_path / "p.svg").exists()


@pytest.mark.slow
def test_commands_for_l2_refuse_radii_of_l1(runs, tmp_path):
    results = runs["uniform"].path
    np.savez(tmp_path / "data.npz", x=IMAGES, y=LABELS)
    words = ["memory", results, "--dataset", "npz", "--data_dir", "data.npz", "--out", "out.tsv"]
    assert "has radii of L1, and balls are compared in L2" in refused(*words, cwd=tmp_path)
    assert not (tmp_path / "out.tsv").exists()
    words = ["sequential", "--decide", "0.5", "--n", "1000", "--results", results]
    assert "has radii of L1, and the tables are of normal noise" in refused(*words, cwd=tmp_path)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("certify c r.tsv --sigma 0.25 --noise laplace", "known are gaussian, grid, uniform"),
        ("certify c r.tsv --sigma 0.25 --method ddrs --noise uniform", "ascends radii of normal noise"),
        ("certify c r.tsv --sigma 4 --noise grid", "--sigma = 4: the --noise 'grid' can be drawn up to 3.53"),
        ("predict c r.tsv --sigma 4 --noise grid", "can be drawn up to"),
        ("curve c r.tsv --sigma 2 --noise grid", "can be drawn up to"),
    ],
)
def test_the_flag_refuses_impossible_noises(words, said, tmp_path):
    assert said in refused(*words.split(), cwd=tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("estimate", [Tolerance(0.05), Sequential(decide=0.01), Soft()])
def test_each_estimate_is_verified_with_its_noise(estimate, tmp_path):
    made = certified(tmp_path, GridGaussian(), estimate=estimate)
    assert any("verified" in line for line in verify(made.path, classify, (IMAGES, LABELS), recount=4))


def noise_in(path):
    return read_sidecar(path)["request"].get("smoothing", {"name": "gaussian"})["name"]


def test_auto_is_noise_on_the_grid_for_images_of_8_bits(here):
    words = ["certify", "lenet.pth", "r.tsv", *SMALL, "--method", "cohen", "--max", 2]
    said = qcrs_jax(*words, "--noise", "auto", cwd=here).stdout
    assert "noise: grid, because the images have 8 bits a channel" in said and noise_in(here / "r.tsv") == "grid"
    said = qcrs_jax(*words, "--max", 3, "--noise", "auto", cwd=here).stdout
    assert "noise: grid, as in r.tsv" in said and "2 of 3 images are done" in said
    assert "smoothing" in refused(*words, "--noise", "gaussian", cwd=here)


def test_a_run_that_was_begun_with_other_noise_keeps_it_under_auto(here):
    words = ["certify", "lenet.pth", "r.tsv", *SMALL, "--method", "cohen"]
    for noise in ("gaussian", "uniform"):
        qcrs_jax(*words, "--max", 1, "--noise", noise, cwd=here)
        said = qcrs_jax(*words, "--max", 2, "--noise", "auto", cwd=here).stdout
        assert f"noise: {noise}, as in r.tsv" in said and noise_in(here / "r.tsv") == noise
        for file in ("r.tsv", "r.tsv.json"):
            (here / file).unlink()


def test_a_pilot_decides_the_noise_of_its_run(here):
    words = ["certify", "lenet.pth", "r.tsv", *SMALL, "--method", "cohen", "--budget", 100, "--max", 2]
    qcrs_jax(*words, cwd=here)
    (here / "r.tsv").unlink()
    (here / "r.tsv.json").unlink()
    assert "noise: gaussian, as in r.tsv" in qcrs_jax(*words, "--noise", "auto", cwd=here).stdout


@pytest.mark.slow
def test_every_run_over_a_data_set_takes_auto(here):
    data = "--dataset npz --data_dir data.npz --noise auto --max 2".split()
    cascade = ["certify", "lenet.pth", "cascade.tsv", *data, "--method", "cascade", "--N0", 10, "--N", 50]
    qcrs_jax(*cascade, "--sigmas", "0.5,0.25", cwd=here)
    qcrs_jax("predict", "lenet.pth", "predict.tsv", *data, "--sigma", 0.25, "--seed", 0, "--N", 50, cwd=here)
    qcrs_jax("curve", "lenet.pth", "curve.tsv", *data, "--sigma", 0.25, "--curve_n", 20, cwd=here)
    for name in ("cascade", "predict", "curve"):
        assert noise_in(here / f"{name}.tsv") == "grid"
    said = refused("collapse", "lenet.pth", *data[:-2], "--sigma", 0.25, cwd=here)
    assert "has fewer than 20 images" in said


@pytest.mark.slow
def test_figures_and_collapse_take_auto_too(here):
    qcrs_jax("visualize", "lenet.pth", "--index", 0, "--out", "f.png", *SMALL, "--noise", "auto", cwd=here)
    assert json.loads((here / "f.json").read_text())["request"]["smoothing"]["name"] == "grid"
    words = ["--data_dir", demo.IMAGES, "--sigma", 0.25, "--sigmas", 0.2, 0.4, 3, "--image_count", 20, "--copies", 1]
    said = qcrs_jax("collapse", demo.CHECKPOINT, *words, "--noise", "auto", cwd=here).stdout
    assert "noise: grid, because the images have 8 bits a channel" in said


@pytest.mark.parametrize("images, name", [((255 * IMAGES).round().astype(np.uint8), "grid"), (IMAGES, "gaussian")])
def test_the_library_leaves_the_noise_to_the_images(images, name, tmp_path):
    numbers = {"n0": 20, "n": 50, "seed": 0, "batch_size": 8, "devices": 1}
    dataset = Dataset("d", "test", "memory", ["0", "1", "2"], LABELS, images.__getitem__, "0")
    run(classify, dataset, tmp_path / "r.tsv", 0.1, noise=None, **numbers)
    assert noise_in(tmp_path / "r.tsv") == name


def test_auto_needs_images(tmp_path):
    said = refused(*"export-program c p.jax --sigma 0.25 --noise auto".split(), cwd=tmp_path)
    assert "--noise auto depends on images, and this command reads none; give grid or gaussian" in said
