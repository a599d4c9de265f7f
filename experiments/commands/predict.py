"""Predict a data set: the smoothed classifier's class of every image, or an abstention (PREDICT of Cohen et al.).

RESULTS gets one line per image, idx label predict correct time counts. Pass runs with different N to `qcrs-jax table`
to see how many samples suffice. With --sigmas it is the answer of a cascade, which has samples at each of its stages.

  qcrs-jax predict CHECKPOINT predictions.tsv --sigma 0.25 --N 1000
  qcrs-jax predict CHECKPOINT predictions.tsv --sigmas 1,0.5,0.25 --N 1000
"""

from .flags import Parser, possible, refuse
from .method import add_cascade, add_noise, given_cascade, noise_of, with_noise
from .sweep import add_sweep, sweep_of


def add_arguments(parser: Parser) -> None:
    add_sweep(parser)
    group = parser.add_argument_group("method")
    add = group.add_argument
    add("--sigma", type=float, help="noise level of the smoothed classifier")
    stages = parser.screen("cascade", "cascade: the classifier of --sigmas")
    add_cascade(group, stages)
    add("--n", "--N", dest="n", type=int, default=100_000, metavar="N", help="samples for each image (default: 100000)")
    add("--alpha", type=float, default=0.001, help="failure probability of each prediction (default: 0.001)")
    stages.add_argument("--n0", "--N0", dest="n0", type=int, help="samples of each stage that select (default: 100)")
    add_noise(group)


def run(args) -> None:
    from qcrs_jax.errors import SettingError

    from ..report.table import print_tables
    from ..run import cascade, predict
    from ..run.runner import run_over_images

    sweep = sweep_of(args)
    if (args.sigma is None) == (args.sigmas is None):
        raise SettingError("required: {sigma}, a noise level, or {sigmas}, the stages of a cascade")
    with possible():
        if args.sigmas:
            stages, n0 = given_cascade(args), 100 if args.n0 is None else args.n0
            request = cascade.CascadeRequest(stages, n0, args.n, args.alpha, noise_of(args), predicts=True)
        else:
            refuse(args, ("tau", "stages", "n0"), "is of a cascade; give {sigmas} with it")
            request = predict.Prediction(args.sigma, args.n, args.alpha, noise_of(args))
        request.check()
    request, inputs = with_noise(args, request, sweep)
    path = run_over_images((cascade if args.sigmas else predict).task(request), sweep, inputs)
    if path is None:  # only the first host has the file, and no dry run
        return
    print()
    print_tables([path])
