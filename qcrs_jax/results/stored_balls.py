"""Memory-based post-processing: certificates are trimmed so that none contradicts an earlier one (Alfarra et al. 2022).

A classifier that chooses sigma for each input can certify two classes on the overlap of the balls of two inputs. A
classifier that stores its certified balls, and answers a stored ball's class inside it, cannot.
"""

import functools
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

BLOCK = 256  # images whose distances to all earlier ones are in memory at a time
KEPT = 2**28  # bytes of images that stay in memory; others are read again where they are needed
GRID = 16  # cells along height and width of a sketch

LIMITS = (
    "Memory-based: inside a ball that it has stored this classifier answers the ball's class, whatever the network "
    "says there, so that the radii hold by construction for inputs that come later. It is no fixed classifier: its "
    "answers depend on all inputs before and on their order, here those of this file. Nothing is said of an input that "
    "comes, perturbed, before its ball is stored, nor of one outside all balls."
)


class Corrected(NamedTuple):
    """The answers of the memory-based classifier, in the order of the inputs.

    predictions: classes; -1 where it abstains.
    radii: L2 radii, none larger than before.
    """

    predictions: Int[np.ndarray, "m"]
    radii: Float[np.ndarray, "m"]


@runtime_checkable
class Images(Protocol):
    """Images by their place, read when they are asked for: `images[i]`, all of one shape."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Float[np.ndarray, "..."]: ...


def correct(
    images: Float[np.ndarray, "m ..."] | Images, predictions: Int[np.ndarray, "m"], radii: Float[np.ndarray, "m"]
) -> Corrected:
    """The answers of the memory-based classifier to `images`, given one after another, and its radii.

    An input in a stored ball of another class takes that class, and at most the radius that stays within the ball. A
    ball that reaches into stored balls of other classes is trimmed to touch the first of them. Then it is stored.
    Abstentions (-1) are answered as they are; they are not stored, and trim nothing.

    Take the returned balls as open. Up to float64 rounding, no two balls of different classes overlap, and no centre
    lies in a ball of another class. The proof is by induction: a trimmed ball ends where the others begin, and a ball
    within a stored ball of its class is as far from the others as that one is.

    Source: Alfarra et al., UAI 2022, algorithm 2. There an input that changes its class may get a larger radius than
    was certified for it; here it does not.

    Each image is read once, and its sketch of GRID x GRID cells is kept. Images are read again only for pairs whose
    sketches are near enough. At most KEPT bytes of images are in memory.

    Args:
        images: images of one shape, in the order in which they come: an array, or a reader of one image at a time.
        predictions: certified classes, -1 for ABSTAIN.
        radii: certified L2 radii, in units of the images.

    Raises:
        ValueError: the images have different shapes.
    """
    predictions, radii = predictions.copy(), radii.astype(np.float64)
    if not len(images):
        return Corrected(predictions, radii)
    first_image = images[0]
    read = functools.lru_cache(maxsize=max(2, KEPT // max(1, first_image.nbytes)))(images.__getitem__)
    answered = predictions >= 0
    squares = np.empty(len(images))
    sketches = np.empty((len(images), sketch(first_image).size))
    for start in range(0, len(images), BLOCK):
        block = slice(start, min(start + BLOCK, len(images)))
        for j in range(block.start, block.stop):
            image = np.asarray(read(j), np.float64)
            if image.shape != first_image.shape:
                raise ValueError(f"images 0 and {j} have shapes {first_image.shape} and {image.shape}, and no distance")
            squares[j], sketches[j] = image.ravel() @ image.ravel(), sketch(image)
        lengths = np.einsum("ij,ij->i", sketches[: block.stop], sketches[: block.stop])
        products = sketches[block] @ sketches[: block.stop].T
        for j in range(block.start, block.stop):
            if not answered[j]:
                continue
            # Sketches are at most as far apart as the images are. They show whose distance to compute: more than are
            # near, and in spite of the rounding of a matrix product none less.
            apart = lengths[:j] + lengths[j] - 2 * products[j - start, :j]
            reach = (radii[:j] + radii[j]) ** 2
            near = np.flatnonzero(answered[:j] & (apart <= reach + 1e-9 * (squares[:j] + squares[j])))
            near = near[predictions[near] != predictions[j]]
            if near.size:
                own = read(j).ravel()
                gaps = np.array([np.linalg.norm(np.float64(read(i)).ravel() - own) for i in near.tolist()])
                gaps -= radii[near]
                first = np.argmin(gaps)
                if gaps[first] < 0:
                    predictions[j] = predictions[near[first]]
                radii[j] = min(radii[j], abs(gaps[first]))
    return Corrected(predictions, radii)


def sketch(image: Float[np.ndarray, "..."]) -> Float[np.ndarray, "d"]:
    """The sums of GRID x GRID cells of an image, or its pixels if those are fewer, float64.

    Each sum is divided by the root of its number of pixels. This is an orthogonal projection, under which no distance
    grows.
    """
    cells = np.float64(image)
    for axis in range(min(2, cells.ndim)):
        size = cells.shape[axis]
        edges = np.linspace(0, size, min(size, GRID) + 1).astype(int)
        widths = np.diff(edges).reshape([-1 if other == axis else 1 for other in range(cells.ndim)])
        cells = np.add.reduceat(cells, edges[:-1], axis=axis) / np.sqrt(widths)
    return cells.ravel()
