"""Table of results files: ACR, certified accuracy at radii, abstention, samples and time per image.

Reads our files and those of Cohen's and QCRS's programs. The best of each column is marked. The row below a run has 95%
intervals of ACR and of certified accuracy for all images like these; in csv they are columns, ..._low and ..._high.
Runs over different images are put in separate tables. The files of a run that was split by --shard are one run, if all
are given. With --classes each run has its own table, with a row for each class. With files of `qcrs-jax predict` among
them it prints the table of agreement instead: how often each run answers, is right, and answers as the run with the
most samples.
"""

from pathlib import Path

from ..report.layouts import FORMATS, check_replaceable, write


def add_arguments(parser):
    parser.add_argument("results", metavar="RESULTS", nargs="+", type=Path, help="results files")
    parser.add_argument("--format", choices=FORMATS, default="terminal", help="layout (default: terminal)")
    parser.add_argument("--radii", type=float, nargs="+", metavar="R", help="radii (default: 0, 0.25, 0.5, ...)")
    parser.add_argument("--classes", action="store_true", help="one table per run, with a row for each class")
    parser.add_argument("--out", type=Path, help="write to this file instead of the terminal")


def run(args):
    from qcrs_jax.results.shards import read_runs

    from ..report.table import class_tables, tables

    check_replaceable(args.out, args.results)
    write((class_tables if args.classes else tables)(read_runs(args.results), args.format, args.radii), args.out)
