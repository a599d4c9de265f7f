"""Compare a network in bfloat16 with itself in float32, copy by copy on the same noise: classes, and radii.

For each image --N noisy copies are classified by both. Radii are those of certificates of these copies at --sigma, for
the class that most of them fall into in float32. Nothing is certified.

  qcrs-jax agreement zoo:cifar10-resnet20-sigma0.25 --dataset folder --data_dir cifar10 --skip 400 --sigma 0.25
"""

from pathlib import Path

from qcrs_jax.errors import UserError
from qcrs_jax.extras import needed_for
from qcrs_jax.files import write_text, writing
from qcrs_jax.printable import printable_lines

from .arguments import add_input_arguments, add_program_arguments, check_arguments
from .inputs import open_inputs


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
    with needed_for("a bar of progress"):
        from tqdm import tqdm

    from qcrs_jax.certification.certificate import check_request

    from .table import LAYOUTS

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


def compare(inputs, index, args) -> tuple[int, int, int]:
    """`told_by` of the copies of an image, in float32 and as the command asks."""
    from .copies import pairs_of_classes

    image, _ = inputs.read(index)
    networks = inputs.classifier.classify, inputs.classify
    pairs = pairs_of_classes(*networks, image, args.sigma, key=inputs.keys([index])[0], n=args.N, **inputs.program)
    return told_by(pairs, inputs.classifier.spec.num_classes)


def told_by(pairs, num_classes: int) -> tuple[int, int, int]:
    """How many copies fall into the first network's top class, by the first, by the second; how many into one class.

    Args:
        pairs: of `copies.pairs_of_classes`, some (copies, 2) at a time; copies of no class, -1, count for nothing.
    """
    import numpy as np

    counts, same = np.zeros((2, num_classes), int), 0
    for some in pairs:
        some = some[some[:, 0] >= 0]
        counts += [np.bincount(column, minlength=num_classes) for column in some.T]
        same += int((some[:, 0] == some[:, 1]).sum())
    top = counts[0].argmax()
    return int(counts[0, top]), int(counts[1, top]), same


def summary(compared, sigma: float, n: int, alpha: float):
    """Header and cells of the comparison of n copies of each image; `compared`: `told_by` of each, (images, 3)."""
    import numpy as np

    from qcrs_jax.bounds import certified_radius, clopper_pearson_lower

    pa_lower = clopper_pearson_lower(compared[:, :2].T, n, alpha)
    radius = np.where(pa_lower < 0.5, 0.0, certified_radius(pa_lower, sigma))
    differs = 1 - compared[:, 2] / n
    gaps = {"pa_lower": pa_lower[1] - pa_lower[0], "radius": radius[1] - radius[0]}
    header = ["images", "copies each", "of another class", "most of an image"]
    cells = [f"{len(compared)}", f"{n:,}", f"{differs.mean():.3%}", f"{differs.max():.2%}"]
    for name, gap in gaps.items():
        header += [f"{name} higher by, mean", "at most apart"]
        cells += [f"{gap.mean():+.5f}", f"{abs(gap).max():.4f}"]
    return [*header, "mean radius"], [*cells, f"{radius[0].mean():.4f}"]
