"""A first look at the predictions of a classifier on a data set, before hours of work: is it the right one?

The look changes no count and no key. It has noise of its own, and the run reads its images again.
"""

import dataclasses
import functools
from collections.abc import Iterator

import jax
import numpy as np
from scipy import special
from scipy.optimize import linear_sum_assignment

from qcrs_jax.sampling.classifiers import apply

IMAGES = 50
EACH = 5  # images of one class, if possible: fewer show nothing about a permutation
MORE = 200  # largest number of images, if a permutation is likely but not yet certain
COPIES = 2
LEVEL = 0.001
"""Probability of a false alarm, of each kind."""


SHARE = 0.7  # share of the stake that is bet


def first_look(inputs, indices: range, sigma: float | None) -> Iterator[str]:
    """Sentences on suspicious results: accuracy near chance, clean or under noise of `sigma`, or permuted labels.

    It looks at 50 images. They are images of the run, if it has enough of many classes. It looks at up to 200
    where a permutation of labels seems to explain the first ones.

    False alarms have a probability of at most LEVEL for each kind of sentence. For accuracy this holds for a network
    whose accuracy is at least halfway from chance to 1. For a permutation it holds if images of each class get their
    own name at least as often as any other.
    """
    classes = len(inputs.dataset.class_names)
    chosen = choose(inputs.dataset, indices)
    images, labels = _read(inputs, chosen[:IMAGES])
    if classes < 2 or not len(labels):
        return
    clean = predictions(inputs, images)
    right = int((clean == labels).sum())
    evidence = Evidence().seen(labels, clean)
    for start in range(IMAGES, len(chosen), IMAGES):
        if not evidence.open:
            break
        further, their_labels = _read(inputs, chosen[start : start + IMAGES])
        if len(their_labels):
            evidence = evidence.seen(their_labels, predictions(inputs, further))
    if evidence.enough:
        yield permutation_warning(evidence, inputs.dataset.class_names)
    elif near_chance(right, len(labels), classes):
        yield (
            f"accuracy is near chance: of {len(labels)} clean images of {len(set(labels.tolist()))} classes, {right} "
            f"are classified right ({right / len(labels):.0%}; guessing gives {1 / classes:.1%}). Are these the data "
            "set, the order of its classes (--class_order) and the normalisation (--normalization) of this network?"
        )
    elif sigma:
        noisy = predictions(inputs, images, sigma)
        under = int((noisy == labels).sum())
        if near_chance(under, len(labels), classes):
            yield (
                f"accuracy under the noise asked for is near chance: of {len(labels)} images, {right} are classified "
                f"right without noise, and {under} under noise of sigma {sigma:g} ({under / len(labels):.0%}; guessing "
                f"gives {1 / classes:.1%}). Was this network trained with such noise? --sigma may be too large for it"
            )


def choose(dataset, indices: range) -> list[int]:
    """Images to look at, the first 50 first: from `indices` if these have 50 of at least half the classes, else any.

    They are balanced over some classes: folders are in the order of classes, and the first 50 are often of one class.
    """
    labels = np.asarray(dataset.labels)
    usable = np.ones(len(labels), bool)
    usable[[index for index in dataset.problems if index < len(labels)]] = False
    everywhere = np.flatnonzero(usable)
    pool = np.array([i for i in indices if usable[i]], int)
    if len(pool) < IMAGES or 2 * len(np.unique(labels[pool])) < len(np.unique(labels[everywhere])):
        pool = everywhere
    classes = np.unique(labels[pool])
    most = max(EACH, -(-IMAGES // max(len(classes), 1)))
    rng, first, more = np.random.default_rng(0), [], []
    for label in rng.permutation(classes):
        own = list(enumerate(rng.permutation(pool[labels[pool] == label])[: most * MORE // IMAGES].tolist()))
        first, more = first + own[:most], more + own[most:]
        if len(first) >= IMAGES:
            break
    return [index for _, index in sorted(first[:IMAGES]) + sorted(first[IMAGES:] + more)]


def _read(inputs, indices):
    """Images (m, h, w, c) and labels at `indices`, without unreadable ones, which the run will report."""
    images, labels, _ = inputs.readable(indices)
    return np.stack(images) if images else images, np.array(labels, int)


def predictions(inputs, images, sigma: float = 0.0):
    """The class of each image (m, h, w, c): by its softmax or, with sigma, by the mean softmax of two noisy copies.

    -1 if a logit is not finite.
    """
    copies, level = COPIES if sigma else 1, np.float32(max(sigma, 1e-3))  # sigma, for a classifier that knows the noise
    rng = np.random.default_rng(0)
    batch = min(inputs.batch, IMAGES)
    shares, total = _shares(), 0.0
    for _ in range(copies):
        noisy = images + np.float32(sigma) * rng.standard_normal(images.shape, np.float32) if sigma else images
        padded = np.concatenate([noisy, np.zeros((-len(noisy) % batch, *noisy.shape[1:]), np.float32)])
        parts = [
            np.asarray(shares(inputs.classifier.classify, padded[i : i + batch], level))
            for i in range(0, len(padded), batch)
        ]
        total = total + np.concatenate(parts)[: len(images)]
    return np.where(np.isfinite(total).all(axis=1), total.argmax(axis=1), -1)


@functools.cache
def _shares():
    return jax.jit(lambda classify, images, sigma: jax.nn.softmax(apply(classify, images, sigma), axis=-1))


def near_chance(right: int, images: int, classes: int) -> bool:
    """Whether a number of right images is typical of guessing, and hardly possible for a fair network.

    Guessing gives as many or more with a probability above 10%. A network whose accuracy is halfway from chance to 1
    gives as few with a probability of at most LEVEL.
    """
    chance = 1 / classes
    guessed = special.bdtrc(right - 1, images, chance) > 0.1
    return bool(guessed and special.bdtr(right, images, (1 + chance) / 2) <= LEVEL)


@dataclasses.dataclass(frozen=True)
class Evidence:
    """The evidence in labels and predictions for a permutation of the labels, image after image.

    It is a bet at even odds. A share of the stake is put on the best permutation of all images before, against the
    labels as they are, where one is right and the other wrong. If images of each class fall into it at least as often
    as into any other, the stake is a supermartingale. By Ville's inequality it ever reaches 1 / LEVEL with probability
    at most LEVEL, however many images are looked at.

    pairs: (label, prediction) of each image.
    stake: present stake of the bet, 1 at first; `largest` is the largest so far.
    """

    pairs: tuple[tuple[int, int], ...] = ()
    stake: float = 1.0
    largest: float = 1.0

    def seen(self, labels, predicted) -> "Evidence":
        """The evidence with more images, some of whose predictions may be -1."""
        pairs, stake, largest = list(self.pairs), self.stake, self.largest
        for label, called in zip(labels, predicted):
            other = _best(pairs).get(int(label), int(label))
            if other != label and called in (label, other):
                stake *= 1 + SHARE if called == other else 1 - SHARE
                largest = max(largest, stake)
            pairs.append((int(label), int(called)))
        return Evidence(tuple(pairs), stake, largest)

    @property
    def right(self) -> int:
        """Images classified right by the labels as they are."""
        return sum(label == called for label, called in self.pairs)

    @property
    def permuted(self) -> int:
        """Images classified right by the best permutation of the labels."""
        best = _best(self.pairs)
        return sum(best.get(label, label) == called for label, called in self.pairs)

    @property
    def far_better(self) -> bool:
        """Whether the best permutation explains a tenth of the images more."""
        return self.permuted - self.right >= len(self.pairs) / 10

    @property
    def enough(self) -> bool:
        return self.far_better and self.largest >= 1 / LEVEL

    @property
    def open(self) -> bool:
        return self.far_better and self.largest < 1 / LEVEL

    def exchanges(self) -> dict[int, int]:
        """{label: class that most of its images fall into}, where these differ and more than one image supports it."""
        pairs = list(self.pairs)
        return {
            label: called
            for label, called in sorted(_best(pairs).items())
            if label != called and pairs.count((label, called)) > max(1, pairs.count((label, label)))
        }


def _best(pairs) -> dict[int, int]:
    """The permutation of the labels that explains most of the pairs; of several, one that exchanges the fewest."""
    names = sorted({name for pair in pairs for name in pair if name >= 0})
    place = {name: i for i, name in enumerate(names)}
    confusion = np.zeros((len(names), len(names)))
    for label, called in pairs:
        if called >= 0:
            confusion[place[label], place[called]] += 1
    return {names[row]: names[column] for row, column in enumerate(_assignment(confusion))}


def _assignment(confusion):
    """The class for which each label is best exchanged: most images explained, and of these the fewest exchanges."""
    size = len(confusion)
    _, columns = linear_sum_assignment(confusion + np.eye(size) / (2 * size), maximize=True)
    return columns


def permutation_warning(evidence: Evidence, names: list[str]) -> str:
    """A sentence on the classes that seem to be exchanged."""
    found = evidence.exchanges()
    told = [f"images of {names[label]} are called {names[called]}" for label, called in found.items()]
    more = ", ..." if len(told) > 6 else ""
    return (
        f"the labels seem to be permuted: of {len(evidence.pairs)} clean images, {evidence.right} are classified "
        f"right, and {evidence.permuted} would be with classes exchanged: by the names of the data set, "
        f"{', '.join(told[:6])}{more}. Give the order of the network's classes by --class_order FILE, with the name of "
        "a class on each line"
    )
