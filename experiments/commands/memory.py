"""Memory-based post-processing of a results file: radii trimmed so that no balls of two classes overlap.

RESULTS is a finished results file, of `qcrs-jax certify` or of Cohen's or QCRS's programs, and the data set the one it
was made of. Its images are taken in the order of its lines; nothing is certified again (Alfarra et al. 2022, algorithm
2). FILE becomes a results file of the same form, with the corrected predict, radius and correct.

  qcrs-jax memory ddrs.tsv --dataset cifar10 --data_dir data --out ddrs_memory.tsv
"""

from pathlib import Path

from ..run.stored_balls import postprocess
from .flags import add_data_arguments


def add_arguments(parser):
    add = parser.add_argument
    add("results", metavar="RESULTS", type=Path, help="results file to correct; it stays as it is")
    add("--out", type=Path, required=True, metavar="FILE", help="results file to write; it must not exist")
    add = add_data_arguments(parser).add_argument
    add("--split", choices=["train", "test", "val"], default="test", help="default: test")


def run(args):
    from ..report import table

    print(
        postprocess(
            args.results,
            args.out,
            args.dataset,
            args.data_dir,
            args.split,
            args.class_order,
            memory_limit=args.memory_limit,
        )
    )
    print()
    table.print_tables([args.results, args.out])
