"""Give a finished run another bound: the certificates that it would have from the same counts. Nothing is drawn.

Choose the bound before you look at the results. The best of several bounds, chosen after a look at the counts, fails
more often than alpha. The new file names the run that it was made of. `qcrs-jax verify` makes it again and verifies
that run. sigma stays as it was chosen. A new run with --bound would choose it for that bound, which gains more.

  qcrs-jax rebound results.tsv --bound classes --out results_classes.tsv
"""

from pathlib import Path

from .flags import Parser, possible


def add_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("results", metavar="RESULTS", type=Path, help="results file of `qcrs-jax certify`; it stays as it is")
    add("--bound", required=True, help="bound of the new file: classes, clopper-pearson, or one of your own")
    add("--out", type=Path, required=True, metavar="FILE", help="results file to write; it must not exist")


def run(args) -> None:
    from ..report.table import print_tables
    from ..run.rebound import rebound

    with possible():
        changes = rebound(args.results, args.bound, args.out)
    print(changes)
    print()
    print_tables([args.results, args.out])
