"""Measure R(sigma) of every image of a data set: its class counts at many sigmas, with the same noise at all of them.

RESULTS has a line for each image and sigma, idx label sigma counts, and a sidecar RESULTS.json. A run that was stopped
goes on when the same command is given again. `qcrs-jax quasiconcavity RESULTS` says what the curves look like;
`qcrs_jax.read_curves` gives them as arrays.

  qcrs-jax curve models/cifar10/resnet110/noise_0.25/checkpoint.pth.tar curves --sigma 0.25 --skip 100 \\
      --sigmas 0.08 0.9 24 --curve_n 2000
"""

from qcrs_jax.errors import UserError

from ..run.curve import measure_dataset
from .flags import add_input_arguments, add_program_arguments, check_arguments


def add_arguments(parser):
    add_input_arguments(parser)
    add = parser.add_argument_group("curve").add_argument
    add("--sigma", type=float, required=True, help="noise level that the classifier was trained at")
    add_curve_arguments(add, samples=2000)
    add_program_arguments(parser)


def add_curve_arguments(add, samples):
    add(
        "--sigmas",
        type=float,
        nargs=3,
        metavar=("LO", "HI", "COUNT"),
        help="COUNT sigmas from LO to HI, evenly spaced in log sigma; SIGMA is added (default: the bracket's ends, "
        "0.25 SIGMA and 3.5 SIGMA where there is none, and 24)",
    )
    add("--curve_n", type=int, default=samples, help=f"samples at each of these sigmas (default: {samples})")


def run(args):
    request = check(args)
    path = measure_dataset(request, args)
    if path is None:  # the first of the hosts has it; a dry run has none
        return
    print(f"{path}: `qcrs-jax quasiconcavity {path}` tells what the curves look like")


def check(args) -> dict:
    """The request of the command's arguments.

    Raises:
        UserError: an impossible one; says which and what would be possible.
    """
    from qcrs_jax.checks import check_sigma

    check_arguments(args)
    try:
        check_sigma(args.sigma, name="--sigma")
    except ValueError as error:
        raise UserError(f"impossible request: {error}") from error
    sigmas = check_sigmas(args)
    return {"method": "curve", "sigma": args.sigma, "sigmas": sigmas, "n": args.curve_n, "seed": args.seed}


def check_sigmas(args, qcrs=None) -> list[float]:
    """The sigmas that --sigmas asks for, by default over the bracket of `qcrs`, and the original one; ascending.

    Raises:
        UserError: --sigmas or --curve_n is impossible.
    """
    from qcrs_jax.analysis.curves import sigma_grid
    from qcrs_jax.certification.certificate import MAX_N
    from qcrs_jax.checks import check_sigma

    bracket = (qcrs.sigma_lower, qcrs.sigma_upper) if qcrs else (0.25 * args.sigma, 3.5 * args.sigma)
    lower, upper, count = args.sigmas or (*bracket, 24)
    if not 0 < lower < upper < float("inf"):
        raise UserError(f"--sigmas: needs 0 < LO < HI, both finite, not {lower:g} and {upper:g}")
    try:
        check_sigma(upper, name="--sigmas")
    except ValueError as error:
        raise UserError(f"impossible request: {error}") from error
    if count != int(count) or not 3 <= count <= 10_000:
        raise UserError(f"--sigmas: COUNT must be a whole number from 3 to 10000, not {count:g}")
    if not 1 <= args.curve_n <= MAX_N:
        raise UserError(f"--curve_n must lie between 1 and {MAX_N}, not {args.curve_n}")
    return sigma_grid(lower, upper, int(count), args.sigma)
