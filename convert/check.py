"""Whether a classifier fits a data set: classes, shapes, and its accuracy, which shows a wrong normalisation."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from qcrs_jax.data import Dataset
from qcrs_jax.errors import UserError
from qcrs_jax.models import Classifier, Spec

BATCH = 100


def accuracy(classifier: Classifier, dataset: Dataset, indices: range, sigma: float, seed: int = 0) -> float:
    """Share of the images at `indices` that `classifier` gets right, one noisy copy of each.

    Args:
        sigma: standard deviation of the Gaussian noise, in units of pixels in [0, 1]; 0 leaves the images clean.
    """
    key = jax.random.key(seed)

    @jax.jit
    def answers(classify, images, i):
        noise = jax.random.normal(jax.random.fold_in(key, i), images.shape)
        return jnp.argmax(classify(images + sigma * noise), axis=-1)

    right = 0
    for i in range(0, len(indices), BATCH):
        images, labels = zip(*(dataset[j] for j in indices[i : i + BATCH]))
        right += int((np.asarray(answers(classifier.classify, np.stack(images), i)) == np.array(labels)).sum())
    return right / len(indices)


def check_fit(spec: Spec, dataset: Dataset, checkpoint: Path) -> None:
    """Raises UserError unless the classes and the shape of the images are the same in both."""
    if spec.num_classes != len(dataset.class_names):
        raise UserError(
            f"{checkpoint} tells {spec.num_classes} classes apart, but {dataset.name} ({dataset.source}) has "
            f"{len(dataset.class_names)}: {', '.join(dataset.class_names[:10])}"
        )
    check_image(spec, dataset, 0, dataset[0][0], checkpoint)


def check_image(spec: Spec, dataset: Dataset, index: int, image: np.ndarray, checkpoint: Path) -> None:
    """Raises UserError unless `image`, the one at `index`, has the shape that the network takes."""
    if image.shape != tuple(spec.image_shape):
        raise UserError(
            f"{checkpoint} takes images of shape {tuple(spec.image_shape)}, but image {index} of {dataset.name} "
            f"({dataset.source}) has shape {image.shape}"
        )
