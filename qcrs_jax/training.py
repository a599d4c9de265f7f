"""Training of base classifiers: Gaussian augmentation (Cohen et al. 2019) and MACER (Zhai et al. 2020).

A training step is a function of (state, images, labels, key) alone. The noise of a step comes from its key. A run that
was stopped therefore continues exactly as if it had not been.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
from flax import nnx
from jax.scipy.special import ndtri
from jaxtyping import Array, Float, Int

from .checks import check_sigma
from .errors import SettingError
from .extras import needed_for
from .models import Classifier, Spec, build
from .models.classifier import normalise

with needed_for("training"):
    import optax


@dataclasses.dataclass(frozen=True)
class Gaussian:
    """Gaussian augmentation: cross-entropy of one noisy copy of each image (Cohen et al. 2019).

    Attributes:
        sigma: standard deviation of the noise, in units of pixels in [0, 1].
    """

    sigma: float

    copies = 1

    def __post_init__(self):
        _check(self, positive=("sigma",))
        check_sigma(self.sigma)

    def loss(self, logits: Float[Array, "batch 1 num_classes"], labels: Int[Array, "batch"]) -> Float[Array, ""]:
        """The mean cross-entropy."""
        return optax.softmax_cross_entropy_with_integer_labels(logits[:, 0], labels).mean()


@dataclasses.dataclass(frozen=True)
class Macer:
    """MACER: cross-entropy of the soft smoothed classifier, and a hinge on its radius (Zhai et al. 2020).

    Attributes:
        sigma: standard deviation of the noise, in units of pixels in [0, 1].
        copies: number of noisy copies of each image (the paper's k).
        lbd: weight of the robustness loss, lambda.
        gamma: value of ndtri(p1) - ndtri(p2) beyond which a radius is large enough.
        beta: inverse temperature of the softmax in the robustness loss.
    """

    sigma: float
    copies: int = 16
    lbd: float = 12.0
    gamma: float = 8.0
    beta: float = 16.0

    def __post_init__(self):
        _check(self, positive=("sigma", "copies", "gamma", "beta"), nonnegative=("lbd",))
        check_sigma(self.sigma)

    def loss(self, logits: Float[Array, "batch copies num_classes"], labels: Int[Array, "batch"]) -> Float[Array, ""]:
        """Classification and robustness loss, each a mean over the batch (equations 6 to 9, algorithm 1)."""
        soft = jax.nn.softmax(logits, axis=-1).mean(axis=1)
        true = jnp.take_along_axis(soft, labels[:, None], axis=-1)[:, 0]
        classification = -jnp.log(true + 1e-10)

        (p1, p2), (top, _) = (
            jnp.moveaxis(a, -1, 0) for a in jax.lax.top_k(jax.nn.softmax(self.beta * logits, axis=-1).mean(axis=1), 2)
        )
        inside = (p1 < 1) & (p2 > 0)  # elsewhere the gap is infinite, and so is its gradient
        gap = ndtri(jnp.where(inside, p1, 0.5)) - ndtri(jnp.where(inside, p2, 0.5))
        counts = inside & (top == labels) & (gap <= self.gamma)
        robustness = jnp.where(counts, self.sigma / 2 * (self.gamma - gap), 0.0)
        return (classification + self.lbd * robustness).mean()


class TrainState(NamedTuple):
    """The whole state of a training run, from which it continues: a pytree of arrays.

    weights: the trained variables, a nested dict.
    statistics: running means and variances of batch normalisation, a nested dict.
    optimizer: state of optax.
    step: number of steps done.
    """

    weights: dict
    statistics: dict
    optimizer: optax.OptState
    step: Int[Array, ""]


class Trainer:
    """Trains the network of `spec`.

    `step` and `hits` are jitted. Arrays that are sharded along the batch, over the devices' axis of a mesh, train in
    parallel with the statistics of the whole batch. The result is that of one device but for rounding.

    Args:
        spec: architecture and normalisation.
        method: Gaussian or Macer.
        optimizer: gradient transformation of optax.
        augment: (key, images (batch, h, w, c)) -> images, applied before the noise; None applies nothing.
        dtype: number format of the forward and backward pass, float32 or bfloat16. Weights, statistics and losses stay
            float32.
    """

    def __init__(
        self,
        spec: Spec,
        method: Gaussian | Macer,
        optimizer: optax.GradientTransformation,
        *,
        augment: Callable | None = None,
        dtype=jnp.float32,
    ):
        self.spec, self.method, self.optimizer, self.augment, self.dtype = spec, method, optimizer, augment, dtype
        model = nnx.eval_shape(lambda: build(spec))
        self._evaluating = nnx.graphdef(model)
        model.train()
        self._training = nnx.graphdef(model)

    def init(self, seed: int, start: Classifier | None = None) -> TrainState:
        """The initial state: fresh weights, or a copy of those of `start`, a classifier of the same spec."""
        _, *state = nnx.split(start.model if start else build(self.spec, seed), nnx.Param, ...)
        weights, statistics = (jax.tree.map(jnp.array, nnx.to_pure_dict(part)) for part in state)
        return TrainState(weights, statistics, self.optimizer.init(weights), jnp.zeros((), jnp.int32))

    @functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
    def step(
        self,
        state: TrainState,
        images: Float[Array, "batch h w c"],
        labels: Int[Array, "batch"],
        key,
    ) -> tuple[TrainState, Float[Array, ""], Float[Array, ""]]:
        """The state after one step, the loss, and the share of noisy copies that were classified right."""
        key_augment, key_noise = jax.random.split(jax.random.fold_in(key, state.step))
        if self.augment is not None:
            images = self.augment(key_augment, images)
        copies = self.method.copies
        shape = (len(images), copies, *images.shape[1:])
        noisy = images[:, None] + self.method.sigma * jax.random.normal(key_noise, shape)

        def loss(weights):
            logits, statistics = self._apply(self._training, weights, state.statistics, noisy.reshape(-1, *shape[2:]))
            logits = logits.reshape(len(images), copies, -1)
            hits = (logits.argmax(axis=-1) == labels[:, None]).mean()
            return self.method.loss(logits, labels), (statistics, hits)

        (value, (statistics, hits)), gradient = jax.value_and_grad(loss, has_aux=True)(state.weights)
        update, optimizer = self.optimizer.update(gradient, state.optimizer, state.weights)
        weights = cast(dict, optax.apply_updates(state.weights, update))
        return TrainState(weights, statistics, optimizer, state.step + 1), value, hits

    @functools.partial(jax.jit, static_argnums=0)
    def hits(self, state: TrainState, images: Float[Array, "batch h w c"], labels: Int[Array, "batch"], sigma, key):
        """The number of images that are classified right, one noisy copy of each; label -1 counts as none."""
        noisy = images + sigma * jax.random.normal(key, images.shape)
        logits, _ = self._apply(self._evaluating, state.weights, state.statistics, noisy)
        return (logits.argmax(axis=-1) == labels).sum()

    def classifier(self, state: TrainState, source: dict) -> Classifier:
        """The trained classifier, with `source` recorded in its spec."""
        weights, statistics = jax.device_get((state.weights, state.statistics))
        model = nnx.merge(self._evaluating, nnx.State(weights), nnx.State(statistics))
        return Classifier(dataclasses.replace(self.spec, source=source), model)

    def _apply(self, graph, weights, statistics, images):
        lowered = jax.tree.map(lambda w: w.astype(self.dtype), weights)
        model = nnx.merge(graph, nnx.State(lowered), nnx.State(statistics))
        logits = model(normalise(self.spec, images).astype(self.dtype))
        return logits.astype(jnp.float32), nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))


def sgd(learning_rate, momentum: float, weight_decay: float) -> optax.GradientTransformation:
    """SGD as in PyTorch: the decay is added to the gradient before the momentum."""
    return optax.chain(optax.add_decayed_weights(weight_decay), optax.sgd(learning_rate, momentum or None))


def crop_and_flip(padding: int = 4) -> Callable:
    """Random crops of the zero-padded images and random horizontal flips, as is usual on CIFAR."""

    def augment(key, images: Float[Array, "batch h w c"]) -> Float[Array, "batch h w c"]:
        _, h, w, c = images.shape
        padded = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
        key_crop, key_flip = jax.random.split(key)
        corners = jax.random.randint(key_crop, (len(images), 2), 0, 2 * padding + 1)
        flips = jax.random.bernoulli(key_flip, shape=(len(images),))

        def one(image, corner, flip):
            crop = jax.lax.dynamic_slice(image, (corner[0], corner[1], 0), (h, w, c))
            return jnp.where(flip, crop[:, ::-1], crop)

        return jax.vmap(one)(padded, corners, flips)

    return augment


def _check(settings, positive=(), nonnegative=()):
    for names, least in ((positive, "positive"), (nonnegative, "at least 0")):
        for name in names:
            value = getattr(settings, name)
            if not (0 < value < math.inf or (least != "positive" and value == 0)):
                raise SettingError(f"{{{name}}} must be {least} and finite, not {value}")
