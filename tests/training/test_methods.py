"""The losses of the methods of training, on logits and on linear classifiers, against PyTorch and closed forms."""

import dataclasses
import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from checkpoints import images
from with_torch import torch

from qcrs_jax.errors import SettingError
from qcrs_jax.experiments import cli
from qcrs_jax.experiments.commands.flags import described, given_fields
from qcrs_jax.experiments.run.training import completed
from qcrs_jax.experiments.run.training_settings import Training
from qcrs_jax.models import Spec
from qcrs_jax.training import (
    METHODS,
    Batch,
    CatRS,
    Consistency,
    Gaussian,
    LogUniform,
    Macer,
    SmoothAdv,
    SmoothMix,
    Trainer,
    sgd,
)
from qcrs_jax.training.attack import ascend, into_ball, norms
from qcrs_jax.training.levels import draw_noise
from qcrs_jax.training.probabilities import cross_entropy, divergence, entropy, soft_cross_entropy

KEY = jax.random.key(0)
SMALL = {
    "gaussian": Gaussian(0.1),
    "macer": Macer(0.1, copies=3, lbd=1.0),
    "smoothadv": SmoothAdv(0.1, copies=2, epsilon=0.3, steps=2, warmup=1),
    "consistency": Consistency(0.1, copies=2, lbd=2.0),
    "smoothmix": SmoothMix(0.1, copies=2, steps=2, step_size=0.2, eta=1.0, warmup=1, one_step=True),
    "catrs": CatRS(0.1, copies=2, epsilon=0.2, steps=2, lbd=0.5),
}
"""Each method, for small runs."""


class Linear:
    """Passes of a linear classifier of two or more classes: logits = images . weights. They count themselves."""

    def __init__(self, weights):
        self.weights, self.passes = jnp.asarray(weights), []

    def learn(self, images):
        self.passes.append("learn")
        return jnp.einsum("...hwc,hwcn->...n", images, self.weights)

    def probe(self, images):
        self.passes.append("probe")
        return jnp.einsum("...hwc,hwcn->...n", images, self.weights)


def linear(seed=0, classes=3, shape=(4, 4, 1)):
    return Linear(np.random.default_rng(seed).normal(size=(*shape, classes)).astype(np.float32))


def batch_of(m=6, classes=3, shape=(4, 4, 1), seed=1):
    rng = np.random.default_rng(seed)
    predictions = rng.dirichlet(np.ones(classes), size=m).astype(np.float32)
    return Batch(
        jnp.asarray(rng.uniform(0.3, 0.7, (m, *shape)), jnp.float32),
        jnp.asarray(rng.integers(0, classes, m)),
        jnp.int32(100),
        jnp.asarray(predictions),
    )


def logits_of(seed=0, shape=(16, 4, 5), scale=2.0):
    return scale * np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def compared(ours, theirs, logits, **kwargs):
    """Compares the values and the gradients by the logits of two losses, of JAX and of PyTorch."""
    tensors = [torch.tensor(np.asarray(x), dtype=torch.float64, requires_grad=True) for x in logits]
    value = theirs(*tensors)
    value.backward()
    places = tuple(range(len(logits)))
    mine, gradients = jax.value_and_grad(ours, argnums=places)(*map(jnp.asarray, logits))
    assert mine == pytest.approx(float(value.detach()), rel=1e-5)
    for gradient, tensor in zip(gradients, tensors):
        np.testing.assert_allclose(gradient, tensor.grad, atol=1e-5 * float(tensor.grad.abs().max()) + 1e-8, rtol=1e-3)


# Parts of losses


def test_divergence_entropy_and_cross_entropy_are_those_of_pytorch():
    a, b = logits_of(0, (8, 5)), logits_of(1, (8, 5))
    target = torch.softmax(torch.tensor(a), dim=1)
    kl = torch.nn.functional.kl_div(torch.log_softmax(torch.tensor(b), dim=1), target, reduction="none").sum(1)
    np.testing.assert_allclose(divergence(jax.nn.softmax(a), jnp.asarray(b)), kl, rtol=1e-4)
    np.testing.assert_allclose(entropy(jax.nn.softmax(a)), torch.distributions.Categorical(target).entropy(), rtol=1e-5)
    labels = np.arange(8) % 5
    expected = torch.nn.functional.cross_entropy(torch.tensor(a), torch.tensor(labels), reduction="none")
    np.testing.assert_allclose(cross_entropy(jnp.asarray(a), jnp.asarray(labels)), expected, rtol=1e-5)
    copied = cross_entropy(jnp.stack([a, b], axis=1), jnp.asarray(labels))
    np.testing.assert_allclose(copied[:, 0], expected, rtol=1e-5)


@pytest.mark.slow
def test_parts_are_finite_and_exact_at_certain_predictions():
    certain, other = jax.nn.one_hot(jnp.array([0]), 3), jnp.array([[1e4, 0.0, 0.0]])
    assert entropy(certain)[0] == 0 and divergence(certain, other)[0] == 0
    assert divergence(certain, jnp.array([[0.0, math.log(2.0), 0.0]]))[0] == pytest.approx(math.log(4))
    for gradient in (
        jax.grad(lambda p: entropy(p).sum())(certain),
        jax.grad(lambda z: divergence(certain, z).sum())(other),
    ):
        assert np.isfinite(gradient).all()


@pytest.mark.slow
def test_the_soft_cross_entropy_is_that_of_the_mean_softmax_and_keeps_its_gradient_far_away():
    logits, labels = jnp.asarray(logits_of()), jnp.arange(16) % 5
    mean = jax.nn.softmax(logits).mean(axis=1)
    expected = -jnp.log(jnp.take_along_axis(mean, labels[:, None], axis=1)[:, 0])
    np.testing.assert_allclose(soft_cross_entropy(logits, labels), expected, rtol=1e-5)
    far = jnp.zeros((1, 2, 3)).at[:, :, 1].set(200.0)
    value, gradient = jax.value_and_grad(lambda z: soft_cross_entropy(z, jnp.array([0])).sum())(far)
    assert value == pytest.approx(200.0) and gradient[0, 0, 0] == pytest.approx(-0.5)


# The attack


def test_a_vector_in_the_ball_stays_and_another_is_shortened():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 4, 4, 1)), jnp.float32)
    inside = into_ball(x, 100.0)
    assert np.array_equal(inside, x)
    short = into_ball(x, 0.5)
    np.testing.assert_allclose(norms(short), np.full((2, 3, 1, 1, 1), 0.5), rtol=1e-5)
    np.testing.assert_allclose(short / norms(short), x / norms(x), rtol=1e-4, atol=1e-6)
    assert np.array_equal(into_ball(jnp.zeros((4, 4, 1)), 0.0), jnp.zeros((4, 4, 1)))


def test_ascent_without_a_gradient_stays_and_its_result_is_a_constant():
    start = jnp.full((2, 3, 3, 1), 0.5)
    found = ascend(lambda x: 0.0 * x.sum(), start, steps=3, step_size=0.1, project=lambda x: x)
    assert np.array_equal(found, start)

    def through(scale):
        return ascend(lambda x: (scale * x).sum(), start, steps=2, step_size=0.1, project=lambda x: x).sum()

    assert jax.grad(through)(1.0) == 0


@pytest.mark.slow
@pytest.mark.parametrize("warmup, epsilon", [(1, 0.3), (404, 0.3 * 101 / 404)])
def test_the_attack_of_smoothadv_on_a_linear_classifier_goes_along_the_difference_of_the_weights(warmup, epsilon):
    """Between two classes every gradient is along one direction, and the ascent ends on the sphere at epoch 100."""
    network, batch = linear(classes=2), batch_of(classes=2)
    method = SmoothAdv(0.1, copies=3, epsilon=0.3, steps=4, warmup=warmup)
    noise, _ = draw_noise(batch.images, 0.1, 3, KEY)
    moved = method.attack(network, batch, noise)
    away = network.weights[..., 1] - network.weights[..., 0]
    signs = 1 - 2 * batch.labels[:, None, None, None]
    expected = epsilon * signs * away / norms(away)
    np.testing.assert_allclose(moved - batch.images, jnp.broadcast_to(expected, moved.shape), atol=1e-5)


@pytest.mark.slow
def test_the_attack_stays_in_its_ball_and_among_images():
    network, batch = linear(), batch_of()
    for scale in (0.2, 3.0):
        for image in (batch.images, jnp.zeros_like(batch.images), jnp.ones_like(batch.images)):
            near = SmoothAdv(0.1, copies=2, epsilon=scale, steps=5, warmup=1)
            noise, _ = draw_noise(image, 0.1, 2, KEY)
            moved = near.attack(network, batch._replace(images=image), noise)
            assert moved.min() >= 0 and moved.max() <= 1 and norms(moved - image).max() <= scale * (1 + 1e-6)


def transcribed_smoothadv(weights, x, labels, noise, epsilon, steps):
    """The attack of the published program, of PyTorch's operations, for a linear network."""
    weights, x, noise = (torch.tensor(np.asarray(v), dtype=torch.float64) for v in (weights, x, noise))
    delta = torch.zeros_like(x, requires_grad=True)
    for _ in range(steps):
        logits = torch.einsum("bkhwc,hwcn->bkn", (x + delta)[:, None] + noise, weights)
        loss = torch.nn.functional.nll_loss(
            torch.log(torch.softmax(logits, 2).mean(1)), torch.tensor(np.asarray(labels, np.int64))
        )
        (gradient,) = torch.autograd.grad(loss, delta)
        with torch.no_grad():
            step = gradient / gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
            moved = (x + delta + 2 * epsilon / steps * step).clamp(0, 1) - x
            delta = moved.renorm(2, 0, epsilon).requires_grad_()
    return (x + delta).detach().numpy()


def test_the_attack_of_smoothadv_is_that_of_the_published_program():
    network, batch = linear(), batch_of()
    noise, _ = draw_noise(batch.images, 0.3, 2, KEY)
    moved = SmoothAdv(0.3, copies=2, epsilon=0.8, steps=3, warmup=1).attack(network, batch, noise)
    expected = transcribed_smoothadv(network.weights, batch.images, batch.labels, noise, 0.8, 3)
    np.testing.assert_allclose(moved, expected, atol=1e-5)


def transcribed_catrs(weights, x, predictions, noise, epsilon, steps):
    """The noise of the published program, of PyTorch's operations, for a linear network."""
    weights, x, noise0 = (torch.tensor(np.asarray(v), dtype=torch.float64) for v in (weights, x, noise))
    target, shape = torch.tensor(np.asarray(predictions), dtype=torch.float64), noise0.shape
    first = noise0.reshape(-1, *shape[2:])
    mean = first.flatten(1).mean(1).view(-1, 1, 1, 1)
    root = (first**2).flatten(1).mean(1).sqrt().view(-1, 1, 1, 1)
    moved = first.clone()
    for _ in range(steps):
        moved.requires_grad_()
        logits = torch.einsum("bkhwc,hwcn->bkn", x[:, None] + moved.view(shape), weights)
        loss = torch.nn.functional.kl_div(
            torch.log_softmax(logits, 2), target[:, None].expand_as(logits), reduction="sum"
        )
        (gradient,) = torch.autograd.grad(loss, moved)
        with torch.no_grad():
            moved = moved + 2 * epsilon / steps * gradient / gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
            moved = first + (moved - first).renorm(2, 0, epsilon)
            mu = moved.flatten(1).mean(1).view(-1, 1, 1, 1)
            sigma = (moved**2).flatten(1).mean(1).sqrt().view(-1, 1, 1, 1)
            moved = mean + (moved - mu) / sigma * root
    return moved.view(shape).numpy()


def test_the_worst_noise_of_catrs_is_that_of_the_published_program():
    network, batch = linear(), batch_of()
    noise, _ = draw_noise(batch.images, 0.5, 2, KEY)
    worst = CatRS(0.5, copies=2, epsilon=0.7, steps=3).attack(network, batch, noise)
    expected = transcribed_catrs(network.weights, batch.images, batch.predictions, noise, 0.7, 3)
    np.testing.assert_allclose(worst, expected, atol=1e-4)
    np.testing.assert_allclose(worst.mean(axis=(2, 3, 4)), noise.mean(axis=(2, 3, 4)), atol=1e-5)


@pytest.mark.slow
def test_the_steps_of_smoothmix_have_their_length_and_its_start_is_near():
    network, batch = linear(classes=2), batch_of(classes=2)
    batch = batch._replace(images=jnp.full_like(batch.images, 0.5))
    method = SmoothMix(0.1, copies=2, steps=3, step_size=0.1, warmup=1)
    noise, _ = draw_noise(batch.images, 0.1, 2, KEY)
    start, end = method.attack(network, batch, noise)
    assert np.array_equal(start, batch.images)
    np.testing.assert_allclose(norms(end - start)[:, 0, 0, 0], np.full(6, 0.3), rtol=1e-4)
    near, far = dataclasses.replace(method, one_step=True).attack(network, batch, noise, grown=0.5)
    assert np.array_equal(far, end)
    np.testing.assert_allclose(norms(near - batch.images)[:, 0, 0, 0], np.full(6, 0.05), rtol=1e-4)


# Losses of logits


def test_the_loss_of_consistency_is_that_of_pytorch():
    labels, method = np.arange(16) % 5, Consistency(0.25, copies=4, lbd=20.0, eta=0.5)

    def theirs(logits):
        f, mean = torch.nn.functional, torch.softmax(logits, 2).mean(1)
        copies = [logits[:, i] for i in range(4)]
        xent = f.cross_entropy(torch.cat(copies), torch.tensor(labels).repeat(4))
        kl = sum(f.kl_div(f.log_softmax(z, 1), mean, reduction="none").sum(1) for z in copies) / 4
        return xent + (20.0 * kl - 0.5 * (mean * torch.log(mean.clamp(min=1e-20))).sum(1)).mean()

    compared(lambda z: method.of_logits(z, jnp.asarray(labels)), theirs, [logits_of()])


@pytest.mark.parametrize("grown", [1.0, 0.3])
def test_the_loss_of_smoothmix_is_that_of_pytorch(grown):
    clean, mixed, labels = logits_of(0), logits_of(1), np.arange(16) % 5
    clean[np.arange(8), :, labels[:8]] += 3.0  # half of them are right
    share = np.random.default_rng(2).uniform(0, 0.5, 16).astype(np.float32)
    method = SmoothMix(0.25, copies=4, eta=5.0)

    def theirs(clean, mixed):
        f, y = torch.nn.functional, torch.tensor(labels)
        mean, lam = torch.softmax(clean, 2).mean(1), torch.tensor(share, dtype=torch.float64)[:, None]
        target = (1 - lam) * mean + lam * torch.full((1, 5), 0.2)
        right = (mean.argmax(1) == y).double()
        xent = f.cross_entropy(clean.transpose(0, 1).reshape(-1, 5), y.repeat(4))
        mix = f.kl_div(f.log_softmax(mixed.transpose(0, 1).reshape(-1, 5), 1), target.repeat(4, 1), reduction="none")
        return xent + 5.0 * grown * (right.repeat(4) * mix.sum(1)).mean()

    def ours(clean, mixed):
        return method.of_logits(clean, mixed, jnp.asarray(labels), jnp.asarray(share), grown)

    compared(ours, theirs, [clean, mixed])


def test_the_loss_of_catrs_is_that_of_pytorch():
    logits, worst, labels = logits_of(0), logits_of(1), np.arange(16) % 5
    predictions = np.random.default_rng(3).dirichlet(np.ones(5), 16).astype(np.float32)
    learned = np.arange(16) % 4 + 1
    method = CatRS(0.5, copies=4, lbd=1.5)

    def theirs(logits, worst):
        f, y = torch.nn.functional, torch.tensor(labels)
        xent = torch.stack([f.cross_entropy(logits[:, i], y, reduction="none") for i in range(4)], 1).sort()[0]
        low = (xent * torch.ones(5, 4).tril(-1)[torch.tensor(learned)]).mean(1)
        target = torch.tensor(predictions, dtype=torch.float64)
        kl = torch.stack(
            [f.kl_div(f.log_softmax(worst[:, i], 1), target, reduction="none").sum(1) for i in range(4)], 1
        )
        return (low + 1.5 * kl.max(1)[0] * (torch.tensor(learned) == 4)).mean()

    def ours(logits, worst):
        return method.of_logits(logits, worst, *map(jnp.asarray, (labels, predictions, learned)))

    compared(ours, theirs, [logits, worst])


@pytest.mark.slow
def test_without_their_own_terms_the_methods_are_cross_entropy():
    network, batch = linear(), batch_of()
    noise, _ = draw_noise(batch.images, 0.2, 2, KEY)
    expected = cross_entropy(network.learn(batch.images[:, None] + noise), batch.labels).mean()
    for method in (
        Consistency(0.2, copies=2, lbd=0.0, eta=0.0),
        SmoothAdv(0.2, copies=2, epsilon=0.0, steps=2, warmup=1),
        SmoothMix(0.2, copies=2, steps=2, eta=0.0),
    ):
        value, logits = method.loss(network, batch, KEY)
        assert value == pytest.approx(float(expected), rel=1e-6), method.name
        np.testing.assert_allclose(logits, network.learn(batch.images[:, None] + noise), rtol=1e-5, atol=1e-6)
    one, _ = Consistency(0.2, copies=1, lbd=7.0, eta=0.0).loss(network, batch, KEY)  # one copy agrees with itself
    assert one == pytest.approx(float(Gaussian(0.2).loss(network, batch, KEY)[0]), rel=1e-5)
    easy = batch._replace(labels=network.learn(batch.images).argmax(axis=-1))  # all copies right: all are learned
    sure = Linear(1e3 * network.weights)
    value, logits = CatRS(1e-4, copies=2, lbd=0.0).loss(sure, easy, KEY)
    assert value == pytest.approx(float(cross_entropy(logits, easy.labels).mean()), abs=1e-6)


@pytest.mark.slow
def test_consistency_of_equal_uniform_copies_has_a_closed_value():
    """CE is log n; the copies agree; the entropy of the uniform mean is log n."""
    value = Consistency(0.2, copies=3, lbd=9.0, eta=0.5).of_logits(jnp.zeros((4, 3, 10)), jnp.arange(4))
    assert value == pytest.approx(1.5 * math.log(10), rel=1e-6)


@pytest.mark.slow
def test_consistency_of_opposite_certain_copies_pays_lambda_log_2_each():
    """Each copy is certain of another class: KL(mean || F_i) is large, but with softened copies it is computed."""
    p = 0.9
    logits = jnp.log(jnp.array([[[p, 1 - p], [1 - p, p]]]))
    divergence_ = 0.5 * math.log(0.5 / p) + 0.5 * math.log(0.5 / (1 - p))
    expected = -0.5 * (math.log(p) + math.log(1 - p)) + 3.0 * divergence_ + 0.5 * math.log(2)
    assert Consistency(0.2, lbd=3.0).of_logits(logits, jnp.array([0])) == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
def test_catrs_learns_at_least_the_easiest_copy_and_the_worst_noise_only_where_all_are_right():
    labels, predictions = jnp.array([0, 0]), jnp.array([[1.0, 0.0], [1.0, 0.0]])
    logits = jnp.log(jnp.array([[[0.9, 0.1], [0.2, 0.8]], [[0.9, 0.1], [0.6, 0.4]]]))
    worst = jnp.log(jnp.array([[[0.5, 0.5], [0.5, 0.5]], [[0.5, 0.5], [0.25, 0.75]]]))
    value = CatRS(0.5, copies=2, lbd=2.0).of_logits(logits, worst, labels, predictions, jnp.array([1, 2]))
    first = -math.log(0.9) / 2
    second = -(math.log(0.9) + math.log(0.6)) / 2 + 2.0 * math.log(4)
    assert value == pytest.approx((first + second) / 2, rel=1e-6)


@pytest.mark.slow
def test_the_number_of_copies_that_catrs_learns_is_binomial_and_at_least_one():
    """A network that answers class 1 for half of the copies: the loss shows the number through its zeros."""
    m = 4000
    images_ = jnp.full((m, 1, 1, 1), 0.5)
    network = Linear(jnp.array([[[[0.0, 0.0]]]]))  # always class 0, at log 2 for every copy
    batch = Batch(images_, jnp.zeros(m, int), 0, jnp.full((m, 2), 0.5))
    right, _ = CatRS(0.1, copies=4, lbd=0.0).loss(network, batch, KEY)
    assert right == pytest.approx(math.log(2), rel=1e-5)  # all four
    wrong, _ = CatRS(0.1, copies=4, lbd=0.0).loss(network, batch._replace(labels=jnp.ones(m, int)), KEY)
    assert wrong == pytest.approx(math.log(2) / 4, rel=1e-5)  # one, although none is right


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_losses_and_gradients_are_finite_where_the_network_is_certain(name):
    batch = batch_of()
    for scale in (0.0, 1e4):
        weights = scale * linear().weights

        def loss(weights):
            return SMALL[name].loss(Linear(weights), batch, KEY)[0]

        value, gradient = jax.value_and_grad(loss)(weights)
        assert np.isfinite(value) and np.isfinite(gradient).all(), scale


@pytest.mark.slow_for("smoothadv", "smoothmix", "consistency", "macer")
@pytest.mark.parametrize("name", [name for name in METHODS if not METHODS[name].teacher])
def test_methods_take_a_range_of_levels(name):
    method = dataclasses.replace(SMALL[name], sigma=LogUniform(0.05, 0.5))
    value, logits = method.loss(linear(), batch_of(), KEY)
    assert np.isfinite(value) and logits.shape[0] == 6


def test_catrs_refuses_a_range_of_levels():
    with pytest.raises(SettingError, match="method catrs takes one sigma and no sigma_range"):
        CatRS(LogUniform(0.1, 0.5))


def test_catrs_without_predictions_is_refused():
    with pytest.raises(SettingError, match="method catrs needs predictions"):
        CatRS(0.1).loss(linear(), batch_of()._replace(predictions=None), KEY)


# Batch normalisation


def trainer_of(name, spec=None):
    spec = spec or Spec("lenet", 10, (28, 28, 1), (0.5,), (0.25,))
    return Trainer(spec, SMALL[name], sgd(0.02, 0.9, 0.0))


def norm_means(statistics):
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(statistics)])


@pytest.mark.slow
@pytest.mark.parametrize("name, moves", [("smoothadv", 1), ("catrs", 2)])
def test_running_statistics_move_once_for_each_pass_that_learns_and_never_for_an_attack(name, moves, monkeypatch):
    """With no noise and no perturbation all passes see the same images: n moves of rate 0.1 leave 0.9**n."""
    method = {
        "smoothadv": SmoothAdv(1e-9, copies=1, epsilon=0.0, steps=2, warmup=1),
        "catrs": CatRS(1e-9, copies=1, epsilon=0.0, steps=2),
    }[name]
    spec = Spec("cifar_resnet20", 10, (32, 32, 3), (0.5,) * 3, (0.25,) * 3)
    x, y = jnp.asarray(images(4, (32, 32, 3))), jnp.arange(4)
    means = {}
    for each in (Gaussian(1e-9), method):
        trainer = Trainer(spec, each, sgd(0.0, 0.0, 0.0))
        state = trainer.init(0)
        before = norm_means(state.statistics)
        predictions = jnp.full((4, 10), 0.1) if each.teacher else None
        after, _, _ = trainer.step(state, x, y, KEY, predictions)
        means[each.name] = norm_means(after.statistics) - before
    once, found = means["gaussian"], means[name]
    expected = once * sum(0.9**i for i in range(moves))
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(once).max())


# Training


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in METHODS if name not in ("gaussian", "macer")])
def test_each_method_trains_and_continues_exactly(name):
    labels = np.arange(20) % 10
    x = np.full((20, 28, 28, 1), 0.2, np.float32)
    x[np.arange(20), 2 * labels + 3] = 0.9
    predictions = np.eye(10, dtype=np.float32)[labels] if METHODS[name].teacher else None
    trainer, losses = trainer_of(name), []
    state = trainer.init(0)
    for i in range(16):
        if i == 8:
            kept = jax.tree.map(np.asarray, state)
        state, loss, hits = trainer.step(state, jnp.asarray(x), jnp.asarray(labels), KEY, predictions)
        losses.append(float(loss))
    assert np.mean(losses[-3:]) < np.mean(losses[:3]) and 0 <= hits <= 1
    again = jax.tree.map(jnp.asarray, kept)
    for _ in range(8):
        again, _, _ = trainer.step(again, jnp.asarray(x), jnp.asarray(labels), KEY, predictions)
    assert all(map(np.array_equal, jax.tree.leaves(state), jax.tree.leaves(again)))


@pytest.mark.slow
def test_the_warm_up_counts_whole_epochs():
    seen = []

    @dataclasses.dataclass(frozen=True)
    class Seen(Gaussian):
        def loss(self, network, batch, key):
            jax.debug.callback(lambda epoch: seen.append(int(epoch)), batch.epoch)
            return super().loss(network, batch, key)

    spec = Spec("lenet", 10, (28, 28, 1), (0.5,), (0.25,))
    trainer = Trainer(spec, Seen(0.1), sgd(0.01, 0.0, 0.0), steps_per_epoch=2)
    state = trainer.init(0)
    for _ in range(5):
        state, loss, _ = trainer.step(state, jnp.zeros((2, 28, 28, 1)), jnp.array([0, 1]), KEY)
    jax.block_until_ready(loss)
    jax.effects_barrier()
    assert seen == [0, 0, 1, 1, 2]


# Settings


@pytest.mark.parametrize("name", METHODS)
def test_a_method_describes_all_its_settings_and_records_them(name):
    kind = METHODS[name]
    fields = [field.name for field in dataclasses.fields(kind)]
    assert set(fields) <= set(described(kind)) and inspect.getdoc(kind)
    assert list(SMALL[name].recorded()) == fields[1:]
    assert set(kind.positive + kind.nonnegative) <= set(fields)
    for setting in kind.positive + kind.nonnegative:
        with pytest.raises(SettingError, match=f"{setting} must be") as refused:
            dataclasses.replace(SMALL[name], **{setting: type(getattr(SMALL[name], setting))(-1)})
        assert refused.value.settings == (setting,)
    help_ = next(f for f in dataclasses.fields(Training) if f.name == "method").metadata["help"]
    assert name in help_


@pytest.mark.parametrize(
    "name, sigma, settings, recipe",
    [
        ("gaussian", 0.25, {}, (90, 256, 0.1, 1e-4)),
        ("macer", 0.25, {"copies": 16, "lbd": 12.0}, (440, 64, 0.01, 5e-4)),
        ("macer", 0.5, {"lbd": 4.0}, (440, 64, 0.01, 5e-4)),
        ("smoothadv", 0.25, {"copies": 4, "epsilon": 1.0, "steps": 10, "warmup": 10}, (150, 64, 0.1, 1e-4)),
        ("smoothadv", 0.5, {"copies": 8, "epsilon": 1.0}, (150, 32, 0.1, 1e-4)),
        ("smoothadv", 1.0, {"copies": 2, "epsilon": 2.0}, (150, 128, 0.1, 1e-4)),
        ("consistency", 0.25, {"copies": 2, "lbd": 20.0, "eta": 0.5}, (150, 128, 0.1, 1e-4)),
        ("consistency", 1.0, {"lbd": 10.0}, (150, 128, 0.1, 1e-4)),
        ("smoothmix", 0.25, {"copies": 2, "steps": 4, "step_size": 0.5, "eta": 5.0}, (150, 128, 0.1, 1e-4)),
        ("smoothmix", 1.0, {"step_size": 2.0}, (150, 128, 0.1, 1e-4)),
        ("catrs", 0.25, {"copies": 4, "epsilon": 1.0, "steps": 4, "lbd": 0.5}, (150, 64, 0.1, 1e-4)),
        ("catrs", 1.0, {"lbd": 2.0}, (150, 64, 0.1, 1e-4)),
    ],
)
def test_defaults_are_those_of_the_papers_on_cifar10(name, sigma, settings, recipe):
    teacher = "net" if METHODS[name].teacher else None
    training, method = completed(Training(sigma=sigma, method=name, teacher=teacher))
    assert {each: getattr(method, each) for each in settings} == settings
    assert (training.epochs, training.batch, training.lr, training.weight_decay) == recipe


def test_a_setting_of_another_method_is_refused_and_so_is_a_missing_teacher():
    with pytest.raises(SettingError, match="beta is no setting of method gaussian"):
        completed(Training(sigma=0.25, settings={"beta": 3.0}))
    with pytest.raises(SettingError, match="method 'mcaer' is not known; known are gaussian, macer"):
        completed(Training(sigma=0.25, method="mcaer"))
    with pytest.raises(SettingError, match="method catrs needs teacher"):
        completed(Training(sigma=0.25, method="catrs"))
    with pytest.raises(SettingError, match="method macer has no teacher"):
        completed(Training(sigma=0.25, method="macer", teacher="net"))


def test_a_new_method_is_one_class_and_one_line(monkeypatch, capsys):
    @dataclasses.dataclass(frozen=True)
    class Weighted(Gaussian):
        """Cross-entropy, times a number.

        Attributes:
            strength: the number.
        """

        strength: float = 2.0

        name = "weighted"
        positive = ("strength",)

        def loss(self, network, batch, key):
            value, logits = super().loss(network, batch, key)
            return self.strength * value, logits

    monkeypatch.setitem(METHODS, "weighted", Weighted)
    words = ["out", "--method", "weighted", "--sigma", "0.1", "--strength", "3"]
    args = cli.parser_of("train").parse_args(words)
    training = Training(sigma=args.sigma, method=args.method, settings=given_fields(Weighted, args) | {"sigma": 0.1})
    _, method = completed(training)
    assert method == Weighted(0.1, strength=3.0) and method.recorded() == {"strength": 3.0}
    expected = 3 * Gaussian(0.1).loss(linear(), batch_of(), KEY)[0]
    assert method.loss(linear(), batch_of(), KEY)[0] == pytest.approx(float(expected))
    with pytest.raises(SystemExit):
        cli.parser_of("train").parse_args(["--help-method"])
    assert "weighted (default 2.0): the number" in capsys.readouterr().out
