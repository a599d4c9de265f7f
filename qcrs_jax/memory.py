"""Memory-based post-processing: certificates trimmed so that none contradicts an earlier one (Alfarra et al. 2022).

A classifier that chooses sigma for each input may have certified two classes where the balls of two inputs overlap.
One that stores its certified balls, and inside a stored ball answers that ball's class, has not.
"""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

BLOCK = 256  # images whose distances to all earlier ones are in memory at a time

LIMITS = (
    "Memory-based: inside a ball that it has stored this classifier answers the ball's class, whatever the network "
    "says there, so that the radii hold by construction for inputs that come later. It is no fixed classifier: its "
    "answers depend on all inputs before and on their order, here those of this file. Nothing is said of an input that "
    "comes, perturbed, before its ball is stored, nor of one outside all balls."
)


class Corrected(NamedTuple):
    """What the memory-based classifier answers, in the order of the inputs.

    predictions: classes; -1 where it abstains.
    radii: L2 radii, none larger than it was.
    """

    predictions: Int[np.ndarray, "m"]
    radii: Float[np.ndarray, "m"]


def correct(
    images: Float[np.ndarray, "m ..."], predictions: Int[np.ndarray, "m"], radii: Float[np.ndarray, "m"]
) -> Corrected:
    """The answers of the memory-based classifier to `images`, given one after another, and its radii.

    An input in a stored ball of another class takes that class, and at most the radius that stays within the ball. A
    ball that reaches into stored balls of other classes is trimmed to touch the first of them. Then it is stored.
    Abstentions (-1) are answered as they are; they are not stored, and trim nothing.

    Up to float64 rounding, of the balls returned, taken open, no two of different classes overlap, and no centre lies
    in a ball of another class. By induction: a trimmed ball ends where the others begin, and one within a stored ball
    of its class is as far from the others as that one is.

    Source: Alfarra et al., UAI 2022, algorithm 2. There an input that changes its class may get a larger radius than
    was certified for it; here it does not.

    Args:
        images: images of one shape, in the order in which they come.
        predictions: certified classes, -1 for ABSTAIN.
        radii: certified L2 radii, in units of the images.
    """
    flat = images.reshape(len(images), math.prod(images.shape[1:]))
    predictions, radii = predictions.copy(), radii.astype(np.float64)
    answered = predictions >= 0
    squares = np.array([row @ row for row in map(np.float64, flat)])
    for start in range(0, len(flat), BLOCK):
        block = slice(start, start + BLOCK)
        products = _products(flat[block], flat[: block.stop])
        for j in range(start, min(block.stop, len(flat))):
            if not answered[j]:
                continue
            # A matrix product is fast and loses small distances to rounding: it tells whose distance to compute.
            sums = squares[:j] + squares[j]
            reach = (radii[:j] + radii[j]) ** 2
            near = np.flatnonzero(answered[:j] & (sums - 2 * products[j - start, :j] <= reach + 1e-9 * sums))
            near = near[predictions[near] != predictions[j]]
            if near.size:
                gaps = np.array([np.linalg.norm(np.float64(flat[i]) - flat[j]) for i in near]) - radii[near]
                first = np.argmin(gaps)
                if gaps[first] < 0:
                    predictions[j] = predictions[near[first]]
                radii[j] = min(radii[j], abs(gaps[first]))
    return Corrected(predictions, radii)


def _products(a, b):
    """a @ b.T in float64, by blocks of b's rows, so that no large copy of b is made."""
    a = a.astype(np.float64)
    return np.concatenate([a @ b[i : i + BLOCK].astype(np.float64).T for i in range(0, len(b), BLOCK)], axis=1)
