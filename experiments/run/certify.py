"""Certify a data set: the L2 radius of every image, by QCRS, DDRS or at a fixed sigma.

CHECKPOINT is a directory that `qcrs-jax convert` wrote or a PyTorch file. RESULTS is a tab-separated file, one line
an image, with a sidecar RESULTS.json. A run that was stopped goes on when the same command is given again.

  qcrs-jax certify models/cifar10/resnet110/noise_0.25/checkpoint.pth.tar cifar_exp --sigma 0.25 \\
      --left 0.08 --right 0.9 --epsilon 0.03
"""

import dataclasses
from collections.abc import Container
from pathlib import Path

import numpy as np

from qcrs_jax import conclude, draw
from qcrs_jax.certification.estimates import estimate_of
from qcrs_jax.certification.verdict import fields_of
from qcrs_jax.results.records import columns_of

from .cost import Draws
from .pilot import left_out, plan
from .request import VOTES, Request, recorded_numbers, request_of
from .runner import Task, one_record, run_over_images


def certify_dataset(request: Request, args) -> Path | None:
    """Certifies the data set; returns what `run_over_images` does, and raises what it raises."""

    plans = plan(request, args) if request.budget else None
    leave = left_out(args.results) if request.budget else ()
    return run_over_images(lambda m: dataclasses.replace(task(request_of(request, m, args), plans), leave=leave), args)


def task(request: Request, plans: Container | None) -> Task:
    """What is done at each image, and recorded. `plans`, by index: what was found out of it before."""

    numbers = recorded_numbers(request)

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

    if request.estimate.votes_beta is not None:
        numbers["votes"] = VOTES
    recorded = recorded_fields(numbers)
    score = ("ACR", lambda record: record.correct * record.radius)
    even = "n" not in recorded
    knows = lambda index: not plans or index in plans  # noqa: E731
    of_any = None if plans else draws_of(request)
    draws = lambda index: of_any or draws_of(request, plans[index].n)  # noqa: E731
    file = {"columns": columns_of(recorded)}
    return Task(numbers, start, records, draws, score, file=file, own=own, knows=knows, even=even)


def draws_of(request: Request, planned: int | None = None) -> Draws:
    """The noisy copies that an image gets; where its number of certification samples is planned, it is searched."""
    search = request.search
    counted = (search.search_n,) * search.evaluations
    early = request.estimate.may_end_early or request.stop_when_wrong
    if planned is not None:
        return Draws((request.n0, planned), at_most=early)
    return Draws(
        (*counted, request.n0, *request.estimate.queries(request.n)),
        search.samples - sum(counted),
        early or search.may_end_early,
    )


def recorded_fields(numbers: dict) -> set[str]:
    """The fields beside those of every run that each line of a run with these numbers has."""

    own_n = {"budget", "stop_when_wrong"} & set(numbers)
    return {*estimate_of(numbers).columns, *(["n"] if own_n else [])}


def draw_image(request: Request, classify, image, **program):
    """What is drawn of one image, or of several, for its certificate; `program` has the other arguments of `draw`.

    Where it has sigma, that was searched before.
    """

    numbers = {"sigma": request.sigma, "n0": request.n0, "n": request.n, "alpha": request.alpha}
    numbers |= {"estimate": request.estimate}
    if "sigma" in program:  # a search may have widened its bracket beyond what may be asked for
        numbers |= {"value_range": None}
    else:
        numbers |= {"search": request.search}
    return draw(classify, image, **{**numbers, **program})


def search_samples(request: Request, trace) -> int:
    """Noisy copies spent on the choice of sigma; DDRS differentiates on each of its own."""
    return 0 if trace is None else request.search.spent(trace)


def fields(request: Request, certificate) -> dict:
    """A certificate as fields of a Record, in Python's own numbers."""

    found = {
        **fields_of(certificate),
        "sigma": float(certificate.sigma),
        "search_samples": search_samples(request, certificate.search),
        "counts0": tuple(certificate.counts0.tolist()),
        "counts": tuple(certificate.counts.tolist()),
    }
    if request.own_n:
        found["n"] = int(certificate.n)
    return found | request.estimate.fields(certificate)
