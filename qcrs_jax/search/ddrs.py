"""DDRS: a sigma for each input, by gradient ascent on a smooth surrogate of the radius (Alfarra et al., UAI 2022)."""

import dataclasses
import math
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ..errors import SettingError
from ..sampling.classifiers import Classifier, logits_of, num_classes
from ..sampling.noise import gaussian_noise
from ..sampling.streams import SEARCH
from .protocol import Search, check_bracket


@dataclasses.dataclass(frozen=True)
class DDRS(Search):
    r"""The settings of DDRS: gradient ascent on sigma for each input (Alfarra et al., UAI 2022).

    It ascends the surrogate radius

    $$\frac{\sigma}{2} \left( \Phi^{-1}(p_1) - \Phi^{-1}(p_2) \right),$$

    where p1 and p2 are the two largest entries of the mean softmax of noisy copies. Every step draws new copies, and
    differentiates through their noise. The copies only choose sigma: the certificate draws its own samples.

    p1 is no lower bound, so the surrogate does not account for the cost of sampling. Like the search of QCRS, it
    chooses somewhat large sigmas. The defaults are ours; PRESETS has the published settings.

    Attributes:
        sigma_lower, sigma_upper: sigma is kept between these, 0 < sigma_lower < sigma_upper.
        steps: number of steps of the ascent, at least 1.
        draws: noisy copies for each step, at least 1.
        step_size: sigma moves by step_size times the gradient.
        decay: whether the step size falls to zero along half a cosine. The published one is constant.
        start: sigma at which the ascent starts; by default the one the classifier was trained at.
        clamp: p1 and p2 are kept within [clamp, 1 - clamp]; beyond it they have no gradient. From 1e-6 to below 0.5.

    Raises:
        SettingError: a setting is out of its range.
    """

    sigma_lower: float
    sigma_upper: float = dataclasses.field()  # needed, as in QCRS
    steps: int = 30
    draws: int = 100
    step_size: float = 0.02
    decay: bool = True
    start: float | None = None
    clamp: float = 0.001

    method: ClassVar[str] = "ddrs"
    name: ClassVar[str] = "ddrs"
    static: ClassVar[tuple[str, ...]] = ("steps", "draws", "decay", "clamp")

    def __post_init__(self):
        if not 0 < self.sigma_lower < self.sigma_upper < math.inf:
            raise SettingError(
                f"the bracket needs 0 < {{sigma_lower}} < {{sigma_upper}} < inf, not {self.sigma_lower} and "
                f"{self.sigma_upper}"
            )
        for name in ("steps", "draws"):
            if not 1 <= getattr(self, name) < 2**30:
                raise SettingError(f"{{{name}}} must be at least 1 and below {2**30}, not {getattr(self, name)}")
        if not 0 < self.step_size < math.inf:
            raise SettingError(f"{{step_size}} must be positive and finite, not {self.step_size}")
        if self.start is not None and not self.sigma_lower <= self.start <= self.sigma_upper:
            raise SettingError(
                f"{{start}} must lie between {{sigma_lower}} {self.sigma_lower} and {{sigma_upper}} "
                f"{self.sigma_upper}, not at {self.start}"
            )
        if not 1e-6 <= self.clamp < 0.5:  # 1 - clamp must be less than 1 in float32
            raise SettingError(f"{{clamp}} must be at least 1e-6 and less than 0.5, not {self.clamp}")

    @property
    def samples(self) -> int:
        """The number of noisy copies that one ascent draws. Each costs about twice a counted one."""
        return self.steps * self.draws

    def check_start(self, sigma):
        if self.start is None:
            check_bracket(sigma, self.sigma_lower, self.sigma_upper)

    def check_noise(self, noise):
        if noise.norm != "L2":
            raise SettingError(
                f"the search {self.name!r} ascends radii of normal noise; with the {{noise}} {noise.name!r} choose "
                "{search} GoldenSection, Bayesian or another of QCRS"
            )

    def begin(self, classify, image, sigma, key, *, batch_size, axis_name):
        ascent = ascend(self, classify, image, sigma, key, batch_size=batch_size, axis_name=axis_name)
        return ascent.sigma, ascent


PRESETS = {
    "tuned": {},
    "paper": {"steps": 900, "draws": 1, "step_size": 1e-4, "decay": False, "clamp": 0.02},
    "package": {"steps": 900, "draws": 100, "step_size": 0.04, "decay": False, "clamp": 0.001},
    "qcrs": {"steps": 100, "draws": 1, "step_size": 1e-4, "decay": False, "clamp": 0.02, "start": 0.5},
}
"""Settings of DDRS by name: ours ("tuned"), the paper's, those of the script of the authors' package, and those of the
baseline in QCRS's repository ("qcrs"), where sigma barely moves from 0.5. These programs do not bound sigma."""


class SigmaAscent(NamedTuple):
    """The result of an ascent of DDRS. `*m` is () for one image, or (images,).

    Attributes:
        sigma: the chosen sigma, the last one, (*m).
        sigmas: sigma after each step, (*m, steps). It is unchanged where the gradient was not finite.
        surrogates: the surrogate radius that each step estimated, at the sigma before that step, (*m, steps).
    """

    sigma: Float[Array, "*m"]
    sigmas: Float[Array, "*m steps"]
    surrogates: Float[Array, "*m steps"]


def ascend(
    settings: DDRS,
    classify: Classifier,
    image: Float[Array, "h w c"],
    sigma: Float[Array, ""],
    key,
    *,
    batch_size: int,
    axis_name: str | None = None,
) -> SigmaAscent:
    """The ascent by which DDRS chooses a sigma for one image; jit- and vmap-compatible.

    The derivative is taken in forward mode. For the one parameter sigma this costs as much as a second forward pass and
    stores no activations. The reverse mode of a convolution is many times slower on a CPU. `classify` must not contain
    a custom VJP.

    Args:
        settings: settings of the ascent.
        classify: function of noisy images, which are not clipped, to logits. The images are those in [0, 1] with noise.
        image: one image (h, w, c) in [0, 1].
        sigma: start of the ascent unless the settings have one; it is moved into their bracket.
        key: the image's key. Step i draws from `fold_in(fold_in(key, SEARCH), i)`.
        batch_size: copies per forward pass of a device.
        axis_name: inside `jax.shard_map`, the axis of devices that share the copies. All get the same sigma.
    """
    lower, upper = (jnp.asarray(end, jnp.float32) for end in (settings.sigma_lower, settings.sigma_upper))
    stream = jax.random.fold_in(key, SEARCH)

    def step(sigma, number):
        def surrogate(sigma):
            key = jax.random.fold_in(stream, number)
            share = {"batch_size": batch_size, "axis_name": axis_name}
            return surrogate_radius(
                mean_softmax(classify, image, sigma, key, settings.draws, **share), sigma, settings.clamp
            )

        value, gradient = jax.jvp(surrogate, (sigma,), (jnp.float32(1),))
        done = number.astype(jnp.float32) / settings.steps
        share = (1 + jnp.cos(jnp.pi * done)) / 2 if settings.decay else 1
        moved = jnp.clip(sigma + settings.step_size * share * gradient, lower, upper)
        sigma = jnp.where(jnp.isfinite(gradient), moved, sigma)
        return sigma, (sigma, value)

    start = jnp.asarray(sigma if settings.start is None else settings.start, jnp.float32)
    start = jnp.clip(start, lower, upper)
    last, (sigmas, surrogates) = jax.lax.scan(step, start, jnp.arange(settings.steps))
    return SigmaAscent(last, sigmas, surrogates)


def surrogate_radius(
    probabilities: Float[Array, "num_classes"], sigma: Float[Array, ""], clamp: float
) -> Float[Array, ""]:
    """sigma / 2 * (ndtri(p1) - ndtri(p2)) of the two largest probabilities, kept within [clamp, 1 - clamp]."""
    first, second = jax.scipy.special.ndtri(jnp.clip(jax.lax.top_k(probabilities, 2)[0], clamp, 1 - clamp))
    return sigma / 2 * (first - second)


def mean_softmax(
    classify: Classifier,
    image: Float[Array, "h w c"],
    sigma: Float[Array, ""],
    key,
    draws: int,
    *,
    batch_size: int,
    axis_name: str | None = None,
) -> Float[Array, "num_classes"]:
    """The mean softmax of noisy copies of `image`, (num_classes,), differentiable by sigma in forward mode.

    The noise of a copy is a function of (key, its number) alone. The mean is therefore the same, up to rounding, for
    every batch size and number of devices. A copy with a logit that is not finite adds nothing to any class.
    """
    device = jax.lax.axis_index(axis_name) if axis_name else 0
    devices = jax.lax.axis_size(axis_name) if axis_name else 1
    turns = math.ceil(draws / (batch_size * devices))
    size = math.ceil(draws / (turns * devices))  # the smallest batch that the turns need: draws may be one
    classes = num_classes(classify, image.shape)

    def add_batch(i, total):
        index = (i * devices + device) * size + jnp.arange(size)
        noise = gaussian_noise(key, index, image.shape)
        logits = logits_of(classify, image[None] + sigma * noise, sigma, classes).astype(jnp.float32)
        valid = (index < draws) & jnp.isfinite(logits).all(axis=-1)
        return total + jnp.where(valid[:, None], jax.nn.softmax(logits), 0).sum(axis=0)

    total = jax.lax.fori_loop(0, turns, add_batch, jnp.zeros(classes, jnp.float32))
    return (jax.lax.psum(total, axis_name) if axis_name else total) / draws
