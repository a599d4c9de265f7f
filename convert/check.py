"""Whether a classifier fits a data set: classes, shapes, and its accuracy, which shows a wrong normalisation."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from qcrs_jax.data.load import Dataset
from qcrs_jax.errors import SettingError, UserError, setting
from qcrs_jax.models import Classifier, Spec, family_of
from qcrs_jax.sampling.classifiers import apply

BATCH = 100


def accuracy(classifier: Classifier, dataset: Dataset, indices: range, sigma: float, seed: int = 0) -> float:
    """The share of the images at `indices` that `classifier` classifies right, with one noisy copy of each.

    Args:
        sigma: standard deviation of the Gaussian noise, in units of pixels in [0, 1]; 0 leaves the images clean.
    """
    key, spec = jax.random.key(seed), classifier.spec

    @jax.jit
    def answers(classify, images, i):
        noise = jax.random.normal(jax.random.fold_in(key, i), images.shape)
        return jnp.argmax(apply(classify, images + sigma * noise, sigma), axis=-1)

    right = 0
    for i in range(0, len(indices), BATCH):
        images, labels = zip(*(dataset[j] for j in indices[i : i + BATCH]))
        images = [fit_image(spec, dataset, j, x, spec.arch) for j, x in zip(indices[i : i + BATCH], images)]
        right += int((np.asarray(answers(classifier.classify, np.stack(images), i)) == np.array(labels)).sum())
    return right / len(indices)


def check_fit(spec: Spec, dataset: Dataset, checkpoint: Path) -> None:
    """Raises UserError unless the classifier and the data set have the same number of classes."""
    if spec.num_classes != len(dataset.class_names):
        raise UserError(
            f"{checkpoint} has {spec.num_classes} classes, but {dataset.name} ({dataset.source}) has "
            f"{len(dataset.class_names)}: {class_names(dataset)}. Classes without images count by their names in "
            "class_names of an .npz, or as empty folders"
        )


def fit_image(
    spec: Spec, dataset: Dataset, index: int, image: Float[np.ndarray, "h w c"], network: Path | str
) -> Float[np.ndarray, "h w k"]:
    """The image at `index` as the network takes it. A grey image is repeated for a network of three channels.

    A network of one channel takes grey images that are stored as RGB, with three equal channels.

    Raises:
        UserError: the image has another shape than `network` takes (its name in the message), or has colours.
    """
    shape = tuple(spec.image_shape)
    if image.shape == (*shape[:2], 1) and shape[2] == 3:
        return np.repeat(image, 3, axis=-1)
    if image.shape == (*shape[:2], 3) and shape[2] == 1:
        if (image == image[..., :1]).all():
            return image[..., :1]
        raise UserError(
            f"{network} takes grey images, of one channel, but {dataset.where(index)} has colours: its three channels "
            "differ; convert it to grey, or take another checkpoint"
        )
    if image.shape != shape:
        raise UserError(
            f"{network} takes images of shape {shape}, but {dataset.where(index)} has shape {image.shape}; "
            + _remedy(spec, image.shape)
        )
    return image


def _remedy(spec, shape):
    """The remedy for images of `shape`, for which the network of `spec` was not opened."""
    takes, of_imagenet = tuple(spec.image_shape), spec.image_shape[0] == 224 and spec.num_classes == 1000
    if _one_size(spec) or of_imagenet or shape[2:] != takes[2:]:
        return f"convert the images, or have them made smaller by {setting('resize')}, or take another checkpoint"
    larger = shape[0] >= takes[0] and shape[1] >= takes[1]
    return (
        f"its layers take any size: if it was trained on images of {shape[0]} x {shape[1]}, open or convert the "
        f"PyTorch file with {setting('image_size')} {shape[0]} {shape[1]}"
        + (f"; if it was trained on such images made smaller, give {setting('resize')}" if larger else "")
    )


def _one_size(spec):
    """Whether its images have one size: of our families some, and all programs."""
    try:
        return family_of(spec.arch).one_size
    except SettingError:  # of no family
        return True


def class_names(dataset: Dataset, most: int = 10) -> str:
    """The names of the classes in one line; only the first `most` if there are more."""
    return ", ".join(dataset.class_names[:most]) + (", ..." if len(dataset.class_names) > most else "")
