"""Convolutions, of images with channels last."""

import jax
import jax.numpy as jnp

from qcrs_jax.models.layers import conv_beside
from qcrs_jax.models.winograd import convolved

from .channels_last import Beside, beside, of_images
from .registry import operation

_AXES = {1: ("NCH", "OIH", "NCH"), 2: ("NHWC", "HWIO", "NHWC"), 3: ("NCDHW", "OIDHW", "NCDHW")}


def numbers(value, count: int) -> tuple[int, ...]:
    """One number for each of `count` axes; one for all is repeated."""
    value = [value] if isinstance(value, int) else list(value)
    if len(value) not in (1, count) or not all(isinstance(v, int) for v in value):
        raise ValueError(f"{value} are not {count} numbers")
    return tuple(value * count if len(value) == 1 else value)


def _turned(weight):
    """A kernel (out, in, h, w) as (h, w, in, out). A barrier keeps XLA from changing the order, which would be slow."""
    return jax.lax.optimization_barrier(jnp.transpose(weight, (2, 3, 1, 0))) if weight.ndim == 4 else weight


def _convolved(x, weight, bias, stride, pads, dilation, groups, lhs_dilation=None):
    """A convolution. `weight` is (h, w, in, out) for images, and (out, in, ...) for other inputs."""
    axes = _AXES[weight.ndim - 2]
    y = jax.lax.conv_general_dilated(
        x,
        weight,
        stride,
        pads,
        lhs_dilation=lhs_dilation,
        rhs_dilation=dilation,
        dimension_numbers=axes,
        feature_group_count=groups,
    )
    if bias is None:
        return y
    return y + (bias if axes[0].endswith("C") else jnp.reshape(bias, (-1,) + (1,) * (weight.ndim - 2)))


def _forward(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    stride, dilation, pads = _geometry(weight.shape[2:], stride, padding, dilation)
    return _convolved(x, _turned(weight), bias, stride, pads, dilation, groups)


def _geometry(kernel, stride, padding, dilation):
    """Strides, dilations, and padding (before, after) for each axis of a kernel."""
    count = len(kernel)
    stride, dilation = numbers(stride, count), numbers(dilation, count)
    if padding == "same":
        totals = [d * (k - 1) for d, k in zip(dilation, kernel)]
        pads = [(total // 2, total - total // 2) for total in totals]
    else:
        pads = [(p, p) for p in numbers(0 if padding == "valid" else padding, count)]
    return stride, dilation, pads


def _backward(x, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    """A transposed convolution: the gradient of a convolution by its input."""
    count = weight.ndim - 2
    stride, padding, extra, dilation = (numbers(v, count) for v in (stride, padding, output_padding, dilation))
    inputs, outputs, *kernel = weight.shape
    weight = jnp.reshape(weight, (groups, inputs // groups, outputs, *kernel))
    weight = jnp.reshape(jnp.swapaxes(weight, 1, 2), (groups * outputs, inputs // groups, *kernel))
    weight = jnp.flip(weight, range(2, weight.ndim))
    reach = [d * (k - 1) for d, k in zip(dilation, kernel)]
    pads = [(r - p, r - p + e) for r, p, e in zip(reach, padding, extra)]
    return _convolved(x, _turned(weight), bias, (1,) * count, pads, dilation, groups, lhs_dilation=stride)


def _alone(function):
    """Makes a function of a batch accept a single input, without the batch axis, too."""

    def compute(input, weight, *args, **kwargs):
        if input.ndim == weight.ndim - 1:
            return function(input[None], weight, *args, **kwargs)[0]
        return function(input, weight, *args, **kwargs)

    return compute


def _of_axes(function):
    flat, image = _alone(function), of_images(function)

    def compute(input, weight, *args, **kwargs):
        return (image if weight.ndim == 4 else flat)(input, weight, *args, **kwargs)

    return compute


forward, backward = _of_axes(_forward), _of_axes(_backward)


@operation("conv1d", "conv2d", "conv3d", lasting=True)
def conv(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    return forward(_plain_unless_image(input, weight), weight, bias, stride, padding, dilation, groups)


@operation("conv_transpose1d", "conv_transpose2d", "conv_transpose3d", lasting=True)
def conv_transpose(input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    return backward(_plain_unless_image(input, weight), weight, bias, stride, padding, output_padding, groups, dilation)


@operation("convolution", "_convolution", lasting=True)
def convolution(
    input,
    weight,
    bias,
    stride,
    padding,
    dilation,
    transposed,
    output_padding,
    groups,
    benchmark=None,
    deterministic=None,
    cudnn_enabled=None,
    allow_tf32=None,
):
    if transposed:
        return conv_transpose(input, weight, bias, stride, padding, output_padding, groups, dilation)
    return conv(input, weight, bias, stride, padding, dilation, groups)


@operation("ours.convolution", lasting=True)
@of_images
def convolution_in_order(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """A convolution of images with a kernel (h, w, in, out)."""
    stride, dilation, pads = _geometry(weight.shape[:2], stride, padding, dilation)
    return _convolved(input, weight, bias, stride, pads, dilation, groups)


@operation("ours.joined", lasting=True)
@of_images
def joined(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """A 3x3 convolution with a kernel that computes two neighbouring columns at a time."""
    y = _convolved(input, weight, None, (1, 2), [(1, 1), (1, 1)], (1, 1), 1)
    y = jnp.reshape(y, (*input.shape[:3], -1))
    return y if bias is None else y + bias


@operation("ours.beside", lasting=True)
def images_beside(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, count=1):
    """A 3x3 convolution of images side by side, `count` of them, with a kernel that may compute two rows at a time."""
    rows = weight.shape[0] - 2
    bias = bias if bias is None else jnp.tile(bias, rows)
    return Beside(conv_beside(beside(input, count).together, weight, bias, rows))


@operation("ours.winograd", lasting=True)
@of_images
def winograd(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """A 3x3 convolution with a kernel of `models.winograd.turned_kernel`."""
    return convolved(input, weight, 0.0 if bias is None else bias)


@operation("ours.depthwise", lasting=True)
@of_images
def depthwise(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """A depthwise convolution, as a sum over the places of its kernel (h, w, 1, c)."""
    stride, dilation, pads = _geometry(weight.shape[:2], stride, padding, dilation)
    x = jax.lax.pad(input, jnp.zeros((), input.dtype), [(0, 0, 0), *((*pad, 0) for pad in pads), (0, 0, 0)])
    counts = [(size - d * (k - 1) - 1) // s + 1 for size, d, k, s in zip(x.shape[1:3], dilation, weight.shape, stride)]
    total = jnp.zeros((), jnp.float32) if bias is None else bias.astype(jnp.float32)
    for i in range(weight.shape[0]):
        for j in range(weight.shape[1]):
            start = (0, i * dilation[0], j * dilation[1], 0)
            end = [first + (n - 1) * s + 1 for first, n, s in zip(start[1:3], counts, stride)]
            shifted = jax.lax.slice(x, start, (x.shape[0], *end, x.shape[3]), (1, *stride, 1))
            total = total + shifted.astype(jnp.float32) * weight[i, j, 0].astype(jnp.float32)
    return total.astype(input.dtype)


def _plain_unless_image(x, weight):
    return x.plain() if hasattr(x, "plain") and weight.ndim != 4 else x
