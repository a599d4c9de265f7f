"""Plot certified accuracy against radius of results files, with the ACR in the legend (png, pdf or svg).

Bands are 95% intervals for all images like these. They are exact (Clopper-Pearson) at each radius by itself; the
interval of the ACR is a bootstrap's (BCa). They assume that the images were drawn at random, and do not concern alpha.
Memory-based runs have none.

The files of a run that was split by --shard are one run, if all are given. A FILE.json that `qcrs-jax visualize` wrote
is drawn again as its figure.
"""

from pathlib import Path


def add_arguments(parser):
    parser.add_argument("results", metavar="RESULTS", nargs="+", type=Path, help="results files")
    parser.add_argument("--out", type=Path, required=True, help="FILE.png, FILE.pdf or FILE.svg")
    parser.add_argument("--title", help="title (default: the number of images and the data set)")
    parser.add_argument("--names", nargs="+", metavar="NAME", help="names for the legend, one per run")


def run(args):
    from ..report.plot import plot

    if len(args.results) == 1 and args.results[0].suffix == ".json":
        from ..report import search_figure

        search_figure.draw(args.results[0], args.out)
    else:
        plot(args.results, args.out, args.title, args.names)
    print(args.out)
