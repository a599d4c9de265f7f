"""Compare searches on measured curves, without the network: what each would find for its samples, in seconds.

CURVES are files of `qcrs-jax curve`; measure with 10 000 samples or more at each sigma, as fewer show no radius above
what they can tell. Radii are those that certificates of N samples can be expected to give at the sigma that is found.
Regret is what an image misses of its largest radius in the bracket, in the mean over the images and for the worst of
them. The gain over the published bisection is a mean over the images, with its 95% interval by a bootstrap over them.

  qcrs-jax curve CHECKPOINT curves.tsv --sigma 0.25 --skip 100 --sigmas 0.06 1.2 24 --curve_n 10000
  qcrs-jax simulate curves.tsv --left 0.08 --right 0.9 --epsilon 0.03
"""

from pathlib import Path

from qcrs_jax.errors import UserError

from ..run.simulate import MOST_REPEATS, comparison


def add_arguments(parser):
    add = parser.add_argument
    add("curves", metavar="CURVES", type=Path, nargs="+")
    add("--left", type=float, help="lower end of the bracket of sigmas (default: 0.25 SIGMA)")
    add("--right", type=float, help="upper end (default: 3.5 SIGMA)")
    add("--epsilon", type=float, help="width of the bracket at which golden section and bisection stop (0.1 SIGMA)")
    add("--epsilon_step", type=float, default=0.4, help="bisection's step is EPSILON / EPSILON_STEP (default: 0.4)")
    add("--N", type=int, default=100_000, help="samples of a certificate (default: 100000)")
    add("--alpha", type=float, default=0.001, help="failure probability of a certificate (default: 0.001)")
    add("--repeats", type=int, default=10, help="searches on each curve (default: 10)")
    add("--seed", type=int, default=0, help="seed of the counts (default: 0)")


def run(args):
    from qcrs_jax.analysis.curves import read_all_curves
    from qcrs_jax.bounds import smallest_n
    from qcrs_jax.certification.certificate import check_request

    if not 1 <= args.repeats <= MOST_REPEATS:
        raise UserError(f"--repeats must be at least 1 and at most {MOST_REPEATS}, not {args.repeats}")
    try:
        check_request(1.0, smallest_n(args.alpha), args.N, args.alpha)
    except ValueError as error:
        raise UserError(f"impossible request: {error}") from error
    for path, curves in read_all_curves(args.curves):
        print(f"{path}: {len(curves.idx)} images, {curves.n:,} samples at each of {len(curves.sigmas)} sigmas")
        print(comparison(curves, args))
