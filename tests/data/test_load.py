"""Data sets: every source on small files, exact values, fingerprints, and errors that name the file."""

import gzip
import os
import pickle
import socket
import struct

import numpy as np
import pytest
from data_sets_made import Python2Pickler, assert_holds, random_images
from PIL import Image

from qcrs_jax.data.load import DataError, load_dataset


def write_batch(file, images, labels):
    data = np.ascontiguousarray(images.transpose(0, 3, 1, 2).reshape(len(images), -1))
    names = [b"image_%d.png" % i for i in range(len(images))]
    batch = {b"batch_label": b"a batch", b"labels": list(labels), b"data": data, b"filenames": names}
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "wb") as stream:
        Python2Pickler(stream, protocol=2).dump(batch)
    # The original files name NumPy 1's modules.
    file.write_bytes(file.read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))


def write_idx(root, images, labels, stem="t10k", compress=False, dot=False):
    root.mkdir(parents=True, exist_ok=True)
    for array, kind in ((images, "images-idx3-ubyte"), (np.asarray(labels, np.uint8), "labels-idx1-ubyte")):
        content = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()
        file = root / f"{stem}-{kind.replace('-idx', '.idx') if dot else kind}"
        if compress:
            file.with_name(file.name + ".gz").write_bytes(gzip.compress(content))
        else:
            file.write_bytes(content)


@pytest.fixture
def no_network(monkeypatch):
    def fails(*args, **kwargs):
        raise OSError("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fails)
    for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("below", ["cifar-10-batches-py", ".", "cifar10/cifar-10-batches-py"])
def test_cifar10_test_split(tmp_path, below):
    images, labels = random_images(3, 32, 32, 3), [6, 9, 0]
    write_batch(tmp_path / below / "test_batch", images, labels)
    dataset = load_dataset("cifar10", tmp_path, "test")
    assert_holds(dataset, images, labels)
    assert dataset.class_names[6] == "frog" and len(dataset.class_names) == 10


def test_cifar10_train_split_keeps_the_order_of_its_batches(tmp_path):
    images, labels = random_images(10, 32, 32, 3), list(range(10))
    for i in range(5):
        file = tmp_path / f"cifar-10-batches-py/data_batch_{i + 1}"
        write_batch(file, images[2 * i : 2 * i + 2], labels[2 * i : 2 * i + 2])
    assert_holds(load_dataset("cifar10", tmp_path, "train"), images, labels)


def test_cifar10_is_found_below_data_by_default(tmp_path, monkeypatch):
    images = random_images(1, 32, 32, 3)
    write_batch(tmp_path / "data/cifar-10-batches-py/test_batch", images, [3])
    monkeypatch.chdir(tmp_path)
    assert_holds(load_dataset("cifar10"), images, [3])


def test_cifar10_channels_and_rows_are_in_place(tmp_path):
    image = np.zeros((1, 32, 32, 3), np.uint8)
    image[0, 1, 2, 0], image[0, 31, 0, 2] = 255, 51
    write_batch(tmp_path / "test_batch", image, [0])
    found, _ = load_dataset("cifar10", tmp_path)[0]
    assert found[1, 2, 0] == 1 and found[31, 0, 2] == np.float32(51) / np.float32(255)
    assert np.count_nonzero(found) == 2


def test_a_missing_train_batch_is_named(tmp_path):
    write_batch(tmp_path / "data_batch_1", random_images(1, 32, 32, 3), [0])
    with pytest.raises(DataError, match="data_batch_2"):
        load_dataset("cifar10", tmp_path, "train")


@pytest.mark.parametrize("damage", ["truncated", "empty", "other", "labels short"])
def test_a_damaged_cifar10_batch_is_named(tmp_path, damage):
    file = tmp_path / "test_batch"
    write_batch(file, random_images(2, 32, 32, 3), [1] if damage == "labels short" else [1, 2])
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:-3000])
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "other":
        file.write_bytes(pickle.dumps([1, 2, 3], protocol=2))
    with pytest.raises(DataError, match="test_batch: not a batch of CIFAR-10, or a damaged one"):
        load_dataset("cifar10", tmp_path)


class Hostile:
    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_a_hostile_cifar10_batch_runs_nothing(tmp_path):
    victim = tmp_path / "victim"
    content = pickle.dumps({"data": Hostile(victim), "labels": [0]}, protocol=2)
    (tmp_path / "test_batch").write_bytes(content)
    with pytest.raises(DataError, match=r"test_batch.*mkdir"):
        load_dataset("cifar10", tmp_path)
    assert not victim.exists()
    pickle.loads(content)  # the file is hostile: a plain load runs it
    assert victim.exists()


@pytest.mark.parametrize("name", ["mnist", "fashion_mnist"])
@pytest.mark.parametrize("compress", [False, True])
def test_idx_files(tmp_path, name, compress):
    images, labels = random_images(4, 28, 28), [9, 0, 3, 3]
    write_idx(tmp_path, images, labels, compress=compress)
    dataset = load_dataset(name, tmp_path)
    assert_holds(dataset, images[..., None], labels)
    assert dataset.class_names[9] == {"mnist": "9", "fashion_mnist": "Ankle boot"}[name]


@pytest.mark.parametrize("below", ["mnist", "MNIST/raw"])
def test_idx_train_split_in_its_usual_folders(tmp_path, below):
    test, train = random_images(1, 28, 28, seed=1), random_images(2, 28, 28, seed=2)
    write_idx(tmp_path / below, test, [1])
    write_idx(tmp_path / below, train, [2, 3], stem="train", dot=True)
    assert_holds(load_dataset("mnist", tmp_path, "train"), train[..., None], [2, 3])
    assert_holds(load_dataset("mnist", tmp_path, "test"), test[..., None], [1])


def test_idx_known_bytes(tmp_path):
    image = np.zeros((1, 2, 3), np.uint8)
    image[0, 1, 2] = 255
    write_idx(tmp_path, image, [7])
    found, label = load_dataset("mnist", tmp_path)[0]
    assert label == 7
    np.testing.assert_array_equal(found[..., 0], np.array([[0, 0, 0], [0, 0, 1]], np.float32))


@pytest.mark.parametrize("kind", ["images", "labels"])
@pytest.mark.parametrize("damage", ["truncated", "magic", "empty", "gzip", "truncated gzip"])
def test_a_damaged_idx_file_is_named(tmp_path, kind, damage):
    write_idx(tmp_path, random_images(4, 28, 28), [0, 1, 2, 3], compress="gzip" in damage)
    file = next(tmp_path.glob(f"t10k-{kind}*"))
    content = file.read_bytes()
    file.write_bytes(
        {
            "truncated": content[:-1],
            "magic": b"\x00\x00\x0d" + content[3:],
            "empty": b"",
            "gzip": b"no gzip" + content,
            "truncated gzip": content[:-9],
        }[damage]
    )
    with pytest.raises(DataError, match=f"{file.name}: not an IDX file, or a damaged one"):
        load_dataset("mnist", tmp_path)


def test_idx_images_without_labels_or_with_too_few(tmp_path):
    write_idx(tmp_path, random_images(2, 28, 28), [0])
    with pytest.raises(DataError, match=r"t10k-images.*t10k-labels.*shapes"):
        load_dataset("mnist", tmp_path)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="t10k-images-idx3-ubyte.*not the other"):
        load_dataset("mnist", tmp_path)


def test_labels_out_of_range_are_refused(tmp_path):
    write_idx(tmp_path / "a", random_images(2, 28, 28), [0, 10])
    with pytest.raises(DataError, match="10"):
        load_dataset("mnist", tmp_path / "a")
    write_batch(tmp_path / "b/test_batch", random_images(2, 32, 32, 3), [-1, 2])
    with pytest.raises(DataError, match="test_batch"):
        load_dataset("cifar10", tmp_path / "b")


def write_png(file, image):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image).save(file)
    return file


def test_folder_sorts_classes_and_files(tmp_path):
    rgb, grey = random_images(3, 8, 6, 3), random_images(8, 6)
    # Written in an order other than the sorted one.
    write_png(tmp_path / "wolf/1.png", rgb[0])
    write_png(tmp_path / "ant/b.PNG", rgb[1])
    write_png(tmp_path / "ant/a.png", rgb[2])
    write_png(tmp_path / "bee/x.png", grey)
    (tmp_path / "ant/notes.txt").write_text("no image")
    (tmp_path / "README.md").write_text("no class")
    dataset = load_dataset("folder", tmp_path)
    assert dataset.class_names == ["ant", "bee", "wolf"]
    assert_holds(dataset, [rgb[2], rgb[1], grey[..., None], rgb[0]], [0, 0, 1, 2])


@pytest.mark.parametrize(("split", "below"), [("test", "test"), ("test", "val"), ("train", "train")])
def test_folder_of_splits(tmp_path, split, below):
    images = random_images(2, 4, 4, 3)
    write_png(tmp_path / below / "c/0.png", images[0])
    write_png(tmp_path / "other/c/0.png", images[1])
    dataset = load_dataset("folder", tmp_path, split)
    assert dataset.class_names == ["c"]
    assert_holds(dataset, images[:1], [0])


def test_folder_converts_other_kinds_to_rgb(tmp_path):
    image = random_images(4, 4, 3)
    file = write_png(tmp_path / "c/0.png", image)
    Image.open(file).convert("RGBA").save(file)
    assert_holds(load_dataset("folder", tmp_path), [image], [0])


@pytest.mark.parametrize("mode", ["1", "LA"])
def test_folder_keeps_grey_images_of_one_channel(tmp_path, mode):
    image = np.where(random_images(6, 5) > 127, 255, 0).astype(np.uint8)
    file = write_png(tmp_path / "c/0.png", image)
    Image.fromarray(image).convert(mode).save(file)
    assert_holds(load_dataset("folder", tmp_path), [image[..., None]], [0])


def test_folder_looks_deeper_but_not_at_hidden_files(tmp_path):
    images = random_images(2, 4, 4, 3)
    write_png(tmp_path / "a/day/0.png", images[0])
    write_png(tmp_path / "b/0.png", images[1])
    for hidden in (".thumbnails/0.png", "b/._0.png"):
        (tmp_path / hidden).parent.mkdir(exist_ok=True)
        (tmp_path / hidden).write_bytes(b"")
    dataset = load_dataset("folder", tmp_path)
    assert dataset.class_names == ["a", "b"]
    assert_holds(dataset, images, [0, 1])


def test_a_class_called_train_is_no_split(tmp_path):
    images = random_images(2, 4, 4, 3)
    write_png(tmp_path / "bus/0.png", images[0])
    write_png(tmp_path / "train/0.png", images[1])
    assert_holds(load_dataset("folder", tmp_path), images, [0, 1])


def test_a_corrupt_image_file_is_named(tmp_path):
    file = write_png(tmp_path / "c/0.png", random_images(16, 16, 3))
    file.write_bytes(file.read_bytes()[:100])
    write_png(tmp_path / "c/1.png", random_images(16, 16, 3))
    (tmp_path / "c/2.png").write_bytes(b"not a png")
    dataset = load_dataset("folder", tmp_path)
    dataset[1]
    for index in (0, 2):
        with pytest.raises(DataError, match=f"{index}.png: not an image, or a damaged one"):
            dataset[index]


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "c").mkdir()
    with pytest.raises(DataError, match="no images found.*CLASS/IMAGE"):
        load_dataset("folder", tmp_path)


@pytest.mark.parametrize("shape", [(3, 5, 4), (3, 5, 4, 1), (3, 5, 4, 3)])
def test_npz_uint8(tmp_path, shape):
    x = random_images(*shape)
    np.savez(tmp_path / "d.npz", x=x, y=[0, 2, 1])
    dataset = load_dataset("npz", tmp_path / "d.npz")
    assert_holds(dataset, x[..., None] if x.ndim == 3 else x, [0, 2, 1])
    assert dataset.class_names == ["0", "1", "2"]


def test_npz_floats_class_names_and_splits(tmp_path):
    x = np.random.default_rng(0).random((2, 3, 3, 1))
    np.savez(tmp_path / "test.npz", x=x, y=[1, 1], class_names=["cat", "dog"])
    np.savez(tmp_path / "train.npz", x=1 - x, y=[0, 1])
    dataset = load_dataset("npz", tmp_path)
    assert dataset.class_names == ["cat", "dog"]
    np.testing.assert_array_equal(dataset[1][0], x[1].astype(np.float32))
    np.testing.assert_array_equal(load_dataset("npz", tmp_path, "train")[0][0], (1 - x[0]).astype(np.float32))


X = random_images(2, 4, 4)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": X, "y": [0, 1]}, "needs arrays x and y, but holds images, y"),
        ({"x": X}, "needs arrays x and y, but holds x"),
        ({"x": X[0], "y": [0, 1]}, "must be"),
        ({"x": X, "y": [0]}, "must be"),
        ({"x": X[:0], "y": np.zeros(0, int)}, "must be"),
        ({"x": X, "y": [-1, 0]}, "image 0 has label -1"),
        ({"x": X, "y": [0.0, 1.0]}, "labels"),
        ({"x": X, "y": [0, 2], "class_names": ["a", "b"]}, "class_names"),
        ({"x": X.astype(np.float32), "y": [0, 1]}, r"floats in \[0, 1\]"),
        ({"x": X / 255 - 0.5, "y": [0, 1]}, r"floats in \[0, 1\]"),
        ({"x": np.where(X > 99, np.nan, 0.5), "y": [0, 1]}, r"floats in \[0, 1\]"),
        ({"x": random_images(2, 3, 8, 8), "y": [0, 1]}, r"transpose\(0, 2, 3, 1\)"),
        ({"x": X.astype(np.int64), "y": [0, 1]}, "uint8"),
        ({"x": X.astype(object), "y": [0, 1]}, "damaged"),
    ],
)
def test_wrong_npz_fields_are_refused(tmp_path, arrays, message):
    np.savez(tmp_path / "d.npz", **arrays)
    with pytest.raises(DataError, match=rf"d\.npz: .*{message}"):
        load_dataset("npz", tmp_path / "d.npz")


def test_entries_that_do_not_fit_stop_or_wait_for_their_turn(tmp_path):
    x = random_images(5, 4, 4) / np.float32(255)
    x[1, 0, 0] = np.nan
    x[2, 0, 0] = 1.5
    np.savez(tmp_path / "d.npz", x=x, y=[0, 0, 1, 3, -1], class_names=["a", "b"])
    with pytest.raises(DataError, match=r"d\.npz: x\[1\] must lie in \[0, 1\].*, and 3 more.*on_error skip") as error:
        load_dataset("npz", tmp_path / "d.npz")
    assert error.value.settings == ("on_error",)
    dataset = load_dataset("npz", tmp_path / "d.npz", on_error="skip")
    np.testing.assert_array_equal(dataset[0][0][..., 0], x[0])
    for index, message in ((1, r"x\[1\]"), (2, "1.5"), (3, "image 3 has label 3.* 0 to 1"), (4, "label -1")):
        with pytest.raises(DataError, match=rf"d\.npz: .*{message}"):
            dataset[index]


@pytest.mark.parametrize("damage", ["truncated", "text", "empty"])
def test_a_damaged_npz_is_named(tmp_path, damage):
    file = tmp_path / "d.npz"
    np.savez(file, x=X, y=[0, 1])
    file.write_bytes({"truncated": file.read_bytes()[:200], "text": b"hello", "empty": b""}[damage])
    with pytest.raises(DataError, match=r"d\.npz: not an \.npz file, or a damaged one"):
        load_dataset("npz", file)


def test_missing_folder_file_or_split(tmp_path):
    for name in ("folder", "npz"):
        with pytest.raises(DataError, match=f"dataset {name} needs data_dir") as error:
            load_dataset(name)
        assert error.value.settings == ("dataset", "data_dir")
        with pytest.raises(DataError, match="nowhere: no such file or directory"):
            load_dataset(name, tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"test\.npz: no such file"):
        load_dataset("npz", tmp_path)
    with pytest.raises(DataError, match="train or test"):
        load_dataset("npz", tmp_path, "validation")
    with pytest.raises(DataError, match="unknown dataset 'svhn'.*cifar10.*npz") as error:
        load_dataset(dataset="svhn", data_dir=tmp_path)
    assert error.value.settings == ("dataset",)


@pytest.mark.parametrize("index", [2, -1])
def test_an_index_out_of_range_is_refused(tmp_path, index):
    np.savez(tmp_path / "d.npz", x=X, y=[0, 1])
    with pytest.raises(IndexError, match=f"has 2 images; there is no image {index}"):
        load_dataset("npz", tmp_path / "d.npz")[index]


def test_missing_data_lists_every_place_and_the_remedy(tmp_path, monkeypatch, no_network):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "tfds"))
    with pytest.raises(DataError) as error:
        load_dataset("cifar10")
    message = str(error.value)
    for root in ("data", "dataset_cache", "."):
        for sub in ("cifar-10-batches-py", ".", "cifar10/cifar-10-batches-py"):
            assert f"  {(tmp_path / root / sub)}\n" in message
    assert "no connection to the internet" in message
    assert error.value.settings == ("data_dir", "dataset") and "dataset folder or npz" in message


def test_missing_data_below_a_named_folder(tmp_path, no_network):
    with pytest.raises(DataError) as error:
        load_dataset("fashion_mnist", tmp_path, "train")
    message = str(error.value)
    assert "fashion_mnist (train)" in message
    for sub in ("", "fashion_mnist", "fashion-mnist", "FashionMNIST/raw"):
        assert f"  {tmp_path / sub}\n" in message
    assert "dataset_cache" not in message
    assert not list(tmp_path.iterdir())  # a failed look leaves nothing behind


def fingerprint_cifar10(root, x):
    write_batch(root / "test_batch", x.repeat(8, 1).repeat(8, 2)[..., None].repeat(3, 3), [0, 1])
    return load_dataset("cifar10", root)


def fingerprint_idx(root, x):
    write_idx(root, x, [0, 1])
    return load_dataset("mnist", root)


def fingerprint_npz(root, x):
    root.mkdir()
    np.savez(root / "test.npz", x=x, y=[0, 1])
    return load_dataset("npz", root)


def fingerprint_folder(root, x):
    for i in range(2):
        # Files of one size would look alike: the fingerprint of a folder goes by names and sizes.
        write_png(root / f"c{i}/image.png", x[i])
    return load_dataset("folder", root)


@pytest.mark.parametrize("make", [fingerprint_cifar10, fingerprint_idx, fingerprint_npz, fingerprint_folder])
def test_the_fingerprint_changes_with_the_images_alone(tmp_path, make):
    other = X.copy()
    other[1] = 0
    first, again, changed = (make(tmp_path / f"{i}", x) for i, x in enumerate((X, X, other)))
    assert first.fingerprint == again.fingerprint != changed.fingerprint
    assert first.source != again.source


def test_the_fingerprint_changes_with_the_labels(tmp_path):
    found = set()
    for labels in ([0, 1], [1, 0], [1, 1]):
        np.savez(tmp_path / "d.npz", x=X, y=labels)
        found.add(load_dataset("npz", tmp_path / "d.npz").fingerprint)
    assert len(found) == 3
