"""Measure R(sigma) of every image of a data set: its class counts at many sigmas, with the same noise at all of them.

RESULTS has one line for each image and sigma, idx label sigma counts, and a sidecar RESULTS.json. Runs resume: repeat
the command. `qcrs-jax quasiconcavity RESULTS` describes the curves, and `qcrs_jax.read_curves` returns them as arrays.

  qcrs-jax curve models/cifar10/resnet110/noise_0.25/checkpoint.pth.tar curves --sigma 0.25 --skip 100 \\
      --sigmas 0.08 0.9 24 --curve_n 2000
"""

from .flags import Parser, possible
from .method import add_noise, noise_of, with_noise
from .sweep import add_sweep, sweep_of


def add_arguments(parser: Parser) -> None:
    add_sweep(parser)
    group = parser.add_argument_group("curve")
    group.add_argument("--sigma", type=float, required=True, help="noise level that the classifier was trained at")
    add_noise(group)
    add_curve(group, samples=2000)


def add_curve(group, samples: int) -> None:
    """Adds the flags of a curve's sigmas and samples."""
    group.add_argument(
        "--sigmas",
        type=float,
        nargs=3,
        metavar=("LO", "HI", "COUNT"),
        help="COUNT sigmas from LO to HI, evenly spaced in log sigma; SIGMA is added (default: the ends of the "
        "bracket, or 0.25 SIGMA and 3.5 SIGMA without one, and 24)",
    )
    group.add_argument(
        "--curve_n", type=int, default=samples, help=f"samples at each of these sigmas (default: {samples})"
    )


def run(args) -> None:
    path = measure(args)
    if path is None:  # only the first host has the file, and no dry run
        return
    print(f"{path}: `qcrs-jax quasiconcavity {path}` describes these curves")


def measure(args):
    """Measures the data set. Returns the results file; errors as for `run_over_images`."""
    from ..run.curve import task
    from ..run.runner import run_over_images

    request, sweep = curve_of(args), sweep_of(args)
    request, inputs = with_noise(args, request, sweep)
    return run_over_images(task(request), sweep, inputs)


def grid_of(sigma: float, wanted, bracket: tuple[float, float], noise) -> tuple[float, ...]:
    """The sigmas of --sigmas, or 24 over the bracket; `sigma` is among them.

    Raises:
        SettingError: an impossible number.
    """
    from ..run.curve import Curve

    return Curve.over(sigma, wanted, 1, bracket, noise).sigmas


def curve_of(args, bracket: tuple[float, float] | None = None):
    """The Curve of parsed arguments.

    Raises:
        UserError: the request is impossible; the message says which setting, and what would be possible.
    """
    from ..run.curve import Curve

    with possible():
        return Curve.over(args.sigma, args.sigmas, args.curve_n, bracket, noise_of(args))
