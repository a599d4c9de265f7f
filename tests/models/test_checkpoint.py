"""Classifiers on disk: they come back exactly, and nothing else is opened or overwritten."""

import dataclasses
import json
import os
import shutil
import struct

import jax
import numpy as np
import pytest
from checkpoints import cohen, images, lenet_file, old_directory, resnet, save
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from qcrs_jax import files
from qcrs_jax.convert.load import load_classifier
from qcrs_jax.models import Classifier, checkpoint
from qcrs_jax.models.checkpoint import (
    FILE,
    CheckpointError,
    is_classifier,
    restore_classifier,
    save_classifier,
    write_classifier,
)


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    return load_classifier(lenet_file(tmp_path_factory.mktemp("file")))


@pytest.fixture(scope="module")
def written(original, tmp_path_factory):
    path = tmp_path_factory.mktemp("written") / "lenet"
    save_classifier(original, path)
    return path


@pytest.fixture(scope="module")
def written_before(original, tmp_path_factory):
    path = tmp_path_factory.mktemp("before") / "lenet"
    path.mkdir()
    return old_directory(original, path)


@pytest.fixture
def copy(written_before, tmp_path):
    """A directory of a classifier as earlier versions wrote it, to be damaged."""
    return shutil.copytree(written_before, tmp_path / "copy")


@pytest.fixture
def file(written, tmp_path):
    """The file of a classifier, in a directory of its own, to be damaged."""
    return shutil.copytree(written, tmp_path / "lenet") / FILE


def change(file, weights=None, seal=True, **fields):
    """Writes other weights, or other fields of the Spec, into the file of a classifier."""
    with safe_open(file, framework="numpy") as content:
        metadata = content.metadata()
    described = json.dumps({**json.loads(metadata["classifier"]), **fields})
    metadata = {"classifier": described, "sha256": checkpoint._sum(described) if seal else metadata["sha256"]}
    save_file(load_file(file) if weights is None else weights, file, metadata)


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


@pytest.mark.parametrize("devices", [None, "TPU_0(process=0,(0,0,0,0))", "cuda:0"])
def test_directories_of_earlier_versions_open_whatever_device_wrote_them(original, tmp_path, devices):
    restored = load_classifier(old_directory(original, tmp_path, devices))
    assert restored.spec == original.spec and restored.spec.class_names is None
    assert restored.fingerprint() == original.fingerprint()
    assert all(leaf.devices() == {jax.devices()[0]} for leaf in jax.tree.leaves(restored.classify))


def test_the_file_alone_is_the_classifier(original, written, tmp_path):
    assert [f.name for f in written.iterdir()] == [FILE]
    for path in (written / FILE, shutil.copy(written / FILE, tmp_path / "mine.safetensors")):
        assert is_classifier(path)
        restored = load_classifier(path)
        assert restored.spec == original.spec and restored.fingerprint() == original.fingerprint()


def test_names_of_the_classes_come_back(original, tmp_path):
    names = tuple("abcdefghij")
    save_classifier(Classifier(dataclasses.replace(original.spec, class_names=names), original.model), tmp_path)
    assert load_classifier(tmp_path).spec.class_names == names
    with pytest.raises(ValueError, match="1 names for 10"):
        dataclasses.replace(original.spec, class_names=("a",))


def test_weights_that_were_changed_are_refused(file):
    weights = load_file(file)
    weights["fc2/bias"] = weights["fc2/bias"] + np.float32(1e-3)
    change(file, weights)
    message = refused(file.parent)
    assert str(file) in message and "SHA-256 differs" in message and "convert the checkpoint again" in message


def test_a_description_that_was_changed_is_refused(file):
    change(file, seal=False, mean=[0.5])
    assert str(file) in refused(file.parent) and "changed after it was written" in refused(file)


@pytest.mark.parametrize(
    "fields",
    [
        {"format": 1},
        {"format": 3},
        {"arch": "vgg16"},
        {"mean": [0.1, 0.2]},
        {"std": [0.0]},
        {"image_shape": []},
        {"colour": "red"},
        {"options": {"width": 2}},
        {"options": None},
        {"num_classes": "ten"},
        {"class_names": ["one"]},
        {"arch": "cifar_resnet20"},
        {"num_classes": 11},
        {"image_shape": [28, 28, 3]},
        {"weights_sha256": "0" * 64},
    ],
)
def test_descriptions_that_do_not_hold_together(file, fields):
    change(file, **fields)
    assert "copy it again, or convert" in refused(file)


@pytest.mark.parametrize("fault", ["one gone", "one more", "another shape", "not a number"])
def test_other_weights_than_the_network_s(file, fault):
    weights = load_file(file)
    if fault == "one gone":
        del weights["fc1/bias"]
    elif fault == "one more":
        weights["fc3/bias"] = weights["fc1/bias"]
    elif fault == "another shape":
        weights["fc1/bias"] = weights["fc1/bias"][:1]  # would broadcast
    else:
        weights["fc1/bias"] = weights["fc1/bias"] * np.nan
    change(file, weights)
    refused(file)


def test_truncated_files_are_refused(file):
    data = file.read_bytes()
    (length,) = struct.unpack_from("<Q", data)
    for size in (0, 5, 8, 100, 8 + length, len(data) // 2, len(data) - 1):
        file.write_bytes(data[:size])
        refused(file.parent)
    file.write_bytes(struct.pack("<Q", 2**40) + data[8:])
    assert "header" in refused(file.parent)


def test_a_write_that_fails_leaves_the_earlier_file(original, file, monkeypatch, tmp_path):
    def full(number):
        raise OSError("no space left on device")

    (file.parent / "training").mkdir()
    monkeypatch.setattr(files.os, "fsync", full)
    for write in (lambda p: save_classifier(original, p, overwrite=True), lambda p: write_classifier(original, p)):
        with pytest.raises(OSError, match="no space"):
            write(file.parent)
        assert load_classifier(file.parent).fingerprint() == original.fingerprint()
        assert sorted(f.name for f in file.parent.iterdir()) == [FILE, "training"]
        with pytest.raises(OSError, match="no space"):
            write(tmp_path / "fresh")
        assert not is_classifier(tmp_path / "fresh") and not any((tmp_path / "fresh").iterdir())


class Killed(BaseException):
    """The process ends here: nothing that it would do after this is done."""


def killed_at(step, monkeypatch, act):
    """Whether `act` has so many steps that change the disk; it ends before that one, as a killed process does."""
    done = []

    def counted(function):
        def call(*args, **kwargs):
            if len(done) == step:
                raise Killed
            done.append(function)
            return function(*args, **kwargs)

        return call

    with monkeypatch.context() as patch:
        for name in ("open", "fsync", "replace", "unlink", "chmod", "rmdir"):
            patch.setattr(os, name, counted(getattr(os, name)))
        try:
            act()
        except Killed:
            return True
    return False


@pytest.mark.slow_for("of an earlier version")
@pytest.mark.parametrize("before", ["nothing", "of this version", "of an earlier version", "what an earlier kill left"])
def test_a_killed_write_leaves_the_earlier_classifier_or_the_new_one(
    original, written, written_before, tmp_path, monkeypatch, before
):
    other = Classifier(dataclasses.replace(original.spec, source={"file": "of today"}), original.model)
    at = {"of this version": written, "of an earlier version": written_before}.get(before)
    for step in range(100):
        path = tmp_path / str(step)
        if at:
            shutil.copytree(at, path)
        elif before != "nothing":
            path.mkdir()
            (path / f"{FILE}.partial").write_bytes(b"half")
            (path / ".qcrs-jax-0123456789abcdef.partial").write_bytes(b"half")
        killed = killed_at(step, monkeypatch, lambda: save_classifier(other, path, overwrite=True))  # noqa: B023
        if at:
            assert load_classifier(path).spec.source in (original.spec.source, other.spec.source)
        elif path.exists() and not is_classifier(path):
            assert not any(path.iterdir()) or "cut off" in refused(path)
            save_classifier(other, path)  # what is left of the first try is in nobody's way
        save_classifier(other, path, overwrite=True)
        assert [f.name for f in path.iterdir()] == [FILE]
        assert load_classifier(path).spec == other.spec
        if not killed:
            assert step > 3
            return
    raise AssertionError("it has no end")


@pytest.mark.slow
def test_a_killed_write_beside_other_things(original, written_before, tmp_path, monkeypatch):
    other = Classifier(dataclasses.replace(original.spec, source={"file": "of today"}), original.model)
    for step in range(100):
        path = shutil.copytree(written_before, tmp_path / str(step))
        (path / "training").mkdir()
        killed = killed_at(step, monkeypatch, lambda: write_classifier(other, path))  # noqa: B023
        assert load_classifier(path).spec.source in (original.spec.source, other.spec.source)
        write_classifier(other, path)
        assert sorted(f.name for f in path.iterdir()) == [FILE, "training"]
        if not killed:
            return
    raise AssertionError("it has no end")


def test_a_link_in_the_place_of_the_file_is_not_followed(original, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    for name in (FILE, f"{FILE}.partial"):
        path = tmp_path / f"of {name}"
        path.mkdir()
        (path / name).symlink_to(victim)
        write_classifier(original, path)
        assert not (path / FILE).is_symlink() and load_classifier(path).spec == original.spec
    assert victim.read_text() == "precious"


def test_a_classifier_written_beside_other_things_takes_the_place_of_one_of_an_earlier_version(original, copy):
    (copy / "training").mkdir()
    metadata = copy / "classifier.json"
    metadata.write_text(json.dumps({**json.loads(metadata.read_text()), "source": {}}))
    write_classifier(original, copy)
    assert sorted(f.name for f in copy.iterdir()) == [FILE, "training"]
    assert load_classifier(copy).spec == original.spec


def test_arguments_must_agree_with_a_converted_classifier(written, tmp_path):
    net = load_classifier(save(cohen(resnet(20), "cifar_resnet20"), tmp_path / "net.pth.tar"), image_size=64)
    save_classifier(net, tmp_path / "net")
    assert load_classifier(tmp_path / "net").spec.image_shape == (64, 64, 3)
    agreed = load_classifier(tmp_path / "net", "cifar10", image_size=(64, 64), max_pool=False)
    assert agreed.fingerprint() == net.fingerprint()
    for said in ({"image_size": 32}, {"max_pool": True}, {"field": "net"}, {"prefix": "1."}, {"leave_out": "x"}):
        with pytest.raises(CheckpointError, match="convert the PyTorch file again"):
            load_classifier(tmp_path / "net", **said)


def test_relative_paths(original, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_classifier(original, "here")
    assert (tmp_path / "here" / FILE).is_file()
    assert restore_classifier("here").spec == original.spec


def test_an_empty_directory_is_filled(original, tmp_path):
    save_classifier(original, tmp_path)
    assert restore_classifier(tmp_path).spec == original.spec


def test_overwriting_needs_to_be_asked_for(original, copy):
    metadata = copy / "classifier.json"
    fields = json.loads(metadata.read_text())
    metadata.write_text(json.dumps({**fields, "source": {"file": "of yesterday"}}))
    (copy / "stale").touch()
    with pytest.raises(CheckpointError, match="already exists") as error:
        save_classifier(original, copy)
    assert str(copy) in str(error.value) and error.value.settings == ("overwrite",)
    assert restore_classifier(copy).spec.source == {"file": "of yesterday"}
    for _ in range(2):  # over one of an earlier version, and over one of this
        save_classifier(original, copy, overwrite=True)
        assert restore_classifier(copy).spec == original.spec
        assert [f.name for f in copy.iterdir()] == [FILE]
        (copy / "stale").touch()
        with pytest.raises(CheckpointError, match="already exists"):
            save_classifier(original, copy)


def test_other_directories_are_left_alone(original, tmp_path):
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
    assert f"no {FILE}" in refused(copy)


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


def test_load_classifier_names_the_missing_file(tmp_path):
    with pytest.raises(CheckpointError, match="no such file or directory") as error:
        load_classifier(tmp_path / "none.pth")
    assert str(tmp_path / "none.pth") in str(error.value)


def test_a_converted_classifier_keeps_its_normalisation(written):
    with pytest.raises(CheckpointError, match="convert the PyTorch file again") as error:
        load_classifier(written, "cifar10")
    assert str(written) in str(error.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"arch": ["lenet"]},
        {"num_classes": "ten"},
        {"num_classes": 10.5},
        {"num_classes": 10**12},
        {"num_classes": True},
        {"image_shape": 28},
        {"image_shape": [28, 28]},
        {"image_shape": [28.0, 28, 1]},
        {"image_shape": [10**9, 28, 1]},
        {"mean": "0.5"},
        {"mean": ["0.5"]},
        {"mean": {}},
        {"std": [None]},
        {"options": [1]},
        {"options": {"unknown": 1}},
        {"source": "mine"},
        {"source": {"sigma": "0.25"}},
        {"source": {"sigma": float("nan")}},
        {"source": {"notes": "a note"}},
        {"source": {"notes": [1]}},
        {"class_names": "abcdefghij"},
        {"class_names": list(range(10))},
        {"more": 1},
    ],
)
def test_a_description_with_wrong_types_is_refused(file, copy, fields):
    change(file, **fields)
    assert "not a whole file of a classifier" in refused(file.parent)
    described = copy / "classifier.json"
    described.write_text(json.dumps({**json.loads(described.read_text()), **fields}))
    assert "not the metadata of a classifier" in refused(copy)
    for content in ("[" * 10**5, "[]", "3", "null"):
        described.write_text(content)
        assert "not the metadata of a classifier" in refused(copy)
