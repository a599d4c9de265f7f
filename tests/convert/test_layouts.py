"""PyTorch checkpoints of every layout against PyTorch's logits, and refusals of ambiguous files."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkpoints import (
    calibrated,
    cohen,
    ddrs,
    idelbayev,
    images,
    lenet,
    lenet_file,
    macer,
    prefixed,
    resnet,
    save,
    torch_logits,
    wide_resnet,
)
from flax import nnx
from places import SHARED
from with_torch import BasicBlock as TorchBlock
from with_torch import Bottleneck as TorchBottleneck
from with_torch import CifarResNet, ResNet, randomise, save_file, torch

from qcrs_jax.convert.files.torch_file import load
from qcrs_jax.convert.fill import count_parameters
from qcrs_jax.convert.load import load_classifier
from qcrs_jax.convert.normalization import NORMALIZATIONS, parse_normalization
from qcrs_jax.convert.recognise import recognise
from qcrs_jax.models import build
from qcrs_jax.models.checkpoint import CheckpointError
from qcrs_jax.models.resnet import BasicBlock, Bottleneck

DEPTHS = (20, 32, 44, 56, 110)


@jax.jit
def run(classify, x):
    return classify(x)  # compiled once for all networks of a form


def assert_same_logits(path, net, normalization, given=None, shape=None):
    """The classifier in `path` gives PyTorch's logits on random images; returns its spec."""
    classifier = load_classifier(path, given)
    x = images(4, shape or classifier.spec.image_shape)
    expected = torch_logits(net, x, normalization)
    assert np.ptp(expected, axis=0).max() > 0.03 * abs(expected).max()  # the images tell in the logits
    logits = np.asarray(run(classifier.classify, x))
    assert logits.shape == expected.shape
    assert abs(logits - expected).max() <= 1e-4 * abs(expected).max()
    return classifier.spec


@pytest.mark.slow_for("32", "44", "56", "110", "Idelbayev-20")
@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("option_a", [False, True], ids=["Cohen", "Idelbayev"])
def test_cifar_resnets(tmp_path, depth, option_a):
    net = resnet(depth, option_a)
    content = idelbayev(net) if option_a else cohen(net, f"cifar_resnet{depth}")
    path = save(content, tmp_path / "net.th", legacy=(depth % 4 == 0) == option_a)
    spec = assert_same_logits(path, net, "imagenet" if option_a else "cifar10")
    assert spec.arch == f"cifar_resnet{depth}"
    assert spec.options == ({"shortcut": "option_a"} if option_a else {})
    assert spec.source["layout"] == ("Idelbayev" if option_a else "Cohen")
    assert (spec.num_classes, spec.image_shape) == (10, (32, 32, 3))


IMAGENET = {  # blocks, bottleneck, parameters as torchvision publishes them
    "resnet18": ((2, 2, 2, 2), None, 11_689_512),
    "resnet34": ((3, 4, 6, 3), None, 21_797_672),
    "resnet50": ((3, 4, 6, 3), 1, 25_557_032),
    "resnet101": ((3, 4, 23, 3), 1, 44_549_160),
    "resnet152": ((3, 8, 36, 3), 1, 60_192_808),
    "wide_resnet50_2": ((3, 4, 6, 3), 2, 68_883_240),
    "wide_resnet101_2": ((3, 4, 23, 3), 2, 126_886_696),
}


@functools.cache
def imagenet(arch, stem=7, num_classes=1000):
    blocks, bottleneck, _ = IMAGENET[arch]
    torch.manual_seed(0)
    return calibrated(randomise(ResNet(blocks, bottleneck, stem, num_classes)), (64, 64, 3))


@pytest.mark.parametrize("arch", IMAGENET)
@pytest.mark.slow_for("resnet34", "resnet50", "resnet101", "resnet152", "wide_resnet50_2", "wide_resnet101_2")
def test_torchvision_resnets(tmp_path, arch):
    net = imagenet(arch) if arch == "resnet50" else imagenet.__wrapped__(arch)  # the large ones are not kept
    path = save(net.state_dict(), tmp_path / "net.pth")
    spec = assert_same_logits(path, net, "imagenet", shape=(96, 96, 3))
    assert (spec.arch, spec.num_classes, spec.image_shape) == (arch, 1000, (224, 224, 3))
    assert spec.source["layout"] == "torchvision"
    model = nnx.eval_shape(lambda: build(spec))
    assert count_parameters(model) == IMAGENET[arch][-1]


@pytest.mark.slow
def test_cohen_s_resnet50_and_data_parallel(tmp_path):
    net = imagenet("resnet50")
    path = save(cohen(net, "resnet50", "1.module."), tmp_path / "checkpoint.pth.tar")
    assert assert_same_logits(path, net, "imagenet", shape=(64, 64, 3)).source["layout"] == "Cohen"
    path = save(prefixed(net, "module."), tmp_path / "parallel.pth")
    assert_same_logits(path, net, "imagenet", shape=(64, 64, 3))


@pytest.mark.slow
@pytest.mark.parametrize("kuangliu", [False, True])
def test_resnet18_with_the_stem_of_cifar(tmp_path, kuangliu):
    net = imagenet("resnet18", 3, 10)
    names = {"downsample.": "shortcut.", "fc.": "linear."} if kuangliu else {}
    weights = net.state_dict()
    for theirs, other in names.items():
        weights = {key.replace(theirs, other): value for key, value in weights.items()}
    path = save({"state_dict": weights}, tmp_path / "net.pth")
    with pytest.raises(CheckpointError) as error:
        load_classifier(path)
    assert error.value.settings == ("normalization",)
    spec = assert_same_logits(path, net, "cifar10", given="cifar10")
    assert (spec.arch, spec.image_shape, spec.options) == ("resnet18", (32, 32, 3), {"stem": "3x3"})


@functools.cache
def ddrs_resnet18():
    torch.manual_seed(0)
    net = ResNet(*IMAGENET["resnet18"][:2], num_classes=10, stem_norm=False)
    return calibrated(randomise(net), (32, 32, 3))


@pytest.mark.slow
def test_ddrs_s_networks_of_cifar10(tmp_path):
    for net, arch, options in [
        (wide_resnet(40, 2), "cifar_wide_resnet", {"depth": 40, "widen": 2}),
        (ddrs_resnet18(), "resnet18", {"stem_norm": False}),
    ]:
        path = save(ddrs(net), tmp_path / "checkpoint.pth.tar")
        spec = assert_same_logits(path, net, "cifar10")
        assert (spec.arch, spec.options, spec.image_shape) == (arch, options, (32, 32, 3))
        assert spec.source["layout"] == "DDRS"


def test_other_wide_resnets(tmp_path):
    """Of one block a stage and not widened; of Cohen's wrapping; with the stage that TRADES never runs."""
    net = wide_resnet(10, 1)
    content = cohen(net, "cifar_wrn")
    spec = assert_same_logits(save(content, tmp_path / "checkpoint.pth.tar"), net, "cifar10")
    assert (spec.options, spec.source["layout"]) == ({"depth": 10, "widen": 1}, "Cohen")
    weights = net.state_dict()
    idle = {f"sub_{key}": value for key, value in weights.items() if key.startswith("block1.")}
    path = save({**weights, **idle}, tmp_path / "trades.pt")
    with pytest.raises(CheckpointError) as error:
        load_classifier(path)
    assert error.value.settings == ("normalization",)
    assert (
        load_classifier(path, "cifar10").fingerprint() == load_classifier(tmp_path / "checkpoint.pth.tar").fingerprint()
    )


def layout_of(content, folder):
    path = save(content, folder / "net.pth")
    return recognise(load(path), path).layout


def test_normalisation_is_certain_or_asked_for(tmp_path):
    """(layout, normalisation) of every wrapping; None has to be given."""
    imagenet18, kuangliu = imagenet("resnet18"), imagenet("resnet18", 3, 10)
    kuangliu = {
        k.replace("downsample.", "shortcut.").replace("fc.", "linear."): v for k, v in kuangliu.state_dict().items()
    }
    parallel = {f"module.{key}": value for key, value in kuangliu.items()}
    wide = wide_resnet(16, 1)
    for content, expected in [
        (ddrs(wide), ("DDRS", "cifar10")),
        (ddrs_resnet18().state_dict(), ("DDRS", "cifar10")),  # no other program has this network
        (ddrs(imagenet18, "module."), ("ANCER", "none")),
        (ddrs(imagenet18, "model.module."), ("DDRS", None)),  # normalised, or centred alone
        ({"net": resnet(20).state_dict()}, ("MACER", "none")),
        ({"net": parallel, "acc": 95.1, "epoch": 3}, ("net", None)),
        ({"net": kuangliu, "acc": 95.1, "epoch": 3}, ("net", None)),
        ({"net": wide.state_dict()}, ("net", None)),
        ({"state_dict": parallel}, ("state_dict", None)),
        ({"state_dict": wide.state_dict(), "epoch": 200, "best_prec1": 95.1}, ("state_dict", None)),
        ({"state_dict": prefixed(wide, "module."), "normalize_input": False, "num_classes": 10}, ("RST", "none")),
    ]:
        assert layout_of(content, tmp_path) == expected


@pytest.mark.slow
def test_normalisation_stored_with_the_weights(tmp_path):
    net = wide_resnet(10, 1)
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in NORMALIZATIONS["cifar10"])
    rst = {"module.0.mean": mean[None], "module.0.std": std[None], **prefixed(net, "module.1.")}
    rs4a = {"norm.module.mu": mean, "norm.module.log_sig": std.log(), **prefixed(net, "model.module.")}
    for content in ({"state_dict": rst, "normalize_input": True, "num_classes": 10}, rs4a):
        spec = assert_same_logits(save(content, tmp_path / "net.pt"), net, "cifar10")
        np.testing.assert_allclose((spec.mean, spec.std), NORMALIZATIONS["cifar10"], rtol=1e-6)
    assert_same_logits(tmp_path / "net.pt", net, "none", given="none")
    rs4a["norm.module.log_sig"] = torch.full((3, 1, 1), -torch.inf)
    assert_refused(rs4a, tmp_path, "positive")
    del rs4a["norm.module.log_sig"]
    assert_refused(rs4a, tmp_path, "norm.module.mu", "prefix")


def timm_file(folder, config):
    """timm's files on the Hugging Face Hub."""
    path = folder / "model.safetensors"
    save_file(imagenet("resnet18").state_dict(), path)
    if config is not None:
        (folder / "config.json").write_text(config)
    return path


@pytest.mark.slow
def test_timm_s_files(tmp_path):
    path = timm_file(tmp_path, None)
    spec = assert_same_logits(path, imagenet("resnet18"), "imagenet", shape=(64, 64, 3))
    assert (spec.arch, spec.source["layout"]) == ("resnet18", "torchvision")
    half = {"architecture": "resnet18", "pretrained_cfg": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}}
    timm_file(tmp_path, json.dumps(half))
    assert load_classifier(path).spec.mean == (0.5, 0.5, 0.5)
    assert load_classifier(path, "imagenet").spec.mean == NORMALIZATIONS["imagenet"][0]
    timm_file(tmp_path, json.dumps({**half, "architecture": "resnetblur18"}))
    with pytest.raises(CheckpointError, match="resnetblur18.*resnet18") as error:
        load_classifier(path)
    assert str(path) in str(error.value)
    for other in ("{", '{"architecture": "x", "pretrained_cfg": 3}'):
        timm_file(tmp_path, other)
        assert load_classifier(path).spec.mean == NORMALIZATIONS["imagenet"][0]


@pytest.mark.parametrize(
    "changes, words",
    [
        (
            {"conv1.weight": None, "conv1.0.weight": (32, 3, 3, 3)},
            ["conv1.0.weight", "several convolutions", "resnet50d"],
        ),
        ({"layer1.0.se.fc1.weight": (8, 64, 1, 1)}, ["layer1.0.se.fc1.weight", "attention"]),
        (
            {"stem.conv.weight": (64, 3, 7, 7), "stages.0.blocks.0.norm1.weight": (64,)},
            ["stem.conv.weight", "ResNetV2"],
        ),
        ({"layer1.0.conv2.weight": (128, 4, 3, 3)}, ["layer1.0.conv2", "groups", "ResNeXt"]),
        ({"layer1.0.conv2.weight": None, "layer1.0.conv2.attn.fc.weight": (8,)}, ["no tensor 'layer1.0.conv2.weight'"]),
        ({"bn1.running_mean": None}, ["needs tensor 'bn1.running_mean'"]),  # group normalisation
        ({"layer4.2.conv1.weight": (512, 512, 3, 3)}, ["(2, 2, 2, 3)"]),
        (
            {"layer2.0.downsample.0.weight": None, "layer2.0.downsample.1.weight": (128, 64, 1, 1)},
            ["downsample.0.weight"],
        ),
    ],
)
def test_errors_about_other_resnets_name_the_difference(tmp_path, changes, words):
    weights = {**imagenet("resnet18").state_dict()}
    for key, shape in changes.items():
        if shape is None:
            del weights[key]
        else:
            weights[key] = torch.ones(shape)
    assert_refused(weights, tmp_path, *words)


@pytest.mark.parametrize(
    "key, shape, words",
    [
        ("block2.layer.2.conv1.weight", (32, 32, 3, 3), ["[2, 3, 2] blocks"]),
        ("block1.layer.0.conv1.weight", (24, 16, 3, 3), ["24 channels"]),
        ("block1.layer.0.conv1.weight", (32, 16, 3, 3), []),  # whichever of the others it does not fit
        (
            "block1.layer.0.convShortcut.weight",
            (16, 16, 1, 1),
            ["no place for tensor 'block1.layer.0.convShortcut.weight'"],
        ),
        (
            "block2.layer.0.convShortcut.weight",
            (32, 16, 3, 3),
            ["block2.layer.0.convShortcut.weight", "(32, 16, 3, 3)"],
        ),
        ("conv1.weight", (8, 3, 3, 3), ["conv1.weight", "(8, 3, 3, 3)"]),
        ("block3.layer.1.bn2.running_var", None, ["needs tensor 'block3.layer.1.bn2.running_var'"]),
        ("bn1.weight", None, ["needs tensor 'bn1.weight'"]),
        ("fc.weight", None, ["no tensor 'fc.weight'"]),
    ],
)
def test_wide_resnets_that_are_damaged(tmp_path, key, shape, words):
    content = ddrs(wide_resnet(16, 1))
    if shape is None:
        del content["state_dict"][key]
    else:
        content["state_dict"][key] = torch.ones(shape)
    assert_refused(content, tmp_path, *words)


@pytest.mark.slow
def test_macer_resnet110(tmp_path):
    spec = assert_same_logits(save(macer(resnet(110)), tmp_path / "net.pth"), resnet(110), "none")
    assert spec.source["layout"] == "MACER"


@pytest.mark.parametrize("legacy", [False, True])
def test_macer_lenet(tmp_path, legacy):
    spec = assert_same_logits(save(macer(lenet()), tmp_path / "net.pth", legacy), lenet(), "none")
    assert (spec.arch, spec.image_shape) == ("lenet", (28, 28, 1))


def test_data_parallel_under_the_normalisation_layer(tmp_path):
    content = cohen(resnet(20), "cifar_resnet20", "1.module.")
    assert_same_logits(save(content, tmp_path / "net.pth.tar"), resnet(20), "cifar10")


@pytest.mark.parametrize("prefix", ["", "module.", "model.backbone."])
def test_bare_state_dict_needs_its_normalisation(tmp_path, prefix):
    path = save(prefixed(resnet(20), prefix), tmp_path / "net.pt")
    with pytest.raises(CheckpointError) as error:
        load_classifier(path)
    assert str(path) in str(error.value) and error.value.settings == ("normalization",)
    assert_same_logits(path, resnet(20), "imagenet", given="imagenet")


@pytest.mark.slow
def test_a_normalisation_given_replaces_that_of_the_layout(tmp_path):
    path = save(cohen(resnet(20), "cifar_resnet20"), tmp_path / "net.pth.tar")
    assert_same_logits(path, resnet(20), "none", given="none")
    spec = assert_same_logits(path, resnet(20), "imagenet", given="0.485,0.456,0.406/0.229,0.224,0.225")
    assert (spec.mean, spec.std) == NORMALIZATIONS["imagenet"]


@pytest.mark.slow
def test_other_numbers_of_channels_and_classes(tmp_path):
    torch.manual_seed(1)
    net = calibrated(randomise(CifarResNet(20, channels=1, num_classes=43)), (32, 32, 1))
    spec = assert_same_logits(save(macer(net), tmp_path / "net.pth"), net, "none")
    assert (spec.num_classes, spec.image_shape) == (43, (32, 32, 1))


def test_weights_in_half_precision(tmp_path):
    half = {key: value.half() for key, value in lenet().state_dict().items()}
    classifier = load_classifier(save({"net": half}, tmp_path / "net.pth"))
    kernel = classifier.model.fc2.kernel[...]
    assert kernel.dtype == jnp.float32
    np.testing.assert_array_equal(kernel, half["fc2.weight"].float().numpy().T)


@pytest.mark.slow_for("7", "8-projection", "8-bottleneck")
@pytest.mark.parametrize("kind", ["projection", "option_a", "bottleneck"])
@pytest.mark.parametrize("size", [7, 8])
def test_strided_block(kind, size):
    """A block on its own, where a shift by a pixel cannot drown in the pooling."""
    torch.manual_seed(0)
    if kind == "bottleneck":
        theirs = randomise(TorchBottleneck(16, 8, 32, 2))
        ours = Bottleneck(16, 32, 2, 8, rngs=nnx.Rngs(0))
    else:
        theirs = randomise(TorchBlock(16, 32, 2, kind == "option_a"))
        ours = BasicBlock(16, 32, 2, kind, rngs=nnx.Rngs(0))
    ours.eval()
    pairs = [(ours.conv1, theirs.conv1, theirs.bn1), (ours.conv2, theirs.conv2, theirs.bn2)]
    pairs += [(ours.conv3, theirs.conv3, theirs.bn3)] if kind == "bottleneck" else []
    pairs += [] if kind == "option_a" else [(ours.shortcut, *theirs.downsample)]
    for unit, conv, bn in pairs:
        unit.conv.kernel[...] = jnp.asarray(conv.weight.detach().numpy().transpose(2, 3, 1, 0))
        unit.norm.scale[...], unit.norm.bias[...] = (jnp.asarray(v.detach().numpy()) for v in (bn.weight, bn.bias))
        unit.norm.mean[...], unit.norm.var[...] = (jnp.asarray(v.numpy()) for v in (bn.running_mean, bn.running_var))
    x = images(2, (size, size, 16))
    with torch.no_grad():
        expected = theirs(torch.from_numpy(x).permute(0, 3, 1, 2)).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(ours(jnp.asarray(x)), expected, rtol=1e-4, atol=1e-5)


def assert_refused(content, folder, *words):
    path = save(content, folder / "bad.pth.tar")
    with pytest.raises(CheckpointError) as error:
        load_classifier(path)
    for word in (str(path), *words):
        assert word in str(error.value)


EXTRA = ["1.layer1.0.conv3.weight", "1.layer1.0.bn1.momentum", "1.fc.scale", "1.mask", "1.layer3.2.downsample.0.weight"]


@pytest.mark.parametrize("key", EXTRA)
def test_extra_tensor(tmp_path, key):
    content = cohen(resnet(20), "cifar_resnet20")
    content["state_dict"][key] = torch.ones(3)
    assert_refused(content, tmp_path, key.removeprefix("1."))


@pytest.mark.slow
def test_every_tensor_is_needed(tmp_path):
    missing = [k for k in cohen(resnet(20), "")["state_dict"] if not k.endswith("num_batches_tracked")]
    for key in [*missing[:12], *missing[-9:]]:
        content = cohen(resnet(20), "cifar_resnet20")
        del content["state_dict"][key]
        stem = key == "1.conv1.weight"  # without it the prefix is unknown
        assert_refused(content, tmp_path, *([] if stem else [key.removeprefix("1.")]))


def test_missing_counters_of_batches_are_no_loss(tmp_path):
    content = cohen(resnet(20), "cifar_resnet20")
    for key in [k for k in content["state_dict"] if k.endswith("num_batches_tracked")]:
        del content["state_dict"][key]
    assert_same_logits(save(content, tmp_path / "net.pth.tar"), resnet(20), "cifar10")


def test_missing_block(tmp_path):
    content = cohen(resnet(20), "cifar_resnet20")
    for key in [k for k in content["state_dict"] if k.startswith("1.layer2.2.")]:
        del content["state_dict"][key]
    assert_refused(content, tmp_path, "(3, 2, 3, 0)")


@pytest.mark.parametrize(
    "key, shape",
    [
        ("1.layer1.1.conv2.weight", (16, 16, 1, 1)),
        ("1.layer2.0.conv1.weight", (16, 32, 3, 3)),  # the axes swapped
        ("1.layer2.0.downsample.0.weight", (32, 16)),
        ("1.bn1.running_var", (1,)),  # would broadcast
        ("1.layer3.1.bn2.bias", ()),
        ("1.fc.weight", (10, 65)),
        ("1.fc.bias", (9,)),
    ],
)
def test_wrong_shape(tmp_path, key, shape):
    content = cohen(resnet(20), "cifar_resnet20")
    content["state_dict"][key] = torch.ones(shape)
    assert_refused(content, tmp_path, key.removeprefix("1."), str(shape))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("key", ["layer2.1.conv1.weight", "bn1.running_mean", "fc.bias"])
def test_values_that_are_not_finite(tmp_path, key, value):
    content = cohen(resnet(20), "cifar_resnet20")
    tensor = content["state_dict"]["1." + key].clone()
    tensor.view(-1)[-1] = value
    content["state_dict"]["1." + key] = tensor
    assert_refused(content, tmp_path, key, "not finite")


@pytest.mark.parametrize("arch", ["cifar_resnet110", "resnet110", "resnet18", "lenet"])
def test_another_arch_than_the_weights(tmp_path, arch):
    assert_refused(cohen(resnet(20), arch), tmp_path, repr(arch), "cifar_resnet20")


@pytest.mark.parametrize(
    "state_dict",
    [
        {"conv1.weight": torch.ones(64, 3, 7, 7), "layer1.0.conv1.weight": torch.ones(64, 64, 3, 3)},
        {"conv1.weight": torch.ones(16, 3, 3, 3)},
        {"conv1.weight": torch.ones(32, 1, 5, 5), "fc2.weight": torch.ones(10, 500)},
        {"conv1.weight": torch.tensor(1.0), "fc2.weight": torch.ones(10, 500)},
        {"conv1.weight": torch.ones(20, 1, 5, 5), "fc2.weight": torch.tensor(1.0)},
        {"features.0.weight": torch.ones(2)},
        {f"layer{i}.{j}.conv1.weight": torch.ones(1) for i in (1, 2, 3) for j in (0, 1, 2)},
        {"conv1.weight": torch.ones(16, 3, 3, 3), "other.weight": torch.ones(1)},
    ],
    ids=["ImageNet", "stem", "other LeNet", "scalar stem", "scalar head", "VGG", "no stem", "no head"],
)
def test_networks_that_are_not_known(tmp_path, state_dict):
    assert_refused({"net": state_dict}, tmp_path)


def test_mixed_prefixes(tmp_path):
    content = cohen(resnet(20), "cifar_resnet20")
    content["state_dict"]["ema.conv2.weight"] = torch.ones(3)
    assert_refused(content, tmp_path, "ema.conv2.weight", "'1.'")


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"epoch": 3},
        {"state_dict": {}},
        {"net": {"a": 1}},
        {"w": torch.ones(1), "epoch": 3},
        [torch.ones(1)],
        None,
        3,
    ],
)
def test_no_state_dict(tmp_path, content):
    assert_refused(content, tmp_path, "state_dict")


@pytest.mark.parametrize("text", ["cifar", "1,2,3", "0.5/", "a/b", "0/1/2", "/"])
def test_unknown_normalisation(tmp_path, text):
    with pytest.raises(CheckpointError, match="cifar10, imagenet, none") as error:
        load_classifier(lenet_file(tmp_path), text)
    assert repr(text) in str(error.value)


@pytest.mark.parametrize("text, words", [("cifar10", "3 entries"), ("0/0", "positive"), ("0/-1", "positive")])
def test_normalisation_that_does_not_fit(tmp_path, text, words):
    path = lenet_file(tmp_path)
    with pytest.raises(CheckpointError, match=words) as error:
        load_classifier(path, text)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("text", ["nan/1", "inf/1", "0/nan", "0/inf"])
def test_normalisation_that_is_not_finite(tmp_path, text):
    with pytest.raises(CheckpointError):
        load_classifier(lenet_file(tmp_path), text)


def test_parse_normalization():
    assert parse_normalization("none") == ((0.0,), (1.0,))
    assert parse_normalization("0.5/0.25") == ((0.5,), (0.25,))
    assert parse_normalization("0.1, 0.2,.3/1,1,2e-1") == ((0.1, 0.2, 0.3), (1.0, 1.0, 0.2))


@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_damaged_files_give_an_error_or_a_classifier(tmp_path, legacy):
    """Damage where names, shapes and storages are described: in the pickle, and in the zip's own records."""
    path = save(macer(lenet()), tmp_path / "net.pth", legacy)
    data = np.frombuffer(path.read_bytes(), np.uint8)
    described = np.r_[:900, len(data) - 900 : len(data)]
    refused = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        damaged = data.copy()
        damaged[rng.choice(described, 2)] = rng.integers(256)
        path.write_bytes(damaged.tobytes())
        try:
            load_classifier(path)
        except CheckpointError as error:
            assert str(path) in str(error)
            refused += 1
    assert refused > 10


def test_flipped_bit_in_the_weights(tmp_path):
    path = lenet_file(tmp_path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError) as error:
        load_classifier(path)
    assert str(path) in str(error.value)


@pytest.mark.slow_for("cifar_resnet20_noise_0.25.pth.tar-20-False-1.-0.6", "resnet56-4bfd9763.th-56-True-module.-0.8")
@pytest.mark.parametrize(
    "name, depth, option_a, prefix, accuracy",
    [
        ("resnet20-12fca82f.th", 20, True, "module.", 0.75),
        ("resnet56-4bfd9763.th", 56, True, "module.", 0.8),
        ("cifar_resnet20_noise_0.25.pth.tar", 20, False, "1.", 0.6),
    ],
)
def test_real_files_on_real_images(real_images, name, depth, option_a, prefix, accuracy):
    path = SHARED / "checkpoints" / name
    if not path.exists():
        pytest.skip(f"needs {name}")
    net = CifarResNet(depth, option_a).eval()
    saved = torch.load(path, weights_only=False, map_location="cpu")["state_dict"]
    net.load_state_dict({key.removeprefix(prefix): value for key, value in saved.items()})
    x, labels = real_images
    expected = torch_logits(net, x, "imagenet" if option_a else "cifar10")
    logits = np.asarray(run(load_classifier(path).classify, x))
    assert abs(logits - expected).max() <= 1e-4 * abs(expected).max()
    top = np.sort(expected)[:, -2:]
    tied = top[:, 1] - top[:, 0] < 1e-4 * abs(expected).max()
    np.testing.assert_array_equal(logits.argmax(1)[~tied], expected.argmax(1)[~tied])
    assert (logits.argmax(1) == labels).mean() >= accuracy  # the layout's normalisation is the one it was trained with
