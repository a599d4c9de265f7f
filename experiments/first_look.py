"""A first look at what a classifier makes of a data set: whether it may be the wrong one, before hours are spent.

The look changes no count and no key: it has noise of its own, and reads images that are read again at their turn.
"""

import dataclasses
import functools
from collections.abc import Iterator

IMAGES = 50
EACH = 5  # images of one class, where there are so many: fewer tell nothing of a permutation
COPIES = 2
LEVEL = 0.001
"""Probability of a false alarm, of each kind."""


def first_look(inputs, indices: range, sigma: float | None) -> Iterator[str]:
    """Sentences on what looks wrong: accuracy near chance, clean or under noise of `sigma`, or labels permuted.

    At most 50 images are looked at, those of the run as far as these are of many classes. A sentence about accuracy
    has a probability of at most LEVEL where the network's accuracy is at least half the way from chance to 1, and one
    about a permutation where images of each class are called by its own name at least as often as by any other.
    """
    import numpy as np

    classes = len(inputs.dataset.class_names)
    images, labels = _read(inputs, choose(inputs.dataset, indices))
    if classes < 2 or not images:
        return
    images, labels = np.stack(images), np.array(labels)
    clean = predictions(inputs, images)
    right = int((clean == labels).sum())
    if found := exchanged(labels, clean):
        yield said_of_exchange(found, inputs.dataset.class_names, len(labels))
    elif near_chance(right, len(labels), classes):
        yield (
            f"accuracy is near chance: of {len(labels)} clean images of {len(set(labels.tolist()))} classes, {right} "
            f"are classified right ({right / len(labels):.0%}; guessing gives {1 / classes:.1%}). Is this the data set, the "
            "order of its classes (--class_order) and the normalisation (--normalization) of this network?"
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
    """At most 50 images, of `indices` where these are of half the classes at least, else of the whole data set.

    They are balanced over some classes: folders are in the order of classes, so that the first 50 are often of one.
    The first image of each class comes first.
    """
    import numpy as np

    labels = np.asarray(dataset.labels)
    usable = np.ones(len(labels), bool)
    usable[list(dataset.problems)] = False
    everywhere = np.flatnonzero(usable)
    pool = np.array([i for i in indices if usable[i]], int)
    if 2 * len(np.unique(labels[pool])) < len(np.unique(labels[everywhere])):
        pool = everywhere
    classes = np.unique(labels[pool])
    most = max(EACH, -(-IMAGES // max(len(classes), 1)))
    chosen = []
    for label in np.random.default_rng(0).permutation(classes):
        own = pool[labels[pool] == label]
        spread = own[np.unique(np.linspace(0, len(own) - 1, min(most, len(own))).round().astype(int))]
        chosen += list(enumerate(spread.tolist()))
        if len(chosen) >= IMAGES:
            break
    return [index for _, index in sorted(chosen[:IMAGES])]


def _read(inputs, indices):
    """Images and labels at `indices`, without those that cannot be read: the run comes to them."""
    from qcrs_jax.errors import UserError

    images, labels = [], []
    for index in indices:
        try:
            image, label = inputs.read(index)
        except UserError:
            continue
        images.append(image)
        labels.append(label)
    return images, labels


def predictions(inputs, images, sigma: float = 0.0):
    """The class of each image (m, h, w, c): by its softmax or, with sigma, by the mean over two noisy copies.

    -1 where a logit is not finite.
    """
    import numpy as np

    copies = COPIES if sigma else 1
    rng = np.random.default_rng(0)
    batch = min(inputs.batch, IMAGES)
    shares, total = _shares(), 0.0
    for _ in range(copies):
        noisy = images + np.float32(sigma) * rng.standard_normal(images.shape, np.float32) if sigma else images
        padded = np.concatenate([noisy, np.zeros((-len(noisy) % batch, *noisy.shape[1:]), np.float32)])
        parts = [
            np.asarray(shares(inputs.classifier.classify, padded[i : i + batch])) for i in range(0, len(padded), batch)
        ]
        total = total + np.concatenate(parts)[: len(images)]
    return np.where(np.isfinite(total).all(axis=1), total.argmax(axis=1), -1)


@functools.cache
def _shares():
    import jax

    return jax.jit(lambda classify, images: jax.nn.softmax(classify(images), axis=-1))


def near_chance(right: int, images: int, classes: int) -> bool:
    """Whether so many right of so many images are what guessing gives, and hardly what a fair network gives.

    Guessing gives as many or more with a probability above 10%; a network whose accuracy is halfway from chance to 1
    gives as few with one of at most LEVEL.
    """
    from scipy import stats

    chance = 1 / classes
    guessed = stats.binom.sf(right - 1, images, chance) > 0.1
    return bool(guessed and stats.binom.cdf(right, images, (1 + chance) / 2) <= LEVEL)


@dataclasses.dataclass(frozen=True)
class Exchange:
    """A permutation of the labels that explains the predictions better.

    called: {label: the class that most of its images fall into}, where they differ and more than one image tells it.
    right, permuted: images classified right by the labels as they are, and by the permuted ones.
    """

    called: dict[int, int]
    right: int
    permuted: int


def exchanged(labels, predicted) -> Exchange | None:
    """The permutation of labels that explains the predictions far better than the labels do; None without evidence.

    The evidence is a bet at even odds, image after image: a share of the stake is put on the best permutation of all
    images before, against the labels as they are, where one is right and the other wrong. If images of each class fall
    into it at least as often as into any other, the stake is a supermartingale, and grows by 1 / LEVEL with probability
    at most LEVEL, by Ville's inequality. "Far better" is at least a fifth of the images more.
    """
    import numpy as np

    labels, predicted = np.asarray(labels), np.asarray(predicted)
    known = [(int(y), int(p)) for y, p in zip(labels, predicted) if p >= 0]
    names = sorted({value for pair in known for value in pair})
    place = {name: i for i, name in enumerate(names)}
    confusion, stake, reached = np.zeros((len(names), len(names))), 1.0, False
    best = np.arange(len(names))
    for y, p in known:
        row, column = place[y], place[p]
        if column in (row, best[row]) and best[row] != row:
            stake *= 1.7 if column == best[row] else 0.3
            reached |= stake >= 1 / LEVEL
        confusion[row, column] += 1
        best = _assignment(confusion)
    right = int(np.trace(confusion))
    permuted = int(confusion[np.arange(len(names)), best].sum())
    if not reached or permuted - right < len(labels) / 5:
        return None
    called = {
        names[row]: names[column]
        for row, column in enumerate(best)
        if row != column and confusion[row, column] > max(1, confusion[row, row])
    }
    return Exchange(called, right, permuted)


def _assignment(confusion):
    """Which class each label is best exchanged for: most images explained, and of these the fewest exchanges."""
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    size = len(confusion)
    _, columns = linear_sum_assignment(confusion + np.eye(size) / (2 * size), maximize=True)
    return columns


def said_of_exchange(found: Exchange, names: list[str], images: int) -> str:
    """A sentence on the classes that seem to be exchanged."""
    pairs = [f"images of {names[label]} are called {names[other]}" for label, other in sorted(found.called.items())[:6]]
    more = ", ..." if len(found.called) > 6 else ""
    return (
        f"the labels seem to be permuted: of {images} clean images, {found.right} are classified right, and "
        f"{found.permuted} would be with classes exchanged: {', '.join(pairs)}{more} by the names of the data set. Give "
        "the order of the network's classes by --class_order FILE, with the name of a class on each line"
    )
