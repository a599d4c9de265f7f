"""Folders of images as people have them: splits, hidden files, Tiny-ImageNet, ImageNet by numbers."""

import numpy as np
import pytest
import scipy.io
from PIL import Image

from qcrs_jax.data.imagenet_files import known_to_tfds
from qcrs_jax.data.load import DataError, load_dataset, name_of


def put(root, *files, side=4):
    for i, file in enumerate(files):
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((side, side, 3), i, np.uint8)).save(root / file, "PNG")
    return root


def files_of(dataset, root):
    return [str(file.relative_to(root)) for file in dataset.files]


CLASSES = ("cat/1.png", "dog/1.png")


def split(name):
    return [f"{name}/{file}" for file in CLASSES]


@pytest.mark.parametrize(
    ("names", "asked", "taken"),
    [
        ("Train Test", "test", "Test"),
        ("Train Test", "train", "Train"),
        ("TRAIN TEST VAL", "val", "VAL"),
        ("training testing", "train", "training"),
        ("train valid", "val", "valid"),
        ("train Validation test", "val", "Validation"),
        ("train Validation test", "test", "test"),
        ("test", "test", "test"),
    ],
)
def test_splits_are_known_in_capitals_and_by_their_usual_names(tmp_path, names, asked, taken):
    for name in names.split():
        put(tmp_path, *split(name))
    put(tmp_path, "__MACOSX/Train/cat/._1.png", "@eaDir/cat/1.png")
    dataset = load_dataset("folder", tmp_path, asked)
    assert (files_of(dataset, tmp_path), dataset.class_names) == (split(taken), ["cat", "dog"])
    assert (dataset.split, dataset.notes) == (asked, ())


def test_where_there_is_no_test_split_validation_is_taken_and_reported(tmp_path):
    put(tmp_path, *split("train"), *split("valid"), "test/1.png", "test/2.png")
    dataset = load_dataset("folder", tmp_path)
    assert files_of(dataset, tmp_path) == split("valid")
    assert dataset.notes == (f"{tmp_path}: the images in test have no labels; valid is taken for test",)


@pytest.mark.parametrize(
    "names", ["training_set test_set", "train_images test_images", "seg_train seg_test", "my-train my-val", "test_set"]
)
def test_splits_by_other_names_are_refused_with_the_remedy(tmp_path, names):
    for name in names.split():
        put(tmp_path, *split(name))
    put(tmp_path, "__MACOSX/1.png")
    for asked in ("train", "test"):
        with pytest.raises(DataError, match=f"{min(names.split())}.*splits by their names, not classes") as error:
            load_dataset("folder", tmp_path, asked)
        assert set(error.value.settings) == {"data_dir"}
    assert load_dataset("folder", tmp_path / names.split()[-1]).class_names == ["cat", "dog"]


def test_two_folders_for_one_split_are_refused(tmp_path):
    put(tmp_path, *split("val"), *split("Valid"))
    assert files_of(load_dataset("folder", tmp_path, "val"), tmp_path) == split("val")  # by its very name
    put(tmp_path, *split("Train"), *split("Training"))
    with pytest.raises(DataError, match="Train, Training are all called train"):
        load_dataset("folder", tmp_path, "train")


def test_a_split_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    put(tmp_path, *split("train"), "test/1.png")
    with pytest.raises(DataError, match="has train, but nothing for split test; the images in test have no labels"):
        load_dataset("folder", tmp_path)
    with pytest.raises(DataError, match="has train, but nothing for split val$") as error:
        load_dataset("folder", tmp_path, "val")
    assert error.value.settings == ("split",)


@pytest.mark.parametrize("names", [("train", "test"), ("Train", "Test"), ("training_set", "test_set"), ("test",)])
def test_splits_that_hold_images_are_no_classes(tmp_path, names):
    put(tmp_path, *(f"{name}/1.png" for name in names))
    with pytest.raises(DataError, match=f"{min(names)}.*splits by their names, not classes"):
        load_dataset("folder", tmp_path)


@pytest.mark.parametrize("name", ["images", "IMG"])
def test_a_folder_called_images_is_no_class(tmp_path, name):
    with pytest.raises(DataError, match=f"in {name}, have no labels"):
        load_dataset("folder", put(tmp_path, f"{name}/1.png", f"{name}/2.png"))


def test_an_empty_folder_of_images_is_no_class_and_another_keeps_its_place(tmp_path):
    put(tmp_path, "val/a/1.png", "val/c/1.png")
    (tmp_path / "val/images").mkdir()
    (tmp_path / "val/b").mkdir()
    dataset = load_dataset("folder", tmp_path)
    assert (dataset.class_names, dataset.labels.tolist()) == (["a", "b", "c"], [0, 2])


@pytest.mark.parametrize("name", ["test", "val", "Test", "training_set"])
def test_images_in_a_split_beside_classes_are_asked_about(tmp_path, name):
    put(tmp_path, *CLASSES, f"{name}/1.png")
    with pytest.raises(DataError, match=f"{name} is a split by its name, and stands beside cat, dog"):
        load_dataset("folder", tmp_path)
    dataset = load_dataset("folder", tmp_path, class_order=["cat", "dog", name])
    assert dataset.class_names == ["cat", "dog", name]


def test_a_folder_within_a_folder_is_passed_through_and_reported(tmp_path):
    put(tmp_path, "data/cat/1.png", "data/dog/1.png", "__MACOSX/data/cat/._1.png")
    dataset = load_dataset("folder", tmp_path)
    assert dataset.class_names == ["cat", "dog"] and "holds nothing but data" in dataset.notes[0]
    put(tmp_path / "of_splits/d", *split("train"), *split("test"))
    assert files_of(load_dataset("folder", tmp_path / "of_splits"), tmp_path / "of_splits/d") == split("test")
    put(tmp_path / "twice", "test/test/cat/1.png", "test/test/dog/1.png")
    assert load_dataset("folder", tmp_path / "twice").class_names == ["cat", "dog"]


def test_folders_beside_a_single_split_are_reported(tmp_path):
    put(tmp_path, *split("test"), "other/x/1.png")
    assert "other beside it is left out" in load_dataset("folder", tmp_path).notes[0]


def test_an_undivided_folder_for_another_split_is_reported(tmp_path):
    put(tmp_path / "train", *CLASSES)
    put(tmp_path / "mine", *CLASSES)
    assert "is called train, and is taken for test" in load_dataset("folder", tmp_path / "train").notes[0]
    assert "not divided into splits" in load_dataset("folder", tmp_path / "mine", "train").notes[0]
    assert load_dataset("folder", tmp_path / "train", "train").notes == ()
    assert load_dataset("folder", tmp_path / "mine").notes == ()


HIDDEN = ".ipynb_checkpoints .thumbnails @eaDir __MACOSX .@__thumb $RECYCLE.BIN".split()


@pytest.mark.parametrize("where", ["", "cat/", "cat/day/"])
@pytest.mark.parametrize("name", HIDDEN)
def test_nothing_below_a_hidden_folder_is_an_image(tmp_path, where, name):
    put(tmp_path, *CLASSES, "cat/day/2.png")
    expected = load_dataset("folder", tmp_path)
    put(tmp_path, f"{where}{name}/1.png", f"{where}{name}/deeper/2.png", f"{where}._3.png", f"{where}.4.png")
    dataset = load_dataset("folder", tmp_path)
    assert (dataset.files, dataset.class_names) == (expected.files, ["cat", "dog"])
    assert dataset.fingerprint == expected.fingerprint


def test_a_folder_with_the_name_of_an_image_is_no_image(tmp_path):
    put(tmp_path, *CLASSES, "cat/2.png/3.png")
    assert files_of(load_dataset("folder", tmp_path), tmp_path) == ["cat/1.png", "cat/2.png/3.png", "dog/1.png"]


def tiny(root, order="n03 n01 n02", below="images/"):
    put(root, *(f"train/{name}/images/{name}_{i}.JPEG" for name in ("n01", "n02", "n03") for i in range(2)))
    for name in ("n01", "n02", "n03"):
        (root / "train" / name / f"{name}_boxes.txt").write_text(f"{name}_0.JPEG\t0\t0\t62\t62\n")
    put(root, *(f"val/{below}val_{i}.JPEG" for i in range(4)), *(f"test/images/test_{i}.JPEG" for i in range(3)))
    lines = [f"val_{i}.JPEG\t{name}\t0\t0\t62\t62\n" for i, name in enumerate(["n03", "n01", "n03", "n02"])]
    (root / "val/val_annotations.txt").write_text("".join(lines))
    if order:
        (root / "wnids.txt").write_text("\n".join(order.split()) + "\n")
    return root


@pytest.mark.parametrize("below", ["images/", ""])
@pytest.mark.parametrize("order", ["n03 n01 n02", "n01 n02 n03", ""])
def test_tiny_imagenet_as_it_is_unpacked(tmp_path, order, below):
    root = tiny(tmp_path, order, below)
    train, val, test = (load_dataset("folder", root, split) for split in ("train", "val", "test"))
    for dataset in (train, val, test):
        assert dataset.class_names == ["n01", "n02", "n03"]
        assert any("wnids.txt: lists the classes in another order" in n for n in dataset.notes) == (order[:3] == "n03")
    assert train.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert val.labels.tolist() == test.labels.tolist() == [2, 0, 2, 1]
    assert files_of(val, root) == [f"val/{below}val_{i}.JPEG" for i in range(4)]
    assert any("the images in test have no labels; val is taken for test" in note for note in test.notes)
    assert load_dataset("folder", root / "val").labels.tolist() == [2, 0, 2, 1]


def test_tiny_imagenet_in_the_order_of_its_list(tmp_path):
    root = tiny(tmp_path)
    for split, labels in (("train", [1, 1, 2, 2, 0, 0]), ("val", [0, 1, 0, 2])):
        dataset = load_dataset("folder", root, split, class_order=root / "wnids.txt")
        assert (dataset.class_names, dataset.labels.tolist()) == (["n03", "n01", "n02"], labels)
        assert not any("wnids" in note for note in dataset.notes)


def test_a_class_of_the_list_without_images_keeps_its_place(tmp_path):
    root = tiny(tmp_path, "n00 n01 n02 n03")
    assert load_dataset("folder", root, "train").labels.tolist() == [1, 1, 2, 2, 3, 3]
    assert load_dataset("folder", root, "val").labels.tolist() == [3, 1, 3, 2]


def test_val_put_into_folders_of_classes_needs_no_annotations(tmp_path):
    root = tiny(tmp_path)
    put(root, "val/n02/1.png", "val/n03/images/1.png")
    for file in (root / "val/images").iterdir():
        file.unlink()
    dataset = load_dataset("folder", root, "val")
    assert (dataset.class_names, dataset.labels.tolist()) == (["n01", "n02", "n03"], [1, 2])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "has no line for val_1.JPEG"),
        ("val_1.JPEG\tn09\n", "val_1.JPEG is of n09, which is no class"),
        ("val_1.JPEG\n", "line 2: is not a file and a class"),
        ("val_1.JPEG\tn01\nval_1.JPEG\tn02\n", "line 3: gives val_1.JPEG another class"),
    ],
)
def test_an_annotation_that_does_not_fit_is_named(tmp_path, line, message):
    root = tiny(tmp_path)
    (root / "val/val_annotations.txt").write_text(f"val_0.JPEG\tn03\n{line}val_2.JPEG\tn03\nval_3.JPEG\tn02\n")
    with pytest.raises(DataError, match=rf"val_annotations\.txt.*{message}"):
        load_dataset("folder", root, "val")
    dataset = load_dataset("folder", root, "val", on_error="skip")
    assert list(dataset.problems) == [1] and dataset.labels[[0, 2, 3]].tolist() == [2, 2, 1]


WORDNET_IDS = known_to_tfds("labels.txt")
VALIDATION = known_to_tfds("validation_labels.txt")


def numbered(root, first=1):
    """1000 folders of numbers, with images in three of them."""
    for i in range(first, first + 1000):
        (root / str(i)).mkdir(parents=True)
    return put(root, "3/a.JPEG", "10/b.JPEG", "700/c.JPEG")


def write_meta(folder):
    """The devkit's meta.mat, its number n the (1000 - n)th of the sorted WordNet ids, and a synset that is no class."""
    rows = [(n, WORDNET_IDS[1000 - n]) for n in range(1, 1001)] + [(1001, "n00001740")]
    synsets = np.zeros((len(rows), 1), [("ILSVRC2012_ID", object), ("WNID", object)])
    for row, (number, wordnet_id) in zip(synsets[:, 0], rows):
        row["ILSVRC2012_ID"], row["WNID"] = np.array([[number]]), wordnet_id
    folder.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(folder / "meta.mat", {"synsets": synsets})


@pytest.mark.parametrize("first", [0, 1])
def test_imagenet_in_folders_of_numbers_asks(tmp_path, first):
    numbered(tmp_path / "val", first)
    with pytest.raises(DataError, match=r"numbers, not WordNet ids.*meta\.mat.*WordNet ids.*class_order"):
        load_dataset("imagenet", tmp_path)
    dataset = load_dataset("imagenet", tmp_path, class_order="number")
    assert [dataset.labels[i] + first for i in range(3)] == [int(file.parent.name) for file in dataset.files]


@pytest.mark.parametrize("place", [".", "val", "ILSVRC2012_devkit_t12/data"])
def test_imagenet_in_folders_of_the_devkit_s_numbers_by_its_file(tmp_path, place):
    numbered(tmp_path / "val")
    write_meta(tmp_path / place)
    dataset = load_dataset("imagenet", tmp_path)
    assert dataset.class_names == WORDNET_IDS
    assert {int(file.parent.name): int(label) for file, label in zip(dataset.files, dataset.labels)} == (
        {3: 997, 10: 990, 700: 300}
    )
    (note,) = dataset.notes
    assert "meta.mat" in note
    (tmp_path / place / "meta.mat").write_bytes(b"damaged")
    with pytest.raises(DataError, match="meta.mat: needed to read"):
        load_dataset("imagenet", tmp_path)


def test_imagenet_in_folders_of_any_numbers_by_the_official_names_of_its_images(tmp_path):
    first = {}
    for i, wordnet_id in enumerate(VALIDATION, start=1):
        first.setdefault(wordnet_id, f"ILSVRC2012_val_{i:08d}.JPEG")
    number = {wordnet_id: 1 + (7 * i) % 1000 for i, wordnet_id in enumerate(WORDNET_IDS)}
    for wordnet_id, name in first.items():
        (tmp_path / "val" / str(number[wordnet_id])).mkdir(parents=True)
        (tmp_path / "val" / str(number[wordnet_id]) / name).write_bytes(b"")
    dataset = load_dataset("imagenet", tmp_path)
    assert dataset.class_names == WORDNET_IDS and len(dataset) == 1000
    assert all(first[WORDNET_IDS[label]] == file.name for file, label in zip(dataset.files, dataset.labels))
    write_meta(tmp_path)  # which says otherwise
    with pytest.raises(DataError, match="by their names, but .*meta.mat says"):
        load_dataset("imagenet", tmp_path)
    (tmp_path / "meta.mat").unlink()
    one, other = (tmp_path / "val" / str(number[name]) / first[name] for name in WORDNET_IDS[:2])
    one.rename(other.parent / one.name)
    other.rename(one.parent / other.name)
    assert load_dataset("imagenet", tmp_path).labels.max() == 999  # other numbers for the two
    put(tmp_path, "val/1/ILSVRC2012_val_00000001.JPEG")  # not of the class of the others there
    with pytest.raises(DataError, match="numbers, not WordNet ids"):
        load_dataset("imagenet", tmp_path)


def test_a_folder_of_imagenet_s_numbers_is_asked_about_as_a_folder_too(tmp_path):
    numbered(tmp_path)
    with pytest.raises(DataError, match="numbers of its devkit, neither is right"):
        load_dataset("folder", tmp_path)


def test_imagenet_s_validation_images_are_not_taken_for_training(tmp_path):
    put(tmp_path, "val/ILSVRC2012_val_00000001.JPEG")
    assert load_dataset("imagenet", tmp_path, "val").labels.tolist() == [65]
    with pytest.raises(DataError, match="has val, but nothing for split train"):
        load_dataset("imagenet", tmp_path, "train")
    with pytest.raises(DataError, match="nothing for split train") as error:
        load_dataset("imagenet", tmp_path / "val", "train")
    assert error.value.settings == ("split",)


def test_the_data_set_that_a_folder_or_file_holds(tmp_path):
    put(tmp_path / "classes", *CLASSES)
    put(tmp_path / "splits", *split("Train"), *split("Test"))
    put(tmp_path / "hidden", ".cat/1.png", "__MACOSX/cat/1.png")
    put(tmp_path / "flat", "1.png")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked/cat").symlink_to(tmp_path / "classes/cat")
    (tmp_path / "npz").mkdir()
    np.savez(tmp_path / "npz/test.npz", x=1)
    for name, file in {
        "cifar10": "cifar-10-batches-py/test_batch",
        "cifar100": "cifar-100-python/test",
        "svhn_cropped": "test_32x32.mat",
    }.items():
        (tmp_path / name / file).parent.mkdir(parents=True)
        (tmp_path / name / file).write_bytes(b"")
    (tmp_path / "tfds/cifar10/3.0.2").mkdir(parents=True)
    (tmp_path / "tfds/cifar10/3.0.2/dataset_info.json").write_text("{}")
    put(tmp_path / "tfds", "photos/cat/1.png")
    (tmp_path / "empty").mkdir()
    found = {path.name: name_of(path) for path in tmp_path.iterdir()}
    assert found == {
        **dict.fromkeys(("classes", "splits", "linked"), "folder"),
        **{"npz": "npz", "cifar100": "cifar100", "svhn_cropped": "svhn_cropped"},
        **dict.fromkeys(("cifar10", "tfds", "hidden", "flat", "empty"), "cifar10"),
    }
    assert name_of(tmp_path / "npz/test.npz") == "npz" and name_of(None) == "cifar10"
    dataset = load_dataset(None, tmp_path / "classes")
    assert dataset.class_names == ["cat", "dog"] and "read as folder (dataset folder)" in dataset.notes[0]
