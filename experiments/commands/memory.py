"""Memory-based post-processing of a results file: radii are trimmed so that no balls of two classes overlap.

RESULTS is a finished results file, of `qcrs-jax certify` or of Cohen's or QCRS's programs. The data set must be the one
of that run. Its images are taken in the order of the lines. Nothing is certified again (Alfarra et al. 2022, algorithm
2). FILE becomes a results file of the same form, with the corrected predict, radius and correct.

  qcrs-jax memory ddrs.tsv --dataset cifar10 --data_dir data --out ddrs_memory.tsv
"""

from pathlib import Path

from ..run.settings import Data
from .flags import Parser, add_settings, settings_of


def add_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("results", metavar="RESULTS", type=Path, help="results file to correct; it stays as it is")
    add("--out", type=Path, required=True, metavar="FILE", help="results file to write; it must not exist")
    add_settings(parser.add_argument_group("data"), Data, "dataset data_dir class_order memory_limit split")


def run(args) -> None:
    from ..report.table import print_tables
    from ..run.stored_balls import postprocess

    print(postprocess(args.results, args.out, settings_of(Data, args)))
    print()
    print_tables([args.results, args.out])
