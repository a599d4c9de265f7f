"""Measure at which sigma a network loses its accuracy under noise, and how many classes it answers there.

Far above the sigma of its training a network answers one class, whatever the image is. A search finds large radii
there. These certificates hold, but say little. For each sigma the table has

  accuracy          share of the noisy copies that fall into the label of their image
  classes answered  effective number of classes that the smoothed classifier answers: the exponential of the entropy of
                    their shares. An image is answered the class of most of its copies
  commonest         the class that most images are answered, and its share of the images

Accuracy under noise is lost where it is nearer to that of one answer for all images than to the best one.
`qcrs-jax certify` measures the same before a search, on a hundred images.

  qcrs-jax collapse zoo:fashion_mnist-lenet-sigma0.25 --sigma 0.25 --dataset fashion_mnist --plot collapse.png
"""

from pathlib import Path

from ..report.layouts import FORMATS
from ..run.settings import Data, Network, Program
from .curve import grid_of
from .flags import OPENING, Parser, add_settings, possible
from .method import AUTO, BRACKET, add_noise, noise_of
from .sweep import declare_sweep, sweep_of

MULTIPLES = (BRACKET["sigma_lower"], 4 * BRACKET["sigma_upper"])
"""The ends of the usual grid, in multiples of the original sigma."""


def add_arguments(parser: Parser) -> None:
    declare_sweep(parser)
    add_settings(parser, Network, "checkpoint denoiser")
    group = parser.add_argument_group("collapse")
    add = group.add_argument
    add("--sigma", type=float, required=True, help="noise level that the classifier was trained at")
    add(
        "--sigmas",
        type=float,
        nargs=3,
        metavar=("LO", "HI", "COUNT"),
        help="COUNT sigmas from LO to HI, evenly spaced in log sigma; SIGMA is added (default: "
        f"{MULTIPLES[0]:g} SIGMA, {MULTIPLES[1]:g} SIGMA and 24)",
    )
    add("--image_count", type=int, default=500, metavar="M", help="images, chosen at random (default: 500)")
    add("--copies", type=int, default=5, metavar="N", help="noisy copies of each image at each sigma (default: 5)")
    add_noise(group)
    add("--format", choices=FORMATS[:3], default="terminal", help="layout of the table (default: terminal)")
    add("--out", type=Path, help="write the table to this file instead of the terminal")
    add("--plot", type=Path, metavar="FILE", help="draw the figures over sigma (png, pdf, svg)")
    data = parser.add_argument_group("data")
    add_settings(data, Data, "dataset data_dir split")
    add_settings(parser.add_argument_group("program"), Program, "batch_size devices")
    files = parser.screen("files", "files: facts that the files do not state")
    add_settings(files, Network, f"{OPENING} macer dtype")
    add_settings(files, Data, "class_order resize memory_limit")


def run(args) -> None:
    from qcrs_jax.errors import SettingError, UserError
    from qcrs_jax.sampling.smoothing import check_largest

    from ..report.collapse import collapse_table, draw
    from ..report.figures import check_ending
    from ..report.layouts import check_replaceable, page, write

    with possible():
        noise = noise_of(args)
        sigmas = grid_of(args.sigma, args.sigmas, tuple(m * args.sigma for m in MULTIPLES), noise)
        for name in ("image_count", "copies"):
            if vars(args)[name] < 1:
                raise SettingError(f"{{{name}}} must be at least 1, not {vars(args)[name]}")
    check_replaceable(args.out, [])
    if args.plot is not None:
        check_ending(args.plot)

    from ..run.collapse import FEWEST, choose, described, measure
    from ..run.inputs import open_inputs
    from ..run.noise_of_data import noise_for

    inputs = open_inputs(sweep_of(args))
    if args.noise == AUTO:
        noise = noise_for(inputs.dataset, lambda grid: check_largest(grid, sigmas[-1], "sigmas"))
    inputs.warn_of_sigma(args.sigma)
    names = inputs.dataset.class_names
    chosen, _ = choose(inputs.dataset, None, args.image_count)
    collapse = measure(inputs, chosen, sigmas, args.copies, noise)
    if collapse is None:
        raise UserError(
            f"{inputs.dataset.name} ({inputs.dataset.source}): has fewer than {FEWEST} images that can be read; "
            "collapse cannot be measured on so few"
        )
    folder = args.data_dir if inputs.dataset.name == "folder" else None
    data = f"{folder.name if folder and folder.name else inputs.dataset.name} ({inputs.dataset.split})"
    heading = (
        f"{inputs.name} on {collapse.images} images of {data}, {args.copies} noisy copies of each; one answer for all "
        f"images is right for {collapse.constant:.0%}"
    )
    found = described(collapse)
    table = collapse_table(collapse, names, args.format)
    write(page([heading, table, f"{found[0].upper()}{found[1:]}"], args.format), args.out)
    if args.plot is not None:
        draw(collapse, names, f"{collapse.images} images of {data}", args.plot)
        print(args.plot)
