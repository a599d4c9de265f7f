"""Demo: certify real images with Cohen, QCRS as published and our search; table and plot. No network, no arguments.

A LeNet trained with Gaussian noise of 0.25 on Fashion-MNIST comes with the package, and every 20th of the test images,
a fifth of which are certified. Two CPU cores take about three minutes. The bayesian search has less than a third of the
samples of the published one.
"""

import shlex
from pathlib import Path

from qcrs_jax.extras import needed_for

from ..presets import IMAGES
from . import certify
from .flags import Parser
from .method import request_of
from .sweep import sweep_of

CHECKPOINT = "zoo:fashion_mnist-lenet-sigma0.25"
COMMON = "--dataset npz --sigma 0.25 --N 10000 --skip 5 --seed 0".split()
BRACKET = "--method qcrs --left 0.08 --right 0.9"
RUNS = {
    "cohen": ["--method", "cohen"],
    "bisection": f"{BRACKET} --epsilon 0.03 --search bisection".split(),
    "bayesian": f"{BRACKET} --search bayesian --gradient_n 100 --evaluations 20".split(),
}


def add_arguments(parser):
    parser.add_argument("--out", type=Path, default=Path("qcrs_demo"), help="folder to write (default: qcrs_demo)")


def run(args):
    with needed_for("the demo"):  # before minutes of work
        import matplotlib  # noqa: F401

    from ..report import plot, table
    from ..run.certify import certify_dataset

    parser = Parser(prog="qcrs-jax certify")
    certify.add_arguments(parser)
    paths = []
    for name, flags in RUNS.items():
        words = [CHECKPOINT, str(args.out / f"{name}.tsv"), "--data_dir", str(IMAGES), *COMMON, *flags]
        print("qcrs-jax certify", shlex.join(words))
        parsed = parser.parse_args(words)
        paths.append(certify_dataset(request_of(parsed), sweep_of(parsed)))
    print()
    table.print_tables(paths)
    plot.plot(
        paths, args.out / "certified_accuracy.png", names=["Cohen, sigma 0.25", "QCRS, as published", "QCRS, bayesian"]
    )
    print(f"\nplot: {args.out / 'certified_accuracy.png'}; results: {', '.join(map(str, paths))}")
