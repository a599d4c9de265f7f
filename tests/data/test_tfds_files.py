"""Data sets of TFDS: written by the script, read and downloaded by their names, without TensorFlow."""

import gzip
import http.server
import io
import os
import re
import socket
import struct
import subprocess
import sys
import tarfile
import threading
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image
from places import SHARED
from tfds_made import as_png, random_images

from qcrs_jax.data import tfds_files
from qcrs_jax.data.crc32c import masked_crc32c
from qcrs_jax.data.image_files import resize_and_crop
from qcrs_jax.data.load import DataError, known_classes, load_dataset
from qcrs_jax.experiments import cli
from qcrs_jax.results.records import read_run

ARCHIVE = SHARED / "data/cifar10-imagefolder.tar.xz"
PROGRAM = str(Path(sys.executable).with_name("qcrs-jax"))


def save(file, image):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(image.squeeze()).save(file)
    return file


@pytest.fixture
def no_tensorflow(tmp_path_factory):
    """The environment of a program in which an import of TensorFlow, if it is tried, is an error."""
    trap = tmp_path_factory.mktemp("trap")
    (trap / "tensorflow").mkdir()
    (trap / "tensorflow/__init__.py").write_text("raise AssertionError('TensorFlow was imported')")
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (str(trap), os.environ.get("PYTHONPATH"))))}


def run(command, env, cwd):
    done = subprocess.run([str(word) for word in command], env=env, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def real_images(tmp_path_factory):
    """Three real CIFAR-10 images of each class, as folders and as a tar file."""
    if not ARCHIVE.is_file():
        pytest.skip("the shared images are not there")
    root = tmp_path_factory.mktemp("real")
    wanted = {f"test/{name}/{i:04d}.jpg" for name in known_classes("cifar10") for i in range(3)}
    with tarfile.open(ARCHIVE, "r|xz") as tar, tarfile.open(root / "images.tar.gz", "w:gz") as small:
        for member in tar:
            if member.name in wanted:
                content = tar.extractfile(member).read()
                small.addfile(member, io.BytesIO(content))
                (root / "images" / member.name).parent.mkdir(parents=True, exist_ok=True)
                (root / "images" / member.name).write_bytes(content)
                wanted.remove(member.name)
            if not wanted:
                break
    return root


@pytest.mark.parametrize("source", ["images", "images.tar.gz"])
@pytest.mark.slow_for("images.tar.gz")
def test_a_real_data_set_prepared_on_disk_is_certified_by_its_name(real_images, tmp_path, no_tensorflow, source):
    prepare = [PROGRAM, "prepare-tfds"]
    printed = run([*prepare, "cifar10", real_images / source, tmp_path / "tfds"], no_tensorflow, tmp_path)
    assert f"{tmp_path}/tfds/cifar10/3.0.2: test, 30 images of 10 classes" in printed
    by_name, by_file = load_dataset("cifar10", tmp_path / "tfds"), load_dataset("folder", real_images / "images")
    assert by_name.source == "TFDS cifar10/3.0.2" and by_name.class_names == by_file.class_names
    assert len(by_name) == len(by_file) == 30
    for (image, label), (expected, its_label) in zip(by_name, by_file, strict=True):
        assert label == its_label
        np.testing.assert_array_equal(image, expected)
    if source == "images":
        return
    checkpoint = SHARED / "checkpoints/cifar_resnet20_noise_0.25.pth.tar"
    flags = "--sigma 0.25 --method cohen --N 100 --N0 20 --skip 10 --dataset".split()
    run([PROGRAM, "certify", checkpoint, "r.tsv", *flags, "cifar10", "--data_dir", "tfds"], no_tensorflow, tmp_path)
    results = read_run(tmp_path / "r.tsv")
    assert [(r.idx, r.label) for r in results.records] == [(0, 0), (10, 3), (20, 6)]
    assert [results.class_name(r.label) for r in results.records] == ["airplane", "cat", "frog"]


GREY = {"mnist", "fashion_mnist"}
NAMES = sorted(GREY | {"cifar10", "cifar100", "svhn_cropped"})
LABELS = [4, 9, 0]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """All data sets but ImageNet as TFDS keeps them: three test images, one for training."""
    root = tmp_path_factory.mktemp("tfds")
    for name in NAMES:

        def generate(builder, manager, name=name):
            names = {"cifar10": known_classes("cifar10"), "cifar100": [f"class {i}" for i in range(100)]}
            if name in names:
                builder.info.features["label"].names = names[name]
            rows = [{"image": as_png(image), "label": label} for image, label in zip(pictures(name), LABELS)]
            rows = [row | ({"coarse_label": 3} if name == "cifar100" else {}) for row in rows]
            return {"train": rows[:1], "test": rows}

        tfds_files.write(name, root, generate)
    return root


def pictures(name):
    return random_images(3, 28, 28, 1) if name in GREY else random_images(3, 32, 32, 3)


@pytest.mark.parametrize("name", NAMES)
def test_read_from_disk_by_name(prepared, name):
    dataset = load_dataset(name, prepared)
    assert dataset.source.startswith(f"TFDS {name}/")
    assert sorted(dataset.labels) == sorted(LABELS) and len(dataset.class_names) == (100 if name == "cifar100" else 10)
    if name not in GREY:  # the others keep no position: TFDS has an order of its own
        assert dataset.labels.tolist() == LABELS
    for image, label in dataset:
        np.testing.assert_array_equal(image, pictures(name)[LABELS.index(label)] / np.float32(255))
    train = load_dataset(name, prepared, "train")
    assert train.labels.tolist() == LABELS[:1]
    assert train.fingerprint != dataset.fingerprint == load_dataset(name, prepared).fingerprint


def test_imagenet_of_some_classes_from_folders_of_any_size(tmp_path):
    images = {"n01440764/a.JPEG": (300, 260), "n01443537/b.png": (256, 500), "n15075141/c.JPEG": (700, 301)}
    for i, (name, (width, height)) in enumerate(images.items()):
        image = random_images(height, width, 3, seed=i)
        save(tmp_path / "images/val" / name, image if i else image[..., 0])  # the first one is grey
    Image.fromarray(random_images(280, 290, 3)).convert("CMYK").save(tmp_path / "images/val/n01440764/d.JPEG")
    assert cli.main(["prepare-tfds", "imagenet2012", str(tmp_path / "images"), str(tmp_path / "tfds")]) == 0
    for name in ("imagenet", "imagenet2012"):
        dataset = load_dataset(name, tmp_path / "tfds")
        assert dataset.labels.tolist() == [0, 1, 999, 0] and dataset.class_names[1] == "n01443537"
        for i, file in enumerate([*images, "n01440764/d.JPEG"]):
            with Image.open(tmp_path / "images/val" / file) as image:
                np.testing.assert_array_equal(dataset[i][0], resize_and_crop(image) / np.float32(255))


def test_the_script_names_what_does_not_fit(tmp_path, capsys):
    def refused(name, images):
        assert cli.main(["prepare-tfds", name, str(tmp_path / images), str(tmp_path / "tfds")]) == 2
        return capsys.readouterr().err

    save(tmp_path / "a/cat/0.png", random_images(32, 32, 3))
    save(tmp_path / "a/unicorn/0.png", random_images(32, 32, 3))
    assert "a/unicorn: cifar10 has no such class; it has airplane" in refused("cifar10", "a")
    assert "has 2 folders of classes; CIFAR-100 has 100" in refused("cifar100", "a")
    save(tmp_path / "b/cat/0.png", random_images(32, 31, 3))
    assert "b/cat/0.png: has shape (32, 31, 3)" in refused("cifar10", "b")
    save(tmp_path / "c/7/0.png", random_images(28, 28, 3))
    assert "c/7/0.png: has shape (28, 28, 3)" in refused("mnist", "c")
    (tmp_path / "c/7/0.png").write_bytes(b"no image")
    assert "c/7/0.png: not an image" in refused("mnist", "c")
    assert "no images found" in refused("mnist", "tfds")
    assert "nowhere" in refused("mnist", "nowhere")
    (tmp_path / "file").write_text("no archive")
    assert "error" in refused("mnist", "file")
    save(tmp_path / "d/7/0.bmp", random_images(28, 28))
    save(tmp_path / "d/0/0.png", random_images(28, 28))
    assert cli.main(["prepare-tfds", "mnist", str(tmp_path / "d"), str(tmp_path / "tfds")]) == 0
    assert load_dataset("mnist", tmp_path / "tfds").labels.tolist() in ([0, 7], [7, 0])
    assert "is there already" in refused("mnist", "d")


def test_damaged_files_and_missing_splits_are_named(prepared, tmp_path):
    import shutil

    root = tmp_path / "copy"
    shutil.copytree(prepared, root)
    for file in root.glob("fashion_mnist/*/*test.array_record*"):
        file.write_bytes(b"damaged")
    with pytest.raises(DataError, match="fashion_mnist.*cannot read the split test of fashion_mnist"):
        load_dataset("fashion_mnist", root)
    for file in root.glob("mnist/*/dataset_info.json"):
        file.write_text(file.read_text().replace('"test"', '"other"'))
    with pytest.raises(DataError, match="mnist.*cannot read the split test of mnist"):
        load_dataset("mnist", root)


def as_tfrecord(folder):
    """Turns ArrayRecord files that TFDS keeps into TFRecord files."""
    from array_record.python.array_record_module import ArrayRecordReader

    for file in folder.glob("*.array_record-*"):
        reader = ArrayRecordReader(str(file))
        records = [reader.read() for _ in range(reader.num_records())]
        parts = [part for r in records for part in (len(r).to_bytes(8, "little"), r)]
        content = b"".join(part + masked_crc32c(part).to_bytes(4, "little") for part in parts)
        file.with_name(file.name.replace(".array_record-", ".tfrecord-")).write_bytes(content)
        file.unlink()
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace('"array_record"', '"tfrecord"'))


def test_data_sets_of_other_formats_and_versions_are_read(prepared, tmp_path):
    import shutil

    shutil.copytree(prepared / "cifar10/3.0.2", tmp_path / "cifar10/3.0.0")
    as_tfrecord(tmp_path / "cifar10/3.0.0")
    info = tmp_path / "cifar10/3.0.0/dataset_info.json"
    info.write_text(info.read_text().replace('"3.0.2"', '"3.0.0"'))
    dataset, expected = load_dataset("cifar10", tmp_path), load_dataset("cifar10", prepared)
    assert dataset.source == "TFDS cifar10/3.0.0" and len(dataset) == 3
    assert dataset.labels.tolist() == expected.labels.tolist() and dataset.class_names == expected.class_names
    for (image, _), (its_image, _) in zip(dataset, expected, strict=True):
        np.testing.assert_array_equal(image, its_image)
    (file,) = info.parent.glob("*test.tfrecord*")
    content = file.read_bytes()
    file.write_bytes(content[:-1])
    with pytest.raises(DataError, match="cut short"):
        load_dataset("cifar10", tmp_path)
    for place, flipped in ((1, 1), (9, 1), (len(content) // 2, 4), (len(content) - 1, 128)):  # length, sum, image, sum
        file.write_bytes(content[:place] + bytes([content[place] ^ flipped]) + content[place + 1 :])
        with pytest.raises(DataError, match="tfrecord.* is damaged, .*: the checksum at byte|cut short"):
            load_dataset("cifar10", tmp_path)
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(DataError, match="not a regular file"):
        load_dataset("cifar10", tmp_path)
    features = info.with_name("features.json")
    features.write_text(re.sub(r'"numClasses": "\d+"', '"numClasses": "1000000000000"', features.read_text()))
    for names in info.parent.glob("*.labels.txt"):
        names.unlink()
    with pytest.raises(DataError, match="has 1000000000000 classes, but a data set may have"):
        load_dataset("cifar10", tmp_path)
    info.write_text("{")
    with pytest.raises(DataError, match="cannot read the files of TFDS for cifar10"):
        load_dataset("cifar10", tmp_path)


def test_a_damaged_image_within_is_named(tmp_path):
    rows = [{"image": as_png(random_images(28, 28)), "label": 1}, {"image": b"\x89PNG damaged", "label": 2}]
    tfds_files.write("mnist", tmp_path, lambda *_: {"test": rows})
    dataset = load_dataset("mnist", tmp_path)
    with pytest.raises(DataError, match=r"mnist.3\.0\.1, image \d of split test: not an image"):
        dataset[dataset.labels.tolist().index(2)]


def idx(array):
    return gzip.compress(struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes())


def archive(**files):
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"binary/{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return stream.getvalue()


def original_files(name):
    """The files that the authors of a data set offer: {name: content}, and whether the labels' names are in them."""
    images, labels = pictures(name), np.array(LABELS, np.uint8)
    if name in GREY:
        parts = {"train": 1, "t10k": 3}
        files = {f"{stem}-images-idx3-ubyte.gz": idx(images[:n, ..., 0]) for stem, n in parts.items()}
        return files | {f"{stem}-labels-idx1-ubyte.gz": idx(labels[:n]) for stem, n in parts.items()}
    if name == "svhn_cropped":
        mat = lambda n: dict(X=np.moveaxis(images[:n], 0, -1), y=np.where(labels, labels, 10)[:n, None])  # noqa: E731
        files = {}
        for split, n in (("train", 1), ("test", 3)):
            scipy.io.savemat(stream := io.BytesIO(), mat(n))
            files[f"{split}_32x32.mat"] = stream.getvalue()
        return files
    planes = images.transpose(0, 3, 1, 2).reshape(3, 3072)
    if name == "cifar10":
        rows = [bytes([label]) + plane.tobytes() for label, plane in zip(labels, planes)]
        batches = {f"data_batch_{i}.bin": rows[0] if i == 1 else b"" for i in range(1, 6)}
        names = {"batches.meta.txt": "\n".join(known_classes(name)).encode() + b"\n\n"}
        return {"cifar-10-binary.tar.gz": archive(**batches, **names, **{"test_batch.bin": b"".join(rows)})}
    rows = [bytes([3, label]) + plane.tobytes() for label, plane in zip(labels, planes)]
    names = {"fine_label_names.txt": 100, "coarse_label_names.txt": 20}
    names = {file: "\n".join(f"class_{i}" for i in range(n)).encode() for file, n in names.items()}
    return {"cifar-100-binary.tar.gz": archive(**names, **{"train.bin": rows[0], "test.bin": b"".join(rows)})}


@pytest.fixture
def server(tmp_path):
    """A web server of the files in a folder: (folder, address)."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=tmp_path / "web")

        def log_message(self, *_):
            pass

    (tmp_path / "web").mkdir()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as it:
        threading.Thread(target=it.serve_forever, daemon=True).start()
        yield tmp_path / "web", f"http://127.0.0.1:{it.server_port}"
        it.shutdown()


@pytest.mark.parametrize("name", NAMES)
def test_downloaded_verified_and_prepared_by_name(prepared, server, tmp_path, monkeypatch, name):
    import hashlib

    import tensorflow_datasets as tfds

    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    web, address = server
    known, theirs = {}, {info.filename for info in tfds.builder_cls(name).url_infos.values()}
    for file, content in original_files(name).items():
        assert file in theirs, "TFDS knows it by this name"
        (web / file).write_bytes(content)
        checksum = hashlib.sha256(content).hexdigest()
        known[f"{address}/{file}"] = tfds.core.download.checksums.UrlInfo(len(content), checksum, file)
    monkeypatch.setattr(tfds.builder_cls(name), "url_infos", known)
    dataset, expected = load_dataset(name, tmp_path / "tfds"), load_dataset(name, prepared)
    assert dataset.source == expected.source and dataset.class_names[:2] != ["class 0", "class 1"]
    assert dataset.labels.tolist() == expected.labels.tolist()
    for (image, _), (its_image, _) in zip(dataset, expected, strict=True):
        np.testing.assert_array_equal(image, its_image)
    assert len(load_dataset(name, tmp_path / "tfds", "train")) == 1

    for file in web.iterdir():
        file.write_bytes(file.read_bytes() + b"?")
    with pytest.raises(DataError, match=f"{name}.*was not found(.|\n)*NonMatchingChecksumError"):
        load_dataset(name, tmp_path / "other")


def test_imagenet_from_the_archive_that_was_fetched_by_hand(tmp_path, monkeypatch):
    with pytest.raises(DataError, match="ILSVRC2012_img_val.tar"):
        load_dataset("imagenet", tmp_path)
    manual = tmp_path / "downloads/manual"
    manual.mkdir(parents=True)
    images = random_images(2, 230, 240, 3)
    with tarfile.open(manual / "ILSVRC2012_img_val.tar", "w") as tar:
        for number in (2, 1):
            member = tarfile.TarInfo(f"ILSVRC2012_val_{number:08d}.JPEG")
            content = as_png(images[number - 1])
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    dataset = load_dataset("imagenet2012", tmp_path)
    # The first two lines of the list that all programs use.
    assert dataset.labels.tolist() == [65, 970]
    for i in range(2):
        expected = resize_and_crop(Image.fromarray(images[i])) / np.float32(255)
        np.testing.assert_array_equal(dataset[i][0], expected)


def test_without_a_connection_it_says_so_at_once(tmp_path, monkeypatch):
    def fails(*args, **kwargs):
        raise OSError("Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", fails)
    for name in ("http_proxy", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(DataError, match="cifar100(.|\n)*no connection to the internet(.|\n)*data_dir"):
        load_dataset("cifar100", tmp_path)
