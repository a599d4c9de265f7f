"""Classifiers on disk: what is written comes back exactly, and nothing else is opened or overwritten."""

import json
import shutil

import jax
import numpy as np
import pytest
from checkpoints import cohen, images, lenet_file, resnet, save
from qcrs_jax.convert.load import load_classifier

from qcrs_jax.checkpoint import CheckpointError, restore_classifier, save_classifier


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return load_classifier(lenet_file(tmp_path_factory.mktemp("file")))


@pytest.fixture(scope="module")
def written(original, tmp_path_factory):
    path = tmp_path_factory.mktemp("written") / "lenet"
    save_classifier(original, path)
    return path


@pytest.fixture
def copy(written, tmp_path):
    """A directory of a classifier, to be damaged."""
    return shutil.copytree(written, tmp_path / "copy")


def refused(path):
    with pytest.raises(CheckpointError) as error:
        restore_classifier(path)
    assert str(path) in str(error.value)
    return str(error.value)


def test_lenet_comes_back_exactly(original, written):
    restored = load_classifier(written)
    assert restored.spec == original.spec
    assert restored.fingerprint() == original.fingerprint()
    x = images(3, (28, 28, 1))
    np.testing.assert_array_equal(jax.jit(restored.classify)(x), jax.jit(original.classify)(x))


def test_stacked_blocks_and_batch_statistics_come_back_exactly(tmp_path):
    original = load_classifier(save(cohen(resnet(20), "cifar_resnet20"), tmp_path / "net.pth.tar"))
    save_classifier(original, tmp_path / "a" / "b" / "net")
    restored = load_classifier(tmp_path / "a" / "b" / "net")
    assert restored.spec == original.spec
    assert restored.spec.mean == (0.4914, 0.4822, 0.4465)
    assert restored.spec.options == {}
    assert len(restored.spec.source["sha256"]) == 64
    assert restored.fingerprint() == original.fingerprint()
    assert restored.classify.func == original.classify.func
    for ours, theirs in zip(jax.tree.leaves(restored.classify), jax.tree.leaves(original.classify), strict=True):
        np.testing.assert_array_equal(ours, theirs, strict=True)


def test_relative_paths(original, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_classifier(original, "here")
    assert (tmp_path / "here" / "classifier.json").is_file()
    assert restore_classifier("here").spec == original.spec


def test_an_empty_directory_is_filled(original, tmp_path):
    save_classifier(original, tmp_path)
    assert restore_classifier(tmp_path).spec == original.spec


def test_overwriting_needs_to_be_asked_for(original, copy):
    metadata = copy / "classifier.json"
    fields = json.loads(metadata.read_text())
    metadata.write_text(json.dumps({**fields, "source": {"file": "of yesterday"}}))
    (copy / "stale").touch()
    with pytest.raises(CheckpointError, match="--overwrite") as error:
        save_classifier(original, copy)
    assert str(copy) in str(error.value)
    assert restore_classifier(copy).spec.source == {"file": "of yesterday"}
    save_classifier(original, copy, overwrite=True)
    assert restore_classifier(copy).spec == original.spec
    assert not (copy / "stale").exists()


def test_what_is_no_classifier_is_left_alone(original, tmp_path):
    (tmp_path / "folder").mkdir()
    thesis = tmp_path / "folder" / "thesis.tex"
    thesis.write_text("precious")
    for path in (thesis.parent, thesis):
        with pytest.raises(CheckpointError, match="left alone") as error:
            save_classifier(original, path, overwrite=True)
        assert str(path) in str(error.value)
    assert thesis.read_text() == "precious"


def test_a_directory_that_was_cut_short_is_no_classifier(copy):
    (copy / "classifier.json").unlink()
    assert "no classifier.json" in refused(copy)


@pytest.mark.parametrize("damage", ["gone", "empty", "a file gone", "truncated"])
def test_damaged_weights(copy, damage):
    weights = copy / "weights"
    if damage == "gone":
        shutil.rmtree(weights)
    elif damage == "empty":
        shutil.rmtree(weights)
        weights.mkdir()
    else:
        files = [f for f in weights.rglob("*") if f.is_file() and f.stat().st_size > 100_000]
        assert files
        for file in files:
            file.unlink() if damage == "a file gone" else file.write_bytes(file.read_bytes()[:1000])
    assert str(copy / "weights") in refused(copy)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "3", "null", "{}", '{"format": 1}', '{"format": 1, "arch": "lenet"}', "\x00\x01"]
)
def test_damaged_metadata(copy, text):
    (copy / "classifier.json").write_text(text)
    assert str(copy / "classifier.json") in refused(copy)


def test_metadata_that_are_not_text(copy):
    (copy / "classifier.json").write_bytes(b"\xff\xfe\x00")
    assert str(copy / "classifier.json") in refused(copy)


@pytest.mark.parametrize(
    "change",
    [
        {"format": 2},
        {"arch": "vgg16"},
        {"arch": ["lenet"]},
        {"mean": [0.1, 0.2]},
        {"mean": 0.5},
        {"std": [0.0]},
        {"std": ["1"]},
        {"image_shape": []},
        {"colour": "red"},
    ],
)
def test_metadata_that_do_not_hold_together(copy, change):
    file = copy / "classifier.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    assert str(file) in refused(copy)


@pytest.mark.parametrize(
    "change",
    [{"options": {"shortcut": "option_a"}}, {"options": {"width": 2}}, {"options": None}, {"num_classes": "ten"}],
)
def test_metadata_that_no_network_can_be_built_from(copy, change):
    file = copy / "classifier.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    refused(copy)


@pytest.mark.parametrize("change", [{"arch": "cifar_resnet20"}, {"num_classes": 11}, {"image_shape": [28, 28, 3]}])
def test_metadata_of_other_weights(copy, change):
    file = copy / "classifier.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    assert "weights" in refused(copy)


def test_load_classifier_says_what_is_missing(tmp_path):
    with pytest.raises(CheckpointError, match="no such file or directory") as error:
        load_classifier(tmp_path / "none.pth")
    assert str(tmp_path / "none.pth") in str(error.value)


def test_a_converted_classifier_keeps_its_normalisation(written):
    with pytest.raises(CheckpointError, match="convert the PyTorch file again") as error:
        load_classifier(written, "cifar10")
    assert str(written) in str(error.value)
