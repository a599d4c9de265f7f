"""A denoiser: a small U-Net that receives noisy images and the noise level, and returns an estimate of the images."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.tree_util import Partial
from jaxtyping import Array, Float

from .classifier import fingerprint_of
from .layers import compute_in

CENTRE, SPREAD = 0.5, 0.3
"""The middle of the range of images, and about the root mean square of pixels around it."""
LEAST_SIGMA = 1e-3
"""The noise level below which the network no longer distinguishes levels: a quarter of a grey level of 8 bits."""
ARCH = "unet"
_EMBEDDING = 64


@dataclasses.dataclass(frozen=True)
class DenoiserSpec:
    """The description of a denoiser without its weights; written beside them as JSON.

    Attributes:
        image_shape: shape (h, w, c) of the images, which are in [0, 1].
        width: channels of the network at the images' own size; it has twice as many at smaller sizes.
        arch: name of the architecture, ARCH.
        source: origin of the weights: the noise levels of the training, and its settings.
    """

    image_shape: tuple[int, int, int]
    width: int = 32
    arch: str = ARCH
    source: dict = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if self.arch != ARCH:
            raise ValueError(f"unknown architecture of a denoiser {self.arch!r}; known is {ARCH}")

    @property
    def levels(self) -> tuple[float, float] | None:
        """The lowest and the highest noise level of the training; None if they are not known."""
        sigma = self.source.get("sigma")
        low, high = self.source.get("sigma_range", (sigma, sigma))
        return None if low is None else (low, high)


class Block(nnx.Module):
    """Two 3x3 convolutions and the identity beside them. The noise level scales and shifts between the two."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        zero = nnx.initializers.zeros_init()
        self.conv1 = nnx.Conv(width, width, (3, 3), rngs=rngs)
        self.level = nnx.Linear(_EMBEDDING, 2 * width, kernel_init=zero, rngs=rngs)
        self.conv2 = nnx.Conv(width, width, (3, 3), kernel_init=zero, rngs=rngs)

    def __call__(self, x: Float[Array, "batch h w c"], level: Float[Array, "batch e"]) -> Float[Array, "batch h w c"]:
        scale, shift = jnp.split(self.level(level)[:, None, None], 2, axis=-1)
        return x + self.conv2(nnx.silu(self.conv1(nnx.silu(x)) * (1 + scale) + shift))


class UNet(nnx.Module):
    """Seven blocks at three sizes of the image: h x w, half and a quarter. It has no normalisation.

    Args:
        channels: number of channels of the images.
        width: channels at the size h x w; twice as many at the others.
    """

    def __init__(self, channels: int, width: int, *, rngs: nnx.Rngs):
        wide = 2 * width
        self.level1 = nnx.Linear(5, _EMBEDDING, rngs=rngs)
        self.level2 = nnx.Linear(_EMBEDDING, _EMBEDDING, rngs=rngs)
        self.first = nnx.Conv(channels, width, (3, 3), rngs=rngs)
        self.down1 = Block(width, rngs=rngs)
        self.to_half = nnx.Conv(width, wide, (2, 2), strides=(2, 2), rngs=rngs)
        self.down2 = Block(wide, rngs=rngs)
        self.to_quarter = nnx.Conv(wide, wide, (2, 2), strides=(2, 2), rngs=rngs)
        self.middle1, self.middle2 = Block(wide, rngs=rngs), Block(wide, rngs=rngs)
        self.from_quarter = nnx.Conv(wide, 4 * wide, (1, 1), rngs=rngs)
        self.up2 = Block(wide, rngs=rngs)
        self.from_half = nnx.Conv(wide, 4 * width, (1, 1), rngs=rngs)
        self.up1a, self.up1b = Block(width, rngs=rngs), Block(width, rngs=rngs)
        self.last = nnx.Conv(width, channels, (3, 3), kernel_init=nnx.initializers.zeros_init(), rngs=rngs)

    def __call__(self, x: Float[Array, "batch h w c"], log_sigma: Float[Array, "batch"]) -> Float[Array, "batch h w c"]:
        level = jnp.stack([log_sigma, *(f(k * log_sigma) for k in (1, 2) for f in (jnp.sin, jnp.cos))], axis=-1)
        level = nnx.silu(self.level2(nnx.silu(self.level1(level.astype(x.dtype)))))
        _, h, w, _ = x.shape
        x = jnp.pad(x, ((0, 0), (0, -h % 4), (0, -w % 4), (0, 0)), mode="edge")
        whole = self.down1(self.first(x), level)
        half = self.down2(self.to_half(whole), level)
        quarter = self.middle2(self.middle1(self.to_quarter(half), level), level)
        half = self.up2(half + _unfold(self.from_quarter(quarter)), level)
        whole = self.up1b(self.up1a(whole + _unfold(self.from_half(half)), level), level)
        return self.last(nnx.silu(whole))[:, :h, :w]


def _unfold(x):
    """(batch, 2h, 2w, c) of (batch, h, w, 4c): each pixel becomes four."""
    batch, h, w, c = x.shape
    return x.reshape(batch, h, w, 2, 2, c // 4).swapaxes(2, 3).reshape(batch, 2 * h, 2 * w, c // 4)


def error_scale(sigma: Float[Array | np.ndarray, "batch"]) -> Float[Array, "batch"]:
    """The scale of the errors that a denoiser can make at each level: sigma SPREAD / sqrt(sigma^2 + SPREAD^2)."""
    sigma = jnp.asarray(sigma)
    return sigma * SPREAD / jnp.sqrt(sigma**2 + SPREAD**2)


def denoise(
    network,
    images: Float[Array | np.ndarray, "batch h w c"],
    sigma: Float[Array | np.ndarray, "batch"],
    dtype=jnp.float32,
) -> Float[Array, "batch h w c"]:
    """The estimate of the images without noise, float32, not clipped.

    The network sees images of unit variance, and its output is a correction of unit variance, at every sigma (Karras et
    al. 2022): with x = images - CENTRE and s = SPREAD, the estimate is

        CENTRE + s^2 / (sigma^2 + s^2) x + sigma s / sqrt(sigma^2 + s^2) network(x / sqrt(sigma^2 + s^2), log sigma)

    so without noise it is the image itself.

    Args:
        network: a UNet, or another function of the two.
        images: images in [0, 1] with noise, not clipped.
        sigma: standard deviation of the noise of each, in the same units.
    """
    of_images = lambda values: values[:, None, None, None]  # noqa: E731
    x, variance = images - CENTRE, sigma**2 + SPREAD**2
    log_sigma = jnp.log(jnp.maximum(sigma, LEAST_SIGMA))
    correction = network((x / of_images(jnp.sqrt(variance))).astype(dtype), log_sigma).astype(jnp.float32)
    return CENTRE + of_images(SPREAD**2 / variance) * x + of_images(error_scale(sigma)) * correction


def build_denoiser(spec: DenoiserSpec, seed: int = 0) -> nnx.Module:
    """The network of `spec` with fresh weights; its estimate is at first the best linear one."""
    return UNet(spec.image_shape[-1], spec.width, rngs=nnx.Rngs(seed))


class Denoiser:
    """A denoiser with its metadata.

    Attributes:
        spec: the metadata.
        model: the Flax network.
        denoise: `inference()` in float32.
    """

    def __init__(self, spec: DenoiserSpec, model: nnx.Module):
        self.spec, self.model = spec, model
        self.denoise = self.inference()

    def inference(self, dtype="float32") -> Partial:
        """A function of noisy images (batch, h, w, c) and sigma (batch,) to estimates of the images, all float32.

        Jit-compatible; the weights are leaves of the pytree. `dtype` is the number format of the network's passes.
        """
        inference = nnx.clone(self.model)
        compute_in(inference, dtype := jnp.dtype(dtype))
        graph, weights = nnx.split(inference)
        return Partial(_Denoise(graph, dtype), nnx.to_pure_dict(weights))

    def fingerprint(self) -> str:
        """SHA-256 of every variable of the network with its name."""
        return fingerprint_of(self.model)

    def count_parameters(self) -> int:
        """The number of parameters."""
        return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(self.model)))


class _Denoise:
    """The forward function of one network structure. It is equal for equal structures, so programs are reused."""

    def __init__(self, graph, dtype):
        self.graph, self.dtype = graph, dtype

    def __call__(
        self, weights, images: Float[Array | np.ndarray, "batch h w c"], sigma: Float[Array | np.ndarray, "batch"]
    ):
        return denoise(nnx.merge(self.graph, nnx.State(weights)), images, sigma, self.dtype)

    def __eq__(self, other):
        return isinstance(other, _Denoise) and (self.graph, self.dtype) == (other.graph, other.dtype)

    def __hash__(self):
        return hash((self.graph, self.dtype))
