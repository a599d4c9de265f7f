"""Products of matrices, softmax, and attention."""

import math
import re

import jax
import jax.numpy as jnp

from qcrs_jax.models.checkpoint import CheckpointError

from .elementwise import _low, converted
from .registry import operation
from .shapes import axis_of


@operation("linear")
def linear(input, weight, bias=None):
    y = jnp.matmul(input, jnp.swapaxes(weight, -1, -2) if weight.ndim > 1 else weight)
    return y if bias is None else y + bias


@operation("matmul", "mm", "bmm", "mv", "dot")
def matmul(self, other=None, mat2=None, vec=None, tensor=None):
    return jnp.matmul(self, next(x for x in (other, mat2, vec, tensor) if x is not None))


@operation("vdot")
def vdot(self, other):
    return jnp.vdot(self, other)


@operation("addmm", "addmv", "baddbmm", "addbmm")
def addmm(self, mat1=None, mat2=None, beta=1, alpha=1, mat=None, vec=None, batch1=None, batch2=None):
    first, second = ((a, b) for a, b in ((mat1, mat2), (mat, vec), (batch1, batch2)) if a is not None).__next__()
    product = jnp.matmul(first, second)
    product = product if alpha == 1 else alpha * product
    return product if beta == 0 else (self if beta == 1 else beta * self) + product


@operation("einsum")
def einsum(equation, tensors, path=None):
    if len(equation) > 200 or not re.fullmatch(r"[A-Za-z., \->]*", equation):
        raise CheckpointError("einsum has an invalid equation")
    return jnp.einsum(equation.replace(" ", ""), *tensors)


@operation("bilinear")
def bilinear(input1, input2, weight, bias=None):
    y = jnp.einsum("...i,oij,...j->...o", input1, weight, input2)
    return y if bias is None else y + bias


@operation("softmax", "_softmax")
def softmax(self, dim, dtype=None, half_to_float=False):
    return _over(self, dim, dtype, half_to_float, jax.nn.softmax)


@operation("log_softmax", "_log_softmax")
def log_softmax(self, dim, dtype=None, half_to_float=False):
    return _over(self, dim, dtype, half_to_float, jax.nn.log_softmax)


def _over(x, dim, dtype, half_to_float, function):
    x = x if dtype is None else converted(x, dtype)
    wide = x.astype(jnp.float32) if _low(x) else x
    y = function(wide, axis=axis_of(dim, x.ndim)) if x.ndim else function(wide[None])[0]
    return y if half_to_float else y.astype(x.dtype)


@operation("_safe_softmax")
def safe_softmax(self, dim, dtype=None):
    y = softmax(self, dim, dtype)
    return jnp.where(jnp.all(self == -jnp.inf, axis=axis_of(dim, self.ndim), keepdims=True), 0, y).astype(y.dtype)


def _mask(shape):
    """The causal mask: a query sees the keys up to its own place, counted from the first."""
    return jnp.tril(jnp.ones(shape, bool))


@operation("scaled_dot_product_attention")
def attention(query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None, enable_gqa=False):
    if dropout_p:
        raise CheckpointError("attention has a dropout in training mode; call model.eval() before torch.export")
    if enable_gqa:
        key, value = (jnp.repeat(x, query.shape[-3] // x.shape[-3], -3) for x in (key, value))
    kept = query.dtype
    query, key, value = (x.astype(jnp.float32) if _low(x) else x for x in (query, key, value))
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = jnp.matmul(query * scale, jnp.swapaxes(key, -1, -2))
    if is_causal:
        attn_mask = _mask(scores.shape[-2:])
    if attn_mask is not None:
        if attn_mask.dtype == bool:
            scores = jnp.where(attn_mask, scores, -jnp.inf)
        else:
            scores = scores + attn_mask
    shares = jax.nn.softmax(scores, -1)
    if attn_mask is not None:  # a query that may see no key gets zeros
        shares = jnp.where(jnp.all(scores == -jnp.inf, -1, keepdims=True), 0, shares)
    return jnp.matmul(shares, value).astype(kept)


@operation("_scaled_dot_product_flash_attention_for_cpu")
def flash_attention(query, key, value, dropout_p=0.0, is_causal=False, attn_mask=None, scale=None):
    return attention(query, key, value, attn_mask, dropout_p, is_causal, scale), None


@operation("_scaled_dot_product_efficient_attention")
def efficient_attention(query, key, value, attn_bias, compute_log_sumexp, dropout_p=0.0, is_causal=False, scale=None):
    return attention(query, key, value, attn_bias, dropout_p, is_causal, scale), None, None, None


@operation("_scaled_dot_product_attention_math")
def attention_math(
    query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, dropout_mask=None, scale=None, enable_gqa=False
):
    return attention(query, key, value, attn_mask, dropout_p, is_causal, scale, enable_gqa), None


@operation("cosine_similarity")
def cosine_similarity(x1, x2, dim=1, eps=1e-8):
    x1, x2 = jnp.broadcast_arrays(x1, x2)
    axis = axis_of(dim, x1.ndim)
    product = jnp.sum(x1 * x2, axis)
    lengths = [jnp.maximum(jnp.sqrt(jnp.sum(jnp.square(x), axis)), eps) for x in (x1, x2)]
    return product / (lengths[0] * lengths[1])


@operation("cdist", "_cdist_forward")
def cdist(x1, x2, p=2.0, compute_mode=None):
    difference = jnp.abs(x1[..., :, None, :] - x2[..., None, :, :])
    if p == 2:
        return jnp.sqrt(jnp.sum(jnp.square(difference), -1))
    if p == math.inf:
        return jnp.max(difference, -1)
    return jnp.sum(difference, -1) if p == 1 else jnp.sum(difference**p, -1) ** (1 / p)
