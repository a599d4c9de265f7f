"""Predict a data set: the smoothed classifier's class of every image, or an abstention (PREDICT of Cohen et al.).

CHECKPOINT and RESULTS are as of `qcrs-jax certify`; the lines are idx label predict correct time counts. Runs with
several N, beside each other in `qcrs-jax table`, tell how many samples suffice.

  qcrs-jax predict models/cifar10/resnet110/noise_0.25/checkpoint.pth.tar predictions --sigma 0.25 --N 1000
"""

from pathlib import Path

from qcrs_jax.errors import UserError

from .arguments import add_input_arguments, add_program_arguments, check_arguments
from .cost import Draws
from .runner import Task, one_record, run_over_images


def add_arguments(parser):
    add_input_arguments(parser)
    add = parser.add_argument_group("method").add_argument
    add("--sigma", type=float, required=True, help="noise level that the classifier was trained at")
    add("--N", type=int, default=100_000, help="samples for each image (default: 100000)")
    add("--alpha", type=float, default=0.001, help="failure probability of each prediction (default: 0.001)")
    add_program_arguments(parser)


def run(args):
    from . import table

    check(args)
    path = predict_dataset(args)
    if path is None:  # the first of the hosts has it; a dry run has none
        return
    print()
    table.print_tables([path])


def check(args) -> None:
    """Raises UserError for an impossible request; says which and what would be possible."""
    from qcrs_jax.certification.certificate import check_prediction

    check_arguments(args)
    try:
        check_prediction(args.sigma, args.N, args.alpha)
    except ValueError as error:
        raise UserError(f"impossible request: {error}") from error


def predict_dataset(args) -> Path | None:
    """Predicts the data set; returns what `run_over_images` does, and raises what it raises."""
    return run_over_images(task(args), args)


def task(args) -> Task:
    """What is done at each image."""
    from qcrs_jax.results.records import PREDICT_COLUMNS

    def start(classify, images, **program):
        from qcrs_jax import decide, draw_counts

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
