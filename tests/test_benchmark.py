"""The benchmark runs, and one program of the network serves a whole certification."""

import re
import subprocess
import sys
from pathlib import Path

import pytest


def test_the_benchmark_prints_rates_ratios_and_one_compilation():
    command = [str(Path(sys.executable).with_name("qcrs-jax")), "benchmark"]
    command += "--depths 20 --batches 16 --seconds 0.1 --turns 1".split()
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    torch, jax, ratio, first, unit, compilations = re.split(
        r" +(?!@)", result.stdout.splitlines()[-1].strip().removeprefix("ResNet-20").strip()
    )
    rates = [float(rate.split(" @")[0].replace(",", "")) for rate in (torch, jax)]
    # Rates are printed as whole numbers, which is coarse where a busy machine leaves one side a few samples a second.
    assert float(ratio) == pytest.approx(rates[1] / rates[0], rel=1 / min(rates), abs=0.01)
    assert (unit, compilations) == ("s", "1") and float(first) > 0
