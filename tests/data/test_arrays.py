"""Arrays under the names that people give them, and original files of CIFAR-100 and SVHN."""

import pickle

import numpy as np
import pytest
import scipy.io
from data_sets_made import Python2Pickler, assert_holds, random_images

from qcrs_jax.data.arrays import CIFAR10, CIFAR100
from qcrs_jax.data.load import DataError, load_dataset

X, T, V = (random_images(3, 5, 4, seed=seed) for seed in range(3))
Y = np.array([0, 2, 1])
PAIRS = [
    ("x_{}", "y_{}"),
    ("X_{}", "Y_{}"),
    ("{}_x", "{}_y"),
    ("{}X", "{}Y"),
    ("x{}", "y{}"),
    ("{}_images", "{}_labels"),
    ("images_{}", "labels_{}"),
    ("{}Images", "{}Labels"),
    ("{}_data", "{}_labels"),
    ("{}_data", "{}_targets"),
    ("{}_img", "{}_target"),
    ("{}_image", "{}_label"),
    ("x_{}", "labels_{}"),
]


@pytest.mark.parametrize("shape", [(3,), (3, 1)])
@pytest.mark.parametrize(("image", "label"), PAIRS)
def test_splits_by_the_keys_of_an_npz(tmp_path, image, label, shape):
    arrays = {}
    for split, x in (("train", X), ("test", T), ("val", V)):
        arrays |= {image.format(split): x, label.format(split): Y.reshape(shape).astype(np.uint8)}
    np.savez(tmp_path / "d.npz", **arrays)
    for split, x in (("train", X), ("test", T), ("val", V)):
        dataset = load_dataset("npz", tmp_path / "d.npz", split)
        assert_holds(dataset, x[..., None], Y)
        assert (dataset.split, dataset.notes) == (split, ())


@pytest.mark.parametrize(
    "keys", ["X y", "images labels", "data labels", "image label", "data target", "X labels", "x Y"]
)
def test_an_npz_without_splits(tmp_path, keys):
    image, label = keys.split()
    np.savez(tmp_path / "d.npz", **{image: X, label: Y, "ids": np.arange(3)})
    dataset = load_dataset("npz", tmp_path / "d.npz")
    assert_holds(dataset, X[..., None], Y)
    assert dataset.notes == ()
    assert "not divided into splits" in load_dataset("npz", tmp_path / "d.npz", "train").notes[0]


def test_validation_stands_for_a_test_split_that_is_not_there(tmp_path):
    np.savez(tmp_path / "d.npz", x_train=X, y_train=Y, x_valid=V, y_valid=Y, x_test=T)
    dataset = load_dataset("npz", tmp_path / "d.npz")
    assert_holds(dataset, V[..., None], Y)
    assert "x_valid and y_valid are taken" in dataset.notes[0]


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x_train": X, "y_train": Y}, "holds train, but nothing for split test"),
        ({"x": X, "y": Y, "x_train": X, "y_train": Y}, "holds train, but nothing for split test"),
        ({"x": X, "y": Y, "images": T, "labels": Y}, "several arrays"),
        ({"x_test": X, "X_test": T, "y_test": Y}, "several arrays of images or of labels: x_test, X_test, y_test"),
        ({"arr_0": X, "arr_1": Y}, "needs arrays x and y, but holds arr_0, arr_1"),
        ({"train_images": X, "test_labels": Y}, "needs arrays x and y"),
        ({"x": X, "y": np.eye(3)}, "argmax"),
        ({"x": X // 200, "y": Y}, "no value above 1"),
    ],
)
def test_ambiguous_arrays_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(DataError, match=rf"d\.npz: .*{message}"):
        load_dataset("npz", tmp_path / "d.npz")


@pytest.mark.parametrize("key", ["class_names", "classes", "label_names"])
def test_names_of_classes_under_other_keys(tmp_path, key):
    np.savez(tmp_path / "d.npz", images=X, labels=Y, **{key: ["a", "b", "c", "d"]})
    assert load_dataset("npz", tmp_path / "d.npz").class_names == ["a", "b", "c", "d"]


@pytest.mark.parametrize("name", ["images.npy", "images.npz"])
def test_a_single_array_is_recognised_by_kind(tmp_path, name):
    with open(tmp_path / name, "wb") as file:
        np.save(file, X)
    with pytest.raises(DataError, match=r"is a single array \(\.npy\), without labels.*np\.savez"):
        load_dataset("npz", tmp_path / name)
    with pytest.raises(DataError, match="dataset npz") as error:
        load_dataset("folder", tmp_path / name)
    assert set(error.value.settings) == {"dataset"}


def test_files_of_splits_in_a_folder(tmp_path):
    np.savez(tmp_path / "Validation.npz", x=V, y=Y)
    np.savez(tmp_path / "train_set.npz", x=X, y=Y)
    np.savez(tmp_path / "._test.npz", x=T, y=Y)
    dataset = load_dataset("npz", tmp_path)
    assert_holds(dataset, V[..., None], Y)
    assert "Validation.npz is taken" in dataset.notes[0]
    assert_holds(load_dataset("npz", tmp_path, "train"), X[..., None], Y)
    np.savez(tmp_path / "valid.npz", x=T, y=Y)
    with pytest.raises(DataError, match="Validation.npz, valid.npz are all called val"):
        load_dataset("npz", tmp_path)


@pytest.mark.parametrize(
    ("name", "message"), [("d.npz", "It holds d.npz"), ("x_test.npy", "single arrays, x_test.npy")]
)
def test_a_folder_without_the_file_of_the_split_lists_its_files(tmp_path, name, message):
    np.savez(tmp_path / name, x=X, y=Y) if name.endswith("z") else np.save(tmp_path / name, X)
    with pytest.raises(DataError, match=rf"test\.npz: no such file.*{message}"):
        load_dataset("npz", tmp_path)


def write_cifar100(folder, images, labels, split="test", python2=True, text=False):
    folder.mkdir(parents=True, exist_ok=True)
    data = np.ascontiguousarray(images.transpose(0, 3, 1, 2).reshape(len(images), -1))
    rows = {"data": data, "fine_labels": list(labels), "coarse_labels": [0] * len(labels), "batch_label": "b"}
    rows = rows if text else {key.encode(): value for key, value in rows.items()}
    with open(folder / split, "wb") as file:
        (Python2Pickler(file, 2) if python2 else pickle.Pickler(file, 2)).dump(rows)


@pytest.mark.parametrize("python2", [True, False])
@pytest.mark.parametrize("below", ["cifar-100-python", "cifar100/cifar-100-python"])
def test_cifar100_s_original_files(tmp_path, below, python2):
    images, labels = random_images(4, 32, 32, 3), [3, 99, 0, 3]
    write_cifar100(tmp_path / below, images, labels, python2=python2)
    write_cifar100(tmp_path / below, images[:1], [7], "train", python2=python2)
    for root in (tmp_path, tmp_path / below):
        dataset = load_dataset("cifar100", root)
        assert_holds(dataset, images, labels)
        assert (dataset.class_names[3], dataset.class_names[99]) == ("bear", "worm")
    assert_holds(load_dataset("cifar100", tmp_path, "train"), images[:1], [7])


def test_cifar100_written_with_keys_of_text_and_its_names(tmp_path):
    root = tmp_path / "cifar-100-python"
    write_cifar100(root, random_images(1, 32, 32, 3), [1], python2=False, text=True)
    names = [f"class {i}" for i in range(100)]
    (root / "meta").write_bytes(pickle.dumps({b"fine_label_names": [name.encode() for name in names]}, 2))
    assert load_dataset("cifar100", tmp_path).class_names == names
    (root / "meta").write_bytes(pickle.dumps({b"fine_label_names": [b"a"]}, 2))
    with pytest.raises(DataError, match="meta: not the names"):
        load_dataset("cifar100", tmp_path)


def test_cifar10_with_names_of_its_own(tmp_path):
    images = random_images(2, 32, 32, 3)
    batch = {b"data": images.transpose(0, 3, 1, 2).reshape(2, -1), b"labels": [0, 9]}
    (tmp_path / "test_batch").write_bytes(pickle.dumps(batch, 2))
    assert load_dataset("cifar10", tmp_path).class_names == CIFAR10
    (tmp_path / "batches.meta").write_bytes(pickle.dumps({b"label_names": [b"%d" % i for i in range(10)]}, 2))
    assert_holds(load_dataset("cifar10", tmp_path), images, [0, 9])
    assert load_dataset("cifar10", tmp_path).class_names == [str(i) for i in range(10)]
    (tmp_path / "batches.meta").write_bytes(b"damaged")
    with pytest.raises(DataError, match="batches.meta: not the names of CIFAR-10's classes"):
        load_dataset("cifar10", tmp_path)


def test_the_names_of_cifar100_are_a_hundred_in_order():
    assert len(CIFAR100) == len(set(CIFAR100)) == 100 and CIFAR100 == sorted(CIFAR100)


@pytest.mark.parametrize(("name", "head"), [("cifar10", 1), ("cifar100", 2)])
def test_the_binary_versions(tmp_path, name, head):
    images, labels = random_images(2, 32, 32, 3), [5, 9]
    folder = tmp_path / {1: "cifar-10-batches-bin", 2: "cifar-100-binary"}[head]
    folder.mkdir()
    planes = images.transpose(0, 3, 1, 2).reshape(2, 3072)
    rows = [bytes([0] * (head - 1) + [label]) + plane.tobytes() for label, plane in zip(labels, planes)]
    file = folder / {1: "test_batch.bin", 2: "test.bin"}[head]
    file.write_bytes(b"".join(rows))
    assert_holds(load_dataset(name, tmp_path), images, labels)
    file.write_bytes(b"".join(rows)[:-1])
    with pytest.raises(DataError, match=rf"{file.name}: not a batch of CIFAR"):
        load_dataset(name, tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x80\x02}.", pickle.dumps({b"data": np.zeros((1, 3072))}, 2)])
def test_a_damaged_cifar100_file_is_named(tmp_path, content):
    (tmp_path / "cifar-100-python").mkdir()
    (tmp_path / "cifar-100-python/test").write_bytes(content)
    with pytest.raises(DataError, match="test: not a batch of CIFAR-100, or a damaged one"):
        load_dataset("cifar100", tmp_path)


def test_a_hostile_pickle_with_a_codec_runs_nothing(tmp_path):
    (tmp_path / "cifar-100-python").mkdir()
    # c_codecs\nlookup: another function of the module whose `encode` is known.
    (tmp_path / "cifar-100-python/test").write_bytes(b"\x80\x02c_codecs\nlookup\nU\x05asciiR.")
    with pytest.raises(DataError, match="_codecs.lookup, which is not part of CIFAR"):
        load_dataset("cifar100", tmp_path)


@pytest.mark.parametrize("below", ["", "svhn"])
def test_svhn_s_original_files(tmp_path, below):
    images, digits = random_images(3, 32, 32, 3), [4, 0, 9]
    (tmp_path / below).mkdir(exist_ok=True)
    for split, count in (("test", 3), ("train", 2)):
        content = {
            "X": np.moveaxis(images[:count], 0, -1),
            "y": np.array([[d or 10] for d in digits[:count]], np.uint8),
        }
        scipy.io.savemat(tmp_path / below / f"{split}_32x32.mat", content)
    dataset = load_dataset("svhn_cropped", tmp_path)
    assert_holds(dataset, images, digits)
    assert dataset.class_names == list("0123456789")
    assert_holds(load_dataset("svhn_cropped", tmp_path, "train"), images[:2], digits[:2])


@pytest.mark.parametrize("labels", [[11, 1], [0, 10], [1]])
def test_a_file_that_is_not_svhn_s_is_refused(tmp_path, labels):
    x = np.moveaxis(random_images(2, 32, 32, 3), 0, -1)
    scipy.io.savemat(tmp_path / "test_32x32.mat", {"X": x, "y": np.array(labels)[:, None]})
    with pytest.raises(DataError, match="test_32x32.mat: not a file of SVHN"):
        load_dataset("svhn_cropped", tmp_path)
    (tmp_path / "test_32x32.mat").write_bytes(b"damaged")
    with pytest.raises(DataError, match="test_32x32.mat: not a file of SVHN"):
        load_dataset("svhn_cropped", tmp_path)


@pytest.mark.parametrize("name", ["cifar10", "cifar100", "mnist", "fashion_mnist", "svhn_cropped"])
def test_a_missing_split_of_a_known_data_set_is_refused(tmp_path, name):
    with pytest.raises(DataError, match=f"{name}: has the splits train and test, and no val"):
        load_dataset(name, tmp_path, "val")
