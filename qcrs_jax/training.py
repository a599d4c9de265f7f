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


_LEVELS = 2**32 - 1  # the fold of the levels' key; no array of noise is that large


@dataclasses.dataclass(frozen=True)
class LogUniform:
    """Noise levels for training on a range: log sigma is uniform, and each image of each step has a level of its own.

    Attributes:
        low: lowest level, in units of pixels in [0, 1].
        high: highest level, in the same units.

    Raises:
        SettingError: a level is not positive, not finite or far above the range of images, or `low` is not below `high`.
    """

    low: float
    high: float

    def __post_init__(self):
        for level in (self.low, self.high):
            check_sigma(level, name="sigma_range")
        if not self.low < self.high:
            raise SettingError(
                f"{{sigma_range}} {self.low:g},{self.high:g} must be LOW,HIGH with LOW below HIGH; for one level give "
                "{sigma} alone"
            )

    @property
    def middle(self) -> float:
        """The median level, sqrt(low * high)."""
        return math.sqrt(self.low * self.high)

    def draw(self, key, count: int) -> Float[Array, "count"]:
        """`count` independent levels."""
        low, high = math.log(self.low), math.log(self.high)
        return jnp.clip(jnp.exp(jax.random.uniform(key, (count,), minval=low, maxval=high)), self.low, self.high)


def noisy_copies(
    images: Float[Array, "batch h w c"], sigma: float | LogUniform, copies: int, key
) -> tuple[Float[Array, "batch copies h w c"], Float[Array, "batch"]]:
    """Noisy copies of images, and the noise level of each image, which all its copies have."""
    shape = (len(images), copies, *images.shape[1:])
    if isinstance(sigma, LogUniform):
        sigmas = sigma.draw(jax.random.fold_in(key, _LEVELS), len(images))
    else:
        sigmas = jnp.full(len(images), sigma)
    return images[:, None] + sigmas[:, None, None, None, None] * jax.random.normal(key, shape), sigmas


@dataclasses.dataclass(frozen=True)
class Gaussian:
    """Gaussian augmentation: cross-entropy of one noisy copy of each image (Cohen et al. 2019).

    Attributes:
        sigma: standard deviation of the noise, in units of pixels in [0, 1], or a range of them.
    """

    sigma: float | LogUniform

    copies = 1

    def __post_init__(self):
        _check(self)

    def loss(
        self,
        logits: Float[Array, "batch 1 num_classes"],
        labels: Int[Array, "batch"],
        sigmas: Float[Array, "batch"] | None = None,
    ) -> Float[Array, ""]:
        """The mean cross-entropy."""
        return optax.softmax_cross_entropy_with_integer_labels(logits[:, 0], labels).mean()


@dataclasses.dataclass(frozen=True)
class Macer:
    """MACER: cross-entropy of the soft smoothed classifier, and a hinge on its radius (Zhai et al. 2020).

    Attributes:
        sigma: standard deviation of the noise, in units of pixels in [0, 1], or a range of them. All copies of an image
            have the same.
        copies: number of noisy copies of each image (the paper's k).
        lbd: weight of the robustness loss, lambda.
        gamma: value of ndtri(p1) - ndtri(p2) beyond which a radius is large enough.
        beta: inverse temperature of the softmax in the robustness loss.
    """

    sigma: float | LogUniform
    copies: int = 16
    lbd: float = 12.0
    gamma: float = 8.0
    beta: float = 16.0

    def __post_init__(self):
        _check(self, positive=("copies", "gamma", "beta"), nonnegative=("lbd",))

    def loss(
        self,
        logits: Float[Array, "batch copies num_classes"],
        labels: Int[Array, "batch"],
        sigmas: Float[Array, "batch"] | None = None,
    ) -> Float[Array, ""]:
        """Classification and robustness loss, each a mean over the batch (equations 6 to 9, algorithm 1).

        sigmas: noise level of each image; None for one `sigma`.
        """
        soft = jax.nn.softmax(logits, axis=-1).mean(axis=1)
        true = jnp.take_along_axis(soft, labels[:, None], axis=-1)[:, 0]
        classification = -jnp.log(true + 1e-10)

        (p1, p2), (top, _) = (
            jnp.moveaxis(a, -1, 0) for a in jax.lax.top_k(jax.nn.softmax(self.beta * logits, axis=-1).mean(axis=1), 2)
        )
        inside = (p1 < 1) & (p2 > 0)  # elsewhere the gap is infinite, and so is its gradient
        gap = ndtri(jnp.where(inside, p1, 0.5)) - ndtri(jnp.where(inside, p2, 0.5))
        counts = inside & (top == labels) & (gap <= self.gamma)
        level = self.sigma if sigmas is None else sigmas
        robustness = jnp.where(counts, level / 2 * (self.gamma - gap), 0.0)
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
        noisy, sigmas = noisy_copies(images, self.method.sigma, self.method.copies, key_noise)

        def loss(weights):
            flat = noisy.reshape(-1, *images.shape[1:])
            logits, statistics = self._apply(self._training, weights, state.statistics, flat)
            logits = logits.reshape(*noisy.shape[:2], -1)
            hits = (logits.argmax(axis=-1) == labels[:, None]).mean()
            return self.method.loss(logits, labels, sigmas), (statistics, hits)

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
    if not isinstance(settings.sigma, LogUniform):
        positive = ("sigma", *positive)
        check_sigma(settings.sigma)
    for names, least in ((positive, "positive"), (nonnegative, "at least 0")):
        for name in names:
            value = getattr(settings, name)
            if not (0 < value < math.inf or (least != "positive" and value == 0)):
                raise SettingError(f"{{{name}}} must be {least} and finite, not {value}")
