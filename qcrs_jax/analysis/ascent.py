"""The ascent of an attack: along the gradient of soft votes, in a ball around an image.

Each step is a call of its own of a compiled program. As one compiled loop it would take three times as long on a CPU:
XLA rearranges the convolutions of a gradient outside loops only. The host waits for each call. On several devices of a
CPU, programs that sum over them must not be in flight together: their threads could wait for each other for ever.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ..certification.procedure import draw_prediction
from ..sampling.classifiers import as_pytree, logits_of, num_classes
from ..sampling.devices import DEVICES, over_images
from ..sampling.noise import gaussian_noise

_START, _LOOK, _STEPS = range(3)  # the draws of a restart; its steps are numbered from the last
_LEAST = 1e-3  # votes below this share pull no harder
_STRIDES = 0.25, 0.01  # first and last step, as shares of the distance


@over_images
def differentiate(classify, image, sigma, weights, key, first, draws, noise, batch_size, devices):
    """The soft votes of one pass of noisy copies of `image`, summed, and the gradient of their sum with `weights`.

    The pass has `batch_size` copies of each device, numbered from `first`; those from `draws` on count nothing. Their
    noise is normal, whatever `noise` is.
    """
    axis_name = DEVICES if devices else None
    classes = num_classes(classify, image.shape)
    device = jax.lax.axis_index(axis_name) if axis_name else 0
    place = first + device * batch_size + jnp.arange(batch_size)
    added = sigma * gaussian_noise(key, place, image.shape)

    def votes(image):
        logits = logits_of(classify, image[None] + added, sigma, classes).astype(jnp.float32)
        valid = (place < draws) & jnp.isfinite(logits).all(axis=-1)
        return jnp.where(valid[:, None], jax.nn.softmax(logits), 0).sum(axis=0)

    found, back = jax.vjp(votes, image)
    found = found, back(weights)[0]
    return jax.lax.psum(found, axis_name) if axis_name else found


class Ball(NamedTuple):
    """The images within `distance` of `image` in L2, and in the range from `low` to `high`."""

    image: Float[Array, "h w c"]
    distance: Any
    low: Any
    high: Any

    def nearest(self, x):
        """A point of the ball near x."""
        move = jnp.clip(x, self.low, self.high) - self.image
        return jnp.clip(self.image + move * jnp.minimum(1, self.distance / _length(move)), self.low, self.high)


@jax.jit
def _begin(ball, start, key, random):
    """A start within the ball: a given one, or a random point of the sphere."""
    anywhere = jax.random.normal(key, ball.image.shape)
    return ball.nearest(jnp.where(random, ball.image + ball.distance * anywhere / _length(anywhere), start))


@jax.jit
def _weights(votes, label):
    """The gradient, by the votes, of log p_rival - log p_label. The rival has the most votes of the other classes."""
    is_label = jnp.arange(votes.size) == label
    rival = jnp.argmax(jnp.where(is_label, -1, votes))
    signs = (jnp.arange(votes.size) == rival) * 1.0 - is_label
    return signs / jnp.maximum(votes / jnp.maximum(votes.sum(), 1), _LEAST)


@jax.jit
def _moved(ball, x, slope, share):
    """x after a step along `slope`, of a length that falls along half a cosine; `share` of the steps are done."""
    slope = slope / jnp.maximum(jnp.abs(slope).max(), 1e-37)  # so that its square does not vanish
    first, last = _STRIDES
    stride = ball.distance * (last + (first - last) * (1 + jnp.cos(jnp.pi * share)) / 2)
    return ball.nearest(x + jnp.where(jnp.isfinite(slope).all(), stride * slope / _length(slope), 0))


def _length(move):
    return jnp.maximum(jnp.sqrt((move**2).sum()), 1e-30)


class Candidate(NamedTuple):
    """The end of an ascent.

    image: (h, w, c), in the ball.
    counts: class counts of fresh noisy copies, by which ends are compared, (num_classes,).
    """

    image: Float[Array, "h w c"]
    counts: Int[np.ndarray, "num_classes"]

    def lead(self, label: int) -> int:
        """By how many copies another class leads over the label; negative where the label leads."""
        return int(np.delete(self.counts, label).max() - self.counts[label])


def ascend(classify, ball: Ball, start, label: int, sigma: float, key, settings, **program: Any) -> Candidate:
    """Looks in `ball` for an image at which the classifier smoothed with `sigma` leaves `label`.

    Each step moves along the gradient of log p_rival - log p_label. Both are mean soft votes of noisy copies, drawn
    afresh; the rival, and the weights of the two, follow from the votes of the step before.

    Args:
        start: where the first ascent starts; the others start at random points of the sphere.
        settings: an `Attack`, with restarts, steps, draws and looks.
        program: noise, batch_size and devices.

    Returns:
        Of all ends the one at which another class leads by most.
    """
    classify, level = as_pytree(classify), np.float32(sigma)
    devices = program["devices"]
    width = program["batch_size"] * (len(devices) if devices else 1)
    classes = num_classes(classify, ball.image.shape)

    def votes_and_slope(x, weights, key):
        votes, slope = jnp.zeros(classes), jnp.zeros_like(ball.image)
        for first in range(0, settings.draws, width):
            own = (level, weights, key)
            found = differentiate(classify, x, own, np.int32(first), np.int32(settings.draws), **program)
            more, steeper = jax.block_until_ready(found)
            votes, slope = votes + more, slope + steeper
        return votes, slope

    def one(number):
        own = jax.random.fold_in(key, number)
        x = _begin(ball, start, jax.random.fold_in(own, _START), number > 0)
        weights = jnp.zeros(classes)
        for step in range(-1, settings.steps):  # the first one only counts the votes
            votes, slope = votes_and_slope(x, weights, jax.random.fold_in(own, _STEPS + 1 + step))
            if step >= 0:
                x = _moved(ball, x, slope, step / settings.steps)
            weights = _weights(votes, label)
        look = (level, jax.random.fold_in(own, _LOOK))
        counts = draw_prediction(classify, x, look, np.int32(settings.looks), **program)
        return Candidate(x, np.asarray(counts))

    return max(map(one, range(settings.restarts)), key=lambda end: end.lead(label))
