"""Class counts of noisy copies of an image: the one hot loop, and the only place that draws certification noise.

The noise of a sample is a function of (key, sample index) alone. Counts therefore do not depend on the batch
size, up to floating-point ties of the network itself.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

Classifier = Callable[[Float[Array, "batch h w c"]], Float[Array, "batch num_classes"]]


def gaussian_noise(key, index: Int[Array, ""], shape: tuple[int, ...]) -> Float[Array, "..."]:
    """Standard normal noise of sample `index`, float32, of the given shape.

    Drawn flat: the numbers are the same, and on a CPU it takes a third of the time.
    """
    return jax.random.normal(jax.random.fold_in(key, index), math.prod(shape), jnp.float32).reshape(shape)


def default_batch_size() -> int:
    """Noisy copies per forward pass of a device when none is asked for: small on a CPU (cache), large elsewhere.

    A number of copies that is no multiple of it costs a whole batch more, and those of a search are some hundred.
    """
    return 16 if jax.default_backend() == "cpu" else 500


def num_classes(classify: Classifier, image_shape: tuple[int, ...]) -> int:
    """The number of classes `classify` tells apart on images of shape (h, w, c).

    Raises:
        ValueError: `classify` does not map (1, h, w, c) images to (1, num_classes) logits.
    """
    logits = jax.eval_shape(classify, jax.ShapeDtypeStruct((1, *image_shape), jnp.float32))
    if not hasattr(logits, "shape") or len(logits.shape) != 2 or logits.shape[0] != 1 or logits.shape[1] < 2:
        raise ValueError(
            f"classify must map images (batch, h, w, c) to logits (batch, num_classes) of 2 or more classes; for shape "
            f"{(1, *image_shape)} it gave {jax.tree.map(lambda a: a.shape, logits)}"
        )
    return logits.shape[1]


def sample_counts(
    classify: Classifier,
    image: Float[Array | np.ndarray, "h w c"],
    sigma: Float[ArrayLike, ""],
    key,
    n: Int[ArrayLike, ""],
    *,
    batch_size: int | None = None,
    axis_name: str | None = None,
) -> Int[Array, "num_classes"]:
    """Counts of the classes that `classify` gives to n noisy copies of `image`.

    Jit- and vmap-compatible; n is a traced loop bound, so that one compilation serves every n. The counts sum
    to n, less the copies with a logit that is not finite: those belong to no class and help no certificate.

    Args:
        classify: images in [0, 1] with noise added, not clipped, to logits.
        image: one image in [0, 1].
        sigma: standard deviation of the noise, in the image's units.
        key: a threefry key, JAX's default; the same key gives the same standard normal noise at every sigma. Keys of
            the rbg generators are refused: under vmap they draw other numbers, and counts would depend on the batch.
        n: number of copies, at most 2**30.
        batch_size: copies per forward pass of a device; the default depends on the kind of device.
        axis_name: inside `jax.shard_map`, the axis of devices that share the copies; each gets the sum.
    """
    batch_size = batch_size or default_batch_size()
    if "threefry" not in str(jax.random.key_impl(key)):
        raise ValueError(
            f"key is of {jax.random.key_impl(key)}; make it with jax.random.key(seed, impl='threefry2x32')"
        )
    classes = jnp.arange(num_classes(classify, image.shape))
    device = jax.lax.axis_index(axis_name) if axis_name else 0
    devices = jax.lax.axis_size(axis_name) if axis_name else 1

    def count_batch(i, counts):
        index = (i * devices + device) * batch_size + jnp.arange(batch_size)
        noise = jax.vmap(gaussian_noise, in_axes=(None, 0, None))(key, index, image.shape)
        logits = classify(image + sigma * noise)
        valid = (index < n) & jnp.isfinite(logits).all(axis=-1)
        votes = valid[:, None] & (jnp.argmax(logits, axis=-1)[:, None] == classes)
        return counts + votes.sum(axis=0, dtype=jnp.int32)

    turns = -(-jnp.asarray(n, jnp.int32) // (batch_size * devices))
    counts = jax.lax.fori_loop(0, turns, count_batch, jnp.zeros(classes.shape, jnp.int32))
    return jax.lax.psum(counts, axis_name) if axis_name else counts


def as_pytree(classify: Classifier) -> Partial:
    """`classify` as a pytree, so that weights bound by `jax.tree_util.Partial` are arguments, not constants."""
    return classify if isinstance(classify, Partial) else Partial(classify)
