"""The noise that the images of a run ask for: on the grid of their pixels where they have 8 bits a channel."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from qcrs_jax.data.dataset import Dataset
from qcrs_jax.errors import SettingError, UserError
from qcrs_jax.printable import printable
from qcrs_jax.results.records import read_sidecar
from qcrs_jax.sampling.devices import broadcast_from_first
from qcrs_jax.sampling.smoothing import GAUSSIAN, LARGEST_IMAGE, GridGaussian, Noise, noise_of

from .inputs import Inputs, open_inputs
from .pilot import pilot_path
from .settings import Sweep

GRID = GridGaussian()


def with_noise_of_data(request, sweep: Sweep, inputs: Inputs | None = None) -> tuple[Any, Inputs]:
    """`request` with the noise that its images ask for, and the inputs of the run, opened. Prints which noise and why.

    A run that goes on keeps the noise of its file.

    Args:
        request: any request with `noise` and `check()`.

    Raises:
        UserError: the inputs cannot be opened.
    """
    inputs = open_inputs(sweep) if inputs is None else inputs
    begun = _begun(sweep.results)
    if begun is None:
        noise = noise_for(inputs.dataset, lambda grid: dataclasses.replace(request, noise=grid).check())
    else:
        noise = begun
        print(printable(f"noise: {noise.name}, as in {sweep.results}"))
    (on_grid,) = broadcast_from_first([noise == GRID])  # only the first host has the file
    other = begun is not None and begun not in (GRID, GAUSSIAN)
    return dataclasses.replace(request, noise=begun if other else GRID if on_grid else GAUSSIAN), inputs


def noise_for(dataset: Dataset, check: Callable[[Noise], None]) -> Noise:
    """Noise on the grid for images of 8 bits a channel, normal noise in float32 for others. Prints which, and why.

    Args:
        check: raises SettingError for a noise that cannot be drawn at the sigmas that are asked for.
    """
    raw, against = _first_image(dataset), None
    if raw is None or raw.dtype != np.uint8:
        against = "the images are not of 8 bits a channel"
    elif raw.size > LARGEST_IMAGE:
        against = f"the images have more than {LARGEST_IMAGE} numbers"
    else:
        try:
            check(GRID)
        except SettingError:  # it passed with normal noise
            against = f"a sigma may exceed {GRID.largest_sigma:.3g}, the largest for noise on the grid"
    noise = GRID if against is None else GAUSSIAN
    print(f"noise: {noise.name}, because {against or 'the images have 8 bits a channel'}")
    return noise


def _first_image(dataset):
    """The first image that can be read, as it is stored; None where there is none."""
    for index in range(len(dataset)):
        if index not in dataset.problems:
            try:
                return dataset.read(index)
            except UserError:
                continue
    return None


def _begun(results: Path) -> Noise | None:
    """The noise of a results file, or a pilot of it, that was begun; None where there is none to be read."""
    for file in (results, pilot_path(results)) if results.name else ():
        try:
            return noise_of(read_sidecar(file)["request"])
        except (UserError, KeyError, TypeError, AttributeError):  # the run itself will say it
            continue
    return None
