"""The batch size of --batch_size auto: the fastest of a few, measured."""

import math
import time

import jax
import jax.numpy as jnp

from qcrs_jax import predict
from qcrs_jax.machine import usable_memory
from qcrs_jax.sampling.classifiers import apply

from .full_card import memory_is_full

TURN = 0.2  # least seconds of sampling for the measurement of a rate
LEVEL = 0.97  # share of the best rate; the smallest batch that reaches it is taken


def fastest_batch(classify, image_shape, devices) -> int:
    """The noisy copies per forward pass, on each of `devices`, at which `classify` samples fastest.

    The measurements are printed.

    Each size takes some seconds, mostly for compiling. On a CPU sizes are left out if their activations would fill half
    of the memory. Elsewhere sizes are left out if they do not fit into memory.
    """
    on_cpu = devices[0].platform == "cpu"
    sizes = [2**i for i in (range(3, 9) if on_cpu else range(6, 15))]
    if on_cpu:
        memory = usable_memory() or math.inf
        largest = memory / 2 / len(devices) / _bytes_per_image(classify, image_shape)
        sizes = [size for size in sizes if size <= largest]
    rates = {}
    for size in sizes:
        try:
            rates[size] = _rate(classify, image_shape, devices, size)
        except jax.errors.JaxRuntimeError as error:
            if not memory_is_full(error):
                raise
            break
        if rates[size] < 0.9 * max(rates.values()):
            break
    chosen = choose(rates)
    told = ", ".join(f"{rate:,.0f} at {size}" for size, rate in rates.items())
    print(f"--batch_size auto: {chosen}; samples a second: {told or 'not measured, because memory is full'}")
    return chosen


def choose(rates: dict[int, float]) -> int:
    """The smallest batch size with nearly the best rate. A small batch wastes least on a short query."""
    return min((size for size, rate in rates.items() if rate >= LEVEL * max(rates.values())), default=1)


def _rate(classify, image_shape, devices, size):
    """Samples per second."""
    image, n = jnp.full(image_shape, 0.5), 4 * size * len(devices)

    def seconds():
        started = time.perf_counter()
        predict(classify, image, 1.0, key=jax.random.key(0), n=n, batch_size=size, devices=devices)
        return time.perf_counter() - started

    seconds()  # compiles
    while (spent := seconds()) < TURN:
        n *= 2 + int(TURN / max(spent, 0.01 * TURN))
    return n / spent


def _bytes_per_image(classify, image_shape):
    """The bytes of the activations of one image."""
    image = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    program = jax.jit(apply).lower(classify, image, jnp.float32(1)).compile()
    return max(1, program.memory_analysis().temp_size_in_bytes)
