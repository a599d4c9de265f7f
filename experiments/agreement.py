"""Compare a network in bfloat16 with itself in float32, copy by copy on the same noise: classes, and radii.

For each image --N noisy copies are classified by both. Radii are those of certificates of these copies at --sigma, for
the class that most of them fall into in float32. Nothing is certified.

  qcrs-jax agreement zoo:cifar10-resnet20-sigma0.25 --dataset folder --data_dir cifar10 --skip 400 --sigma 0.25
"""

from pathlib import Path

from qcrs_jax.errors import UserError
from qcrs_jax.files import writing

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
    from tqdm import tqdm

    from qcrs_jax.certificate import check_request

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
    joint = [joint_counts(inputs, index, args) for index in tqdm(range(0, end, args.skip), unit="img")]
    if not joint:
        raise UserError(f"--max {args.max} leaves no image")
    header, row = summary(np.stack(joint), args.sigma, args.N, args.alpha)
    rows = [[(str(args.checkpoint), None), *((cell, None) for cell in row)]]
    print(LAYOUTS["terminal"](["network", *header], rows))
    if args.out:
        with writing(args.out):
            args.out.write_text(LAYOUTS["markdown"](["network", *header], rows) + "\n")


def joint_counts(inputs, index, args):
    """How many copies of an image fall into each pair of classes, (float32, other): (num_classes, num_classes)."""
    import jax

    from qcrs_jax import sample_curve

    image, _ = inputs.read(index)
    classes = inputs.classifier.spec.num_classes
    both = jax.tree_util.Partial(pair_of_classes, inputs.classifier.classify, inputs.classify)
    counts = sample_curve(both, image, [args.sigma], key=inputs.keys([index])[0], n=args.N, **inputs.program)
    return counts.reshape(classes, classes)


def pair_of_classes(one, other, images):
    """Logits of the pairs of classes of two classifiers, the largest of the pair they give; NaN where a logit is."""
    import jax
    import jax.numpy as jnp

    first, second = one(images), other(images)
    classes = first.shape[-1]
    pair = jax.nn.one_hot(first.argmax(-1) * classes + second.argmax(-1), classes**2)
    finite = jnp.isfinite(first).all(-1) & jnp.isfinite(second).all(-1)
    return jnp.where(finite[:, None], pair, jnp.nan)


def summary(joint, sigma: float, n: int, alpha: float):
    """Header and cells of the comparison of joint counts (images, num_classes, num_classes)."""
    import numpy as np

    from qcrs_jax.bounds import certified_radius, clopper_pearson_lower

    counts = np.stack([joint.sum(axis=2), joint.sum(axis=1)])
    top = counts[0].argmax(axis=1)
    pa_lower = clopper_pearson_lower(counts[:, np.arange(len(top)), top], n, alpha)
    radius = np.where(pa_lower < 0.5, 0.0, certified_radius(pa_lower, sigma))
    differs = 1 - np.trace(joint, axis1=1, axis2=2) / n
    gaps = {"pa_lower": pa_lower[1] - pa_lower[0], "radius": radius[1] - radius[0]}
    header = ["images", "copies each", "of another class", "most of an image"]
    cells = [f"{len(joint)}", f"{n:,}", f"{differs.mean():.3%}", f"{differs.max():.2%}"]
    for name, gap in gaps.items():
        header += [f"{name} higher by, mean", "at most apart"]
        cells += [f"{gap.mean():+.5f}", f"{abs(gap).max():.4f}"]
    return [*header, "mean radius"], [*cells, f"{radius[0].mean():.4f}"]
