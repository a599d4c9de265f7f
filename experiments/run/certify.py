"""Certifies a data set: every image is searched, selected and estimated, one line each."""

import dataclasses
from collections.abc import Container
from pathlib import Path

import numpy as np

from qcrs_jax import conclude
from qcrs_jax.errors import SettingError
from qcrs_jax.results.records import Record
from qcrs_jax.sampling.counts import SOFT_ONE

from . import cascade, pilot
from .answers import draw_image, draws_of, fields, one_record, recorded_fields
from .cascade import CascadeRequest
from .collapse import with_collapse
from .inputs import Inputs, open_inputs
from .progress import check_installed
from .request import Request
from .runner import Sweep, Task, run_over_images


def certify_cascade_dataset(request: CascadeRequest, sweep: Sweep, inputs: Inputs | None = None) -> Path | None:
    """Certifies the data set by a cascade. Returns the results file; errors as for `run_over_images`."""
    return run_over_images(lambda m: cascade.task(request.of_each(m)), sweep, inputs)


def certify_dataset(
    request: Request, sweep: Sweep, inputs: Inputs | None = None, collapse: bool = False
) -> Path | None:
    """Certifies the data set. Returns the results file; errors as for `run_over_images`.

    With `collapse`, the collapse of the classifier is measured first and recorded, if the search has a bracket.
    """
    check_batch(request, sweep)
    if (collapse or request.to_collapse) and request.search.sigma_upper is not None:
        check_installed()
        request, inputs = with_collapse(request, sweep, open_inputs(sweep) if inputs is None else inputs)
    plans = pilot.plan(request, sweep, inputs) if request.budget else None
    leave = pilot.left_out(sweep.results) if request.budget else ()
    return run_over_images(lambda m: dataclasses.replace(task(request.of_each(m), plans), leave=leave), sweep, inputs)


def check_batch(request: Request, sweep: Sweep) -> None:
    """Raises SettingError for a batch whose soft votes could not be summed exactly."""
    batch = sweep.program.batch_size
    if request.estimate.votes_beta is not None and isinstance(batch, int) and batch > SOFT_ONE:
        raise SettingError(f"{{batch_size}} {batch}: soft votes are summed exactly only up to {SOFT_ONE}")


def task(request: Request, plans: Container | None) -> Task:
    """The task at each image, and its record. `plans` has, by index, the earlier findings about an image."""
    recorded = request.recorded()

    def start(classify, images, **program):
        drawn = draw_image(request, classify, images, **program)
        return lambda: conclude(drawn)

    def records(index, label, seconds, certificate):
        found = fields(request, certificate)
        if plans:
            found["search_samples"] = plans[index].search_samples
            seconds += plans[index].seconds
        return one_record(index, label, seconds, found)

    def own(indices, labels):
        known = {"labels": labels} if request.stop_when_wrong else {}
        if plans:
            known["sigma"] = np.array([plans[index].sigma for index in indices], np.float32)
            known["n"] = np.array([plans[index].n for index in indices])
        return known

    of_every_line = recorded_fields(recorded)
    score = ("ACR", lambda record: record.correct * record.radius)
    equal_cost = "n" not in of_every_line
    knows = lambda index: not plans or index in plans  # noqa: E731
    of_any = None if plans else draws_of(request)
    draws = lambda index: of_any or draws_of(request, plans[index].n)  # noqa: E731
    file = {"columns": Record.columns(of_every_line)}
    return Task(recorded, start, records, draws, score, file=file, own=own, knows=knows, equal_cost=equal_cost)
