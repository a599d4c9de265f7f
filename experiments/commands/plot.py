"""Plot certified accuracy against radius of results files, with the ACR in the legend (png, pdf or svg).

Bands are 95% intervals for all images like these. They are exact (Clopper-Pearson) at each radius by itself; the
interval of the ACR is a bootstrap's (BCa). They assume that the images were drawn at random, and do not concern alpha.
Memory-based runs have none.

Files of `qcrs-jax attack`, beside the runs that they attacked, add the accuracy that the attack left, as dotted lines.

The files of a run that was split by --shard are one run, if all are given. A FILE.json that `qcrs-jax visualize` wrote
is drawn again as its figure.
"""

import dataclasses
from pathlib import Path

from qcrs_jax.errors import UserError


def add_arguments(parser):
    parser.add_argument("results", metavar="RESULTS", nargs="+", type=Path, help="results files")
    parser.add_argument("--out", type=Path, required=True, help="FILE.png, FILE.pdf or FILE.svg")
    parser.add_argument(
        "--title", help="'' for none (default: the number of images and the data set; with --style paper none)"
    )
    parser.add_argument(
        "--names",
        nargs="+",
        metavar="NAME",
        help="names for the legend, one a run (default: the method, and what differs between the runs)",
    )
    parser.add_argument(
        "--style",
        choices=("page", "paper"),
        default="page",
        help="paper: as wide as a column, letters of 8 points, no title; --out is best pdf or svg (default: page)",
    )
    parser.add_argument("--width", type=float, metavar="INCHES", help="of the figure (default: 6.4, of paper 3.25)")
    parser.add_argument(
        "--p_a",
        action="store_true",
        help=(
            "draw the distribution of p_A in a second panel: the share of images with at most each p_A, an image that "
            "is not classified correctly counting as 0"
        ),
    )


def run(args):
    from ..report.figures import LOOKS
    from ..report.plot import plot

    if args.width is not None and not 1 <= args.width <= 40:
        raise UserError(f"--width must be from 1 to 40 inches, not {args.width:g}")
    look = LOOKS[args.style] if args.width is None else dataclasses.replace(LOOKS[args.style], width=args.width)
    if len(args.results) == 1 and args.results[0].suffix == ".json":
        from ..report import search_figure

        if args.title is not None or args.names or args.p_a or args.width or args.style != "page":
            raise UserError(
                f"{args.results[0]}: is drawn as its figure was; --title, --names, --style, --width and --p_a go with "
                "results files"
            )
        search_figure.draw(args.results[0], args.out)
    else:
        plot(args.results, args.out, args.title, args.names, look, args.p_a)
    print(args.out)
