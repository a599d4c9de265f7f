"""The order and labels of a split of TFDS: parsed once, as long as its files are the same."""

import os
from collections.abc import Sequence

import numpy as np
import pytest
from tfds_made import as_png, random_images

from qcrs_jax.data import tfds_files, tfds_order
from qcrs_jax.data.load import DataError, load_dataset


@pytest.fixture
def caches(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "caches"))
    return tmp_path / "caches/qcrs_jax"


@pytest.fixture
def prepared(tmp_path, caches):
    """Three images of CIFAR-10 in an order of TFDS's own."""
    images = random_images(3, 32, 32, 3)
    rows = [{"image": as_png(image), "label": label} for image, label in zip(images, [4, 9, 0])]
    folder = tfds_files.write("cifar10", tmp_path / "tfds", lambda *_: {"train": rows[:1], "test": rows})
    return tmp_path / "tfds", folder


class Rows(Sequence):
    """Counts the rows that are parsed."""

    def __init__(self, rows):
        self.rows, self.parsed = rows, 0

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        self.parsed += 1
        return self.rows[index]

    def __iter__(self):
        return (self[index] for index in range(len(self)))


@pytest.fixture
def counted(monkeypatch):
    opened = []
    rows_of = tfds_files._rows
    monkeypatch.setattr(tfds_files, "_rows", lambda *args: opened.append(Rows(rows_of(*args))) or opened[-1])
    return opened


def test_a_split_is_parsed_once_and_the_second_time_image_by_image(prepared, counted):
    root, folder = prepared
    first, second = load_dataset("cifar10", root), load_dataset("cifar10", root)
    assert counted[0].parsed == 3 and counted[1].parsed == 0
    assert first.labels.tolist() == second.labels.tolist() == [4, 9, 0] and first.fingerprint == second.fingerprint
    for (image, label), (its_image, its_label) in zip(first, second, strict=True):
        np.testing.assert_array_equal(image, its_image)
        assert label == its_label
    assert counted[1].parsed == 3
    assert [file.name for file in folder.glob("qcrs_jax*")] == ["qcrs_jax_order_test.npz"]
    assert load_dataset("cifar10", root, "train").labels.tolist() == [4]


@pytest.mark.parametrize("change", ["time", "size", "damage", "other", "objects"])
def test_other_files_or_a_damaged_memory_are_parsed_anew(prepared, counted, change):
    root, folder = prepared
    load_dataset("cifar10", root)
    kept, (data,) = folder / "qcrs_jax_order_test.npz", folder.glob("*test*record*")
    if change == "time":
        os.utime(data, ns=(1, 1))
    elif change == "size":
        with np.load(kept) as content:
            np.savez(kept, **{**content, "key": "of another size"})
    elif change == "damage":
        kept.write_bytes(kept.read_bytes()[:-40])
    elif change == "other":
        with np.load(kept) as content:
            np.savez(kept, **{**content, "labels": content["labels"][::-1]})
    else:
        np.savez(kept, order=np.array([{}, {}, {}]), labels=[1, 2, 3], key="", sum="")
    assert load_dataset("cifar10", root).labels.tolist() == [4, 9, 0]
    assert counted[1].parsed == 3
    load_dataset("cifar10", root)
    assert counted[2].parsed == 0


def test_where_the_folder_cannot_be_written_it_is_kept_among_the_caches(prepared, counted, caches, monkeypatch):
    root, folder = prepared
    write = tfds_order._write

    def refuses(place, *args):
        if place.parent == folder:
            raise PermissionError("read only")
        write(place, *args)

    monkeypatch.setattr(tfds_order, "_write", refuses)
    load_dataset("cifar10", root)
    assert not list(folder.glob("qcrs_jax*")) and len(list(caches.iterdir())) == 1
    assert load_dataset("cifar10", root).labels.tolist() == [4, 9, 0] and counted[1].parsed == 0
    monkeypatch.setattr(tfds_order, "_write", lambda *_: (_ for _ in ()).throw(OSError("nowhere")))
    assert load_dataset("cifar10", root, "train").labels.tolist() == [4]


def test_labels_that_are_not_those_of_the_records_are_refused_at_the_image(prepared):
    root, folder = prepared
    load_dataset("cifar10", root)
    kept = folder / "qcrs_jax_order_test.npz"
    with np.load(kept) as content:
        key, order, labels = str(content["key"]), content["order"], content["labels"][::-1].copy()
    tfds_order._write(kept, key, order, labels)
    dataset = load_dataset("cifar10", root)
    assert dataset.labels.tolist() == [0, 9, 4]
    with pytest.raises(DataError, match="another label than qcrs_jax_order_test.npz.*delete"):
        dataset[0]
