"""The benchmark runs, one network serves a whole certification once compiled, and ONNX Runtime runs the same one."""

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import jax
import numpy as np
import pytest
from checkpoints import images, resnet, torch_logits
from with_torch import REASON, torch

from qcrs_jax.errors import UserError
from qcrs_jax.experiments import cli
from qcrs_jax.experiments.bench import jax_sampler
from qcrs_jax.experiments.bench.speed import export_onnx, onnx_function


@pytest.mark.slow
def test_the_benchmark_prints_rates_ratios_and_one_compilation():
    command = [str(Path(sys.executable).with_name("qcrs-jax")), "benchmark"]
    command += "--depths 20 --batches 16 --seconds 0.1 --turns 1".split()
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    own, program = (line.strip() for line in result.stdout.splitlines()[-2:])
    assert own.startswith("ResNet-20 ") and program.startswith("as .pt2 ")
    version, eager, onnx, ours, to_eager, to_onnx, first, unit, compilations = re.split(
        r" +(?!@)", own.removeprefix("ResNet-20").strip()
    )
    assert version == jax.__version__
    assert (onnx == "-") == (to_onnx == "-") == any(find_spec(name) is None for name in ("onnxruntime", "onnxscript"))
    for other, ratio in [(eager, to_eager), (onnx, to_onnx)]:
        if other != "-":
            rates = [float(rate.split(" @")[0].replace(",", "")) for rate in (other, ours)]
            # Rates are printed as whole numbers, coarse where a busy machine leaves one side a few samples a second.
            assert float(ratio) == pytest.approx(rates[1] / rates[0], rel=1 / min(rates), abs=0.01)
    assert (unit, compilations) == ("s", "1") and float(first) > 0


@pytest.mark.slow
def test_there_is_a_row_for_each_interpreter(tmp_path, monkeypatch, capsys):
    """The samplers are made up: only what is shown of them."""
    pytest.importorskip("torch", reason=REASON)

    class Sampler:
        first, compilations = 1.25, 1

        def __init__(self, python, checkpoint):
            self.jax, self.python = {"old": "0.10.2", "new": "0.12.0"}[python], python
            assert checkpoint.is_file()

        def rate(self, batch, seconds):
            return {"old": 3000.0, "new": 1500.0}[self.python] + batch

        def close(self):
            closed.append(self.python)

    closed = []
    monkeypatch.setattr(jax_sampler, "JaxSampler", Sampler)
    monkeypatch.setattr("qcrs_jax.experiments.bench.rate.rate", lambda sampler, batch, seconds: 1000.0)
    command = "benchmark --depths 8 --batches 8 16 --turns 1 --python old new"
    assert cli.main(command.split()) == 0
    rows = [re.split(r" {2,}", line.strip()) for line in capsys.readouterr().out.splitlines()[-4:]]
    assert [row[0] for row in rows] == ["ResNet-8", "as .pt2"] * 2
    assert [row[1] for row in rows] == ["0.10.2"] * 2 + ["0.12.0"] * 2 and sorted(closed) == ["new"] * 2 + ["old"] * 2
    assert [row[4] for row in rows] == ["3,016 @16"] * 2 + ["1,516 @16"] * 2
    assert [row[5] for row in rows] == ["3.02"] * 2 + ["1.52"] * 2 and rows[0][7:] == ["1.25 s", "1"]


@pytest.mark.parametrize("python, said", [("no/such/python", "No such file"), ("false", "the process ended")])
def test_an_interpreter_that_does_not_answer_gets_one_line(python, said):
    with pytest.raises(UserError, match=f"--python {python}: {said}"):
        jax_sampler.JaxSampler(python, Path("checkpoint"))


def test_onnx_runtime_has_the_logits_of_pytorch_at_any_batch_size():
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    function = onnx_function(export_onnx(resnet(20)), spinning=False)
    for n in (1, 7):
        x = images(n, (32, 32, 3))
        logits = function(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()))
        np.testing.assert_allclose(logits, torch_logits(resnet(20), x), atol=1e-5, rtol=1e-5)
