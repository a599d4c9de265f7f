"""Predict a data set: the smoothed classifier's class of every image, or an abstention (PREDICT of Cohen et al.).

CHECKPOINT and RESULTS are as of `qcrs-jax certify`; the lines are idx label predict correct time counts. Runs with
several N, beside each other in `qcrs-jax table`, tell how many samples suffice.

  qcrs-jax predict models/cifar10/resnet110/noise_0.25/checkpoint.pth.tar predictions --sigma 0.25 --N 1000
"""

from qcrs_jax.errors import UserError

from ..run.predict import predict_dataset
from .flags import add_input_arguments, add_program_arguments, check_arguments


def add_arguments(parser):
    add_input_arguments(parser)
    add = parser.add_argument_group("method").add_argument
    add("--sigma", type=float, required=True, help="noise level that the classifier was trained at")
    add("--N", type=int, default=100_000, help="samples for each image (default: 100000)")
    add("--alpha", type=float, default=0.001, help="failure probability of each prediction (default: 0.001)")
    add_program_arguments(parser)


def run(args):
    from ..report import table

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
