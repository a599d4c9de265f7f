"""Predict a data set: the smoothed classifier's class of every image, or an abstention (PREDICT of Cohen et al.).

CHECKPOINT and RESULTS are those of `qcrs-jax certify`. The lines are idx label predict correct time counts. Pass runs
with different N to `qcrs-jax table` to see how many samples suffice.

  qcrs-jax predict models/cifar10/resnet110/noise_0.25/checkpoint.pth.tar predictions --sigma 0.25 --N 1000
"""

from .flags import Parser, possible
from .method import add_noise, noise_of
from .sweep import add_sweep, sweep_of


def add_arguments(parser: Parser) -> None:
    add_sweep(parser)
    group = parser.add_argument_group("method")
    add = group.add_argument
    add("--sigma", type=float, required=True, help="noise level that the classifier was trained at")
    add("--n", "--N", dest="n", type=int, default=100_000, metavar="N", help="samples for each image (default: 100000)")
    add("--alpha", type=float, default=0.001, help="failure probability of each prediction (default: 0.001)")
    add_noise(group)


def run(args) -> None:
    from ..report.table import print_tables
    from ..run.predict import Prediction, task
    from ..run.runner import run_over_images

    sweep = sweep_of(args)
    with possible():
        request = Prediction(args.sigma, args.n, args.alpha, noise_of(args))
        request.check()
    path = run_over_images(task(request), sweep)
    if path is None:  # only the first host has the file, and no dry run
        return
    print()
    print_tables([path])
