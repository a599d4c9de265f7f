"""The data sets that the shared script writes, each with its right outcome."""

import runpy
import sys

import numpy as np
import pytest
from places import SHARED

from qcrs_jax.data.load import DataError, load_dataset

SCRIPT = SHARED / "cases/data.py"


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    if not SCRIPT.is_file():
        pytest.skip("the shared script is not there")
    out = tmp_path_factory.mktemp("cases")
    arguments, sys.argv = sys.argv, [str(SCRIPT), str(out)]
    try:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    finally:
        sys.argv = arguments
    return out


def test_numeric(cases):
    with pytest.raises(DataError, match="by number .* or by text"):
        load_dataset("folder", cases / "numeric")
    assert load_dataset("folder", cases / "numeric", class_order="number").class_names == [str(i) for i in range(12)]


def test_splits_by_other_names(cases):
    with pytest.raises(DataError, match="test_set, training_set: these are splits by their names, not classes"):
        load_dataset("folder", cases / "splits_by_other_names")


def test_hidden(cases):
    assert [file.name for file in load_dataset("folder", cases / "hidden").files] == ["a.png", "a.png"]


def test_grey_as_rgb(cases):
    from qcrs_jax.convert.check import fit_image
    from qcrs_jax.errors import UserError
    from qcrs_jax.models import Spec

    spec = Spec("lenet", 10, (28, 28, 1), (0.0,), (1.0,))
    dataset = load_dataset("folder", cases / "grey_as_rgb")
    image, _ = dataset[0]
    np.testing.assert_array_equal(fit_image(spec, dataset, 0, image, "net.pth"), image[..., :1])
    image[3, 4, 1] += 1 / 255
    with pytest.raises(UserError, match=r"net\.pth takes grey images.*cat/1\.png has colours"):
        fit_image(spec, dataset, 0, image, "net.pth")


def test_tiny(cases):
    for split in ("val", "test"):
        dataset = load_dataset("folder", cases / "tiny", split)
        assert dataset.class_names == ["n01", "n02", "n03"] and dataset.labels.tolist() == [0, 1, 2, 0]
    assert load_dataset("folder", cases / "tiny", "train").labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize(("name", "splits"), [("med", "train test val"), ("keras", "train test")])
def test_keys(cases, name, splits):
    for split in splits.split():
        dataset = load_dataset("npz", cases / f"{name}.npz", split)
        assert dataset.labels.tolist() == [0, 1, 2, 0, 1] and dataset[0][0].shape == (28, 28, 1)


def test_a_single_array(cases):
    with pytest.raises(DataError, match=r"images\.npy: is a single array \(\.npy\)"):
        load_dataset("npz", cases / "images.npy")


def test_cifar100(cases):
    dataset = load_dataset("cifar100", cases)
    assert dataset.labels.tolist() == [3, 1, 4, 1, 5, 9]
    assert [dataset.class_names[label] for label in dataset.labels[:2]] == ["bear", "aquarium_fish"]
