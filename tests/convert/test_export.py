"""Exported classifiers: read by PyTorch, and converted back to the same classifier."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from checkpoints import cohen, ddrs, idelbayev, lenet, macer, resnet, save, torch_logits, wide_resnet
from checkpoints import images as make_images
from places import SHARED
from program import refused
from with_torch import CifarResNet, ResNet, torch

from qcrs_jax.convert.export import export_file
from qcrs_jax.convert.load import load_classifier

CASES = {
    "Cohen": lambda: cohen(resnet(20), "cifar_resnet20"),
    "Idelbayev": lambda: idelbayev(resnet(20, True)),
    "MACER": lambda: macer(resnet(20)),
    "LeNet": lambda: macer(lenet()),
    "DDRS": lambda: ddrs(ResNet((2, 2, 2, 2), num_classes=10, stem_norm=False)),
    "wide": lambda: ddrs(wide_resnet(16, 2)),
}


@pytest.mark.slow_for("DDRS")
@pytest.mark.parametrize("case", CASES)
def test_convert_export_convert_is_the_identity(tmp_path, case):
    first = load_classifier(save(CASES[case](), tmp_path / "theirs.pth"))
    export_file(first, tmp_path / "ours.pth.tar")
    again = load_classifier(tmp_path / "ours.pth.tar")
    assert again.fingerprint() == first.fingerprint()
    for field in ("arch", "num_classes", "image_shape", "mean", "std", "options"):
        assert getattr(again.spec, field) == getattr(first.spec, field)


@pytest.mark.parametrize(
    "recorded, read",
    [
        ([0.2, 1.0], [0.2, 1.0]),
        ([1.0, 0.2], None),
        ([0.0, 1.0], None),
        ([float("nan"), 1.0], None),
        ([0.2, float("inf")], None),
        ([0.2, 0.5, 1.0], None),
        (["0.2", "1"], None),
        ("0.2,1", None),
        (0.2, None),
    ],
)
def test_a_range_of_noise_levels_is_read_if_it_is_one(tmp_path, recorded, read):
    content = {**cohen(lenet(), "lenet"), "normalization": "0.5/0.25", "sigma_range": recorded}
    source = load_classifier(save(content, tmp_path / "net.pth")).spec.source
    assert source.get("sigma_range") == read


def test_pytorch_opens_it_as_cohen_s_program_does(tmp_path):
    content = cohen(resnet(20), "cifar_resnet20")
    classifier = load_classifier(save(content, tmp_path / "theirs.pth.tar"))
    export_file(classifier, tmp_path / "ours.pth.tar")
    ours = torch.load(tmp_path / "ours.pth.tar", weights_only=True)
    assert ours["arch"] == "cifar_resnet20"
    assert list(ours["state_dict"]) == list(content["state_dict"])  # some programs go by the order
    for key, tensor in content["state_dict"].items():
        if not key.endswith("num_batches_tracked"):
            assert torch.equal(ours["state_dict"][key], tensor), key
    net = CifarResNet(20).eval()
    net.load_state_dict({key.removeprefix("1."): value for key, value in ours["state_dict"].items()})
    x = make_images(2, (32, 32, 3))
    np.testing.assert_array_equal(torch_logits(net, x), torch_logits(resnet(20), x))


@pytest.mark.slow_for("DDRS")
@pytest.mark.parametrize("case", ["DDRS", "wide"])
def test_ddrs_s_program_opens_it(tmp_path, case):
    content = CASES[case]()
    export_file(load_classifier(save(content, tmp_path / "theirs.pth.tar")), tmp_path / "ours.pth.tar")
    ours = torch.load(tmp_path / "ours.pth.tar", weights_only=True)["state_dict"]
    assert list(ours) == list(content["state_dict"])
    for key, tensor in content["state_dict"].items():
        assert key.endswith("num_batches_tracked") or torch.equal(ours[key], tensor), key


@pytest.mark.slow
def test_the_command(tmp_path):
    program = str(Path(sys.executable).with_name("qcrs-jax"))
    source = save(macer(lenet()), tmp_path / "lenet.pth")
    command = [program, "export", str(source), str(tmp_path / "out.pth")]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0 and "lenet" in result.stdout
    assert torch.load(tmp_path / "out.pth", weights_only=True)["net"].keys() == lenet().state_dict().keys()
    assert "already exists" in refused(*command[1:], cwd=tmp_path)


@pytest.mark.slow_for("resnet56-4bfd9763.th")
@pytest.mark.skipif(not SHARED.is_dir(), reason="the shared checkpoints are not there")
@pytest.mark.parametrize("name", ["cifar_resnet20_noise_0.25.pth.tar", "resnet56-4bfd9763.th"])
def test_real_files(tmp_path, name):
    first = load_classifier(SHARED / "checkpoints" / name)
    export_file(first, tmp_path / "ours.pth.tar")
    assert load_classifier(tmp_path / "ours.pth.tar").fingerprint() == first.fingerprint()
