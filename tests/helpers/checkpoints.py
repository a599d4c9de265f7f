"""PyTorch networks and the checkpoint files that the field's programs make of them, for the tests."""

import dataclasses
import functools
import json
from collections import OrderedDict
from pathlib import Path

import numpy as np
import orbax.checkpoint as ocp
from flax import nnx
from with_torch import CifarResNet, LeNet, WideResNet, randomise, torch

from qcrs_jax.convert.normalization import NORMALIZATIONS


@functools.cache
def resnet(depth, option_a=False):
    """A CIFAR ResNet with seeded weights. Shared between tests: not to be changed."""
    torch.manual_seed(depth)
    return calibrated(randomise(CifarResNet(depth, option_a), depth), (32, 32, 3))


def calibrated(net, shape):
    """`net` with batch statistics of some images. Others would make the logits of a deep net nearly constant."""
    norms = [module for module in net.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    net.train()
    torch_logits(net, images(16, shape, seed=1))
    return net.eval()


@functools.cache
def lenet():
    torch.manual_seed(0)
    return LeNet().eval()


@functools.cache
def wide_resnet(depth, widen):
    """A wide ResNet with seeded weights. Shared between tests: not to be changed."""
    torch.manual_seed(depth)
    return calibrated(randomise(WideResNet(depth, widen)), (32, 32, 3))


def prefixed(net, prefix):
    return OrderedDict((prefix + key, value) for key, value in net.state_dict().items())


def cohen(net, arch, prefix="1."):
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9, weight_decay=1e-4).state_dict()
    return {"epoch": 90, "arch": arch, "state_dict": prefixed(net, prefix), "optimizer": optimizer}


def macer(net):
    return {"net": net.state_dict(), "epoch": 440}


def ddrs(net, prefix=""):
    optimizer = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9).state_dict()
    return {"epoch": 120, "state_dict": prefixed(net, prefix), "optimizer_param": optimizer}


def idelbayev(net):
    return {"state_dict": prefixed(net, "module."), "best_prec1": 93.62}


def save(content, path, legacy=False):
    torch.save(content, path, _use_new_zipfile_serialization=not legacy)
    return path


def old_directory(classifier, path, devices=None):
    """Writes `classifier` as earlier versions did; with `devices`, as if it was written on a device of that name."""
    weights = nnx.to_pure_dict(nnx.state(classifier.model))
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(Path(path).absolute() / "weights", weights)
    spec = dataclasses.asdict(classifier.spec)
    del spec["class_names"]  # which earlier versions did not have
    (path / "classifier.json").write_text(json.dumps({"format": 1, **spec}, indent=2) + "\n")
    if devices is not None:
        file = path / "weights" / "_sharding"
        before = json.loads(file.read_text())
        assert before and all("cpu:0" in text for text in before.values())
        file.write_text(json.dumps({name: text.replace("cpu:0", devices) for name, text in before.items()}))
    return path


def lenet_file(folder):
    """A small file that converts: MACER's LeNet."""
    return save(macer(lenet()), folder / "lenet.pth")


def images(count, shape, seed=0):
    """Images in [0, 1] of coloured patches and some noise, which networks distinguish better than noise alone."""
    rng = np.random.default_rng(seed)
    h, w, c = shape
    patches = rng.random((count, 4, 4, c)).repeat(-(-h // 4), axis=1).repeat(-(-w // 4), axis=2)[:, :h, :w]
    return (0.8 * patches + 0.2 * rng.random((count, h, w, c))).astype(np.float32)


def torch_logits(net, x, normalization="none"):
    """PyTorch's logits for images (batch, h, w, c) in [0, 1]."""
    mean, std = (np.array(v, np.float32) for v in NORMALIZATIONS[normalization])
    with torch.no_grad():
        return net(torch.from_numpy((x - mean) / std).permute(0, 3, 1, 2).contiguous()).numpy()
