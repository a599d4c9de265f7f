"""Sizes of tensors, and whole numbers computed from them. They are plain numbers while a program is traced."""

import operator

import jax.numpy as jnp

from qcrs_jax.models.checkpoint import CheckpointError

from .registry import operation


@operation("sym_size", lasting=True)
def sym_size(self, dim):
    return self.shape[dim]


@operation("sym_numel", "numel")
def sym_numel(self):
    return self.size


def _of_two(function):
    return lambda a, b: function(a, b)


for _name in "add sub mul floordiv truediv mod eq ne lt le gt ge and_ or_".split():
    operation(f"_operator.{_name}")(_of_two(getattr(operator, _name)))


@operation("_operator.neg")
def negative(a):
    return -a


@operation("_operator.pow")
def power(a, b):
    if not isinstance(b, int | float) or abs(b) > 64:
        raise CheckpointError("a size is raised to an invalid power")
    return a**b


@operation("torch.sym_float")
def sym_float(a):
    return float(a) if isinstance(a, int | float) else jnp.asarray(a, jnp.float32)


@operation("torch.sym_int")
def sym_int(a):
    return int(a)


@operation("torch.sym_max")
def sym_max(a, b):
    return max(a, b)


@operation("torch.sym_min")
def sym_min(a, b):
    return min(a, b)


@operation("torch.sym_not")
def sym_not(a):
    return not a


@operation(
    "_assert_tensor_metadata",
    "_assert_async",
    "_assert_scalar",
    "sym_constrain_range",
    "sym_constrain_range_for_size",
)
def nothing(**_):
    """Checks of the exporter, which compute nothing."""
