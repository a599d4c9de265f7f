"""What a method of training has to define: its settings, its loss, and the optimisation that its paper published."""

import abc
import dataclasses
import math
from typing import Any, ClassVar, NamedTuple, Protocol, runtime_checkable

from jaxtyping import Array, Float, Int

from ..checks import check_sigma
from ..errors import SettingError
from .levels import LogUniform


class Batch(NamedTuple):
    """The images of one step.

    images: images in [0, 1], after the augmentation.
    labels: their classes.
    epoch: number of whole epochs that are done, for what grows from epoch to epoch.
    predictions: probabilities of the classes under noise by another classifier, for methods with a teacher; else None.
    """

    images: Float[Array, "batch h w c"]
    labels: Int[Array, "batch"]
    epoch: Int[Array, ""] | int = 0
    predictions: Float[Array, "batch num_classes"] | None = None


@runtime_checkable
class Passes(Protocol):
    """The network within one step. Both functions take images (..., h, w, c) and return logits (..., num_classes)."""

    def learn(self, images) -> Float[Array, "... num_classes"]:
        """Logits in training mode, whose gradient trains the network.

        Batch normalisation uses the statistics of these very images, and the running statistics move once.
        """
        ...

    def probe(self, images) -> Float[Array, "... num_classes"]:
        """Logits for an attack: the weights are constants, so a gradient is that by the images.

        Batch normalisation uses the running statistics as they are now, and nothing moves.
        """
        ...


class Recipe(NamedTuple):
    """An optimisation: epochs, images in each step, learning rate or its peak, and weight decay."""

    epochs: int
    batch: int
    lr: float
    weight_decay: float


@dataclasses.dataclass(frozen=True)
class Method(abc.ABC):
    """A method of training: a frozen dataclass of its settings, with a loss. A new one is one file and one line.

    Attributes:
        sigma: standard deviation of the noise, in units of pixels in [0, 1], or a range of them. All copies of an image
            have the same.
    """

    sigma: float | LogUniform

    name: ClassVar[str]
    milestones: ClassVar[tuple[float, ...]] = (1 / 3, 2 / 3)
    """Shares of the epochs after which the schedule of steps divides the learning rate by 10."""
    normalises: ClassVar[bool] = True
    """Whether its programs normalise images of three channels."""
    teacher: ClassVar[bool] = False
    """Whether it needs `Batch.predictions`."""
    positive: ClassVar[tuple[str, ...]] = ()
    """Settings that must be positive."""
    nonnegative: ClassVar[tuple[str, ...]] = ()
    """Settings that must be at least 0."""

    def __post_init__(self):
        levels = () if isinstance(self.sigma, LogUniform) else ("sigma",)
        for names, least in ((levels + self.positive, "positive"), (self.nonnegative, "at least 0")):
            for name in names:
                value = getattr(self, name)
                if not (0 < value < math.inf or (least != "positive" and value == 0)):
                    raise SettingError(f"{{{name}}} must be {least} and finite, not {value}")
        if levels:
            check_sigma(self.sigma)

    @classmethod
    def published(cls, sigma: float) -> dict[str, Any]:
        """The settings that the paper chooses by the noise level."""
        return {}

    @abc.abstractmethod
    def recipe(self, schedule: str) -> Recipe:
        """The published optimisation for the schedule "step", and a short one for "onecycle"."""

    @abc.abstractmethod
    def loss(
        self, network: Passes, batch: Batch, key
    ) -> tuple[Float[Array, ""], Float[Array, "batch copies num_classes"]]:
        """The loss of a step, a mean over its images, and the logits of noisy copies, whose accuracy is reported.

        Args:
            network: its passes.
            key: a key from which all noise of the step comes.
        """

    def recorded(self) -> dict[str, Any]:
        """The settings that a request records, without the noise levels."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self) if field.name != "sigma"}
