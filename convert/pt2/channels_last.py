"""Keeps images with channels last while computing a graph that has channels second.

PyTorch's images are (batch, c, h, w). XLA's convolutions on a CPU, and most on other devices, prefer (batch, h, w, c).
So the output of a convolution stays in that order, as a `Last`, through all operations that accept it. Any other
operation gets the plain array.

On a CPU some convolutions are faster on several images side by side (`models.layers.put_beside`). Their output stays
so, as a `Beside`, through convolutions and elementwise operations. To any other operation it is a `Last`.
"""

import functools
import math

import jax
import jax.numpy as jnp

from qcrs_jax.models.layers import put_apart, put_beside


class Last:
    """A tensor (batch, c, h, w) whose numbers are in an array (batch, h, w, c)."""

    ndim = 4

    def __init__(self, array):
        self._array = array

    @property
    def array(self):
        """The array (batch, h, w, c)."""
        return self._array

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

    def by_channel(self, function):
        """The tensor whose array is `function` of an array with channels last. The function keeps its shape."""
        return Last(function(self.array))

    def plain(self):
        """The array (batch, c, h, w)."""
        return jnp.transpose(self.array, (0, 3, 1, 2))


class Beside(Last):
    """A tensor (batch, c, h, w) whose images stand side by side, in an array (batch2, h, w, count, c)."""

    def __init__(self, together):
        self.together = together  # (batch2, h, w, count, c)

    @property
    def array(self):
        return put_apart(self.together)

    @property
    def shape(self):
        batch, h, w, count, c = self.together.shape
        return (batch * count, c, h, w)

    @property
    def dtype(self):
        return self.together.dtype

    @property
    def size(self):
        return self.together.size

    def astype(self, dtype):
        return Beside(self.together.astype(dtype))

    def by_channel(self, function):
        return Beside(function(self.together))


def beside(x, count: int) -> Beside:
    """A tensor of four axes with its images side by side, up to `count` of them: as many as divide the batch."""
    if isinstance(x, Beside):
        return x
    batch = x.shape[0]
    return Beside(put_beside(last(x).array, math.gcd(batch, count) if isinstance(batch, int) else 1))


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
    tensors = [value for value in arguments.values() if getattr(value, "ndim", 0)]
    together = [value for value in tensors if isinstance(value, Beside)]
    if together and all(isinstance(value, Last) and value.shape[0] == together[0].shape[0] for value in tensors):
        count = together[0].together.shape[3]
        turned = {k: beside(v, count).together if isinstance(v, Last) else v for k, v in arguments.items()}
        return Beside(function(**turned))
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
