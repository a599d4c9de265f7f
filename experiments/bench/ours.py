"""Our sampler as a side of the comparison, compiled beforehand for a number of copies in a forward pass."""

import time

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from qcrs_jax.certification.procedure import draw_prediction
from qcrs_jax.models.layers import Form
from qcrs_jax.sampling.devices import place
from qcrs_jax.sampling.smoothing import GAUSSIAN

from .networks import SIGMA, Network
from .sides import Program, Side

LAYOUTS = {"free": {}, "nhwc": {"xla_gpu_force_conv_nhwc": True}, "nchw": {"xla_gpu_force_conv_nchw": True}}


def side(network: Network, classifier, device, name: str, dtype: str, precision: str | None, **axes) -> Side:
    """The sampler with `network` on `device`.

    classifier: our Classifier of the network.
    dtype: "float32" or "bfloat16".
    precision: precision of float32 products, as for `jax.default_matmul_precision`.
    axes: values of options to try instead of the usual ones.
    """
    few_channels = network.arch.startswith("cifar")
    usual = {
        **({"joined": ((4, 2), (2, 2), (2,), ())} if few_channels else {"packed": (True, False)}),
        "batch": network.batches,
        "unrolled": (True, False),
        "images": (1, 4),
        "layout": ("free", "nhwc", "nchw"),
    }

    def build(batch, joined=(), unrolled=True, packed=False, images=1, layout="free") -> Program:
        classify = classifier.inference(Form(joined, unrolled, packed=packed), dtype)
        return sampler(classify, network, device, batch, images, precision, LAYOUTS[layout])

    return Side(name, {**usual, **axes}, build)


def sampler(classify, network: Network, device, batch: int, images: int = 1, precision=None, options=None) -> Program:
    """Counts noisy copies, `batch` in a forward pass, of `images` images in step, by the program of `predict`."""
    if batch % images:
        raise ValueError(f"{images} images do not share a batch of {batch}")
    started, devices = time.perf_counter(), (device,)
    image, key = network.image(), jax.random.key(0)
    sigma = np.float32(SIGMA)
    if images > 1:
        image, key = np.stack([image] * images), jax.random.split(key, images)
        sigma = np.full(images, sigma)
    arguments = place((classify, image, (sigma, key)), devices)

    def number(copies):
        return place(jnp.int32(-(-copies // images)), devices)

    with jax.default_matmul_precision(precision):
        static = {"noise": GAUSSIAN, "batch_size": batch // images, "devices": devices}
        lowered = draw_prediction.program.lower(*arguments, number(batch), **static)
    compiled = lowered.compile(compiler_options=options or {})

    def run(copies):
        n, started = number(copies), time.perf_counter()
        jax.block_until_ready(compiled(*arguments, n))
        return time.perf_counter() - started

    run(batch)
    return Program(run, batch, time.perf_counter() - started, memory_of(compiled))


def cheap(classes: int) -> Partial:
    """A classifier that costs almost nothing, and still depends on every pixel."""
    weights = jnp.asarray(np.random.default_rng(0).normal(size=(3, classes)), jnp.float32)
    return Partial(_cheap, weights)


def _cheap(weights, images):
    return images.mean((1, 2)) @ weights


def network_alone(classify, network: Network, device, batch: int, precision=None) -> Program:
    """Forward passes of images in memory, without noise and without counting."""
    started = time.perf_counter()
    arguments = place((classify, np.stack([network.image()] * batch)), (device,))

    def passes(classify, images, turns):
        def turn(i, total):  # different images each time, which the compiler cannot compute in advance
            return total + classify(images + 1e-6 * i.astype(jnp.float32)).sum(0)

        return jax.lax.fori_loop(0, turns, turn, jnp.zeros(network.classes))

    def number(copies):
        return place(jnp.int32(-(-copies // batch)), (device,))

    with jax.default_matmul_precision(precision):
        compiled = jax.jit(passes).lower(*arguments, number(batch)).compile()

    def run(copies):
        turns, started = number(copies), time.perf_counter()
        jax.block_until_ready(compiled(*arguments, turns))
        return time.perf_counter() - started

    run(batch)
    return Program(run, batch, time.perf_counter() - started, memory_of(compiled))


def memory_of(compiled) -> int | None:
    """Bytes that a compiled program needs: arguments, results and intermediate values."""
    analysis = compiled.memory_analysis()
    if analysis is None:
        return None
    return analysis.temp_size_in_bytes + analysis.argument_size_in_bytes + analysis.output_size_in_bytes


def first_certificate(network: Network, device) -> float:
    """Seconds from a PyTorch file to the first certificate of an image by QCRS, after JAX has started."""
    from qcrs_jax import GoldenSection, certify, load_classifier

    with network.file() as file:
        started = time.perf_counter()
        classify = load_classifier(file).classify
        options = {"n": 1000, "search": GoldenSection(0.08, 0.9), "devices": [device]}
        certify(classify, network.image(), SIGMA, key=jax.random.key(0), **options)
        return time.perf_counter() - started
