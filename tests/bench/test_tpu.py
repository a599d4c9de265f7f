"""The certifier compiles for TPUs, and its cost is summed as it runs. Needs a libtpu in the folder QCRS_LIBTPU."""

import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from places import HELPERS

LIBTPU = os.environ.get("QCRS_LIBTPU")
PROGRAM = """
import json, sys
import jax, jax.numpy as jnp
from qcrs_jax.experiments.bench import tpu, tpu_prediction as benchmark
jax.config.update("jax_platforms", "cpu")
chips = tpu.devices(sys.argv[1], 4)

def compiled(unroll):
    def chain(x, w):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, w, unroll=unroll)[0]
    shapes = jax.ShapeDtypeStruct((1024, 512), jnp.float32), jax.ShapeDtypeStruct((8, 512, 512), jnp.float32)
    return jax.jit(chain).lower(*tpu.replicated(chips[:1], shapes)).compile()

scanned, unrolled = (tpu.cost(compiled(unroll)) for unroll in (1, 8))
def bfloat16(arch):
    (step,) = [s for s in benchmark.STEPS[arch] if s.runs and s.dtype == "bfloat16"]
    return benchmark.JOBS[arch], step

small = bfloat16("cifar_resnet110")
certifier = benchmark.compiled_certifier(*small, chips)[0]
network = benchmark.compiled_network(*small, chips[:1])
large = benchmark.compiled_sampler(*bfloat16("resnet50"), chips[:1])
sys.path.insert(0, sys.argv[2])
from compiled import depths
costs = [tpu.cost(program) for program in (certifier, network, large)]
print(json.dumps([scanned, unrolled, *costs, depths(certifier.as_text(), "all-reduce")]))
"""


def wanted():
    (requirement,) = [r for r in importlib.metadata.requires("jax") if r.startswith("libtpu==")]
    return requirement.split("==")[1].split("*")[0]


@pytest.mark.skipif(not LIBTPU, reason="needs the folder of a libtpu in QCRS_LIBTPU")
@pytest.mark.slow
def test_the_certifier_compiles_for_a_slice_of_tpus():
    if not list(Path(LIBTPU).glob(f"libtpu-{wanted()}*.dist-info")):
        pytest.skip(f"the installed JAX asks for libtpu {wanted()}*")
    done = subprocess.run([sys.executable, "-c", PROGRAM, LIBTPU, str(HELPERS)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    scanned, unrolled, small, network, large, reductions = json.loads(done.stdout.splitlines()[-1])
    assert scanned[1] == unrolled[1] == 8 * 2 * 1024 * 512 * 512
    assert 0.7 < scanned[0] / unrolled[0] < 1.4
    # 253 million and 4.09 billion products, and some of them twice where columns are joined.
    for (_, flops, _, memory), batch, products in ((small, 512, 253e6), (large, 128, 4.08e9)):
        assert 2 * products * batch < flops < 2 * 1.3 * products * batch
        assert memory < 16 * 2**30
    assert network[0] / small[0] > 0.9, "noise, counting and the search take a tenth or more"
    assert reductions == [1], "one for each count, none for each batch"
