"""An exported program certifies where this package is not, as `certify` does where it is."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax import export
from places import ROOT
from program import refused
from readme import blocks

from qcrs_jax import GoldenSection, certify, load_classifier
from qcrs_jax.certification.export import PLATFORMS, export_certification

REPORT = """
import json, sys
assert not [name for name in sys.modules if name.split(".")[0] in ("qcrs_jax", "flax", "torch")]
print(json.dumps([found["counts0"].tolist(), found["counts"].tolist(), float(found["sigma"]), float(radius)]))
"""


@pytest.mark.slow
def test_a_program_for_all_platforms_gives_the_counts_of_certify(tmp_path):
    name, file = "zoo:fashion_mnist-lenet-sigma0.25", tmp_path / "certify.jax"
    command = [str(Path(sys.executable).with_name("qcrs-jax")), "export-program", name, str(file)]
    command += "--sigma 0.25 --left 0.08 --right 0.9 --epsilon 0.03 --N 1000 --batch 64".split()
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert export.deserialize(bytearray(file.read_bytes())).platforms == PLATFORMS
    assert "already exists" in refused(*command[1:], cwd=tmp_path)

    image = np.load(ROOT / "experiments/assets/fashion_mnist_test_500.npz")["x"][7]
    image = image.astype(np.float32) / 255
    np.save(tmp_path / "image.npy", image)
    (code,) = [code for code in blocks("python") if "export.deserialize" in code]
    code = code.replace("100_000", "1000") + REPORT
    alone = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert alone.returncode == 0, alone.stderr
    counts0, counts, sigma, radius = json.loads(alone.stdout)

    settings = GoldenSection(0.08, 0.9, epsilon=0.03)
    key = jax.random.fold_in(jax.random.key(0), 7)
    certificate = certify(load_classifier(name).classify, image, 0.25, key=key, n=1000, search=settings)
    assert (counts0, counts) == (certificate.counts0.tolist(), certificate.counts.tolist())
    assert (sigma, radius) == (certificate.sigma, pytest.approx(certificate.radius, rel=1e-6))
    assert radius > 0.1


def test_a_program_for_an_unknown_platform_is_refused():
    with pytest.raises(ValueError, match="unknown platform 'gpu'"):
        export_certification(lambda x: x.mean((1, 2)), (4, 4, 3), platforms=["gpu"])
