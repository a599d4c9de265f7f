"""Compare searches on measured curves, without the network: the radii that each would find for its samples.

CURVES are files of `qcrs-jax curve`. Measure them with 10 000 samples or more at each sigma: fewer samples cannot show
large radii. Radii are those that certificates of N samples can be expected to give at the sigma that is found. Regret
is the part of its largest radius in the bracket that an image misses, as a mean over the images and for the worst of
them. The gain over the published bisection is a mean over the images, with its 95% bootstrap interval over them.

With --bound, certificates are drawn and searches aim at them. The table then has the gain by the bound, search by
search, in place of the regret.

With --sigmas, cascades are compared instead, with the best sigma for all images: --sigmas may be repeated.

  qcrs-jax curve CHECKPOINT curves.tsv --sigma 0.25 --skip 100 --sigmas 0.06 1.2 24 --curve_n 10000
  qcrs-jax simulate curves.tsv --left 0.08 --right 0.9 --epsilon 0.03
  qcrs-jax simulate curves.tsv --bound classes --n 10000
  qcrs-jax simulate curves.tsv --n 10000 --sigmas 1,0.5,0.25 --sigmas 0.7,0.35
"""

from pathlib import Path

from .flags import Parser, possible, settings_of
from .method import numbers


def add_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("curves", metavar="CURVES", type=Path, nargs="+", help="files of `qcrs-jax curve`")
    add("--sigma_lower", "--left", type=float, help="lower end of the bracket of sigmas (default: 0.25 SIGMA)")
    add("--sigma_upper", "--right", type=float, help="upper end (default: 3.5 SIGMA)")
    add(
        "--epsilon",
        type=float,
        help="width of the bracket at which golden section and bisection stop (default: 0.1 SIGMA)",
    )
    add("--epsilon_step", type=float, default=0.4, help="bisection's step is EPSILON / EPSILON_STEP (default: 0.4)")
    add("--n", "--N", dest="n", type=int, default=100_000, help="samples of a certificate (default: 100000)")
    add("--alpha", type=float, default=0.001, help="failure probability of a certificate (default: 0.001)")
    add(
        "--bound",
        default="clopper-pearson",
        help="bound of the certificates, at which the searches aim (default: clopper-pearson)",
    )
    add(
        "--sigmas",
        type=numbers,
        action="append",
        metavar="S1,S2,...",
        help="stages of a cascade, the largest first, that is compared in place of searches",
    )
    add("--repeats", type=int, default=10, help="searches, or cascades, on each curve (default: 10)")
    add("--seed", type=int, default=0, help="seed of the counts (default: 0)")


def run(args) -> None:
    from qcrs_jax.analysis.curves import read_all_curves

    from ..run.simulate import Simulation, cascades, comparison

    with possible():
        asked = settings_of(Simulation, args)
        for path, curves in read_all_curves(args.curves):
            print(f"{path}: {len(curves.idx)} images, {curves.n:,} samples at each of {len(curves.sigmas)} sigmas")
            print(cascades(curves, asked) if asked.sigmas else comparison(curves, asked))
