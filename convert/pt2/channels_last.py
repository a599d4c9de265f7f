"""Images kept with channels last while a graph that has them second is computed.

PyTorch's images are (batch, c, h, w). XLA's convolutions on a CPU, and most elsewhere, want (batch, h, w, c). So an
image that comes from a convolution stays as it is, behind a `Last`, through all operations that can take it so. Any
other operation gets the plain array.
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
    """A tensor of four axes with channels last, which XLA may not undo: its convolutions are slow with others."""
    return x if isinstance(x, Last) else Last(jax.lax.optimization_barrier(jnp.transpose(x, (0, 2, 3, 1))))


def plain(value):
    """A value, or a list of values, with plain arrays alone."""
    if isinstance(value, Last):
        return value.plain()
    return [plain(item) for item in value] if isinstance(value, list) else value


def of_images(function):
    """A function of (batch, h, w, c) as one of (batch, c, h, w) or of a Last, which gives a Last.

    It takes one image (c, h, w) too. All results are turned that have four axes.
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
    """A Last of an elementwise function of arguments of which one at least is a Last; None if it cannot be."""
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
