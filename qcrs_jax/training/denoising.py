"""Training of a denoiser for smoothing (Salman et al., NeurIPS 2020): its loss, and its steps."""

import dataclasses
import functools
from collections.abc import Callable
from typing import cast

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from ..checks import check_sigma
from ..extras import needed_for
from ..models.denoiser import Denoiser, DenoiserSpec, build_denoiser, denoise, error_scale
from .levels import LogUniform, draw_noise
from .method import Recipe
from .probabilities import cross_entropy
from .trainer import TrainState

with needed_for("training"):
    import optax


@dataclasses.dataclass(frozen=True)
class Denoising:
    """The objective of a denoiser D, for one noisy copy x + noise of each image x.

    Without a classifier it is the squared error, relative to the scale s of errors at the level of the noise, so that
    all levels of a range count alike:

        mean over pixels of (D(x + noise) - x)^2 / s(sigma)^2, with s = `models.denoiser.error_scale`

    With a classifier F it is stability: the cross-entropy of F(D(x + noise)) with the class that F gives x.

    Attributes:
        sigma: standard deviation of the noise, in units of pixels in [0, 1], or a range of them.
        classify: F, a jit-compatible function of images in [0, 1] to logits, whose weights stay as they are; or None.
    """

    sigma: float | LogUniform
    classify: Callable[[Float[Array, "batch h w c"]], Float[Array, "batch num_classes"]] | None = None

    def __post_init__(self):
        if not isinstance(self.sigma, LogUniform):
            check_sigma(self.sigma)

    @property
    def levels(self) -> tuple[float, ...]:
        """The levels at which a test measures the error: the lowest, the middle and the highest."""
        if isinstance(self.sigma, LogUniform):
            return self.sigma.low, self.sigma.middle, self.sigma.high
        return (self.sigma,) * 3

    def recipe(self, schedule: str) -> Recipe:
        """The optimisation by Adam for the schedule "step", as published, and a short one for "onecycle"."""
        return Recipe(90, 256, 1e-3, 0.0) if schedule == "step" else Recipe(30, 128, 2e-3, 0.0)

    def loss(self, network, images: Float[Array, "batch h w c"], key) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """The loss, a mean over the images, and the mean squared error of a pixel.

        network: noisy images and sigma (batch,) to denoised images.
        """
        noise, sigmas = draw_noise(images, self.sigma, 1, key)
        denoised = network(images + noise[:, 0], sigmas)
        squared = ((denoised - images) ** 2).mean(axis=(1, 2, 3))
        if self.classify is None:
            return (squared / error_scale(sigmas) ** 2).mean(), squared.mean()
        own = jax.lax.stop_gradient(self.classify(images).argmax(axis=-1))
        return cross_entropy(self.classify(denoised), own).mean(), squared.mean()


class DenoiserTrainer:
    """Trains the denoiser of `spec`. Batches may be sharded, as for `Trainer`.

    Args:
        spec: size of the images, and width of the network.
        method: objective, with its noise levels.
        optimizer: gradient transformation of optax, such as `adam`.
        augment: (key, images (batch, h, w, c)) -> images, applied before the noise; None applies nothing.
        dtype: number format of the passes, float32 or bfloat16. Weights, estimates and losses stay float32.
    """

    def __init__(
        self,
        spec: DenoiserSpec,
        method: Denoising,
        optimizer: optax.GradientTransformation,
        *,
        augment: Callable | None = None,
        dtype=jnp.float32,
    ):
        self.spec, self.method, self.optimizer, self.augment, self.dtype = spec, method, optimizer, augment, dtype
        self._graph = nnx.graphdef(nnx.eval_shape(lambda: build_denoiser(spec)))

    def init(self, seed: int, start: Denoiser | None = None) -> TrainState:
        """The initial state: fresh weights, or a copy of those of `start`, a denoiser of the same width."""
        state = nnx.state(start.model if start else build_denoiser(self.spec, seed))
        weights = jax.tree.map(jnp.array, nnx.to_pure_dict(state))
        return TrainState(weights, {}, self.optimizer.init(weights), jnp.zeros((), jnp.int32))

    @functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
    def step(
        self, state: TrainState, images: Float[Array, "batch h w c"], key
    ) -> tuple[TrainState, Float[Array, ""], Float[Array, ""]]:
        """The state after one step, the loss, and the mean squared error of a pixel."""
        key_augment, key_noise = jax.random.split(jax.random.fold_in(key, state.step))
        if self.augment is not None:
            images = self.augment(key_augment, images)

        def loss(weights):
            return self.method.loss(self._network(weights), images, key_noise)

        (value, error), gradient = jax.value_and_grad(loss, has_aux=True)(state.weights)
        update, optimizer = self.optimizer.update(gradient, state.optimizer, state.weights)
        weights = cast(dict, optax.apply_updates(state.weights, update))
        return TrainState(weights, {}, optimizer, state.step + 1), value, error

    @functools.partial(jax.jit, static_argnums=0)
    def errors(self, state: TrainState, images: Float[Array, "batch h w c"], sigma, key) -> Float[Array, "batch"]:
        """The mean squared error of a pixel of each image, with one draw of noise of `sigma`."""
        noisy = images + sigma * jax.random.normal(key, images.shape)
        denoised = self._network(state.weights)(noisy, jnp.full(len(images), sigma, jnp.float32))
        return ((denoised - images) ** 2).mean(axis=(1, 2, 3))

    def denoiser(self, state: TrainState, source: dict) -> Denoiser:
        """The trained denoiser, with `source` recorded in its spec."""
        model = nnx.merge(self._graph, nnx.State(jax.device_get(state.weights)))
        return Denoiser(dataclasses.replace(self.spec, source=source), model)

    def _network(self, weights):
        lowered = jax.tree.map(lambda w: w.astype(self.dtype), weights)
        model = nnx.merge(self._graph, nnx.State(lowered))
        return lambda images, sigma: denoise(model, images, sigma, self.dtype)


def adam(learning_rate, momentum: float = 0.9, weight_decay: float = 0.0) -> optax.GradientTransformation:
    """Adam, with decoupled weight decay."""
    return optax.adamw(learning_rate, b1=momentum, weight_decay=weight_decay)
