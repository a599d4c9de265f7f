"""Compare a network in bfloat16 with itself in float32: classes and radii, copy by copy on the same noise.

Both classify the same N noisy copies of each image. The radii are those of certificates from these copies at SIGMA, for
the class that most copies fall into in float32. Nothing is certified.

  qcrs-jax agreement zoo:cifar10-resnet20-sigma0.25 --dataset folder --data_dir cifar10 --skip 400 --sigma 0.25
"""

from pathlib import Path

from ..run.settings import Images
from .flags import Parser, add_settings, possible
from .sweep import add_inputs, sweep_of


def add_arguments(parser: Parser) -> None:
    group = parser.add_argument_group("comparison")
    add = group.add_argument
    add("--sigma", type=float, required=True, help="noise level")
    add("--n", "--N", dest="n", type=int, default=10_000, help="noisy copies of each image (default: 10000)")
    add("--alpha", type=float, default=0.001, help="failure probability of the bounds (default: 0.001)")
    add_settings(group, Images, "skip stop")
    add("--out", type=Path, metavar="FILE", help="also write the table to FILE, in markdown")
    add_inputs(parser, dtype="bfloat16")


def run(args) -> None:
    import numpy as np

    from qcrs_jax.certification.certificate import check_request
    from qcrs_jax.errors import SettingError
    from qcrs_jax.files import write_text, writing
    from qcrs_jax.printable import printable_lines

    from ..report.layouts import LAYOUTS
    from ..run.agreement import compare, summary
    from ..run.inputs import open_inputs
    from ..run.progress import check_installed, progress

    check_installed()
    sweep = sweep_of(args)
    if sweep.network.dtype == "float32":
        raise SettingError("{dtype} float32 would be compared with itself; give another")
    with possible():
        check_request(args.sigma, 1, args.n, args.alpha)
    inputs = open_inputs(sweep)
    inputs.warn_of_sigma(args.sigma)
    indices, _ = sweep.images.of(len(inputs.dataset))
    bar = progress(indices, total=len(indices), unit="images")
    compared = [compare(inputs, index, args.sigma, args.n) for index in bar]
    header, row = summary(np.array(compared), args.sigma, args.n, args.alpha)
    rows = [[(str(args.checkpoint), None), *((cell, None) for cell in row)]]
    print(printable_lines(LAYOUTS["terminal"](["network", *header], rows)))
    if args.out:
        with writing(args.out):
            write_text(args.out, LAYOUTS["markdown"](["network", *header], rows) + "\n")
