"""Steps of training, their noise, the loss of MACER, and networks that were trained in other programs."""

import copy
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from checkpoints import cohen, images, resnet, save, torch_logits
from flax import nnx
from scipy import stats
from with_torch import torch

from qcrs_jax.convert.load import convert_file
from qcrs_jax.errors import SettingError
from qcrs_jax.models import Spec
from qcrs_jax.training import Gaussian, LogUniform, Macer, Trainer, TrainState, crop_and_flip, sgd
from qcrs_jax.training.levels import draw_noise

SPEC = Spec("lenet", 10, (28, 28, 1), (0.5,), (0.25,))


def torch_macer(logits, labels, method):
    """The two losses as the published program has them, up to the division by the batch."""
    soft = torch.softmax(logits, dim=2).mean(1)
    classification = torch.nn.functional.nll_loss(torch.log(soft + 1e-10), labels, reduction="sum")
    top, classes = torch.softmax(method.beta * logits, dim=2).mean(1).topk(2)
    top = top[classes[:, 0] == labels]
    normal = torch.distributions.Normal(0.0, 1.0)
    gap = normal.icdf(top[:, 0]) - normal.icdf(top[:, 1])
    top = top[torch.isfinite(gap) & (gap.abs() <= method.gamma)]
    robustness = (method.gamma - normal.icdf(top[:, 0]) + normal.icdf(top[:, 1])).sum() * method.sigma / 2
    return (classification + method.lbd * robustness) / len(labels)


@pytest.mark.parametrize("scale", [0.05, 0.5, 2.0])
def test_the_loss_of_macer_and_its_gradient_are_those_of_pytorch(scale):
    method = Macer(0.25, copies=4)
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 10, 32)
    logits = scale * (rng.normal(size=(32, 4, 10)) + 2 * np.eye(10)[labels][:, None]).astype(np.float32)
    theirs = torch.tensor(logits, dtype=torch.float64, requires_grad=True)
    loss = torch_macer(theirs, torch.tensor(labels), method)
    loss.backward()
    of_logits = jax.jit(jax.value_and_grad(lambda logits, labels: method.of_logits(logits, labels, 0.25)))
    value, gradient = of_logits(jnp.asarray(logits), jnp.asarray(labels))
    assert value == pytest.approx(float(loss.detach()), rel=1e-4)
    np.testing.assert_allclose(gradient, theirs.grad, atol=2e-3 * float(theirs.grad.abs().max()))


@pytest.mark.slow
def test_certain_copies_give_macer_no_infinite_gradient():
    logits = jnp.zeros((2, 3, 10)).at[:, :, 1].set(1e4)
    of_logits = lambda logits, labels: Macer(0.25, copies=3).of_logits(logits, labels, 0.25)  # noqa: E731
    value, gradient = jax.jit(jax.value_and_grad(of_logits))(logits, jnp.array([1, 2]))
    assert np.isfinite(value) and np.isfinite(gradient).all()


@pytest.mark.parametrize("settings", [{"sigma": 0.0}, {"sigma": 0.1, "copies": 0}, {"sigma": 0.1, "gamma": -1.0}])
def test_impossible_settings_are_refused(settings):
    with pytest.raises(ValueError, match=f"{list(settings)[-1]} must be positive"):
        Macer(**settings)


@pytest.mark.parametrize("low, high", [(0.0, 1.0), (-0.1, 1.0), (1.0, 0.2), (0.5, 0.5), (0.2, np.inf), (np.nan, 1.0)])
def test_a_bad_range_of_noise_levels_is_refused_by_name(low, high):
    with pytest.raises(SettingError, match="sigma_range") as refused:
        LogUniform(low, high)
    assert refused.value.settings[0] == "sigma_range"


def test_levels_of_a_range_are_uniform_in_the_logarithm():
    levels = LogUniform(0.2, 1.0).draw(jax.random.key(0), 4000)
    assert levels.min() >= 0.2 and levels.max() <= 1.0
    assert stats.kstest(levels, stats.loguniform(0.2, 1.0).cdf).pvalue > 0.01
    assert LogUniform(0.2, 1.0).middle == pytest.approx(stats.loguniform(0.2, 1.0).median())


@pytest.mark.slow
def test_all_copies_of_an_image_have_one_level_and_images_have_their_own():
    noise, sigmas = draw_noise(jnp.zeros((6, 20, 20, 3)), LogUniform(0.1, 2.0), 3, jax.random.key(0))
    assert len(set(sigmas.tolist())) == 6
    np.testing.assert_allclose(noise.std(axis=(2, 3, 4)), np.broadcast_to(sigmas[:, None], (6, 3)), rtol=0.1)
    assert not np.array_equal(noise[:, 0], noise[:, 1])
    again, _ = draw_noise(jnp.zeros((6, 20, 20, 3)), LogUniform(0.1, 2.0), 3, jax.random.key(0))
    assert np.array_equal(noise, again)


@pytest.mark.slow
def test_noise_at_one_level_is_sigma_times_normal_noise():
    x, key = jnp.asarray(images(4, (5, 5, 1))), jax.random.key(3)
    noise, sigmas = draw_noise(x, 0.3, 2, key)
    assert np.array_equal(noise, 0.3 * jax.random.normal(key, (4, 2, 5, 5, 1)))
    assert np.array_equal(sigmas, np.full(4, 0.3, np.float32))


@pytest.mark.slow
def test_the_radius_of_macer_is_in_units_of_each_image_s_level():
    logits = jax.random.normal(jax.random.key(0), (2, 4, 10)) + 2 * jax.nn.one_hot(jnp.array([1, 2]), 10)[:, None]
    labels, method = jnp.array([1, 2]), Macer(0.25, copies=4)
    one_by_one = [method.of_logits(logits[i : i + 1], labels[i : i + 1], level) for i, level in enumerate((0.25, 0.75))]
    both = Macer(LogUniform(0.2, 1.0), copies=4).of_logits(logits, labels, jnp.array([0.25, 0.75]))
    assert both == pytest.approx(float(sum(one_by_one)) / 2, rel=1e-5)


def test_sgd_is_that_of_pytorch():
    optimizer = sgd(0.1, 0.9, 0.01)
    ours = jnp.array([1.0, -2.0, 3.0])
    theirs = torch.tensor([1.0, -2.0, 3.0], requires_grad=True)
    reference, state = torch.optim.SGD([theirs], 0.1, momentum=0.9, weight_decay=0.01), optimizer.init(ours)
    for _ in range(4):
        update, state = optimizer.update(jnp.sin(ours), state, ours)
        ours = optax.apply_updates(ours, update)
        reference.zero_grad()
        (-torch.cos(theirs)).sum().backward()
        reference.step()
    np.testing.assert_allclose(ours, theirs.detach(), rtol=1e-6)


@pytest.mark.slow
def test_a_step_in_training_mode_is_that_of_pytorch(tmp_path):
    """Logits, gradients and batch statistics, through every block: without noise both see the same images."""
    net = resnet(20)
    classifier = convert_file(save(cohen(net, "cifar_resnet20"), tmp_path / "net.pth.tar"))
    _, weights, statistics = nnx.split(classifier.model, nnx.Param, ...)
    weights, statistics = nnx.to_pure_dict(weights), nnx.to_pure_dict(statistics)
    optimizer = sgd(0.1, 0.0, 0.0)
    trainer = Trainer(classifier.spec, Gaussian(1e-12), optimizer)
    state = TrainState(weights, statistics, optimizer.init(weights), jnp.int32(0))
    x, y = images(8, (32, 32, 3)), np.arange(8)
    copied = jax.tree.map(jnp.copy, state)  # a step gives the arrays of its state away
    after, loss, _ = trainer.step(copied, jnp.asarray(x), jnp.asarray(y), jax.random.key(0))

    theirs = copy.deepcopy(net).train()
    for module in theirs.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 0.1
    mean, std = (np.array(v, np.float32) for v in (classifier.spec.mean, classifier.spec.std))
    theirs.zero_grad()
    logits = theirs(torch.from_numpy((x - mean) / std).permute(0, 3, 1, 2).contiguous())
    torch_loss = torch.nn.functional.cross_entropy(logits, torch.from_numpy(y))
    torch_loss.backward()
    assert loss == pytest.approx(float(torch_loss.detach()), rel=1e-4)
    gradients = jax.tree.map(lambda new, old: (old - new) / 0.1, after.weights, state.weights)
    for ours, grad in [
        (gradients["conv1"]["conv"]["kernel"], theirs.conv1.weight.grad.permute(2, 3, 1, 0)),
        (
            gradients["layer2"]["rest"]["conv1"]["conv"]["kernel"][1],
            theirs.layer2[2].conv1.weight.grad.permute(2, 3, 1, 0),
        ),
        (gradients["layer3"]["first"]["shortcut"]["norm"]["scale"], theirs.layer3[0].downsample[1].weight.grad),
    ]:
        np.testing.assert_allclose(ours, grad, atol=2e-3 * float(grad.abs().max()))
    running = after.statistics["layer3"]["rest"]["conv2"]["norm"]["mean"][1]
    np.testing.assert_allclose(running, theirs.layer3[2].bn2.running_mean, atol=1e-4)


@functools.cache
def trainer_of(method, dtype, augment):
    return Trainer(SPEC, method, sgd(0.02, 0.9, 0.0), dtype=dtype, augment=augment)


def trained(method, steps=12, dtype=jnp.float32, augment=None):
    """A LeNet after some steps on images whose class is a bright row, and what it started from."""
    labels = np.arange(20) % 10
    x = np.full((20, 28, 28, 1), 0.2, np.float32)
    x[np.arange(20), 2 * labels + 3] = 0.9
    trainer = trainer_of(method, dtype, augment)
    state, losses = trainer.init(0), []
    for _ in range(steps):
        state, loss, _ = trainer.step(state, jnp.asarray(x), jnp.asarray(labels), jax.random.key(1))
        losses.append(float(loss))
    return trainer, state, losses, x, labels


@pytest.mark.slow
@pytest.mark.parametrize("method", [Gaussian(0.1), Gaussian(LogUniform(0.05, 0.2)), Macer(0.1, copies=3, lbd=1.0)])
def test_training_lowers_the_loss_and_is_reproducible(method):
    trainer, state, losses, x, labels = trained(method, steps=30)
    assert np.mean(losses[-3:]) < 0.5 * np.mean(losses[:3])
    again = trained(method, steps=30)[1]
    assert all(map(np.array_equal, jax.tree.leaves(state), jax.tree.leaves(again)))
    hits = trainer.hits(state, jnp.asarray(x), jnp.asarray(labels), 0.05, jax.random.key(2))
    classify = trainer.classifier(state, {"sigma": 0.1}).classify
    right = (np.argmax(classify(jnp.asarray(x)), axis=-1) == labels).sum()
    assert hits >= 15 and right >= 15
    none = trainer.hits(state, jnp.asarray(x), jnp.full(20, -1), 0.05, jax.random.key(2))
    assert none == 0


@pytest.mark.slow
def test_in_bfloat16_the_weights_stay_float32():
    _, state, losses, *_ = trained(Gaussian(0.1), steps=5, dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.weights)} == {jnp.dtype("float32")}
    assert np.isfinite(losses).all()
    np.testing.assert_allclose(losses, trained(Gaussian(0.1), steps=5)[2], rtol=0.05)


@pytest.mark.slow
def test_crops_and_flips_are_shifts_and_mirror_images():
    x = jnp.asarray(images(16, (8, 8, 3)))
    out = np.asarray(jax.jit(crop_and_flip(2))(jax.random.key(0), x))
    padded = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)))
    seen = set()
    for image, source in zip(out, padded):
        options = {
            (i, j, flip): source[i : i + 8, j : j + 8][:, :: -1 if flip else 1]
            for i in range(5)
            for j in range(5)
            for flip in (False, True)
        }
        seen |= {name for name, option in options.items() if np.array_equal(image, option)}
    assert len({flip for *_, flip in seen}) == 2 and len(seen) > 8


@pytest.mark.slow
def test_torch_logits_of_a_trained_network_survive_the_way_through_a_pytorch_file(tmp_path):
    from with_torch import LeNet

    from qcrs_jax.convert.export import export_file

    trainer, state, _, x, _ = trained(Gaussian(0.1), steps=2)
    classifier = trainer.classifier(state, {"sigma": 0.1})
    export_file(classifier, tmp_path / "lenet.pth")
    net = LeNet().eval()
    net.load_state_dict(torch.load(tmp_path / "lenet.pth")["net"])
    np.testing.assert_allclose(classifier.classify(jnp.asarray(x)), torch_logits(net, (x - 0.5) / 0.25), atol=1e-4)
