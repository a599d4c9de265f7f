"""Compare a network in bfloat16 with itself in float32, copy by copy on the same noise: classes, and radii.

For each image --N noisy copies are classified by both. Radii are those of certificates of these copies at --sigma, for
the class that most of them fall into in float32. Nothing is certified.

  qcrs-jax agreement zoo:cifar10-resnet20-sigma0.25 --dataset folder --data_dir cifar10 --skip 400 --sigma 0.25
"""

from pathlib import Path

from qcrs_jax.errors import UserError
from qcrs_jax.files import write_text, writing
from qcrs_jax.printable import printable_lines

from ..run.agreement import compare, summary
from ..run.inputs import open_inputs
from .flags import add_input_arguments, add_program_arguments, check_arguments


def add_arguments(parser):
    add_input_arguments(parser, sweep=False)
    add = parser.add_argument_group("comparison").add_argument
    add("--sigma", type=float, required=True, help="noise level")
    add("--N", type=int, default=10_000, help="noisy copies of each image (default: 10000)")
    add("--alpha", type=float, default=0.001, help="failure probability of the bounds (default: 0.001)")
    add("--skip", type=int, default=1, metavar="K", help="only images 0, K, 2K, ... (default: 1, all)")
    add("--max", type=int, default=-1, metavar="M", help="stop before image M (default: -1, the end)")
    add("--out", type=Path, metavar="FILE", help="also write the table to FILE, in markdown")
    add_program_arguments(parser, sweep=False)
    parser.set_defaults(dtype="bfloat16")


def run(args):
    import numpy as np
    from tqdm import tqdm

    from qcrs_jax.certification.certificate import check_request

    from ..report.layouts import LAYOUTS

    check_arguments(args)
    if args.dtype == "float32":
        raise UserError("--dtype float32: that is what it is compared with")
    try:
        check_request(args.sigma, 1, args.N, args.alpha)
    except ValueError as error:
        raise UserError(f"impossible request: {error}") from error
    inputs = open_inputs(args)
    end = len(inputs.dataset) if args.max < 0 else min(args.max, len(inputs.dataset))
    compared = [compare(inputs, index, args) for index in tqdm(range(0, end, args.skip), unit="img")]
    if not compared:
        raise UserError(f"--max {args.max} leaves no image")
    header, row = summary(np.array(compared), args.sigma, args.N, args.alpha)
    rows = [[(str(args.checkpoint), None), *((cell, None) for cell in row)]]
    print(printable_lines(LAYOUTS["terminal"](["network", *header], rows)))
    if args.out:
        with writing(args.out):
            write_text(args.out, LAYOUTS["markdown"](["network", *header], rows) + "\n")
