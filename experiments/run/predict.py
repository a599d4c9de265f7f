"""Predict a data set: the smoothed classifier's class of every image, or an abstention (PREDICT of Cohen et al.).

CHECKPOINT and RESULTS are as of `qcrs-jax certify`; the lines are idx label predict correct time counts. Runs with
several N, beside each other in `qcrs-jax table`, tell how many samples suffice.

  qcrs-jax predict models/cifar10/resnet110/noise_0.25/checkpoint.pth.tar predictions --sigma 0.25 --N 1000
"""

from pathlib import Path

from qcrs_jax import decide, draw_counts
from qcrs_jax.results.records import PREDICT_COLUMNS

from .cost import Draws
from .runner import Task, one_record, run_over_images


def predict_dataset(args) -> Path | None:
    """Predicts the data set; returns what `run_over_images` does, and raises what it raises."""
    return run_over_images(task(args), args)


def task(args) -> Task:
    """What is done at each image."""

    def start(classify, images, **program):

        counts = draw_counts(classify, images, args.sigma, n=args.N, **program)
        return lambda: decide(counts, args.N, args.alpha)

    def records(index, label, seconds, answer):
        fields = {"predict": int(answer.prediction), "radius": None, "counts": tuple(answer.counts.tolist())}
        return one_record(index, label, seconds, fields)

    request = {
        "method": "predict",
        "sigma": args.sigma,
        "n": args.N,
        "alpha": args.alpha,
        "seed": args.seed,
        "skip": args.skip,
    }
    score = ("accuracy", lambda record: record.correct)
    draws = Draws((args.N,))
    return Task(request, start, records, lambda index: draws, score, file={"columns": PREDICT_COLUMNS})
