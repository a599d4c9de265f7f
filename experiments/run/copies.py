"""The classes of two classifiers for each noisy copy of an image."""

import functools
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from qcrs_jax.sampling.classifiers import apply, as_pytree
from qcrs_jax.sampling.devices import DEVICES, over_images
from qcrs_jax.sampling.noise import gaussian_noise
from qcrs_jax.sampling.streams import CURVE

AT_ONCE = 2**14  # copies whose classes are fetched from the devices together


def pairs_of_classes(
    one: Callable, other: Callable, image, sigma: float, *, key, n: int, batch_size: int, devices: Sequence[jax.Device]
) -> Iterator[np.ndarray]:
    """Yields the pairs of classes (copies, 2) that two classifiers give to n noisy copies of an image, int32.

    The noise is that of `sample_curve`. Both are -1 if a logit of either is not finite: such a copy has no class.
    Neither memory nor time depends on the number of possible pairs.

    Args:
        one, other: functions of images (batch, h, w, c) to logits (batch, num_classes).
        image: (h, w, c), in [0, 1].
        batch_size: copies per forward pass of a device. It changes nothing.
    """
    both = Partial(_both, as_pytree(one), as_pytree(other))
    step = batch_size * len(devices)
    turns = min(-(-n // step), -(-AT_ONCE // step))
    for first in range(0, n, turns * step):
        places = first + np.arange(turns * step, dtype=np.int32).reshape(turns, len(devices), batch_size)
        image, sigma = np.float32(image), np.float32(sigma)
        pairs = _draw(both, image, (key,), sigma, places, batch_size=batch_size, devices=tuple(devices))
        yield np.asarray(pairs).reshape(-1, 2)[: n - first]


def _both(one, other, images, sigma):
    logits = apply(one, images, sigma), apply(other, images, sigma)
    finite = functools.reduce(jnp.logical_and, (jnp.isfinite(of).all(axis=-1) for of in logits))
    classes = jnp.stack([of.argmax(axis=-1) for of in logits], axis=-1)
    return jnp.where(finite[:, None], classes, -1).astype(jnp.int32)


@over_images
def _draw(both, image, key, sigma, places, batch_size, devices):
    stream = jax.random.fold_in(jax.random.fold_in(key, CURVE), 0)
    device = jax.lax.axis_index(DEVICES)

    def classes(places):
        return both(image + sigma * gaussian_noise(stream, places[device], image.shape), sigma)

    return jax.lax.all_gather(jax.lax.map(classes, places), DEVICES, axis=1)
