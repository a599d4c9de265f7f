"""Demo: certify real images with Cohen, QCRS as published and our search; table, plot, report. No network needed.

The package contains a LeNet, trained on Fashion-MNIST with Gaussian noise of 0.25, and 500 of the test images. The demo
certifies 32 of them by each method. This takes about one minute on two free CPU cores. The Bayesian search needs less
than a third of the samples of the published search.
"""

import shlex
from collections.abc import Sequence
from pathlib import Path

from qcrs_jax.extras import needed_for

from ..presets import IMAGES
from . import certify
from .flags import Parser
from .method import request_of, with_noise
from .report import write_report
from .sweep import sweep_of

CHECKPOINT = "zoo:fashion_mnist-lenet-sigma0.25"
COMMON = "--dataset npz --sigma 0.25 --N 5000 --skip 16 --seed 0".split()
BRACKET = "--method qcrs --left 0.08 --right 0.9"
RUNS = {
    "cohen": ["--method", "cohen"],
    "bisection": f"{BRACKET} --epsilon 0.03 --search bisection".split(),
    "bayesian": f"{BRACKET} --search bayesian --gradient_n 100 --evaluations 20".split(),
}
EMBEDDED = 500
"""Images that come with the package."""


def cost(requests: Sequence, images: int) -> str:
    """Sentences on the cost of the demo, for `requests` over this number of images."""
    samples = images * sum(request.search.samples + request.n0 + request.n for request in requests)
    return (
        f"The demo certifies {images} images by {len(requests)} methods, {samples:,} noisy copies at most.\n"
        "This takes about one minute on two free CPU cores. Stop it at any time: the same command continues."
    )


def add_arguments(parser):
    parser.add_argument("--out", type=Path, default=Path("qcrs_demo"), help="folder to write (default: qcrs_demo)")


def run(args):
    with needed_for("the demo"):  # before minutes of work
        import matplotlib  # noqa: F401

    from ..report import plot, table
    from ..run.certify import certify_dataset
    from ..verification.trusted_paths import Where

    parser = Parser(prog="qcrs-jax certify")
    certify.add_arguments(parser)
    paths = []
    commands = {
        name: [CHECKPOINT, str(args.out / f"{name}.tsv"), "--data_dir", str(IMAGES), *COMMON, *flags]
        for name, flags in RUNS.items()
    }
    asked = {name: parser.parse_args(words) for name, words in commands.items()}
    requests = {name: request_of(parsed) for name, parsed in asked.items()}
    print(cost(list(requests.values()), len(range(0, EMBEDDED, asked["cohen"].skip))))
    for name, words in commands.items():
        print("\nqcrs-jax certify", shlex.join(words))
        request, inputs = with_noise(asked[name], requests[name], sweep_of(asked[name]))
        paths.append(certify_dataset(request, sweep_of(asked[name]), inputs))
    print()
    table.print_tables(paths)
    plot.plot(
        paths, args.out / "certified_accuracy.png", names=["Cohen, sigma 0.25", "QCRS, as published", "QCRS, bayesian"]
    )
    write_report(paths, args.out / "report.html", Where(), "The demo: three methods on Fashion-MNIST")
    print(f"\nresults: {', '.join(map(str, paths))}\nplot: {args.out / 'certified_accuracy.png'}")
    print(f"report, with all images, for a browser: {args.out / 'report.html'}")
