"""Table of results files: ACR, certified accuracy at radii, abstention, samples and time per image.

It reads our files and those of Cohen's and QCRS's programs. The best of each column is marked. The row below a run has
95% intervals over images. Runs over different images are put in separate tables. The files of a run that was split by
--shard are one run. Files of `qcrs-jax predict` give a table of agreement instead. Files of `qcrs-jax attack` beside
their runs add a table of the gap between certified and attacked.

  qcrs-jax table cohen.tsv qcrs.tsv
  qcrs-jax table cohen.tsv qcrs.tsv --format latex --out table.tex
"""

import math
from pathlib import Path

from qcrs_jax.errors import UserError

from ..report.layouts import COLUMNS, FORMATS, Float, check_replaceable, write


def add_arguments(parser):
    parser.add_argument("results", metavar="RESULTS", nargs="+", type=Path, help="results files")
    parser.add_argument("--format", choices=FORMATS, default="terminal", help="layout (default: terminal)")
    parser.add_argument("--radii", type=float, nargs="+", metavar="R", help="radii (default: 0, 0.25, 0.5, ...)")
    parser.add_argument("--classes", action="store_true", help="one table per run, with a row for each class")
    parser.add_argument(
        "--per_image",
        action="store_true",
        help="with --format csv: a row for each image, times in seconds and counts as JSON lists",
    )
    parser.add_argument(
        "--names",
        nargs="+",
        metavar="NAME",
        help="names of the runs, one each (default: the method, what differs between the runs, the file)",
    )
    parser.add_argument(
        "--columns",
        nargs="+",
        metavar="COLUMN",
        choices=COLUMNS,
        help=(
            "one_classifier, acr, radii (certified accuracy at each), p_a (share of images that are classified "
            "correctly with p_A above 0.9, 0.99 and 0.999), abstains, samples and seconds, in this order (default: all "
            "but p_a)"
        ),
    )
    parser.add_argument("--caption", help="with --format latex: the caption of a table environment, as LaTeX reads it")
    parser.add_argument("--label", help="with --format latex: the label of a table environment")
    add_beyond(parser)
    parser.add_argument("--out", type=Path, help="write to this file instead of the terminal")


def add_beyond(parser) -> None:
    """Adds the flag of the sigma beyond which images are counted."""
    parser.add_argument(
        "--beyond",
        type=positive,
        metavar="SIGMA",
        help="count the images with a larger sigma, their answers, and the ACR without them (default: the sigma at "
        "which accuracy under noise is lost, of each run that recorded it)",
    )


def positive(text: str) -> float:
    """The positive, finite number in `text`."""
    number = float(text)
    if not 0 < number < math.inf:
        raise ValueError(text)
    return number


positive.__name__ = "positive number"  # as argparse calls it


def run(args):
    from qcrs_jax.results.attacks import read_runs_and_attacks

    from ..report.table import class_tables, image_rows, tables

    _check(args)
    check_replaceable(args.out, args.results)
    (runs, attacks), around = read_runs_and_attacks(args.results), Float(args.caption, args.label)
    if any(attacks) and (args.per_image or args.classes):
        raise UserError("files of attacks go with the table of runs; leave them out, or --per_image and --classes")
    if args.per_image:
        for empty in (run for run in runs if not run.records):
            raise UserError(f"{empty.path}: holds no results yet")
        text = image_rows(runs, args.names)
    elif args.classes:
        text = class_tables(runs, args.format, args.radii, args.names, around, args.beyond)
    else:
        text = tables(runs, args.format, args.radii, args.names, args.columns, around, args.beyond, attacks)
    write(text, args.out)


def _check(args) -> None:
    """Raises UserError for flags that do not go together."""
    if args.per_image and (args.format != "csv" or args.classes):
        raise UserError("--per_image gives csv, and no --classes; give --format csv")
    if (args.caption or args.label) and args.format != "latex":
        raise UserError("--caption and --label go with --format latex")
    if args.columns and (args.format == "csv" or args.classes):
        raise UserError("--columns chooses those of the table of runs; csv has all of them, and --classes its own")
