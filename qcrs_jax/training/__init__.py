"""Training of base classifiers. A method is one class: its settings, its loss and the optimisation of its paper.

A new one is one file here and one line in METHODS.

method.py         what every method has to define
levels.py         noise levels: one sigma, or a range of them
probabilities.py  parts of losses that several methods share
attack.py         projected gradient ascent, for the adversarial methods
denoising.py      a denoiser before a classifier: its loss and its steps
trainer.py        steps, and the state from which a run continues

A training step is a function of (state, images, labels, key) alone. The noise of a step comes from its key. A run that
was stopped therefore continues exactly as if it had not been.
"""

from .catrs import CatRS
from .consistency import Consistency
from .denoising import DenoiserTrainer, Denoising, adam
from .gaussian import Gaussian
from .levels import LogUniform
from .macer import Macer
from .method import Batch, Method, Passes, Recipe
from .smoothadv import SmoothAdv
from .smoothmix import SmoothMix
from .trainer import Trainer, TrainState, crop_and_flip, sgd

METHODS: dict[str, type[Method]] = {
    method.name: method for method in (Gaussian, Macer, SmoothAdv, Consistency, SmoothMix, CatRS)
}
"""The methods, by their names in the program."""

__all__ = [
    "METHODS",
    "Batch",
    "CatRS",
    "Consistency",
    "DenoiserTrainer",
    "Denoising",
    "Gaussian",
    "LogUniform",
    "Macer",
    "Method",
    "Passes",
    "Recipe",
    "SmoothAdv",
    "SmoothMix",
    "TrainState",
    "Trainer",
    "adam",
    "crop_and_flip",
    "sgd",
]
