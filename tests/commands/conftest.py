"""Small inputs of commands, and results of them."""

import functools
import io

import numpy as np
import pytest
from PIL import Image
from program import COHEN_FORMAT, METHODS, PREDICT, QCRS_FORMAT, SMALL, fill, qcrs_jax
from with_torch import LeNet, torch


@pytest.fixture(scope="session")
def inputs():
    """A random LeNet in MACER's layout, and six random images."""
    torch.manual_seed(0)
    stream = io.BytesIO()
    torch.save({"net": LeNet().state_dict(), "epoch": 1}, stream)
    x = np.random.default_rng(0).integers(0, 256, (6, 28, 28), dtype=np.uint8)
    return stream.getvalue(), x


@pytest.fixture
def here(tmp_path, inputs):
    return fill(tmp_path, inputs)


@pytest.fixture(scope="session")
def by(tmp_path_factory, inputs):
    """A function of a method: results of three images by it, which are made once."""
    root = fill(tmp_path_factory.mktemp("certified"), inputs)

    @functools.cache
    def make(method):
        done = qcrs_jax("certify", "lenet.pth", f"{method}.tsv", *SMALL, *METHODS[method], "--max", 3, cwd=root)
        (root / f"{method}.out").write_text(done.stdout)
        return root / f"{method}.tsv"

    return make


@pytest.fixture(scope="session")
def certified(by):
    """A folder with results by two methods."""
    by("cohen")
    return by("golden").parent


@pytest.fixture(scope="session")
def predicted(tmp_path_factory, inputs):
    """Predictions for three images, with several N, and certificates by the same noise."""
    root = fill(tmp_path_factory.mktemp("predicted"), inputs)
    for name in ("cohen", "golden"):
        qcrs_jax("certify", "lenet.pth", f"{name}.tsv", *SMALL, *METHODS[name], "--max", 3, cwd=root)
    for n in (11, 60, 200):
        words = ["lenet.pth", f"p{n}.tsv", *PREDICT, "--N", n, "--max", 3]
        (root / f"p{n}.out").write_text(qcrs_jax("predict", *words, cwd=root).stdout)
    return root


@pytest.fixture
def results(tmp_path):
    """Runs of Cohen's and QCRS's programs over the same two images, and one over others."""
    lines = "0\t3\t3\t0.2\t1\t1.5\n1\t8\t8\t0.3\t1\t1.5\n"
    (tmp_path / "cohen_a.tsv").write_text(COHEN_FORMAT.format(lines))
    lines = "0\t3\t3\t0.9\t1\t0.4\t0.9\t0:00:05\n1\t8\t-1\t0.0\t0\t0.5\t0.4\t0:00:06\n"
    (tmp_path / "qcrs.tsv").write_text(QCRS_FORMAT.format(lines))
    (tmp_path / "others.tsv").write_text(COHEN_FORMAT.format("0\t3\t3\t0.2\t1\t1.5\n2\t1\t1\t2.0\t1\t1.5\n"))
    return tmp_path


@pytest.fixture
def crowded(tmp_path):
    """A run over six images a step of a grey level apart, whose balls overlap; Cohen's columns alone."""
    x = np.zeros((6, 4, 4), np.uint8)
    x[:, 0, 0] = np.arange(6) * 51  # 0.2 apart
    np.savez(tmp_path / "data.npz", x=x, y=[0, 1, 1, 0, 1, 0])
    rows = ["0 0 0 0.3", "1 1 1 0.2", "2 1 1 0.3", "3 0 0 0.15", "4 1 -1 0.0", "5 0 0 0.05"]
    lines = ["\t".join([*row.split(), str(int(row.split()[1] == row.split()[2])), "1.5"]) + "\n" for row in rows]
    (tmp_path / "run.tsv").write_text(COHEN_FORMAT.format("".join(lines)))
    return tmp_path


@pytest.fixture
def folder(here):
    """Ten grey images, one in each class, and the words that certify the first three."""
    for i in range(10):
        (here / "images" / f"class{i}").mkdir(parents=True)
        Image.fromarray(np.full((28, 28), 20 * i, np.uint8)).save(here / "images" / f"class{i}" / "0.png")
    words = ["certify", "lenet.pth", "r.tsv", "--dataset", "folder", "--data_dir", "images", "--max", "3"]
    return here / "images", [*words, *"--macer --method cohen --sigma 0.25 --N 50 --N0 5".split()]
