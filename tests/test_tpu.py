"""The sampler compiles for TPUs, and its cost is summed as it runs. Needs a libtpu in the folder QCRS_LIBTPU."""

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

LIBTPU = os.environ.get("QCRS_LIBTPU")
PROGRAM = """
import json, sys
import jax, jax.numpy as jnp
from qcrs_jax.experiments import tpu, tpu_benchmark as benchmark
jax.config.update("jax_platforms", "cpu")
chips = tpu.devices(sys.argv[1], 4)

def compiled(unroll):
    def chain(x, w):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, w, unroll=unroll)[0]
    shapes = jax.ShapeDtypeStruct((1024, 512), jnp.float32), jax.ShapeDtypeStruct((8, 512, 512), jnp.float32)
    return jax.jit(chain).lower(*tpu.replicated(chips[:1], shapes)).compile()

scanned, unrolled = (tpu.cost(compiled(unroll)) for unroll in (1, 8))
job = benchmark.Job("", "cifar_resnet20", 10, (32, 32, 3), 15, 0.0)
step = benchmark.Step("", 128)
whole = benchmark.compiled_sampler(job, step, chips)
noise = tpu.cost(benchmark.compiled_noise(job, step, chips[:1]))
print(json.dumps([scanned, unrolled, tpu.cost(whole), noise, whole.as_text().count(" all-reduce(")]))
"""


def wanted():
    (requirement,) = [r for r in importlib.metadata.requires("jax") if r.startswith("libtpu==")]
    return requirement.split("==")[1].split("*")[0]


@pytest.mark.skipif(not LIBTPU, reason="needs the folder of a libtpu in QCRS_LIBTPU")
def test_the_sampler_compiles_for_a_slice_of_tpus():
    if not list(Path(LIBTPU).glob(f"libtpu-{wanted()}*.dist-info")):
        pytest.skip(f"the installed JAX asks for libtpu {wanted()}*")
    done = subprocess.run([sys.executable, "-c", PROGRAM, LIBTPU], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    scanned, unrolled, sampler, noise, reductions = json.loads(done.stdout.splitlines()[-1])
    assert scanned[1] == unrolled[1] == 8 * 2 * 1024 * 512 * 512
    assert 0.7 < scanned[0] / unrolled[0] < 1.4
    cycles, flops, _, memory = sampler
    assert 2 * 40e6 * 128 < flops < 2 * 55e6 * 128, "a ResNet-20 has 40.8 million products, some more where joined"
    assert memory < 2**30
    assert noise[0] < 0.2 * cycles  # of a network with a fifth of the operations of a ResNet-110
    assert reductions == 1, "one for each count, none for each batch"
