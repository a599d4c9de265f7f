"""Samples that a decision needs, or a radius known to a precision: exact means, without a network.

An image whose selected class has probability Phi(z) under the noise has the true radius z sigma. For such an image the
samples of `qcrs-jax certify --decide` and `--precision` are followed through all their counts (dynamic programming).
The tables also show a fixed N and published schemes.

  qcrs-jax sequential --decide 1 2 --precision 0.05 0.1
"""

from pathlib import Path

from ..report.layouts import FORMATS, LAYOUTS, check_replaceable, write
from .flags import possible


def add_arguments(parser):
    add = parser.add_argument
    add(
        "--decide",
        type=float,
        nargs="+",
        default=[1.0, 2.0],
        metavar="R",
        help="radii of decisions, in units of sigma (default: 1 2)",
    )
    add(
        "--precision",
        type=float,
        nargs="+",
        default=[0.05, 0.1],
        metavar="SHARE",
        help="relative precisions of a radius (default: 0.05 0.1)",
    )
    add(
        "--results",
        type=Path,
        help="results file; a further column has the mean over its images. The share of the selected class among the "
        "certification samples of an image is taken as its probability",
    )
    add("--n", "--N", dest="n", type=int, default=100_000, help="largest number of samples (default: 100000)")
    add("--alpha", type=float, default=0.001, help="failure probability of each claim (default: 0.001)")
    add("--format", choices=FORMATS[:2], default="terminal", help="layout (default: terminal)")
    add("--out", type=Path, help="write to this file instead of the terminal")


def run(args):
    from qcrs_jax.certification.certificate import check_request
    from qcrs_jax.certification.sequential import Sequential
    from qcrs_jax.sampling.smoothing import GAUSSIAN

    from ..report.sequential import decisions, precisions, probits

    with possible():
        check_request(1.0, 1, args.n, args.alpha)
        asked = [Sequential(decide=r) for r in args.decide] + [Sequential(precision=share) for share in args.precision]
        for sequential in asked:
            sequential.check_reach(1.0, args.n, args.alpha, GAUSSIAN)
    check_replaceable(args.out, [])
    layout = LAYOUTS[args.format]
    zs = None if args.results is None else probits(args.results)
    parts = [part for r in args.decide for part in decisions(layout, r, args.n, args.alpha, zs)]
    write("\n\n".join([*parts, *precisions(layout, args.precision, args.n, args.alpha)]) + "\n", args.out)
