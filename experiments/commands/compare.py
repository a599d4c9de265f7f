"""Compare runs with a reference run, image by image: gain in ACR with its interval, cost of the search, regret.

If the reference is Cohen's run, the table shows what a search gains. If it is an exhaustive search (`--search grid`),
the table shows what a search misses. All runs must be over the same images. The files of a run that was split by
--shard are one run. The reference is the run of the first file. Intervals come from a paired bootstrap (BCa) over the
images.
"""

from pathlib import Path

from qcrs_jax.errors import UserError

from ..report.layouts import FORMATS
from .table import add_beyond


def add_arguments(parser):
    parser.add_argument("reference", metavar="REFERENCE", type=Path, help="results file of the reference run")
    parser.add_argument("results", metavar="RESULTS", nargs="+", type=Path, help="results files to compare with it")
    parser.add_argument("--format", choices=FORMATS[:3], default="terminal", help="layout (default: terminal)")
    parser.add_argument(
        "--top",
        type=int,
        default=0,
        metavar="K",
        help="list the K images of each run that gain most over the reference, and the K that lose most",
    )
    add_beyond(parser)
    parser.add_argument("--names", nargs="+", metavar="NAME", help="names of the runs, the reference first")
    parser.add_argument("--out", type=Path, help="write to this file instead of the terminal")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw sigma and radius of each image (png, pdf, svg)")
    parser.add_argument(
        "--frontier", type=Path, metavar="FILE", help="draw gain in ACR against samples (png, pdf, svg)"
    )


def run(args):
    from qcrs_jax.results.shards import read_runs

    from ..report.compare import comparison, frontier, plot
    from ..report.figures import check_ending
    from ..report.layouts import check_replaceable, write

    if args.top < 0:
        raise UserError(f"--top must be at least 0, not {args.top}")
    check_replaceable(args.out, [args.reference, *args.results])
    figures = [(args.plot, plot), (args.frontier, frontier)]
    for file, _ in figures:
        if file is not None:
            check_ending(file)
    reference, *runs = read_runs([args.reference, *args.results])
    write(comparison(reference, runs, args.format, args.names, args.top, args.beyond), args.out)
    for file, draw in figures:
        if file is not None:
            draw(reference, runs, file, args.names)
            print(file)
