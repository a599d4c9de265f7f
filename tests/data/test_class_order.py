"""The order of classes: when it is required, the ways to give it, and its effect."""

import numpy as np
import pytest
from PIL import Image

from qcrs_jax.data.class_order import by_number, question_of
from qcrs_jax.data.load import DataError, load_dataset


def folders(root, names, images=1):
    for i, name in enumerate(names):
        (root / name).mkdir(parents=True, exist_ok=True)
        for k in range(images):
            Image.fromarray(np.full((4, 4, 3), 10 * i + k, np.uint8)).save(root / name / f"{k}.png")
    return root


def numbers(start, end):
    return [str(i) for i in range(start, end)]


@pytest.mark.parametrize(
    "names",
    [
        numbers(0, 11),
        numbers(1, 11),
        ["0", "7", "10"],
        ["1", "01", "2", "10"],
        ["-1", "0", "1", "-10"],
        [f"class_{i}" for i in range(12)],
        [f"c{i}" for i in range(1, 11)],
        [f"{i}_{name}" for i, name in enumerate("abcdefghijk")],
        [f"{i}.{name}" for i, name in enumerate("abcdefghijk")],
        [*numbers(0, 12), "other"],
        numbers(1, 1001),
        [f"{i:04d}" for i in range(1, 1001)],  # ImageNet's by the devkit, in an order of its own
    ],
)
def test_class_order_is_required_for_numbered_names(names, tmp_path):
    error = question_of(names, tmp_path)
    question = str(error)
    assert str(tmp_path) in question and "by number" in question and "by text" in question
    assert error.settings == ("class_order",) and "class_order: number, text, or a file" in question
    assert ("meta.mat" in question) == (len(names) == 1000)


@pytest.mark.parametrize(
    "names",
    [
        numbers(0, 10),
        ["3", "1"],
        [f"{i:02d}" for i in range(100)],
        [f"{i:03d}" for i in range(1000)],
        ["ant", "bee"],
        ["n01440764", "n01443537", "n15075141"],
        [f"{i:03d}.bird" for i in range(1, 201)],
        ["707-320", "A310", "DC-10", "DC-3"],  # names with numbers in them, which are not numbered
        ["v1.5", "v1.10"],
        ["c0"],
        [],
    ],
)
def test_class_order_is_not_required_for_clear_names(names, tmp_path):
    assert question_of(names, tmp_path) is None


def test_by_number():
    assert by_number(["10", "9", "01", "1"]) == ["01", "1", "9", "10"]
    assert by_number(["x", "10", "9"]) == ["9", "10", "x"]
    assert by_number(["c10", "c9"]) == ["c9", "c10"]


def test_a_folder_of_numbers_asks_and_takes_the_answer(tmp_path):
    root = folders(tmp_path / "d", numbers(0, 12))
    with pytest.raises(DataError, match=r"by number \(0, 1, 2, .*by text.*\(0, 1, 10, 11, 2, "):
        load_dataset("folder", root)
    number, text = (load_dataset("folder", root, class_order=order) for order in ("number", "text"))
    assert number.class_names == numbers(0, 12) and text.class_names == sorted(numbers(0, 12))
    assert [int(number.class_names[y]) for y in number.labels] == [int(text.class_names[y]) for y in text.labels]
    for i in range(12):  # an image keeps its index
        assert number.files[i] == text.files[i] and number.labels[i] == int(number.files[i].parent.name)
        np.testing.assert_array_equal(number[i][0], text[i][0])
    assert number.fingerprint != text.fingerprint
    assert number.question is None and text.question is None


def test_an_order_in_a_file_or_a_list(tmp_path):
    root = folders(tmp_path / "d", ["ant", "bee", "wolf"])
    file = tmp_path / "order.txt"
    file.write_text("\ufeffwolf\n\n ant \r\nbee\n", encoding="utf-8")
    for order in (file, str(file), ["wolf", "ant", "bee"], ("wolf", "ant", "bee")):
        dataset = load_dataset("folder", root, class_order=order)
        assert dataset.class_names == ["wolf", "ant", "bee"] and dataset.labels.tolist() == [1, 2, 0]
    same = load_dataset("folder", root)
    assert load_dataset("folder", root, class_order=same.class_names).fingerprint == same.fingerprint


def test_a_class_without_a_folder_keeps_its_place_and_is_reported(tmp_path):
    root = folders(tmp_path / "d", ["ant", "wolf"])
    dataset = load_dataset("folder", root, class_order=["ant", "bee", "wolf"])
    assert dataset.labels.tolist() == [0, 2]
    assert any("bee" in note for note in dataset.notes)


@pytest.mark.parametrize(
    ("order", "message"),
    [
        (["ant"], "lacks bee"),
        (["ant", "Bee"], "lacks bee"),
        (["ant", "bee", "ant"], "'ant' twice"),
        ("number", "have no numbers: ant, bee"),
        ("nowhere.txt", "neither number nor text, nor a file"),
        ("empty.txt", "names no class"),
        ("binary.txt", "neither number nor text, nor a file"),
    ],
)
def test_an_order_that_does_not_fit_is_refused(tmp_path, monkeypatch, order, message):
    root = folders(tmp_path / "d", ["ant", "bee"])
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.txt").write_text("\n")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(DataError, match=message):
        load_dataset("folder", root, class_order=order)


def test_an_order_for_the_names_of_an_npz(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (4, 4, 4), np.uint8)
    np.savez(tmp_path / "d.npz", x=x, y=[0, 1, 2, 5], class_names=["a", "b", "c"])
    dataset = load_dataset("npz", tmp_path / "d.npz", on_error="skip", class_order=["c", "a", "b"])
    assert dataset.labels[:3].tolist() == [1, 2, 0] and list(dataset.problems) == [3]


def test_gaps_in_the_numbers_are_reported(tmp_path):
    dataset = load_dataset("folder", folders(tmp_path / "gap", ["0", "1", "3"]))
    assert dataset.labels.tolist() == [0, 1, 2] and "have gaps (0, 1, 3)" in dataset.notes[0]
    for names in (["0", "1", "2"], ["1", "2", "3"], ["a", "b"]):
        assert load_dataset("folder", folders(tmp_path / "".join(names), names)).notes == ()
