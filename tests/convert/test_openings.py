"""Open questions of checkpoints: each is asked or reported, never decided in silence; and the options that answer."""

import functools
import subprocess
import sys
from collections import OrderedDict

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkpoints import calibrated, cohen, idelbayev, images, lenet, macer, prefixed, resnet, save, torch_logits
from places import SHARED
from with_torch import CifarResNet, ResNet, WideResNet, randomise, save_file, torch

from qcrs_jax.convert.check import fit_image
from qcrs_jax.convert.export import export_file
from qcrs_jax.convert.load import load_classifier
from qcrs_jax.convert.normalization import NORMALIZATIONS
from qcrs_jax.data.load import Dataset
from qcrs_jax.errors import UserError
from qcrs_jax.models.checkpoint import CheckpointError

CIFAR100 = ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761))


def asked(content, folder, *words, settings=None, **given):
    """The file is refused, with these words in the message, and these settings named in it; returns its path."""
    path = save(content, folder / "net.pth.tar")
    with pytest.raises(CheckpointError) as error:
        load_classifier(path, **given)
    for word in (str(path), *words):
        assert word in str(error.value)
    assert settings is None or set(error.value.settings) == set(settings.split())
    return path


def notes(classifier):
    return " ".join(classifier.spec.source.get("notes", ()))


@jax.jit
def run(classify, x):
    return classify(x)  # compiled once for all networks of a form


def assert_logits(classifier, net, x, normalization="none"):
    expected = torch_logits(net, x, normalization)
    logits = np.asarray(run(classifier.classify, x))
    assert abs(logits - expected).max() <= 1e-4 * abs(expected).max() and np.ptp(expected, axis=0).max() > 0


@functools.cache
def of_classes(classes, channels=3, depth=8, option_a=False):
    torch.manual_seed(0)
    net = CifarResNet(depth, option_a, channels=channels, num_classes=classes)
    return calibrated(randomise(net), (32, 32, channels))


@functools.cache
def resnet18(stem=3, classes=10, pool=None):
    torch.manual_seed(0)
    net = ResNet((2, 2, 2, 2), None, stem, classes)
    if pool is not None:
        net.forward = functools.partial(pooled_forward, net, pool)
    return calibrated(randomise(net), (32, 32, 3))


def pooled_forward(net, pool, x):
    x = torch.relu(net.bn1(net.conv1(x)))
    x = torch.nn.functional.max_pool2d(x, 3, 2, 1) if pool else x
    return net.fc(net.layer4(net.layer3(net.layer2(net.layer1(x)))).mean((2, 3)))


# Normalisation


@pytest.mark.parametrize("arch", ["cifar100_resnet110", "resnet20_cifar-100", "CIFAR100"])
def test_cohen_s_layout_with_a_sign_of_cifar100(tmp_path, arch):
    spec = load_classifier(save(cohen(of_classes(100), arch), tmp_path / "net.pth")).spec
    assert (spec.mean, spec.std) == CIFAR100 == NORMALIZATIONS["cifar100"]
    spec = load_classifier(save({**cohen(of_classes(100), ""), "dataset": "cifar100"}, tmp_path / "net.pth")).spec
    assert spec.mean == CIFAR100[0]


def test_cohen_s_layout_of_other_classes_asks(tmp_path):
    path = asked(cohen(of_classes(100), "resnet"), tmp_path, "cifar100 (", "cifar10 (", settings="normalization")
    assert load_classifier(path, "cifar100").spec.mean == CIFAR100[0]
    asked(cohen(of_classes(43), "resnet"), tmp_path, "cifar10 (", "43 classes")
    asked(cohen(of_classes(10), "svhn_resnet8"), tmp_path, settings="normalization")
    classifier = load_classifier(save(cohen(of_classes(10), "cifar_resnet8"), path))
    assert classifier.spec.mean == NORMALIZATIONS["cifar10"][0]
    assert "0.4914,0.4822,0.4465/1,1,1" in notes(classifier)


@pytest.mark.parametrize("given", [{"prefix": "1."}, {"leave_out": "0."}])
def test_a_part_that_is_left_out_may_be_the_normalisation(tmp_path, given):
    content = cohen(of_classes(10), "cifar_resnet8")
    content["state_dict"] |= {"0.mean": torch.full((3,), 0.5), "0.var": torch.full((3,), 0.1)}
    path = asked(content, tmp_path, "cifar10 (", "0.mean, 0.var", settings="normalization", **given)
    assert load_classifier(path, "none", **given).spec.mean == (0.0,)


@pytest.mark.parametrize("beside", [{"mean": [0.5] * 3, "std": [0.5] * 3}, {"normalize": {"mean": [0.5] * 3}}])
def test_a_normalisation_beside_the_weights_is_not_passed_over(tmp_path, beside):
    content = {**cohen(of_classes(10), "cifar_resnet8"), **beside}
    path = asked(content, tmp_path, "cifar10 (", next(iter(beside)), settings="normalization")
    assert load_classifier(path, "cifar10").spec.mean == NORMALIZATIONS["cifar10"][0]


def test_the_data_set_is_read_from_the_settings_of_a_training(tmp_path):
    content = {**cohen(of_classes(100), "resnet"), "args": {"dataset": "cifar100"}}
    assert load_classifier(save(content, tmp_path / "net.pth")).spec.mean == CIFAR100[0]


def test_a_normalisation_of_pixels_from_0_to_255_is_refused(tmp_path):
    content = cohen(of_classes(10), "cifar_resnet8")
    content["state_dict"] |= {"0.mean": torch.full((3,), 127.5), "0.std": torch.full((3,), 51.0)}
    path = save(content, tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match="0 to 255.*normalization 0.5,0.5,0.5/0.2,0.2,0.2"):
        load_classifier(path)
    assert load_classifier(path, "0.5,0.5,0.5/0.2,0.2,0.2").spec.mean == (0.5,) * 3


OF_ANOTHER_TYPE = """
from qcrs_jax import load_classifier
OTHERS = [("max_pool", "no"), ("image_size", "64"), ("image_size", 64.0), ("normalization", (0.5, 0.5)), ("field", 3)]
for given in map(dict, ([pair] for pair in OTHERS)):
    try:
        load_classifier("zoo:fashion_mnist-lenet-sigma0.25", **given)
    except ValueError as error:
        assert f"{next(iter(given))} cannot be" in str(error), error
    else:
        raise AssertionError(given)
"""


@pytest.mark.slow
def test_arguments_of_another_type_are_refused():
    # In a process of its own, without the type checks of these tests.
    done = subprocess.run([sys.executable, "-c", OF_ANOTHER_TYPE], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_relatives_of_the_option_a_networks_ask(tmp_path):
    net = of_classes(10, option_a=True)
    weights = prefixed(net, "module.")
    for content in (
        {"state_dict": weights, "best_acc1": 1.0},
        {"state_dict": weights, "best_prec1": 1.0, "arch": "resnet8"},
        {"state_dict": net.state_dict(), "best_prec1": 1.0},
        {"state_dict": prefixed(of_classes(100, option_a=True), "module."), "best_prec1": 1.0},
    ):
        asked(content, tmp_path, "imagenet (", "cifar10 (", settings="normalization")
    assert load_classifier(save(idelbayev(net), tmp_path / "net.th")).spec.mean == NORMALIZATIONS["imagenet"][0]


def test_the_stem_of_imagenet_with_other_classes_asks(tmp_path):
    net = resnet18(7)
    asked(net.state_dict(), tmp_path, "imagenet (", "cifar10 (")
    asked(cohen(net, "resnet18", "1.module."), tmp_path, "imagenet (")


def test_networks_of_one_channel_need_their_normalisation(tmp_path):
    path = asked(
        {"state_dict": prefixed(lenet(), "1."), "arch": "lenet"}, tmp_path, "none (", "0.1307/0.3081", "MEAN/STD"
    )
    assert load_classifier(path, "none").spec.mean == (0.0,)
    asked(cohen(of_classes(10, 1), "cifar_resnet8"), tmp_path, "none (", "1 channel")
    asked(cohen(of_classes(10, 4), "cifar_resnet8"), tmp_path, "4 channel")
    assert load_classifier(save(macer(lenet()), path)).spec.mean == (0.0,)


@pytest.mark.parametrize(
    "pair", ["mean std", "means sds", "means stds", "mu sigma", "new_mean new_std", "pixel_mean pixel_std"]
)
@pytest.mark.parametrize("place", ["0.", "normalize.", "module.norm.layer.", ""])
def test_normalisation_under_any_of_its_names_is_used_and_reported(tmp_path, pair, place):
    mean, std = pair.split()
    stored = {place + mean: torch.full((1, 3, 1, 1), 0.5), place + std: torch.full((3,), 0.25)}
    path = save({"state_dict": {**prefixed(of_classes(10), "1."), **stored}}, tmp_path / "net.pth")
    classifier = load_classifier(path)
    assert (classifier.spec.mean, classifier.spec.std) == ((0.5,) * 3, (0.25,) * 3)
    assert place + mean in notes(classifier) and place + std in notes(classifier)
    other = load_classifier(path, "imagenet")
    assert other.spec.mean == NORMALIZATIONS["imagenet"][0] and "not the file's own" in notes(other)


def test_two_normalisations_in_a_file_ask(tmp_path):
    stored = {f"{n}.{m}": torch.full((3,), v) for n, v in (("a", 0.5), ("b", 0.25)) for m in ("mean", "std")}
    path = asked(
        {"net": {**prefixed(of_classes(10), "m."), **stored}}, tmp_path, "several normalisations", settings="leave_out"
    )
    assert load_classifier(path, leave_out="b.").spec.mean == (0.5,) * 3


# Which weights


@pytest.mark.parametrize("field", ["model_state_dict", "weights", "model", "params.network", "models.1", "a.b.c"])
def test_weights_under_any_field(tmp_path, field):
    net, content = of_classes(10), of_classes(10).state_dict()
    for name in reversed(field.split(".")):
        content = [3, content] if name == "1" else {name: content, "epoch": 3}
    path = asked(content, tmp_path, settings="normalization")
    assert_logits(load_classifier(path, "cifar10"), net, images(2, (32, 32, 3)), "cifar10")
    optimizer = torch.optim.Adam(net.parameters())
    sum(p.sum() for p in net.parameters()).backward()
    optimizer.step()
    path = save({"run": content, "optimizer": optimizer.state_dict(), "rng": torch.get_rng_state()}, path)
    assert not notes(load_classifier(path, "cifar10"))


def test_several_networks_ask_by_field(tmp_path):
    one, other = of_classes(10), resnet(20)
    content = {"state_dict": one.state_dict(), "ema": {"shadow": other.state_dict()}, "epoch": 3}
    path = asked(content, tmp_path, "state_dict, ema.shadow", settings="field", normalization="none")
    assert load_classifier(path, "none", field="state_dict").spec.arch == "cifar_resnet8"
    classifier = load_classifier(path, "none", field="ema.shadow")
    assert classifier.spec.arch == "cifar_resnet20" and classifier.spec.source["field"] == "ema.shadow"
    asked(content, tmp_path, "'epoch'", "ema.shadow", field="epoch")
    # A damaged one is not passed over for the other.
    del content["state_dict"]["fc.bias"]
    asked(content, tmp_path, settings="field", normalization="none")
    content = {"state_dict": other.state_dict(), "best": {k: v.clone() for k, v in other.state_dict().items()}}
    assert "hold the same weights" in notes(load_classifier(save(content, path), "none"))


def test_another_dictionary_of_tensors_is_reported(tmp_path):
    content = {"classifier": of_classes(10).state_dict(), "denoiser": {"0.weight": torch.ones(3)}}
    classifier = load_classifier(save(content, tmp_path / "net.pth"), "none")
    assert "'classifier'" in notes(classifier) and "denoiser" in notes(classifier)


def test_tensors_that_are_not_the_network_s_are_left_out_when_asked(tmp_path):
    net = of_classes(10)
    extra = {"criterion.weight": torch.ones(10), "metric.steps": torch.tensor(3)}
    content = {"state_dict": {**prefixed(net, "model."), **extra}}
    path = asked(
        content, tmp_path, "prefix model.", "criterion.weight", "metric.steps", settings="prefix", normalization="none"
    )
    classifier = load_classifier(path, "none", prefix="model.")
    assert_logits(classifier, net, images(2, (32, 32, 3)))
    assert "Left out, as requested: criterion.weight, metric.steps." in notes(classifier)
    assert classifier.spec.source["prefix"] == "model."
    same = load_classifier(path, "none", leave_out=["criterion.", "metric.steps"])
    assert same.fingerprint() == classifier.fingerprint() and "criterion.weight" in notes(same)
    asked(content, tmp_path, "lacks the prefix", "metric.steps", normalization="none", leave_out="criterion.")
    asked(content, tmp_path, "no name begins so", prefix="net.")
    asked(content, tmp_path, "'typo.'", leave_out="typo.")


def test_tensors_among_the_network_s_are_left_out_when_asked_but_never_a_part_of_its_layers(tmp_path):
    net = of_classes(10)
    for prefix in ("", "module."):
        content = {"state_dict": {**prefixed(net, prefix), f"{prefix}rotation.weight": torch.ones(4)}}
        path = asked(
            content, tmp_path, f"leave_out {prefix}rotation.weight", settings="leave_out", normalization="none"
        )
        assert_logits(load_classifier(path, "none", leave_out=f"{prefix}rotation."), net, images(2, (32, 32, 3)))
        content["state_dict"][f"{prefix}layer1.0.scale"] = torch.ones(3)
        path = asked(content, tmp_path, "layer1.0.scale", normalization="none", leave_out=f"{prefix}rotation.")
        asked(content, tmp_path, "part of the network's own", normalization="none", leave_out=f"{prefix}layer1.0.scale")
    message = pytest.raises(CheckpointError, load_classifier, path, "none", leave_out="module.rotation.").value
    assert message.settings == ()


@pytest.mark.parametrize("name", ["fc3.weight", "conv3.weight", "bn2.bias"])
def test_a_layer_of_another_number_is_never_left_out(tmp_path, name):
    path = asked(
        macer(lenet()) | {"net": {**lenet().state_dict(), name: torch.ones(3)}}, tmp_path, "no place for", name
    )
    with pytest.raises(CheckpointError, match="part of the network's own"):
        load_classifier(path, leave_out=name.split(".")[0])


def test_two_networks_under_two_prefixes_ask(tmp_path):
    one, other = of_classes(10), resnet(20)
    content = {"state_dict": {**prefixed(one, "student."), **prefixed(other, "teacher.")}}
    path = asked(content, tmp_path, "student., teacher.", "prefix student.", settings="prefix", normalization="none")
    assert load_classifier(path, "none", prefix="student.").spec.arch == "cifar_resnet8"
    assert load_classifier(path, "none", prefix="teacher.").spec.arch == "cifar_resnet20"
    path = save({"state_dict": {**prefixed(one, ""), **prefixed(other, "ema.")}}, path)
    assert load_classifier(path, "none", prefix="ema.").spec.arch == "cifar_resnet20"
    classifier = load_classifier(path, "none", prefix="")
    assert classifier.spec.arch == "cifar_resnet8" and "ema.conv1.weight" in notes(classifier)


@pytest.mark.parametrize("prefixes", [("module.model.", "module.attacker.model."), ("net.", "net.copy."), ("", "ema.")])
def test_one_network_stored_twice_opens_once_with_its_normaliser(tmp_path, prefixes):
    net = of_classes(10)
    weights = OrderedDict(item for prefix in prefixes for item in prefixed(net, prefix).items())
    for name in ("module.normalizer", "module.attacker.normalize"):
        weights |= {f"{name}.new_mean": torch.full((3, 1, 1), 0.5), f"{name}.new_std": torch.full((3, 1, 1), 0.25)}
    classifier = load_classifier(save({"model": weights}, tmp_path / "net.pt"))
    assert (classifier.spec.mean, classifier.spec.std) == ((0.5,) * 3, (0.25,) * 3)
    assert "with the same weights in each" in notes(classifier) and "new_mean" in notes(classifier)
    x = images(2, (32, 32, 3))
    expected = torch_logits(net, (x - np.float32(0.5)) / np.float32(0.25))
    np.testing.assert_allclose(run(classifier.classify, x), expected, atol=1e-4 * abs(expected).max())


def test_names_of_the_classes_in_a_file(tmp_path):
    names = [f"class {i}" for i in range(10)]
    for said in (
        {"class_names": names},
        {"classes": tuple(names)},
        {"class_to_idx": {n: i for i, n in enumerate(names)}},
    ):
        spec = load_classifier(save({**cohen(of_classes(10), "cifar_resnet8"), **said}, tmp_path / "net.pth")).spec
        assert spec.class_names == tuple(names)
    for said in ({"classes": names[:9]}, {"classes": 10}, {"class_to_idx": {n: 0 for n in names}}, {}):
        path = save({**cohen(of_classes(10), "cifar_resnet8"), **said}, tmp_path / "net.pth")
        assert load_classifier(path).spec.class_names is None


# Networks


@pytest.mark.slow_for("26", "50", "False-14", "True-14")
@pytest.mark.parametrize("depth", [8, 14, 26, 50])
@pytest.mark.parametrize("option_a", [False, True])
def test_cifar_resnets_of_any_depth(tmp_path, depth, option_a):
    net = of_classes(10, 3, depth, option_a)
    content = {"state_dict": net.state_dict(), "arch": f"resnet{depth}"}
    classifier = load_classifier(save(content, tmp_path / "net.pth"), "none")
    assert classifier.spec.arch == f"cifar_resnet{depth}"
    assert_logits(classifier, net, images(2, (32, 32, 3)))
    for arch in (f"resnet{depth + 6}", "resnet18"):
        asked({**content, "arch": arch}, tmp_path, repr(arch), normalization="none")


@pytest.mark.parametrize("arch", ["cifar_resnet21", "cifar_resnet2", "cifar_resnet020", "cifar_resnet60002"])
def test_impossible_depths_are_refused(arch):
    from qcrs_jax.models import Spec

    with pytest.raises(ValueError, match="6n"):
        Spec(arch, 10, (32, 32, 3), (0.5,), (0.5,))


SIZES = {
    "cifar": (lambda: of_classes(10), {"state_dict"}),
    "3x3": (lambda: resnet18(3), {"state_dict"}),
    "7x7": (lambda: resnet18(7), {"state_dict"}),
    "wide": (lambda: calibrated(randomise(WideResNet(10, 1)), (32, 32, 3)), {"state_dict"}),
}


@pytest.mark.slow_for(
    "28-wide", "28-3x3", "30x34-3x3", "28-7x7", "64x48-7x7", "30x34-wide", "64x48-wide", "30x34-7x7", "64x48-3x3"
)
@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("size", [28, (30, 34), (64, 48)], ids=["28", "30x34", "64x48"])
def test_other_image_sizes(tmp_path, name, size):
    net = SIZES[name][0]()
    path = save({"state_dict": net.state_dict()}, tmp_path / "net.pth")
    classifier = load_classifier(path, "none", image_size=size)
    h, w = (size, size) if isinstance(size, int) else size
    assert classifier.spec.image_shape == (h, w, 3)
    assert_logits(classifier, net, images(2, (h, w, 3)))
    export_file(classifier, tmp_path / "ours.pth")
    again = load_classifier(tmp_path / "ours.pth")
    assert (again.spec.image_shape, again.fingerprint()) == (classifier.spec.image_shape, classifier.fingerprint())
    assert "assumed" not in notes(again).split("max pool")[0]


def test_images_of_a_width_that_the_compiled_form_cannot_take_are_refused(tmp_path):
    """The form with joined columns would leave the last ones out."""
    path = save({"state_dict": of_classes(10).state_dict()}, tmp_path / "net.pth")
    classify = load_classifier(path, "none").inference("cpu")
    assert run(classify, jnp.asarray(images(1, (32, 36, 3)))).shape == (1, 10)
    with pytest.raises(ValueError, match="width"):
        classify(jnp.asarray(images(1, (32, 30, 3))))


def test_a_network_of_one_image_size_says_so(tmp_path):
    path = asked(macer(lenet()), tmp_path, "28 x 28 alone", "fc1", image_size=32)
    assert load_classifier(path, image_size=28).spec.image_shape == (28, 28, 1)
    asked({"state_dict": of_classes(10).state_dict()}, tmp_path, "image_size", image_size=(1, 2, 3))
    asked({"state_dict": of_classes(10).state_dict()}, tmp_path, "image_size", image_size=0)


@pytest.mark.slow_for("3-200-True", "3-10-False", "7-10-True", "7-1000-False")
@pytest.mark.parametrize("stem, classes, said", [(3, 10, False), (3, 200, True), (7, 10, True), (7, 1000, False)])
def test_an_assumed_image_size_is_reported(tmp_path, stem, classes, said):
    net = ResNet((2, 2, 2, 2), None, stem, classes)
    path = save({"state_dict": net.state_dict()}, tmp_path / "net.pth")
    side = {3: 32, 7: 224}[stem]
    words = notes(load_classifier(path, "none"))
    assert (f"Images of {side} x {side} are assumed" in words and "image_size sets it" in words) == said
    assert "Images of" not in notes(load_classifier(path, "none", image_size=64))


@pytest.mark.slow
@pytest.mark.parametrize("pool", [False, True])
@pytest.mark.parametrize("stem", [3, 7])
def test_a_max_pool_that_no_tensor_shows(tmp_path, stem, pool):
    net = resnet18(stem, 10, pool)
    path = save({"state_dict": net.state_dict()}, tmp_path / "net.pth")
    classifier = load_classifier(path, "none", image_size=32, max_pool=pool)
    assert_logits(classifier, net, images(2, (32, 32, 3)))
    assert classifier.spec.options.get("max_pool", stem == 7) == pool and "max pool" not in notes(classifier)
    silent = load_classifier(path, "none", image_size=32)
    assert ("No max pool is assumed" in notes(silent) and "max_pool sets one" in notes(silent)) == (stem == 3)
    assert "max_pool" not in silent.spec.options
    export_file(classifier, tmp_path / "ours.pth")
    again = load_classifier(tmp_path / "ours.pth")
    assert again.spec.options == classifier.spec.options and again.fingerprint() == classifier.fingerprint()
    x = jnp.asarray(images(2, (32, 32, 3)))
    different = abs(np.asarray(run(silent.classify, x)) - np.asarray(run(classifier.classify, x))).max()
    assert (different > 1e-3) == (pool != (stem == 7))


def test_a_max_pool_of_cifar_networks_and_of_those_that_have_no_choice(tmp_path):
    path = save({"state_dict": of_classes(10).state_dict()}, tmp_path / "net.pth")
    classifier = load_classifier(path, "none", max_pool=True)
    assert classifier.spec.options == {"max_pool": True}
    net = of_classes(10)

    def pooled(x):
        x = torch.nn.functional.max_pool2d(torch.relu(net.bn1(net.conv1(x))), 3, 2, 1)
        return net.fc(net.layer3(net.layer2(net.layer1(x))).mean((2, 3)))

    assert_logits(classifier, pooled, images(2, (32, 32, 3)))
    asked(macer(lenet()), tmp_path, "max_pool is of ResNets", max_pool=True)


@pytest.mark.slow
def test_advice_for_images_of_another_size(tmp_path):
    def message(net, shape, **given):
        classifier = load_classifier(save({"state_dict": net.state_dict()}, tmp_path / "net.pth"), "none", **given)
        dataset = Dataset("d", "test", "here", ["a"], np.zeros(1, int), lambda i: np.zeros(shape, np.uint8), "")
        with pytest.raises(UserError) as error:
            fit_image(classifier.spec, dataset, 0, np.zeros(shape, np.float32), "net.pth")
        return error.value

    small = message(resnet18(7), (32, 32, 3))
    assert "image_size 32 32" in str(small) and small.settings == ("image_size",)  # another classifier
    large = message(resnet18(7), (500, 375, 3))
    assert "image_size 500 375" in str(large) and large.settings == ("image_size", "resize")
    assert message(ResNet((2, 2, 2, 2), None, 7, 1000), (500, 375, 3)).settings == ("resize",)
    assert message(lenet(), (32, 32, 1)).settings == ("resize",)


# Small files of kinds that people have


@pytest.fixture(scope="module")
def cases(tmp_path_factory):
    script = SHARED / "cases" / "checkpoints.py"
    if not script.exists():
        pytest.skip("needs the small checkpoints")
    folder = tmp_path_factory.mktemp("cases")
    subprocess.run([sys.executable, script, folder], check=True)
    yield folder
    for file in folder.iterdir():
        file.unlink()


@pytest.mark.parametrize(
    "name, given, arch, mean",
    [
        ("scheduler_counter", {}, "cifar_resnet20", 0.4914),
        ("numpy_losses", {}, "cifar_resnet20", 0.4914),
        ("model_state_dict", {"normalization": "cifar10"}, "cifar_resnet20", 0.4914),
        ("model_and_ema", {"field": "model_ema", "normalization": "cifar10"}, "cifar_resnet20", 0.4914),
        ("cifar100_cohen", {}, "cifar_resnet20", 0.5071),
        ("option_a_with_arch", {"normalization": "cifar10"}, "cifar_resnet32", 0.4914),
        ("option_a_relative", {"normalization": "cifar10"}, "cifar_resnet32", 0.4914),
        ("depth_50", {}, "cifar_resnet50", 0.4914),
        ("depth_14", {"normalization": "cifar10"}, "cifar_resnet14", 0.4914),
        ("lenet_cohen", {"normalization": "none"}, "lenet", 0.0),
        ("stem_7x7_of_32x32", {"normalization": "none", "image_size": 32}, "resnet18", 0.0),
        ("grey_28x28", {"normalization": "none", "image_size": 28}, "resnet18", 0.0),
        ("tiny_64x64", {"normalization": "none", "image_size": 64}, "resnet18", 0.0),
        ("means_and_sds", {}, "cifar_resnet20", 0.5),
        ("lightning_loss_weights", {"normalization": "none", "prefix": "model."}, "cifar_resnet20", 0.0),
        ("attacker_wrapped", {}, "resnet18", 0.5),
    ],
)
def test_cases_open(cases, name, given, arch, mean):
    spec = load_classifier(cases / f"{name}.pth", **given).spec
    assert spec.arch == arch and spec.mean[0] == mean
    size = given.get("image_size", 28 if arch == "lenet" else 32)
    assert spec.image_shape[:2] == (size, size)


@pytest.mark.parametrize(
    "name, given, words",
    [
        ("model_and_ema", {}, "model, model_ema.*by field"),
        ("option_a_with_arch", {}, "imagenet.*cifar10.*by normalization"),
        ("option_a_relative", {}, "imagenet.*cifar10.*by normalization"),
        ("lenet_cohen", {}, "none .*by normalization"),
        ("lightning_loss_weights", {"normalization": "none"}, "prefix model.*criterion.weight"),
        ("lfs_pointer", {}, "Git LFS pointer"),
        ("web_page", {}, "web page"),
    ],
)
def test_cases_ask(cases, name, given, words):
    with pytest.raises(CheckpointError, match=words):
        load_classifier(cases / f"{name}.pth", **given)


def test_safetensors_with_options(tmp_path):
    save_file({**prefixed(of_classes(10), "model."), "loss.weight": torch.ones(3)}, tmp_path / "net.safetensors")
    with pytest.raises(CheckpointError, match="prefix model"):
        load_classifier(tmp_path / "net.safetensors", "none")
    classifier = load_classifier(tmp_path / "net.safetensors", "none", prefix="model.", image_size=36)
    assert classifier.spec.image_shape == (36, 36, 3)
