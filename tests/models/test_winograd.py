"""Winograd's convolutions, compared with plain ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from qcrs_jax.models import winograd
from qcrs_jax.models.winograd import (
    Winograd,
    convolved,
    convolved_phases,
    merged,
    on_phases,
    split,
    turned_kernel,
    use_winograd,
)


def drawn(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def plain(x, kernel, bias):
    """The convolution in float64."""
    height, width = x.shape[1:3]
    x = np.pad(x.astype(np.float64), ((0, 0), (1, 1), (1, 1), (0, 0)))
    places = ((i, j) for i in range(3) for j in range(3))
    return bias + sum(x[:, i : i + height, j : j + width] @ kernel[i, j].astype(np.float64) for i, j in places)


@pytest.mark.parametrize("most", [winograd.MOST, 1])
@pytest.mark.parametrize("shape", [(4, 8, 8, 32), (6, 7, 5, 40), (1, 1, 1, 32)])
def test_it_is_the_convolution(monkeypatch, shape, most):
    monkeypatch.setattr(winograd, "MOST", most)  # 1: each image alone
    x, kernel, bias = drawn(*shape), drawn(3, 3, shape[-1], 36), drawn(36)
    wanted, found = plain(x, kernel, bias), jax.jit(convolved)(x, turned_kernel(kernel), bias)
    ordinary = jax.lax.conv_general_dilated(
        x, kernel, (1, 1), ((1, 1), (1, 1)), dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    # Rounding errors are no larger than those of XLA's convolution, but for the last bit.
    last_bit = np.spacing(np.abs(wanted).max().astype(np.float32))
    assert np.abs(found - wanted).max() <= np.abs(ordinary + bias - wanted).max() + last_bit


def test_phases_are_the_pixels_of_every_second_row_and_column():
    x = drawn(3, 6, 10, 2)
    phases = split(jnp.asarray(x))
    np.testing.assert_array_equal(phases[1], x[:, ::2, 1::2])
    np.testing.assert_array_equal(phases[2], x[:, 1::2, ::2])
    np.testing.assert_array_equal(merged(phases), x)


@pytest.mark.parametrize("most", [winograd.MOST, 1])
def test_layers_on_phases_are_the_layers(monkeypatch, most):
    monkeypatch.setattr(winograd, "MOST", most)
    x, kernels = jnp.asarray(drawn(5, 8, 6, 32)), [jnp.asarray(turned_kernel(drawn(3, 3, 32, 32) / 10))] * 2
    first, second = kernels
    found = on_phases(lambda x: convolved_phases(convolved_phases(x, first), second), x)
    np.testing.assert_allclose(found, convolved(convolved(x, first), second), rtol=1e-5, atol=1e-5)


def test_under_vmap_and_grad():
    x, turned = drawn(3, 6, 6, 32), jnp.asarray(turned_kernel(drawn(3, 3, 32, 32)))
    together = jax.jit(convolved)(x, turned)
    alone = jax.vmap(lambda image: convolved(image[None], turned)[0])(x)
    np.testing.assert_allclose(alone, together, atol=1e-4)
    slopes = jax.grad(lambda x: convolved(x, turned).sum())(jnp.asarray(x))
    kernel = drawn(3, 3, 32, 32).astype(np.float64).sum(axis=-1)
    np.testing.assert_allclose(slopes[:, 2, 2], np.broadcast_to(kernel.sum(axis=(0, 1)), (3, 32)), rtol=1e-4, atol=1e-3)


def test_which_convolutions_are_replaced():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.wide, self.same = (
                nnx.Conv(32, 32, (3, 3), padding=padding, rngs=rngs) for padding in (((1, 1), (1, 1)), "SAME")
            )
            self.few = nnx.Conv(16, 32, (3, 3), rngs=rngs)
            self.large = nnx.Conv(32, 32, (5, 5), rngs=rngs)
            self.strided = nnx.Conv(32, 32, (3, 3), strides=2, rngs=rngs)
            self.dilated = nnx.Conv(32, 32, (3, 3), kernel_dilation=2, rngs=rngs)
            self.grouped = nnx.Conv(64, 64, (3, 3), feature_group_count=2, rngs=rngs)
            self.valid = nnx.Conv(32, 32, (3, 3), padding="VALID", rngs=rngs)

    net = Net(nnx.Rngs(0))
    use_winograd(net)
    assert {name for name, layer in vars(net).items() if isinstance(layer, Winograd)} == {"wide", "same"}
