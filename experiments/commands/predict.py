"""Predict a data set: the smoothed classifier's class of every image, or an abstention (PREDICT of Cohen et al.).

CHECKPOINT and RESULTS are those of `qcrs-jax certify`. The lines are idx label predict correct time counts. Pass runs
with different N to `qcrs-jax table` to see how many samples suffice.

With --sigmas it is the answer of a cascade, which has samples at each of its stages.

  qcrs-jax predict models/cifar10/resnet110/noise_0.25/checkpoint.pth.tar predictions --sigma 0.25 --N 1000
  qcrs-jax predict checkpoint.pth.tar predictions --sigmas 1,0.5,0.25 --N 1000
"""

from .flags import Parser, possible
from .method import add_cascade, add_noise, given_cascade, noise_of
from .sweep import add_sweep, sweep_of


def add_arguments(parser: Parser) -> None:
    add_sweep(parser)
    group = parser.add_argument_group("method")
    add = group.add_argument
    add("--sigma", type=float, help="noise level of the smoothed classifier")
    add_cascade(group, group)
    add("--n", "--N", dest="n", type=int, default=100_000, metavar="N", help="samples for each image (default: 100000)")
    add("--alpha", type=float, default=0.001, help="failure probability of each prediction (default: 0.001)")
    add("--n0", "--N0", dest="n0", type=int, help="cascade: samples of each stage that select (default: 100)")
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
            stages = given_cascade(args)
            request = cascade.CascadeRequest(stages, args.n0 or 100, args.n, args.alpha, noise_of(args), predicts=True)
        elif given := [name for name in ("tau", "stages", "n0") if getattr(args, name)]:
            raise SettingError(f"{{{given[0]}}} is of a cascade; give {{sigmas}} with it")
        else:
            request = predict.Prediction(args.sigma, args.n, args.alpha, noise_of(args))
        request.check()
    path = run_over_images((cascade if args.sigmas else predict).task(request), sweep)
    if path is None:  # only the first host has the file, and no dry run
        return
    print()
    print_tables([path])
