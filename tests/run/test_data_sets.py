"""The data set of a command: its choice, the order of its classes, and warnings."""

import contextlib
import io
import json
import shutil

import numpy as np
import pytest
from format_1 import as_format_1
from PIL import Image

from qcrs_jax.experiments import cli
from qcrs_jax.experiments.run import runner
from qcrs_jax.results.records import read_run, read_sidecar, sidecar_checksum

NETWORK = "zoo:fashion_mnist-lenet-sigma0.25"
NAMES = "T-shirt,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot".split(",")
FLAGS = "--sigma 0.25 --N 20 --skip 100".split()


@pytest.fixture(scope="module")
def garments():
    """150 of the test images of Fashion-MNIST, 15 a class, and their labels."""
    from qcrs_jax.experiments.commands.demo import IMAGES

    with np.load(IMAGES) as archive:
        x, y = archive["x"], archive["y"].astype(int)
    chosen = np.concatenate([np.flatnonzero(y == label)[:15] for label in range(10)])
    return x[chosen], y[chosen]


def put(root, garments, names, rgb=False):
    for i, (image, label) in enumerate(zip(*garments)):
        (root / names[label]).mkdir(parents=True, exist_ok=True)
        picture = Image.fromarray(image.reshape(28, 28))
        (picture.convert("RGB") if rgb else picture).save(root / names[label] / f"{i:03d}.png")
    return root


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(*words, status=0):
    """What a command prints to either stream."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        assert cli.main([*map(str, words)]) == status, printed.getvalue()
    return printed.getvalue()


@pytest.mark.slow
def test_folders_of_classes_need_no_dataset_flag_and_the_choice_is_printed(tmp_path, garments):
    put(tmp_path / "images", garments, [f"{i}{name}" for i, name in enumerate(NAMES)])
    text = run("predict", NETWORK, "r.tsv", "--data_dir", "images", *FLAGS)
    assert "note: images: read as folder (dataset folder)" in text and "2 of 150 images" in text
    assert "warning" not in text
    assert read_sidecar(tmp_path / "r.tsv")["request"]["dataset"]["name"] == "folder"
    assert "image 0 drawn again" in run("verify", "r.tsv")


def test_an_npz_needs_no_dataset_flag(tmp_path, garments):
    np.savez("d.npz", x_test=garments[0], y_test=garments[1][:, None])
    text = run("predict", NETWORK, "r.tsv", "--data_dir", "d.npz", *FLAGS)
    assert "read as npz" in text and len(read_run(tmp_path / "r.tsv").records) == 2
    np.save("images.npy", garments[0])
    assert "is a single array (.npy)" in run("predict", NETWORK, "q.tsv", "--data_dir", "images.npy", *FLAGS, status=2)
    assert "nothing for --split val" in run(
        "predict", NETWORK, "q.tsv", "--data_dir", "d.npz", "--split", "val", *FLAGS, status=2
    )


def test_classes_in_another_order_are_reported_and_class_order_mends_it(tmp_path, garments):
    put(tmp_path / "images", garments, NAMES)
    words = ("predict", NETWORK, "r.tsv", "--data_dir", "images", *FLAGS, "--seed", 0)
    text = run(*words)
    assert "warning: the labels seem to be permuted" in text and "images of Bag are called" in text
    assert f"warning: {NETWORK} has its classes in another order than the data set" in text
    assert "Bag (8 there, 1 here)" in text
    with open("order.txt", "w") as file:
        file.write("\n".join(NAMES) + "\n")
    assert "class_names" in run(*words, "--class_order", "order.txt", status=2)  # another configuration
    words = ("predict", NETWORK, "s.tsv", "--data_dir", "images", "--class_order", "order.txt", *FLAGS, "--seed", 0)
    text = run(*words)
    assert "warning" not in text
    assert read_sidecar(tmp_path / "s.tsv")["request"]["dataset"]["class_names"] == NAMES
    one, other = (read_run(tmp_path / name).records for name in ("r.tsv", "s.tsv"))
    assert [r.counts for r in one] == [r.counts for r in other], "the order changes labels alone"
    assert [r.label for r in one] != [r.label for r in other]
    (tmp_path / "order.txt").unlink()
    assert "verified" in run("verify", "s.tsv")


def test_numbers_are_asked_about_on_the_command_line(tmp_path, garments):
    put(tmp_path / "images", garments, [str(i + 1) for i in range(10)])
    words = ("predict", NETWORK, "r.tsv", "--data_dir", "images", *FLAGS)
    assert "Say it by --class_order: number, text, or a file" in run(*words, status=2)
    assert "warning" not in run(*words, "--class_order", "number")
    assert [r.label for r in read_run(tmp_path / "r.tsv").records] == [0, 5]


def test_grey_images_kept_as_rgb_are_those_of_one_channel(tmp_path, garments):
    names = [f"{i}{name}" for i, name in enumerate(NAMES)]
    for kind in (False, True):
        put(tmp_path / f"rgb{kind}", garments, names, kind)
        run("predict", NETWORK, f"{kind}.tsv", "--data_dir", f"rgb{kind}", *FLAGS, "--seed", 0)
    one, other = (read_run(tmp_path / f"{kind}.tsv").records for kind in (False, True))
    assert [r.counts for r in one] == [r.counts for r in other]
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (28, 28, 3), np.uint8)).save(
        next((tmp_path / "rgbTrue").rglob("000.png"))
    )
    text = run("predict", NETWORK, "c.tsv", "--data_dir", "rgbTrue", *FLAGS, status=2)
    assert "takes grey images, of one channel, but rgbTrue/0T-shirt/000.png has colours" in text


def test_a_first_look_is_one_sentence_and_changes_nothing(tmp_path, garments, monkeypatch):
    np.savez("d.npz", x=garments[0], y=garments[1])
    words = ("predict", NETWORK, "--data_dir", "d.npz", *FLAGS, "--sigma", 8)
    text = run(*words[:2], "with.tsv", *words[2:])
    assert text.count("is near chance") == 1 and "noise of sigma 8" in text
    monkeypatch.setattr(runner, "first_look", lambda *_: ())
    assert "near chance" not in run(*words[:2], "without.tsv", *words[2:])
    one, other = ((tmp_path / name).read_text().splitlines() for name in ("with.tsv", "without.tsv"))
    without_time = lambda lines: [line.split("\t")[:4] + line.split("\t")[5:] for line in lines]  # noqa: E731
    assert without_time(one) == without_time(other)
    asked = [read_sidecar(tmp_path / name)["request"] for name in ("with.tsv", "without.tsv")]
    assert asked[0] == asked[1]


@pytest.mark.slow
def test_of_a_run_in_two_passes_the_first_one_looks(tmp_path, garments, monkeypatch):
    np.savez("d.npz", x=garments[0], y=garments[1])
    looks = []
    monkeypatch.setattr(runner, "first_look", lambda *args: looks.append(args[2]) or ["something looks wrong"])
    flags = "--method cohen --N0 20 --budget 50 --skip 50 --sigma 0.25".split()
    text = run("certify", NETWORK, "r.tsv", "--data_dir", "d.npz", *flags)
    assert looks == [0.25] and text.count("warning: something looks wrong") == 1
    run("certify", NETWORK, "r.tsv", "--data_dir", "d.npz", *flags)  # nothing is left to do
    assert len(looks) == 1


def test_the_post_processing_takes_the_order_and_says_where_it_differs(tmp_path, garments):
    put(tmp_path / "images", garments, NAMES)
    order = tmp_path / "order.txt"
    order.write_text("\n".join(NAMES))
    data = ("--data_dir", "images", "--class_order", "order.txt")
    flags = "--method cohen --N0 20 --N 200 --skip 50 --sigma 0.25".split()
    run("certify", NETWORK, "r.tsv", *data, *flags)
    assert "memory.tsv" in run("memory", "r.tsv", "--out", "memory.tsv", *data)
    order.unlink()
    assert "verified" in run("verify", "memory.tsv", "--recount", "all")
    text = run("memory", "r.tsv", "--out", "other.tsv", *data[:2], status=2)
    assert "warning: r.tsv has its classes in another order than the data set" in text


def test_a_run_of_before_class_order_is_verified(tmp_path, garments):
    np.savez("d.npz", x=garments[0], y=garments[1])
    run("predict", NETWORK, "r.tsv", "--dataset", "npz", "--data_dir", "d.npz", *FLAGS, "--seed", 0)
    shutil.copy("r.tsv", "old.tsv")
    content = as_format_1(json.loads((tmp_path / "r.tsv.json").read_text()))
    del content["provenance"]["arguments"]["class_order"]
    content["sidecar_sha256"] = sidecar_checksum(content)
    (tmp_path / "old.tsv.json").write_text(json.dumps(content))
    assert "verified" in run("verify", "old.tsv")


def test_training_refuses_splits_with_labels_of_different_classes(tmp_path, garments):
    few = garments[0][:40], garments[1][:40]
    put(tmp_path / "d/train", garments, NAMES)
    put(tmp_path / "d/test", few, NAMES)
    words = ("train", "out", "--arch", "lenet", "--data_dir", "d", "--sigma", 0.25, "--epochs", 1)
    assert "is not the same class in both: Ankle boot, Bag" in run(*words, status=2)
