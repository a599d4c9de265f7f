"""Classifiers: functions of images, or of images and the noise in them, whose weights are leaves of a pytree."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Array, Float


@jax.tree_util.register_pytree_node_class
class NoiseConditional:
    """A classifier that knows the noise: `function(images, sigma)` to logits, such as a denoiser before a classifier.

    It is called with noisy images (batch, h, w, c) and the standard deviation of their noise, sigma (batch,), in the
    images' units. A search compares it at different sigmas, as if there were a network for each. A certificate is about
    the classifier that receives the certificate's sigma, and is smoothed with it.

    Args:
        function: images (batch, h, w, c) in [0, 1] with noise added, not clipped, and sigma (batch,), to logits (batch,
            num_classes); jit-compatible, weights bound by `jax.tree_util.Partial`. Its output for one image must not
            depend on the others.
    """

    def __init__(self, function: Callable[[Float[Array, "batch h w c"], Float[Array, "batch"]], Any]):
        self.function = function if isinstance(function, Partial) else Partial(function)

    def __call__(
        self, images: Float[Array | np.ndarray, "batch h w c"], sigma: Float[ArrayLike, ""] | Float[ArrayLike, "batch"]
    ):
        """The logits of images, all with noise of one `sigma`, or each of its own."""
        return self.function(images, jnp.broadcast_to(jnp.asarray(sigma, jnp.float32), images.shape[:1]))

    def tree_flatten(self):
        return (self.function,), None

    @classmethod
    def tree_unflatten(cls, _, children):
        made = object.__new__(cls)
        (made.function,) = children
        return made


Classifier = Callable[[Float[Array, "batch h w c"]], Float[Array, "batch num_classes"]] | NoiseConditional


def apply(classify: Classifier, images: Float[Array, "batch h w c"], sigma: Float[ArrayLike, ""]) -> Any:
    """The logits of `classify` for images with noise of `sigma`."""
    return classify(images, sigma) if isinstance(classify, NoiseConditional) else classify(images)


def num_classes(classify: Classifier, image_shape: tuple[int, ...]) -> int:
    """The number of classes that `classify` distinguishes on images of shape (h, w, c).

    Raises:
        ValueError: `classify` does not map (1, h, w, c) images to (1, num_classes) logits.
    """
    image, sigma = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32), jax.ShapeDtypeStruct((), jnp.float32)
    logits = jax.eval_shape(lambda image, sigma: apply(classify, image, sigma), image, sigma)
    if not hasattr(logits, "shape") or len(logits.shape) != 2 or logits.shape[0] != 1 or logits.shape[1] < 2:
        raise ValueError(
            f"classify must map images (batch, h, w, c) to logits (batch, num_classes) of 2 or more classes; for shape "
            f"{(1, *image_shape)} it gave {jax.tree.map(lambda a: a.shape, logits)}"
        )
    return logits.shape[1]


def logits_of(
    classify: Classifier, images: Float[Array, "batch h w c"], sigma: Float[Array, ""], classes: int
) -> Float[Array, "batch num_classes"]:
    """The logits of each of `images`, which have noise of `sigma`.

    Raises:
        ValueError: `classify` gives another number of rows, which would be counted for copies that it never saw.
    """
    logits = apply(classify, images, sigma)
    if logits.shape != (len(images), classes):
        raise ValueError(
            f"classify must return logits of shape {(len(images), classes)} for {len(images)} images, one row for "
            f"each; it returned {logits.shape}"
        )
    return logits


def as_pytree(classify: Classifier) -> Partial | NoiseConditional:
    """`classify` as a pytree, so that weights bound by `jax.tree_util.Partial` are arguments, not constants."""
    return classify if isinstance(classify, Partial | NoiseConditional) else Partial(classify)
