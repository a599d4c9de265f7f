"""Normalisation. Means and variances are computed in float32 for all number formats."""

import jax.numpy as jnp

from qcrs_jax.models.checkpoint import CheckpointError

from .channels_last import Last
from .elementwise import _low
from .registry import operation


def _wide(x):
    return x.astype(jnp.float32) if _low(x) else x


def _beside(values, ndim):
    """One number for each channel, along axis 1."""
    return jnp.reshape(values, (1, -1) + (1,) * (ndim - 2))


def _affine(x, mean, variance, weight, bias, eps, channels):
    """(x - mean) / deviation * weight + bias; `channels` brings one number for each channel to the right axis."""
    scale = 1 / jnp.sqrt(_wide(variance) + eps)
    scale = scale if weight is None else scale * _wide(weight)
    shift = -_wide(mean) * scale if bias is None else _wide(bias) - _wide(mean) * scale
    return (_wide(x) * channels(scale) + channels(shift)).astype(x.dtype)


def _normed(input, weight, bias, mean, variance, eps):
    if isinstance(input, Last):
        return input.by_channel(lambda x: _affine(x, mean, variance, weight, bias, eps, lambda values: values))
    return _affine(input, mean, variance, weight, bias, eps, lambda values: _beside(values, input.ndim))


def _statistics(input):
    x = _wide(input.plain() if isinstance(input, Last) else input)
    axes = (0, *range(2, x.ndim))
    return x.mean(axes), x.var(axes)


@operation("batch_norm", lasting=True)
def batch_norm(input, weight, bias, running_mean, running_var, training, momentum, eps, cudnn_enabled=None):
    if training and running_mean is not None:
        raise CheckpointError("batch normalisation is in training mode; call model.eval() before torch.export")
    mean, variance = _statistics(input) if training else (running_mean, running_var)
    return _normed(input, weight, bias, mean, variance, eps)


@operation("_native_batch_norm_legit_no_training", lasting=True)
def batch_norm_evaluated(input, weight, bias, running_mean, running_var, momentum, eps):
    return _normed(input, weight, bias, running_mean, running_var, eps), None, None


@operation("_native_batch_norm_legit", lasting=True)
def batch_norm_without_statistics(
    input, weight=None, bias=None, training=True, momentum=0.1, eps=1e-5, running_mean=None, running_var=None
):
    if running_mean is not None:
        return batch_norm(input, weight, bias, running_mean, running_var, training, momentum, eps), None, None
    mean, variance = _statistics(input)
    return _normed(input, weight, bias, mean, variance, eps), mean, 1 / jnp.sqrt(variance + eps)


@operation("instance_norm")
def instance_norm(input, weight, bias, running_mean, running_var, use_input_stats, momentum, eps, cudnn_enabled=None):
    x, channels = _wide(input), lambda values: _beside(values, input.ndim)
    if not use_input_stats:
        return _affine(input, running_mean, running_var, weight, bias, eps, channels)
    axes = tuple(range(2, x.ndim))
    mean, variance = x.mean(axes, keepdims=True), x.var(axes, keepdims=True)
    y = (x - mean) / jnp.sqrt(variance + eps)
    y = y if weight is None else y * channels(_wide(weight))
    return (y if bias is None else y + channels(_wide(bias))).astype(input.dtype)


def _layer(input, count, weight, bias, eps):
    x = _wide(input)
    axes = tuple(range(x.ndim - count, x.ndim))
    mean = x.mean(axes, keepdims=True)
    centred = x - mean
    inverse = 1 / jnp.sqrt(jnp.square(centred).mean(axes, keepdims=True) + eps)
    y = centred * inverse
    y = y if weight is None else y * _wide(weight)
    return (y if bias is None else y + _wide(bias)).astype(input.dtype), mean, inverse


@operation("layer_norm")
def layer_norm(input, normalized_shape, weight=None, bias=None, eps=1e-5, cudnn_enable=None):
    return _layer(input, len(normalized_shape), weight, bias, eps)[0]


@operation("native_layer_norm")
def native_layer_norm(input, normalized_shape, weight, bias, eps):
    return _layer(input, len(normalized_shape), weight, bias, eps)


@operation("rms_norm")
def rms_norm(input, normalized_shape, weight=None, eps=None):
    x, axes = _wide(input), tuple(range(-len(normalized_shape), 0))
    eps = float(jnp.finfo(x.dtype).eps) if eps is None else eps
    y = x / jnp.sqrt(jnp.square(x).mean(axes, keepdims=True) + eps)
    return (y if weight is None else y * _wide(weight)).astype(input.dtype)


@operation("_fused_rms_norm")
def fused_rms_norm(input, normalized_shape, weight, eps):
    return rms_norm(input, normalized_shape, weight, eps), None


@operation("group_norm", lasting=True)
def group_norm(input, num_groups, weight=None, bias=None, eps=1e-5, cudnn_enabled=None):
    if isinstance(input, Last):
        x = _wide(input.array)
        batch, h, w, c = x.shape
        y = jnp.reshape(x, (batch, h, w, num_groups, c // num_groups))
        mean = y.mean((1, 2, 4), keepdims=True)
        variance = jnp.square(y - mean).mean((1, 2, 4), keepdims=True)
        y = jnp.reshape((y - mean) / jnp.sqrt(variance + eps), x.shape)
        y = y if weight is None else y * _wide(weight)
        return Last((y if bias is None else y + _wide(bias)).astype(input.dtype))
    x = _wide(input)
    y = jnp.reshape(x, (x.shape[0], num_groups, -1))
    mean, variance = y.mean(-1, keepdims=True), y.var(-1, keepdims=True)
    y = jnp.reshape((y - mean) / jnp.sqrt(variance + eps), x.shape)
    y = y if weight is None else y * _beside(_wide(weight), x.ndim)
    return (y if bias is None else y + _beside(_wide(bias), x.ndim)).astype(input.dtype)


@operation("native_group_norm", lasting=True)
def native_group_norm(input, weight, bias, N, C, HxW, group, eps):  # noqa: N803  names of the schema
    return group_norm(input, group, weight, bias, eps), None, None


@operation("_weight_norm")
def weight_norm(v, g, dim=0):
    axes = tuple(range(v.ndim)) if dim == -1 else tuple(a for a in range(v.ndim) if a != dim % v.ndim)
    return v * (g / jnp.sqrt(jnp.square(v).sum(axes, keepdims=True)))


@operation("_weight_norm_interface")
def weight_norm_interface(v, g, dim=0):
    return weight_norm(v, g, dim), None
