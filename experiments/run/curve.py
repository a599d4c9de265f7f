"""Measure R(sigma) of every image of a data set: its class counts at many sigmas, with the same noise at all of them.

RESULTS has a line for each image and sigma, idx label sigma counts, and a sidecar RESULTS.json. A run that was stopped
goes on when the same command is given again. `qcrs-jax quasiconcavity RESULTS` says what the curves look like;
`qcrs_jax.read_curves` gives them as arrays.

  qcrs-jax curve models/cifar10/resnet110/noise_0.25/checkpoint.pth.tar curves --sigma 0.25 --skip 100 \\
      --sigmas 0.08 0.9 24 --curve_n 2000
"""

from pathlib import Path

from qcrs_jax import sample_curve
from qcrs_jax.analysis.curves import COLUMNS, Point, read_points

from .cost import Draws
from .runner import Task, run_over_images


def measure_dataset(request: dict, args) -> Path | None:
    """Measures the data set; returns what `run_over_images` does, and raises what it raises."""
    return run_over_images(task(request, args), args)


def task(request: dict, args) -> Task:
    """What is done at each image."""

    sigmas = request["sigmas"]
    written = set()

    def start(classify, images, **program):

        counts = sample_curve(classify, images, sigmas, n=request["n"], **program)
        return lambda: counts

    def lines(index, label, seconds, counts):
        points = [Point(index, label, sigma, tuple(row)) for sigma, row in zip(sigmas, counts.tolist())]
        return [point for point in points if (index, point.sigma) not in written]

    def done(points):
        written.update((point.idx, point.sigma) for point in points)
        return {index for index, _ in written if all((index, sigma) in written for sigma in sigmas)}

    file = {"columns": COLUMNS, "read": read_points}
    draws = Draws((request["n"],) * len(sigmas))
    return Task({**request, "skip": args.skip}, start, lines, lambda index: draws, file=file, done=done)
