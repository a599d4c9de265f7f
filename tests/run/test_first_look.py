"""The first look at a run: its warnings, and their error rates."""

import functools
import types
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial
from scipy import stats

from qcrs_jax.data.dataset import Dataset
from qcrs_jax.errors import UserError
from qcrs_jax.experiments.run.first_look import IMAGES, LEVEL, Evidence, choose, first_look, near_chance
from qcrs_jax.experiments.run.inputs import Inputs


@pytest.mark.parametrize("classes", [2, 3, 10, 100, 200, 1000])
@pytest.mark.parametrize("images", [1, 3, 10, 50])
def test_an_accuracy_is_called_near_chance_with_the_probabilities_that_are_stated(classes, images):
    called = [k for k in range(images + 1) if near_chance(k, images, classes)]
    assert called == list(range(len(called)))  # so many or fewer
    alarm = lambda accuracy: stats.binom.pmf(called, images, accuracy).sum()  # noqa: E731
    for accuracy in np.linspace((1 + 1 / classes) / 2, 1, 20):
        assert alarm(accuracy) <= LEVEL
    if images == 50:
        assert alarm(1 / classes) >= (0.65 if classes == 2 else 0.9)  # of a network that guesses
        assert classes < 10 or alarm(0.5) <= LEVEL and alarm(0.4) <= LEVEL


def test_few_images_raise_no_alarm():
    assert not any(near_chance(k, m, 10) for m in range(1, 9) for k in range(m + 1))
    assert near_chance(0, 50, 10) and near_chance(8, 50, 10) and not near_chance(9, 50, 10)


def answers(rng, labels, classes, accuracy, permutation):
    wrong = (labels + rng.integers(1, classes, len(labels))) % classes
    return permutation[np.where(rng.random(len(labels)) < accuracy, labels, wrong)]


def look(labels, predicted):
    evidence = Evidence().seen(labels[:50], predicted[:50])
    for start in range(50, len(labels), 50):
        if evidence.open:
            evidence = evidence.seen(labels[start : start + 50], predicted[start : start + 50])
    return evidence


def balanced(rng, classes, images):
    return np.concatenate([rng.permutation(min(classes, 10)) for _ in range(images)])[:images]


RENAMED = np.array([7, 1, 0, 2, 3, 4, 5, 6, 8, 9])  # plane, car, ... in sorted order
SWAPPED = np.array([0, 1, 2, 5, 4, 3, 6, 7, 8, 9])


@pytest.mark.parametrize(
    ("classes", "accuracy", "permutation"),
    [
        (10, 0.8, RENAMED),
        (10, 0.6, RENAMED),
        (10, 0.8, np.arange(10)[::-1]),
        (10, 0.95, SWAPPED),
        (2, 0.9, np.array([1, 0])),
        (3, 0.85, np.array([1, 0, 2])),
        (200, 0.8, np.random.default_rng(0).permutation(200)),
    ],
)
def test_a_permutation_of_the_labels_is_found_and_named(classes, accuracy, permutation):
    rng = np.random.default_rng(1)
    for _ in range(5):
        labels = balanced(rng, classes, 200)
        evidence = look(labels, answers(rng, labels, classes, accuracy, permutation))
        assert evidence.enough and evidence.permuted > evidence.right
        for label, called in evidence.exchanges().items():
            assert called == permutation[label] != label


@pytest.mark.parametrize(("classes", "accuracy"), [(10, 0.9), (10, 0.6), (10, 0.35), (10, 0.1), (2, 0.6), (1000, 0.3)])
def test_right_labels_are_not_called_permuted(classes, accuracy):
    rng = np.random.default_rng(2)
    for _ in range(20):
        labels = balanced(rng, classes, 200)
        assert not look(labels, answers(rng, labels, classes, accuracy, np.arange(classes))).enough


@pytest.mark.slow
def test_the_bet_is_a_supermartingale_where_each_class_is_called_by_its_name_as_often_as_by_any_other():
    # The worst case of it: two classes that the network cannot tell apart at all.
    rng, largest = np.random.default_rng(3), []
    for _ in range(300):
        labels = np.tile([0, 1], 50)
        largest.append(Evidence().seen(labels, rng.integers(0, 2, 100)).largest)
    for level in (0.1, 0.03):
        assert np.mean(np.array(largest) >= 1 / level) <= level + 3 * np.sqrt(level / 300)


def test_images_whose_prediction_is_not_finite_are_of_no_class():
    evidence = Evidence().seen([0, 0, 1], [-1, -1, 1])
    assert (evidence.right, evidence.exchanges(), evidence.enough) == (1, {}, False)


def data(labels, classes=10, problems=()):
    """Images that show their label as a row of one bright pixel."""
    labels = np.asarray(labels)

    def read(index):
        image = np.zeros((4, classes, 1), np.float32)
        image[:, labels[index]] = 1
        return image

    names = [f"c{i}" for i in range(classes)]
    return Dataset("d", "test", "here", names, labels, read, "", dict.fromkeys(problems, "a problem"))


def inputs(dataset, permutation=None, gain=8.0, batch=16):
    """A network that reads the label off the image, and is sure of it."""
    order = np.arange(len(dataset.class_names)) if permutation is None else np.argsort(permutation)
    classify = Partial(lambda order, images: gain * images.mean(axis=(1, 3))[:, order], jnp.asarray(order))
    read = []

    def image_of(index):
        read.append(index)
        try:
            return dataset[index]
        except UserError:
            raise

    classifier = types.SimpleNamespace(classify=classify)
    inputs = types.SimpleNamespace(
        dataset=dataset, classifier=classifier, batch=batch, read=image_of, were_read=read, checkpoint=Path("n")
    )
    inputs.readable = functools.partial(Inputs.readable, inputs)
    return inputs


SORTED = np.repeat(np.arange(10), 30)  # as folders have them


@pytest.mark.parametrize("indices", [range(300), range(50), range(0, 300, 7), range(3)])
@pytest.mark.parametrize("sigma", [None, 0.1])
def test_a_good_network_gives_no_warning(indices, sigma):
    it = inputs(data(SORTED))
    assert list(first_look(it, indices, sigma)) == []
    assert len(it.were_read) == IMAGES  # and none more


def test_labels_that_are_permuted_are_reported_and_named():
    (said,) = first_look(inputs(data(SORTED), RENAMED), range(300), 0.1)
    assert "labels seem to be permuted: of 50 clean images, 15 are classified right, and 50 would be" in said
    assert "images of c2 are called c0" in said and "c8" not in said and "--class_order FILE" in said


def test_accuracy_near_chance_gives_a_warning():
    network = inputs(data(SORTED))
    network.classifier.classify = Partial(lambda images: jnp.eye(10)[jnp.zeros(len(images), int)])
    (said,) = first_look(network, range(300), 0.1)
    assert "near chance: of 50 clean images of 10 classes, 5 are classified right (10%; guessing gives 10.0%)" in said
    assert "--class_order" in said and "--normalization" in said


def test_accuracy_near_chance_under_the_noise_alone_gives_a_warning():
    network = inputs(data(SORTED))
    clean = network.classifier.classify
    drowned = lambda images: images.std(axis=(1, 2, 3))[:, None] > 1  # noqa: E731
    network.classifier.classify = Partial(lambda images: jnp.where(drowned(images), jnp.eye(10)[0], clean(images)))
    (said,) = first_look(network, range(300), 50.0)
    assert "under the noise asked for is near chance: of 50 images, 50 are classified right without noise" in said
    assert "noise of sigma 50" in said and "--sigma" in said


def test_a_network_that_gives_no_numbers_is_near_chance():
    network = inputs(data(SORTED))
    network.classifier.classify = Partial(lambda images: jnp.full((len(images), 10), jnp.nan))
    (said,) = first_look(network, range(300), 0.1)
    assert "0 are classified right" in said


def test_images_that_cannot_be_read_are_left_to_their_turn():
    dataset = data(SORTED, problems=range(0, 300, 2))
    assert list(first_look(inputs(dataset), range(300), 0.1)) == []
    assert list(first_look(inputs(data([0] * 3, problems=range(3))), range(3), 0.1)) == []
    assert list(first_look(inputs(data([0] * 60, classes=1)), range(60), 0.1)) == []


def test_the_images_are_balanced_over_classes_and_of_the_run_where_it_has_enough():
    chosen = choose(data(SORTED), range(0, 300, 2))
    assert np.bincount(SORTED[chosen[:50]]).tolist() == [5] * 10 and len(set(chosen)) == len(chosen)
    assert all(index % 2 == 0 for index in chosen)
    assert sorted(SORTED[chosen[:10]]) == list(range(10))  # one of each class first
    chosen = choose(data(SORTED), range(60))  # of two classes
    assert np.bincount(SORTED[chosen[:50]]).tolist() == [5] * 10
    many = data(np.arange(600) % 200, classes=200)
    assert len(choose(many, range(600))[:50]) == 50
    assert np.bincount(many.labels[choose(many, range(600))[:50]]).max() <= 5
