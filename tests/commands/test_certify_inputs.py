"""`qcrs-jax certify` on images and checkpoints of every kind, bad ones included."""

import numpy as np
import pytest
from kill_runs import cut, lines
from PIL import Image
from program import SMALL, qcrs_jax, refused

from qcrs_jax.results.records import read_run


def test_missing_and_unfitting_files_are_named(here):
    x = np.zeros((2, 28, 28), np.uint8)
    names = [str(i) for i in range(10)]
    np.savez(here / "classes.npz", x=x, y=[0, 1])
    np.savez(here / "shape.npz", x=np.zeros((2, 32, 32, 3), np.uint8), y=[0, 1], class_names=names)
    (here / "text.pth").write_text("no checkpoint")
    for checkpoint, data, parts in (
        ("no.pth", "data.npz", ["no.pth: no such file"]),
        ("text.pth", "data.npz", ["text.pth"]),
        ("lenet.pth", "no.npz", ["no.npz: no such file", "--data_dir"]),
        ("lenet.pth", "lenet.pth", ["lenet.pth: needs arrays x and y"]),
        ("lenet.pth", "classes.npz", ["lenet.pth", "10 classes", "has 2"]),
        ("lenet.pth", "shape.npz", ["lenet.pth", "(28, 28, 1)", "(32, 32, 3)"]),
    ):
        message = refused("certify", checkpoint, "r.tsv", *SMALL, "--data_dir", data, cwd=here)
        assert all(part in message for part in parts), message
    assert not (here / "r.tsv").exists()


def test_no_images_to_certify(here):
    done = qcrs_jax("certify", "lenet.pth", "r.tsv", *SMALL, "--max", 0, cwd=here, ok=False)
    assert "Traceback" not in done.stderr and done.returncode == 2


@pytest.mark.slow
def test_certify_takes_the_output_of_convert(certified):
    qcrs_jax("convert", "lenet.pth", "converted", cwd=certified)
    flags = [*SMALL, "--method", "cohen", "--max", 3]
    qcrs_jax("certify", "converted", "from_converted.tsv", *flags, cwd=certified)
    assert lines(certified / "from_converted.tsv") == lines(certified / "cohen.tsv")
    # The same weights: the file may be continued with either.
    qcrs_jax("certify", "converted", "cohen.tsv", *flags, cwd=certified)
    assert "converted" in refused("convert", "lenet.pth", "converted", cwd=certified)
    assert "no.pth: no such file" in refused("convert", "no.pth", "out", cwd=certified)
    qcrs_jax("convert", "zoo:fashion_mnist-lenet-sigma0.25", "of_the_zoo", cwd=certified)
    assert "zoo:lenet: not in the zoo" in refused("convert", "zoo:lenet", "out", cwd=certified)


@pytest.mark.parametrize("damage", ["cut", "small"])
def test_an_image_that_cannot_be_read_stops_the_run_or_is_left_out(here, folder, damage):
    images, words = folder
    bad = images / "class1" / "0.png"
    if damage == "cut":
        bad.write_bytes(bad.read_bytes()[:40])
    else:
        Image.fromarray(np.zeros((20, 28), np.uint8)).save(bad)
    message = refused(*words, cwd=here)
    assert "image 1" in message and "class1/0.png" in message and "1 results so far are kept in r.tsv" in message
    assert [r.idx for r in read_run(here / "r.tsv").records] == [0]
    result = qcrs_jax(*words, "--on_error", "skip", cwd=here)
    assert "image 1 is left out" in result.stdout + result.stderr
    assert "1 of 3 images were left out; the figures are over the other 2" in result.stdout
    assert [r.idx for r in read_run(here / "r.tsv").records] == [0, 2]
    assert len(read_run(here / "r.tsv").request["dataset"]["class_names"]) == 10


def test_the_first_image_may_be_the_damaged_one(here, folder):
    images, words = folder
    sound = (images / "class0" / "0.png").read_bytes()
    (images / "class0" / "0.png").write_bytes(bytes(len(sound)))
    assert "class0/0.png: not an image" in refused(*words, cwd=here)
    assert not (here / "r.tsv").exists()
    qcrs_jax(*words, "--on_error", "skip", cwd=here)
    assert [r.idx for r in read_run(here / "r.tsv").records] == [1, 2]
    words = [*words, "--on_error", "skip"]
    budget = [*words[:2], "budget.tsv", *words[3:], "--budget", 300]
    qcrs_jax(*budget, cwd=here)
    whole = lines(here / "budget.tsv")
    (images / "class0" / "0.png").write_bytes(sound)  # too late: the budget is shared
    cut(here / "budget.tsv", "".join((here / "budget.tsv").read_text().splitlines(keepends=True)[:2]))
    assert "1 of 3 images were left out" in qcrs_jax(*budget, cwd=here).stdout
    assert lines(here / "budget.tsv") == whole and len(whole) == 3
    for i in range(3):
        (images / f"class{i}" / "0.png").write_bytes(b"damaged")
    words[2] = "none.tsv"
    assert "all 3 images were left out" in refused(*words, cwd=here)


def test_labels_that_do_not_fit_stop_the_run_before_it_starts_or_are_left_out(here):
    x = np.load(here / "data.npz")["x"]
    np.savez(here / "data.npz", x=x, y=[4, 10, 4, 3, 4, 5], class_names=[str(i) for i in range(10)])
    words = ["certify", "lenet.pth", "r.tsv", *SMALL, "--method", "cohen", "--max", 3]
    assert "data.npz: image 1 has label 10" in refused(*words, cwd=here)
    assert not (here / "r.tsv").exists()
    qcrs_jax(*words, "--on_error", "skip", cwd=here)
    assert [r.idx for r in read_run(here / "r.tsv").records] == [0, 2]


@pytest.mark.slow
def test_images_of_other_sizes_are_resized_and_cut(here, folder):
    images, words = folder
    Image.fromarray(np.full((70, 56), 20, np.uint8)).save(images / "class1" / "0.png")
    result = qcrs_jax(*words, "--resize", 28, cwd=here)
    assert len(read_run(here / "r.tsv").records) == 3
    assert "folder (images): 3 of 10 images; classes class0, class1, class2" in result.stdout
    assert "--resize 20: must be at least 28" in refused(*words[:2], "other.tsv", *words[3:], "--resize", 20, cwd=here)
    result = qcrs_jax(
        "convert", "lenet.pth", "out", "--check", "folder", "--data_dir", "images", "--resize", 28, cwd=here
    )
    assert "on 1 images of folder" in result.stdout
