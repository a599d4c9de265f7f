"""Names of splits, and names that are not data."""

import pytest

from qcrs_jax.data.splits import is_hidden, is_plain, split_of, split_within


@pytest.mark.parametrize(
    ("split", "names"),
    [
        (
            "train",
            "train Train TRAIN training training_set TrainSet train-data trainData train_images train2017 trainset",
        ),
        ("test", "test Test testing test_set testset TestData test-images test2 the_test_set"),
        ("val", "val Val valid VALID validation Validation_Set val_images val2017 validset"),
        (None, "tests trains bullet_train test_tube cat 7 valley images invalid trainee contest seg_train dev x_train"),
    ],
)
def test_splits_by_their_names(split, names):
    assert {name: split_of(name) for name in names.split()} == dict.fromkeys(names.split(), split)


def test_names_that_are_splits_beyond_doubt():
    assert [name for name in "Train test VALID validation training_set test2 cat".split() if is_plain(name)] == (
        ["Train", "test", "VALID", "validation"]
    )


def test_a_split_as_one_word_of_a_name():
    assert [split_within(name) for name in ("seg_train", "cifar-test", "images.val", "cat", "train_test")] == (
        ["train", "test", "val", None, None]
    )


def test_files_and_folders_of_the_system():
    hidden = [".git", "._a.png", ".ipynb_checkpoints", "@eaDir", "@EADIR", "__MACOSX", "__macosx", "Thumbs.db"]
    hidden += ["Thumbs.db:encryptable", "desktop.ini", "$RECYCLE.BIN", "#recycle", "System Volume Information"]
    assert [name for name in hidden if not is_hidden(name)] == []
    assert [name for name in ("a.png", "_a", "eaDir", "MACOSX", "@", "#", "thumbs") if is_hidden(name)] == []
