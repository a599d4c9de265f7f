"""Reductions."""

import math

import jax
import jax.numpy as jnp

from .channels_last import Last
from .elementwise import _low, converted
from .registry import operation
from .shapes import axis_of


def axes_of(dim, count: int) -> tuple[int, ...] | None:
    """The axes that are reduced; None for all."""
    if dim is None or (isinstance(dim, list) and not dim):
        return None
    return tuple(axis_of(d, count) for d in ([dim] if isinstance(dim, int) else dim))


def _given(x, dtype):
    return x if dtype is None else converted(x, dtype)


def _of_image(function, x, dim, keepdim):
    """The reduction of a Last over rows and columns; None for any other input."""
    axes = axes_of(dim, 4)
    if axes is None or set(axes) != {2, 3}:
        return None
    result = function(x.array, axis=(1, 2), keepdims=keepdim)
    return Last(result) if keepdim else result


def _reduction(name, function, *others):
    def compute(self, dim=None, keepdim=False, dtype=None):
        if isinstance(self, Last):
            if dtype is None and (result := _of_image(function, self, dim, keepdim)) is not None:
                return result
            self = self.plain()
        return function(_given(self, dtype), axis=axes_of(dim, self.ndim), keepdims=keepdim)

    operation(name, *others, lasting=True)(compute)


def _sum(x, axis, keepdims):
    return jnp.sum(x, axis=axis, keepdims=keepdims)


_reduction("mean", lambda x, axis, keepdims: jnp.mean(x, axis=axis, keepdims=keepdims))
_reduction("sum", _sum)
_reduction("prod", lambda x, axis, keepdims: jnp.prod(x, axis=axis, keepdims=keepdims))
_reduction("any", lambda x, axis, keepdims: jnp.any(x, axis=axis, keepdims=keepdims))
_reduction("all", lambda x, axis, keepdims: jnp.all(x, axis=axis, keepdims=keepdims))
_reduction("amax", lambda x, axis, keepdims: jnp.max(x, axis=axis, keepdims=keepdims))
_reduction("amin", lambda x, axis, keepdims: jnp.min(x, axis=axis, keepdims=keepdims))
_reduction("logsumexp", lambda x, axis, keepdims: jax.scipy.special.logsumexp(x, axis=axis, keepdims=keepdims))
_reduction("count_nonzero", lambda x, axis, keepdims: jnp.sum(x != 0, axis=axis, keepdims=keepdims))


def _places(find, x, dim, keepdim):
    if dim is None:
        place = find(jnp.reshape(x, -1), axis=0)
        return jnp.reshape(place, (1,) * x.ndim) if keepdim else place
    if not x.ndim:
        return jnp.zeros((), jnp.int32)
    return find(x, axis=axis_of(dim, x.ndim), keepdims=keepdim)


@operation("argmax")
def argmax(self, dim=None, keepdim=False):
    return _places(jnp.argmax, self, dim, keepdim)


@operation("argmin")
def argmin(self, dim=None, keepdim=False):
    return _places(jnp.argmin, self, dim, keepdim)


def _extreme(name, reduce, find, of_two):
    def compute(self, dim=None, keepdim=False, other=None):
        if other is not None:
            return of_two(self, other)
        if dim is None:
            return reduce(self)
        return reduce(self, axis=axes_of(dim, self.ndim), keepdims=keepdim), _places(find, self, dim, keepdim)

    operation(name)(compute)


_extreme("max", jnp.max, jnp.argmax, jnp.maximum)
_extreme("min", jnp.min, jnp.argmin, jnp.minimum)


@operation("median")
def median(self, dim=None, keepdim=False):
    """The median; the lower of two in the middle."""
    if dim is None:
        flat = jnp.sort(jnp.reshape(self, -1))
        return flat[(flat.size - 1) // 2]
    axis = axis_of(dim, self.ndim)
    order = jnp.argsort(self, axis, stable=True)
    place = jax.lax.slice_in_dim(order, (self.shape[axis] - 1) // 2, (self.shape[axis] - 1) // 2 + 1, axis=axis)
    value = jnp.take_along_axis(self, place, axis)
    return (value, place) if keepdim else (jnp.squeeze(value, axis), jnp.squeeze(place, axis))


def _variance(self, dim, unbiased, keepdim, correction):
    correction = correction if correction is not None else 1 if unbiased or unbiased is None else 0
    wide = self.astype(jnp.float32) if _low(self) else self
    axes = axes_of(dim, self.ndim)
    count = math.prod(self.shape[a] for a in (range(self.ndim) if axes is None else axes))
    mean = jnp.mean(wide, axis=axes, keepdims=True)
    total = jnp.sum(jnp.square(wide - mean), axis=axes, keepdims=keepdim)
    mean = mean if keepdim else jnp.reshape(mean, total.shape)
    return total / jnp.maximum(count - correction, 0), mean


@operation("var")
def var(self, dim=None, unbiased=None, keepdim=False, correction=None):
    return _variance(self, dim, unbiased, keepdim, correction)[0].astype(self.dtype)


@operation("std")
def std(self, dim=None, unbiased=None, keepdim=False, correction=None):
    return jnp.sqrt(_variance(self, dim, unbiased, keepdim, correction)[0]).astype(self.dtype)


@operation("var_mean")
def var_mean(self, dim=None, unbiased=None, keepdim=False, correction=None):
    return tuple(x.astype(self.dtype) for x in _variance(self, dim, unbiased, keepdim, correction))


@operation("std_mean")
def std_mean(self, dim=None, unbiased=None, keepdim=False, correction=None):
    variance, mean = _variance(self, dim, unbiased, keepdim, correction)
    return jnp.sqrt(variance).astype(self.dtype), mean.astype(self.dtype)


@operation("linalg_vector_norm", "norm")
def vector_norm(self, ord=2, dim=None, keepdim=False, dtype=None, p=None):
    ord = ord if p is None else p
    x = _given(self, dtype)
    axes, absolute = axes_of(dim, x.ndim), jnp.abs(x.astype(jnp.float32) if _low(x) else x)
    if ord == math.inf:
        result = jnp.max(absolute, axis=axes, keepdims=keepdim)
    elif ord == -math.inf:
        result = jnp.min(absolute, axis=axes, keepdims=keepdim)
    elif ord == 0:
        result = jnp.sum((absolute != 0).astype(absolute.dtype), axis=axes, keepdims=keepdim)
    elif ord == 1:
        result = jnp.sum(absolute, axis=axes, keepdims=keepdim)
    elif ord == 2:
        total = jnp.sum(jnp.square(absolute), axis=axes, keepdims=keepdim)
        result = jnp.where(total == 0, 0, jnp.sqrt(jnp.where(total == 0, 1, total)))  # the gradient at 0 is 0
    else:
        result = jnp.sum(absolute**ord, axis=axes, keepdims=keepdim) ** (1 / ord)
    return result.astype(x.dtype)


@operation("linalg_norm")
def linalg_norm(self, ord=None, dim=None, keepdim=False, dtype=None):
    if ord is not None and (dim is None or not isinstance(dim, int) and len(dim) != 1):
        raise ValueError("norms of matrices are not supported")
    return vector_norm(self, 2 if ord is None else ord, dim, keepdim, dtype)
