"""Files that would take more memory than they may, or that never end, are refused before anything is made of them."""

import gzip
import io
import os
import pickle
import struct
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
import scipy.io
from PIL import Image

from qcrs_jax import machine
from qcrs_jax.data import limits
from qcrs_jax.data.cifar_pickle import OPERATIONS, unpickle
from qcrs_jax.data.image_files import decode, resize_and_crop
from qcrs_jax.data.limits import Limit, default_memory_limit
from qcrs_jax.data.load import DataError, load_dataset, read_idx

SMALL = Limit(2**20)
MIB = 1 / 1024  # in GiB
IMAGES = np.full((2, 4, 4, 3), 7, np.uint8)


def refused(*args, **kwargs):
    """What is said of a data set that is refused without taking more than a few MiB."""
    tracemalloc.start()
    try:
        with pytest.raises(DataError) as error:
            load_dataset(*args, **kwargs)
        assert tracemalloc.get_traced_memory()[1] < 2**23
    finally:
        tracemalloc.stop()
    return str(error.value)


def test_the_default_is_no_more_than_half_of_the_memory(monkeypatch, tmp_path):
    assert 0 < default_memory_limit() <= 4
    monkeypatch.setattr(machine, "ROOT", tmp_path)  # no control groups
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 2**18, "SC_PAGE_SIZE": 4096}.get)
    assert default_memory_limit() == 0.5
    monkeypatch.setattr(os, "sysconf", {"SC_PHYS_PAGES": 2**28, "SC_PAGE_SIZE": 4096}.get)
    assert default_memory_limit() == 4
    for wrong in (0, -1, float("nan"), float("inf")):
        with pytest.raises(DataError, match="memory_limit must be a positive number") as error:
            load_dataset("npz", ".", memory_limit=wrong)
        assert error.value.settings == ("memory_limit",)


@pytest.mark.parametrize("label", [100_000, 10**8, 2**62, 2**63])
def test_a_huge_label_makes_no_classes(tmp_path, label):
    np.savez(tmp_path / "d.npz", x=IMAGES, y=np.array([0, label], np.uint64))
    assert f"a label {label}" in refused("npz", tmp_path / "d.npz")
    np.savez(tmp_path / "d.npz", x=IMAGES, y=np.array([0, 99_999]))
    assert len(load_dataset("npz", tmp_path / "d.npz").class_names) == 100_000


def test_an_npz_beyond_the_limit_says_which_limit(tmp_path):
    np.savez_compressed(tmp_path / "d.npz", x=np.zeros((2, 1024, 1024), np.uint8), y=[0, 1])
    message = refused("npz", tmp_path / "d.npz", memory_limit=MIB)
    assert "d.npz: would take 0.00195 GiB" in message and "more than memory_limit, 0.000977 GiB" in message
    np.savez(tmp_path / "d.npz", x=IMAGES, y=[0, 1])
    assert len(load_dataset("npz", tmp_path / "d.npz", memory_limit=MIB)) == 2


def npy(shape, dtype="|u1", version=1, content=b""):
    header = f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    length = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + length + header + content


@pytest.mark.parametrize(
    "x, compression, message",
    [
        (npy((2**40, 4, 4, 3)), zipfile.ZIP_STORED, "would take"),
        (npy((1000, 4, 4, 3)), zipfile.ZIP_STORED, "needs 48000 bytes"),
        (npy((2, 4, 4, 3), version=2, content=IMAGES.tobytes()), zipfile.ZIP_STORED, "format"),
        (npy((2, 4, 4, 3), content=IMAGES.tobytes()), zipfile.ZIP_LZMA, "compressed in a way"),
        (npy((2, 4, 4, 3), "|O", content=pickle.dumps([])), zipfile.ZIP_STORED, "objects of Python"),
        (npy((2**40, 4, 4, 3), "|S0"), zipfile.ZIP_STORED, "would take"),
        (b"no array", zipfile.ZIP_STORED, "not an .npz file"),
    ],
)
def test_headers_of_arrays_are_not_believed(tmp_path, x, compression, message):
    with zipfile.ZipFile(tmp_path / "d.npz", "w", compression) as archive:
        archive.writestr("x.npy", x)
        archive.writestr("y.npy", npy((2,), content=b"\0\1"))
    assert message in refused("npz", tmp_path / "d.npz")


def test_an_archive_of_too_many_names(tmp_path, monkeypatch):
    from qcrs_jax.data import npz_archive

    monkeypatch.setattr(npz_archive, "_DIRECTORY", 300)
    np.savez(tmp_path / "d.npz", x=IMAGES, y=[0, 1])
    assert len(load_dataset("npz", tmp_path / "d.npz")) == 2
    np.savez(tmp_path / "d.npz", x=IMAGES, y=[0, 1], **{f"more_{i}": i for i in range(10)})
    assert "lists too many arrays" in refused("npz", tmp_path / "d.npz")


@pytest.mark.parametrize(
    "x, y, message",
    [
        (np.array(["a", "b"] * 48).reshape(2, 4, 4, 3), [0, 1], "x must be uint8, or floats in [0, 1], not <U1"),
        (np.zeros((2, 4, 4, 3), [("r", "u1"), ("g", "u1")]), [0, 1], "x must be uint8, or floats in [0, 1], not [("),
        (np.zeros((2, 4, 4, 3), complex), [0, 1], "not complex128"),
        (np.zeros((2, 4, 4, 3), "M8[s]"), [0, 1], "not datetime64[s]"),
        (IMAGES, np.array(["cat", "dog"]), "y must hold labels 0, 1, 2, ..., not <U3"),
        (IMAGES, np.zeros(2, [("a", "i4")]), "y must hold labels"),
        (IMAGES[:, :0], [0, 1], "must be (m, h, w)"),
    ],
)
def test_arrays_of_something_else_than_numbers(tmp_path, x, y, message):
    np.savez(tmp_path / "d.npz", x=x, y=y)
    assert message in refused("npz", tmp_path / "d.npz")


@pytest.mark.parametrize("names", [np.zeros(2, [("a", "i4")]), np.array([["a", "b"]]), np.array("a"), [0.5, 1.5]])
def test_class_names_that_are_no_list_of_texts(tmp_path, names):
    np.savez(tmp_path / "d.npz", x=IMAGES, y=[0, 1], class_names=names)
    assert "class_names is no list of texts" in refused("npz", tmp_path / "d.npz")


def idx(shape, content):
    return struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape) + content


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_idx_headers(tmp_path, pack):
    def said(content):
        (tmp_path / "f").write_bytes(content)
        tracemalloc.start()
        try:
            with pytest.raises(DataError, match="f: ") as error:
                read_idx(tmp_path / "f", SMALL)
            assert tracemalloc.get_traced_memory()[1] < 2**22
        finally:
            tracemalloc.stop()
        return str(error.value)

    assert "would take" in said(pack(idx((2**31, 2**31, 2), b"")))
    assert "header says 12 bytes, but the file has more" in said(pack(idx((3, 4), bytes(2**24))))
    assert "header says 12 bytes, but the file has 5" in said(pack(idx((3, 4), bytes(5))))
    assert "not an IDX file" in said(pack(b"\0\0"))
    (tmp_path / "f").write_bytes(pack(idx((3, 4), bytes(range(12)))))
    assert read_idx(tmp_path / "f", SMALL).tolist() == np.arange(12).reshape(3, 4).tolist()


def dict_of(data, labels):
    return b"\x80\x02}(U\x04data" + data + b"U\x06labels" + labels + b"u."


ARRAY = pickle.dumps(np.zeros((1, 3072), np.uint8), 2)[2:-1]
LAUGHS = b"].(K\0K\0K\0K\0e".replace(b".", b"") + b"".join(b"q%c](" % i + b"h%c" % i * 10 + b"e" for i in range(20))
BOMBS = {
    "nested lists": dict_of(ARRAY, LAUGHS),
    "an array with strides": dict_of(b"cnumpy\nndarray\n(\x8a\x05\0\0\0\0\x10\x85U\x02u1U\1aK\0K\0\x85tR", b"]K\0a"),
    "a huge shape": dict_of(
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\0\x85U\1btR"
        b"(K\1J\xff\xff\xff\x7fJ\xff\xff\xff\x7f\x86cnumpy\ndtype\nU\2u1\x85R\x89U\1atb",
        b"]K\0a",
    ),
    "texts of a huge size": dict_of(
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\0\x85U\1btR"
        b"(K\1K\1\x85cnumpy\ndtype\nU\x0bS2000000000\x85R\x89U\1atb",
        b"]K\0a",
    ),
    "keys of deep tuples": b"\x80\x02}" + b")" + b"\x85" * 10**5 + b"K\0s.",
    "a text that is longer than the file": b"\x80\x04}\x8e" + b"\xff" * 7 + b"\x7f.",
    "an array of bytes that is longer than the file": b"\x80\x05}\x96" + b"\xff" * 5 + b"\0\0\0.",
    "a deep list": b"\x80\x02" + b"]" * 10**4 + b"a" * 10**4 + b".",
    "something that is called": dict_of(b"cos\nsystem\nU\x04true\x85R", b"]"),
    "a state of a list": dict_of(b"]}b", b"]"),
    "nothing on the stack": b"\x80\x02e.",
}


@pytest.mark.slow_for("keys of deep tuples")
@pytest.mark.parametrize("name", BOMBS)
def test_bombs_in_batches_of_cifar(tmp_path, name):
    (tmp_path / "test_batch").write_bytes(BOMBS[name])
    assert "test_batch: not a batch of CIFAR-10, or a damaged one" in refused("cifar10", tmp_path)


def test_a_far_place_in_the_memo_of_a_pickle_takes_no_memory(tmp_path):
    (tmp_path / "test_batch").write_bytes(dict_of(ARRAY, b"]r\xff\xff\xff\x7fK\0a"))
    assert load_dataset("cifar10", tmp_path).labels.tolist() == [0]


def test_a_pickle_has_an_end(monkeypatch):
    from qcrs_jax.data import cifar_pickle

    assert OPERATIONS > 10 * 150_000  # those of CIFAR-100's training file
    monkeypatch.setattr(cifar_pickle, "OPERATIONS", 50)
    with pytest.raises(ValueError, match="more than 50 operations"):
        unpickle(pickle.dumps({"labels": list(range(100))}))


@pytest.mark.parametrize("protocol", range(5))
def test_pickles_of_every_protocol(protocol):
    content = {"data": np.arange(6, dtype=np.uint8).reshape(2, 3), "labels": [1, 2], b"names": [b"a\xff", "b"], "n": 3}
    content["turned"] = np.asfortranarray(content["data"].astype(">i4"))
    found = unpickle(pickle.dumps(content, protocol))
    assert found.keys() == {"data", "labels", "names", "n", "turned"}
    for name in ("data", "turned"):
        np.testing.assert_array_equal(found[name], content["data"])
    assert found["turned"].dtype == ">i4" and found["labels"] == [1, 2] and found["names"] == [b"a\xff", "b"]


def test_batches_whose_data_are_no_bytes(tmp_path):
    for data, labels, message in (
        (np.zeros((1, 3072)), [0], "its data are no array of bytes"),
        (np.zeros((1, 3072), np.uint8), [0.5], "its labels are no whole numbers"),
    ):
        (tmp_path / "test_batch").write_bytes(pickle.dumps({"data": data, "labels": labels}, 4))
        assert message in refused("cifar10", tmp_path)


def test_batches_beyond_the_limit(tmp_path):
    (tmp_path / "test_batch.bin").write_bytes(bytes(3073 * 400))
    assert "test_batch.bin: would take" in refused("cifar10", tmp_path, memory_limit=MIB)
    assert len(load_dataset("cifar10", tmp_path)) == 400


def test_a_matlab_file_that_is_larger_once_it_is_decompressed(tmp_path):
    file, y = tmp_path / "test_32x32.mat", np.ones((600, 1), np.uint8)
    scipy.io.savemat(file, {"X": np.zeros((32, 32, 3, 600), np.uint8), "y": y}, do_compression=True)
    assert file.stat().st_size < 2**14
    assert "test_32x32.mat: would take" in refused("svhn_cropped", tmp_path, memory_limit=MIB)
    assert len(load_dataset("svhn_cropped", tmp_path)) == 600
    scipy.io.savemat(file, {"X": np.zeros((3, 3), object), "y": y})
    assert "holds no numbers" in refused("svhn_cropped", tmp_path)


def png(width, height, mode=2):
    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, mode, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    "content, message",
    [
        (png(13_000, 13_000), "has 13000 x 13000 pixels, more than"),
        (png(9_000, 9_000), "has 9000 x 9000 pixels, more than"),
        (png(60_000, 60_000), "60000"),
        (png(2_000, 1_000), "a.png: would take"),
        (b"P6 0 0 255\n", "a.png"),
        (b"P6 0 5 255\n", "a.png"),
        (b"BM" + struct.pack("<IHHIIiiHH", 54, 0, 0, 54, 40, 0, 0, 1, 24) + bytes(24), "a.png"),
        (b"GIF89a\0\0\0\0\0\0\0,\0\0\0\0\0\0\0\0\0\2\1\0\0;", "a.png"),
    ],
)
@pytest.mark.parametrize("prepare", [np.asarray, resize_and_crop])
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_images_of_too_many_pixels_or_of_none(tmp_path, content, message, prepare):
    (tmp_path / "a.png").write_bytes(content)
    for file in (tmp_path / "a.png", io.BytesIO(content)):
        with pytest.raises(DataError, match="a.png: ") as error:
            decode(file, "a.png", prepare, SMALL)
        assert message in str(error.value) and str(error.value).count("a.png") == 1


def test_an_image_whose_sides_differ_too_much():
    stream = io.BytesIO()
    Image.new("L", (1, 5000)).save(stream, "png")
    assert decode(stream, "a.png").shape == (5000, 1)
    with pytest.raises(DataError, match="^a.png: its sides, 1 and 5000, differ too much") as error:
        decode(stream, "a.png", resize_and_crop)
    assert "256 x 1280000" in str(error.value)


def test_pipes_are_not_waited_for(tmp_path):
    def pipe(file):
        file.parent.mkdir(parents=True, exist_ok=True)
        os.mkfifo(file)
        return file

    assert "not a regular file" in refused("npz", pipe(tmp_path / "d.npz"))
    pipe(tmp_path / "folder" / "cat" / "a.png")
    with pytest.raises(DataError, match="a.png: .*not a regular file"):
        load_dataset("folder", tmp_path / "folder")[0]
    with pytest.raises(DataError, match="not a regular file"):
        load_dataset("folder", tmp_path / "folder", class_order=pipe(tmp_path / "order"))
    pipe(tmp_path / "tiny" / "val" / "val_annotations.txt")
    pipe(tmp_path / "tiny" / "val" / "images" / "a.png")
    assert "not a regular file" in refused("folder", tmp_path / "tiny", "val")


def test_texts_that_are_too_long(tmp_path, monkeypatch):
    monkeypatch.setattr(limits, "TEXT", 10)
    (tmp_path / "val" / "images").mkdir(parents=True)
    Image.new("L", (2, 2)).save(tmp_path / "val" / "images" / "a.png")
    (tmp_path / "val" / "val_annotations.txt").write_text("a.png\tcat\t0\t0\t2\t2\n")
    assert "val_annotations.txt: would take" in refused("folder", tmp_path, "val")


def test_names_of_files_and_classes_that_are_not_utf_8(tmp_path):
    folder = os.path.join(os.fsencode(tmp_path), b"caf\xe9")
    os.mkdir(folder)
    (tmp_path / "tea").mkdir()
    for path in (os.path.join(folder, b"\xff.png"), os.path.join(os.fsencode(tmp_path), b"tea", b"a.png")):
        with open(path, "wb") as stream:
            Image.new("L", (2, 2), 9).save(stream, "png")
    dataset = load_dataset("folder", tmp_path)
    assert dataset.class_names == [os.fsdecode(b"caf\xe9"), "tea"] and len(dataset.fingerprint) == 64
    assert [label for _, label in dataset] == [0, 1]
    order = tmp_path.with_suffix(".order")
    order.write_bytes(b"tea\ncaf\xe9\n")
    assert [label for _, label in load_dataset("folder", tmp_path, class_order=order)] == [1, 0]
