"""Give a finished run another bound: the certificates that it would have from the same counts. Nothing is drawn.

Choose the bound before you look at the results. The best of several bounds, chosen after a look at the counts, fails
more often than alpha. The new file names the run that it was made of. `qcrs-jax verify` makes it again and verifies
that run. sigma stays as it was chosen. A new run with --bound would choose it for that bound, which gains more.

  qcrs-jax rebound results.tsv --bound classes --out results_classes.tsv
"""

from pathlib import Path

from .flags import Parser


def add_arguments(parser: Parser) -> None:
    from qcrs_jax.certification.proportions import BOUNDS

    add = parser.add_argument
    add("results", metavar="RESULTS", type=Path, help="results file of `qcrs-jax certify`; it stays as it is")
    bounds = [name for name, bound in BOUNDS.items() if not bound.randomises]
    add("--bound", required=True, choices=bounds, help=f"bound of the new file: {' or '.join(bounds)}")
    add("--out", type=Path, required=True, metavar="FILE", help="results file to write; it must not exist")


def run(args) -> None:
    from ..report.table import print_tables
    from ..run.rebound import rebound

    print(rebound(args.results, args.bound, args.out))
    print()
    print_tables([args.results, args.out])
