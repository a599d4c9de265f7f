"""Steps of training, and the state from which a run continues."""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int

from ..extras import needed_for
from ..models import Classifier, Spec, build
from ..models.classifier import normalise
from ..models.denoiser import Denoiser
from .levels import draw_levels
from .method import Batch, Method

with needed_for("training"):
    import optax


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
        method: loss, with its noise levels.
        optimizer: gradient transformation of optax.
        augment: (key, images (batch, h, w, c)) -> images, applied before the noise; None applies nothing.
        dtype: number format of the forward and backward pass, float32 or bfloat16. Weights, statistics and losses stay
            float32.
        steps_per_epoch: number of steps that are one epoch for the warm-up of a method.
        denoiser: a denoiser before the network, whose weights stay as they are. It receives the level of each image.
    """

    def __init__(
        self,
        spec: Spec,
        method: Method,
        optimizer: optax.GradientTransformation,
        *,
        augment: Callable | None = None,
        dtype=jnp.float32,
        steps_per_epoch: int = 1,
        denoiser: Denoiser | None = None,
    ):
        self.spec, self.method, self.optimizer, self.augment, self.dtype = spec, method, optimizer, augment, dtype
        self.steps_per_epoch = steps_per_epoch
        self.denoise = None if denoiser is None else denoiser.inference(dtype)
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
        predictions: Float[Array, "batch num_classes"] | None = None,
    ) -> tuple[TrainState, Float[Array, ""], Float[Array, ""]]:
        """The state after one step, the loss, and the share of noisy copies that were classified right.

        predictions: probabilities of the classes by the teacher, for a method that has one.
        """
        key_augment, key_noise = jax.random.split(jax.random.fold_in(key, state.step))
        if self.augment is not None:
            images = self.augment(key_augment, images)
        batch = Batch(images, labels, state.step // self.steps_per_epoch, predictions)

        def loss(weights):
            sigmas = draw_levels(self.method.sigma, len(images), key_noise)
            network = _Passes(self, weights, state.statistics, sigmas)
            value, logits = self.method.loss(network, batch, key_noise)
            hits = (logits.argmax(axis=-1) == labels[:, None]).mean()
            return value, (network.statistics, hits)

        (value, (statistics, hits)), gradient = jax.value_and_grad(loss, has_aux=True)(state.weights)
        update, optimizer = self.optimizer.update(gradient, state.optimizer, state.weights)
        weights = cast(dict, optax.apply_updates(state.weights, update))
        return TrainState(weights, statistics, optimizer, state.step + 1), value, hits

    @functools.partial(jax.jit, static_argnums=0)
    def hits(self, state: TrainState, images: Float[Array, "batch h w c"], labels: Int[Array, "batch"], sigma, key):
        """The number of images that are classified right, one noisy copy of each; label -1 counts as none."""
        noisy = images + sigma * jax.random.normal(key, images.shape)
        sigmas = jnp.full(len(images), sigma, jnp.float32)
        logits, _ = self._apply(self._evaluating, state.weights, state.statistics, noisy, sigmas)
        return (logits.argmax(axis=-1) == labels).sum()

    def classifier(self, state: TrainState, source: dict) -> Classifier:
        """The trained classifier, with `source` recorded in its spec."""
        weights, statistics = jax.device_get((state.weights, state.statistics))
        model = nnx.merge(self._evaluating, nnx.State(weights), nnx.State(statistics))
        return Classifier(dataclasses.replace(self.spec, source=source), model)

    def _apply(self, graph, weights, statistics, images, sigmas):
        if self.denoise is not None:
            images = self.denoise(images, sigmas)
        lowered = jax.tree.map(lambda w: w.astype(self.dtype), weights)
        model = nnx.merge(graph, nnx.State(lowered), nnx.State(statistics))
        logits = model(normalise(self.spec, images).astype(self.dtype))
        return logits.astype(jnp.float32), nnx.to_pure_dict(nnx.state(model, nnx.BatchStat))


class _Passes:
    """The `Passes` of one step. `statistics` are those after the passes so far, `sigmas` the levels of the images."""

    def __init__(self, trainer, weights, statistics, sigmas):
        self.trainer, self.weights, self.statistics, self.sigmas = trainer, weights, statistics, sigmas

    def learn(self, images):
        logits, self.statistics = self._pass(self.trainer._training, self.weights, self.statistics, images)
        return logits

    def probe(self, images):
        constants = jax.lax.stop_gradient((self.weights, self.statistics))
        return self._pass(self.trainer._evaluating, *constants, images)[0]

    def _pass(self, graph, weights, statistics, images):
        flat = images.reshape(-1, *images.shape[-3:])
        sigmas = jnp.repeat(self.sigmas, len(flat) // len(self.sigmas))  # of all copies of each image
        logits, statistics = self.trainer._apply(graph, weights, statistics, flat, sigmas)
        return logits.reshape(*images.shape[:-3], -1), statistics


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
