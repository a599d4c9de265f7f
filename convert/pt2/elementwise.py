"""Elementwise operations."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from qcrs_jax.models.checkpoint import CheckpointError

from .registry import elementwise


def _low(x):
    return getattr(x, "dtype", None) in (jnp.bfloat16, jnp.float16)


def wide(function):
    """Makes a function compute 16-bit numbers in 32 bits and round at the end, as PyTorch does."""

    @functools.wraps(function)
    def compute(*args, **kwargs):
        given = [x for x in (*args, *kwargs.values()) if hasattr(x, "dtype")]
        if not any(map(_low, given)):
            return function(*args, **kwargs)
        args, kwargs = jax.tree.map(lambda x: x.astype(jnp.float32) if _low(x) else x, (args, kwargs))
        result = function(*args, **kwargs)
        narrow = all(_low(x) for x in given if jnp.issubdtype(x.dtype, jnp.floating))
        return result.astype(next(filter(_low, given)).dtype) if narrow and result.dtype == jnp.float32 else result

    return compute


def _unary(name, function, *others):
    def compute(self):
        return function(self)

    elementwise(name, *others)(wide(compute))


for _name, _function in {
    "exp": jnp.exp,
    "exp2": jnp.exp2,
    "expm1": jnp.expm1,
    "log": jnp.log,
    "log2": jnp.log2,
    "log10": jnp.log10,
    "log1p": jnp.log1p,
    "sqrt": jnp.sqrt,
    "rsqrt": lambda x: 1 / jnp.sqrt(x),
    "sin": jnp.sin,
    "cos": jnp.cos,
    "tan": jnp.tan,
    "asin": jnp.arcsin,
    "acos": jnp.arccos,
    "atan": jnp.arctan,
    "sinh": jnp.sinh,
    "cosh": jnp.cosh,
    "tanh": jnp.tanh,
    "erf": lambda x: jax.scipy.special.erf(jnp.asarray(x, jnp.result_type(x, jnp.float32))),
    "erfc": lambda x: jax.scipy.special.erfc(jnp.asarray(x, jnp.result_type(x, jnp.float32))),
    "log_sigmoid": jax.nn.log_sigmoid,
    "silu": jax.nn.silu,
    "mish": lambda x: x * jnp.tanh(jax.nn.softplus(x)),
    "reciprocal": lambda x: 1 / x,
}.items():
    _unary(_name, _function)


@elementwise("sigmoid")
@wide
def sigmoid(self):
    return jax.nn.sigmoid(jnp.asarray(self, jnp.result_type(self, jnp.float32)))


for _name, _function in {
    "relu": lambda x: jnp.maximum(x, 0),
    "relu6": lambda x: jnp.clip(x, 0, 6),
    "neg": jnp.negative,
    "abs": jnp.abs,
    "sign": jnp.sign,
    "floor": lambda x: x if _is_whole(x) else jnp.floor(x),
    "ceil": lambda x: x if _is_whole(x) else jnp.ceil(x),
    "trunc": lambda x: x if _is_whole(x) else jnp.trunc(x),
    "square": jnp.square,
    "isnan": jnp.isnan,
    "isinf": jnp.isinf,
    "isfinite": jnp.isfinite,
    "logical_not": jnp.logical_not,
    "bitwise_not": jnp.bitwise_not,
}.items():
    elementwise(_name)(lambda self, f=_function: f(self))


def _is_whole(x):
    return jnp.issubdtype(jnp.result_type(x), jnp.integer)


@elementwise("hardswish")
@wide
def hardswish(self):
    return self * jnp.clip(self + 3, 0, 6) / 6


@elementwise("hardsigmoid")
@wide
def hardsigmoid(self):
    return jnp.clip(self + 3, 0, 6) / 6


@elementwise("hardtanh")
def hardtanh(self, min_val=-1, max_val=1):
    return jnp.clip(self, min_val, max_val)


@elementwise("leaky_relu")
@wide
def leaky_relu(self, negative_slope=0.01):
    return jnp.where(self > 0, self, self * negative_slope)


@elementwise("elu")
@wide
def elu(self, alpha=1, scale=1, input_scale=1):
    below = jnp.expm1(jnp.minimum(self, 0) * input_scale) * (alpha * scale)
    return jnp.where(self > 0, self * scale, below)


@elementwise("celu")
@wide
def celu(self, alpha=1.0):
    return jnp.maximum(self, 0) + jnp.minimum(alpha * jnp.expm1(jnp.minimum(self, 0) / alpha), 0)


@elementwise("selu")
@wide
def selu(self):
    return elu.__wrapped__(self, 1.6732632423543772848170429916717, 1.0507009873554804934193349852946)


@elementwise("softplus")
@wide
def softplus(self, beta=1, threshold=20):
    scaled = self * beta
    return jnp.where(scaled > threshold, self, jnp.log1p(jnp.exp(jnp.minimum(scaled, threshold))) / beta)


@elementwise("softshrink")
def softshrink(self, lambd=0.5):
    return jnp.where(self > lambd, self - lambd, jnp.where(self < -lambd, self + lambd, 0)).astype(self.dtype)


@elementwise("hardshrink")
def hardshrink(self, lambd=0.5):
    return jnp.where(jnp.abs(self) <= lambd, 0, self).astype(self.dtype)


@elementwise("gelu")
@wide
def gelu(self, approximate="none"):
    if approximate not in ("none", "tanh"):
        raise CheckpointError("gelu has an unknown approximation")
    return jax.nn.gelu(self, approximate=approximate == "tanh")


@elementwise("threshold")
@wide
def threshold(self, threshold, value):
    return jnp.where(self <= threshold, jnp.asarray(value, self.dtype), self)


@elementwise("logit")
@wide
def logit(self, eps=None):
    x = self if eps is None else jnp.clip(self, eps, 1 - eps)
    return jnp.log(x / (1 - x))


@elementwise("round")
@wide
def round_(self, decimals=0):
    return jnp.round(self) if decimals == 0 else jnp.round(self * 10.0**decimals) / 10.0**decimals


@elementwise("nan_to_num")
def nan_to_num(self, nan=None, posinf=None, neginf=None):
    return jnp.nan_to_num(self, nan=0.0 if nan is None else nan, posinf=posinf, neginf=neginf)


def _times(x, alpha):
    return x if isinstance(alpha, int | float) and alpha == 1 else x * alpha


@elementwise("add")
@wide
def add(self, other, alpha=1):
    return jnp.add(self, _times(other, alpha))


@elementwise("sub", "subtract")
@wide
def sub(self, other, alpha=1):
    return jnp.subtract(self, _times(other, alpha))


@elementwise("rsub")
@wide
def rsub(self, other, alpha=1):
    return jnp.subtract(other, _times(self, alpha))


@elementwise("mul", "multiply")
@wide
def mul(self, other):
    return jnp.multiply(self, other)


@elementwise("div", "divide", "true_divide")
@wide
def div(self, other, rounding_mode=None):
    if rounding_mode is None:
        return jnp.true_divide(self, other)
    if rounding_mode == "floor":
        return jnp.floor_divide(self, other)
    if rounding_mode != "trunc":
        raise CheckpointError("div has an unknown rounding mode")
    if _is_whole(self) and _is_whole(other):
        common = jnp.result_type(self, other)
        return jax.lax.div(*(x.astype(common) for x in jnp.broadcast_arrays(self, other)))
    return jnp.trunc(jnp.true_divide(self, other))


@elementwise("floor_divide")
@wide
def floor_divide(self, other):
    return jnp.floor_divide(self, other)


@elementwise("remainder")
@wide
def remainder(self, other):
    return jnp.remainder(self, other)


@elementwise("fmod")
@wide
def fmod(self, other):
    return jnp.fmod(self, other)


@elementwise("pow")
@wide
def pow_(self, exponent):
    if isinstance(exponent, float) and exponent.is_integer() and abs(exponent) <= 64:
        exponent = int(exponent)
    return jnp.power(self, exponent)


@elementwise("atan2")
def atan2(self, other):
    return jnp.arctan2(self, other)


@elementwise("maximum")
def maximum(self, other):
    return jnp.maximum(self, other)


@elementwise("minimum")
def minimum(self, other):
    return jnp.minimum(self, other)


@elementwise("clamp", "clip")
def clamp(self, min=None, max=None):
    self = self if min is None else jnp.maximum(self, min)
    return self if max is None else jnp.minimum(self, max)


@elementwise("clamp_min")
def clamp_min(self, min):
    return jnp.maximum(self, min)


@elementwise("clamp_max")
def clamp_max(self, max):
    return jnp.minimum(self, max)


@elementwise("lerp")
@wide
def lerp(self, end, weight):
    return self + weight * (end - self)


@elementwise("addcmul")
@wide
def addcmul(self, tensor1, tensor2, value=1):
    return self + _times(tensor1 * tensor2, value)


@elementwise("addcdiv")
@wide
def addcdiv(self, tensor1, tensor2, value=1):
    return self + _times(tensor1 / tensor2, value)


@elementwise("where")
def where(condition, self, other):
    return jnp.where(condition, self, other)


@elementwise("masked_fill")
def masked_fill(self, mask, value):
    return jnp.where(mask, jnp.asarray(value, self.dtype), self)


for _name, _function in {
    "eq": jnp.equal,
    "ne": jnp.not_equal,
    "lt": jnp.less,
    "le": jnp.less_equal,
    "gt": jnp.greater,
    "ge": jnp.greater_equal,
    "logical_and": jnp.logical_and,
    "logical_or": jnp.logical_or,
    "logical_xor": jnp.logical_xor,
    "bitwise_and": jnp.bitwise_and,
    "bitwise_or": jnp.bitwise_or,
    "bitwise_xor": jnp.bitwise_xor,
    "__and__": jnp.bitwise_and,
    "__or__": jnp.bitwise_or,
    "__xor__": jnp.bitwise_xor,
}.items():
    elementwise(_name)(lambda self, other, f=_function: f(self, other))


@elementwise("clone", "lift_fresh_copy")
def same(self):
    return self


@elementwise("contiguous", "detach", "alias", "lift_fresh", view=True)
def view_of(self):
    return self


@elementwise("dropout", "feature_dropout", "alpha_dropout", "feature_alpha_dropout", view=True)
def dropout(input, p, train):
    if train and p:
        raise CheckpointError("dropout is in training mode; call model.eval() before torch.export")
    return input


@elementwise("to", view=True)
def to(self, dtype=None, other=None):
    return self if dtype is None and other is None else converted(self, other.dtype if dtype is None else dtype)


@elementwise("_to_copy")
def to_copy(self, dtype=None):
    return self if dtype is None else converted(self, dtype)


@elementwise("type_as", view=True)
def type_as(self, other):
    return converted(self, other.dtype)


def converted(x, dtype):
    """`x` in another number format; 64-bit formats become 32-bit ones."""
    return jnp.asarray(x).astype(narrow(dtype))


def narrow(dtype) -> np.dtype:
    """The number format of JAX for one of the file."""
    return np.dtype(
        {"int64": "int32", "float64": "float32", "complex128": "complex64"}.get(np.dtype(dtype).name, dtype)
    )


@elementwise("zeros_like", "zero")
def zeros_like(self, dtype=None):
    return jnp.zeros_like(self, None if dtype is None else narrow(dtype))


@elementwise("ones_like")
def ones_like(self, dtype=None):
    return jnp.ones_like(self, None if dtype is None else narrow(dtype))


@elementwise("full_like")
def full_like(self, fill_value, dtype=None):
    return jnp.full_like(self, fill_value, None if dtype is None else narrow(dtype))


@elementwise("empty_like")
def empty_like(self, dtype=None):
    return zeros_like(self, dtype)


@elementwise("fill")
def fill(self, value):
    return jnp.broadcast_to(jnp.asarray(value), jnp.shape(self)).astype(self.dtype)


@elementwise("copy")
def copy(self, src):
    return jnp.broadcast_to(src, jnp.shape(self)).astype(self.dtype)
