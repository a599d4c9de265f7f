"""Keeps images with channels last while computing a graph that has channels second.

PyTorch's images are (batch, c, h, w). XLA's convolutions on a CPU, and most on other devices, prefer (batch, h, w, c).
So the output of a convolution stays in that order, as a `Last`, through all operations that accept it. Any other
operation gets the plain array.
"""

import functools

import jax
import jax.numpy as jnp


class Last:
    """A tensor (batch, c, h, w) whose numbers are in an array (batch, h, w, c)."""

    ndim = 4

    def __init__(self, array):
        self.array = array

    @property
    def shape(self):
        batch, h, w, c = self.array.shape
        return (batch, c, h, w)

    @property
    def dtype(self):
        return self.array.dtype

    @property
    def size(self):
        return self.array.size

    def astype(self, dtype):
        return Last(self.array.astype(dtype))

    def plain(self):
        """The array (batch, c, h, w)."""
        return jnp.transpose(self.array, (0, 3, 1, 2))


def last(x) -> Last:
    """A tensor of four axes with channels last. A barrier keeps XLA from changing the order, which would be slow."""
    return x if isinstance(x, Last) else Last(jax.lax.optimization_barrier(jnp.transpose(x, (0, 2, 3, 1))))


def plain(value):
    """A value, or a list of values, with every `Last` replaced by its plain array."""
    if isinstance(value, Last):
        return value.plain()
    return [plain(item) for item in value] if isinstance(value, list) else value


def of_images(function):
    """Makes a function of (batch, h, w, c) one of (batch, c, h, w) or of a Last, which returns a Last.

    It takes one image (c, h, w) too. Results with four axes are converted too.
    """

    @functools.wraps(function)
    def compute(input, *args, **kwargs):
        one = not isinstance(input, Last) and jnp.ndim(input) == 3
        result = function(last(input[None] if one else input).array, *args, **kwargs)
        results = [Last(array) for array in (result if isinstance(result, tuple) else (result,))]
        if one:
            results = [image.plain()[0] for image in results]
        return tuple(results) if isinstance(result, tuple) else results[0]

    return compute


def elementwise(function, arguments: dict):
    """An elementwise function of arguments with at least one Last, as a Last; None if their shapes do not allow it."""
    turned = {}
    for name, value in arguments.items():
        if isinstance(value, Last):
            turned[name] = value.array
        elif getattr(value, "ndim", 0):
            if value.ndim > 4:
                return None
            value = jnp.reshape(value, (1,) * (4 - value.ndim) + tuple(value.shape))
            turned[name] = jnp.transpose(value, (0, 2, 3, 1))
        else:
            turned[name] = value
    return Last(function(**turned))
