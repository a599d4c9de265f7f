"""The benchmark runs, one network serves a whole certification once compiled, and ONNX Runtime runs the same one."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from checkpoints import images, resnet, torch_logits
from qcrs_jax.experiments.benchmark import export_onnx, onnx_function


def test_the_benchmark_prints_rates_ratios_and_one_compilation():
    command = [str(Path(sys.executable).with_name("qcrs-jax")), "benchmark"]
    command += "--depths 20 --batches 16 --seconds 0.1 --turns 1".split()
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    eager, onnx, ours, to_eager, to_onnx, first, unit, compilations = re.split(
        r" +(?!@)", result.stdout.splitlines()[-1].strip().removeprefix("ResNet-20").strip()
    )
    assert (onnx == "-") == (to_onnx == "-") == any(find_spec(name) is None for name in ("onnxruntime", "onnxscript"))
    for other, ratio in [(eager, to_eager), (onnx, to_onnx)]:
        if other != "-":
            rates = [float(rate.split(" @")[0].replace(",", "")) for rate in (other, ours)]
            # Rates are printed as whole numbers, coarse where a busy machine leaves one side a few samples a second.
            assert float(ratio) == pytest.approx(rates[1] / rates[0], rel=1 / min(rates), abs=0.01)
    assert (unit, compilations) == ("s", "1") and float(first) > 0


def test_onnx_runtime_has_the_logits_of_pytorch_at_any_batch_size():
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    function = onnx_function(export_onnx(resnet(20)), spinning=False)
    for n in (1, 7):
        x = images(n, (32, 32, 3))
        logits = function(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()))
        np.testing.assert_allclose(logits, torch_logits(resnet(20), x), atol=1e-5, rtol=1e-5)
