"""An image drawn again with slightly moved noisy copies: near ties fall otherwise, as by another device's rounding."""

import dataclasses
from collections.abc import Iterator

import numpy as np
from jax.tree_util import Partial
from jaxtyping import Float

from qcrs_jax.results.records import Record
from qcrs_jax.sampling.classifiers import Classifier, NoiseConditional
from qcrs_jax.sampling.devices import place

from ..run.inputs import Inputs
from ..run.runner import Task, starter

TURNS = 32  # times that an image is drawn again at most


def nudged(classify: Classifier | tuple[Classifier, ...], shift: Float[np.ndarray, "h w c"]):
    """`classify`, or each stage of a cascade, as a classifier that sees every image moved by `shift`."""
    if isinstance(classify, tuple):
        return tuple(nudged(stage, shift) for stage in classify)
    if isinstance(classify, NoiseConditional):
        return NoiseConditional(Partial(_conditional, classify.function, shift))
    return Partial(_plain, classify, shift)


def _plain(classify, shift, images):
    return classify(images + shift)


def _conditional(function, shift, images, sigma):
    return function(images + shift, sigma)


def draws_nearby(task: Task, inputs: Inputs, index: int, image, label: int, deviation: float) -> Iterator[Record]:
    """The records of one image, each with all noisy copies moved by a vector of normal numbers of this `deviation`."""
    for turn in range(TURNS):
        shift = deviation * np.random.default_rng(turn).standard_normal(image.shape).astype(np.float32)
        moved = dataclasses.replace(inputs, classify=place(nudged(inputs.classify, shift), inputs.devices))
        start = starter(task, moved, [index], together=1)
        (answer,) = start([(index, image, label)], inputs.batch)()
        yield task.records(index, label, 0.0, answer)[0]
