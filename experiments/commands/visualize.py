"""Draw what QCRS does to single images: the image under noise, R(sigma), the search, and both certificates.

Each image of --index gives a row. The curve is measured with noise of its own; certificates and search are those that
`qcrs-jax certify` gives with the same flags. The counts behind the figure are written beside it, FILE.json;
`qcrs-jax plot FILE.json --out OTHER.pdf` draws it again from them alone.

  qcrs-jax visualize models/cifar10/resnet110/noise_0.25/checkpoint.pth.tar --index 7 42 --sigma 0.25 \\
      --left 0.08 --right 0.9 --epsilon 0.03 --out search.png
"""

import json
from pathlib import Path

from qcrs_jax.errors import UserError
from qcrs_jax.files import write_text, writing

from ..report.figures import check_ending
from ..run.visualize import measure
from .curve import add_curve_arguments, check_sigmas
from .flags import add_input_arguments, add_program_arguments
from .guarantee import NOT_ASKED
from .method import add_method_arguments, check


def add_arguments(parser):
    add_input_arguments(parser, sweep=False)
    add = parser.add_argument_group("figure").add_argument
    add("--index", type=int, nargs="+", required=True, metavar="I", help="images of the data set, a row for each")
    add("--out", type=Path, required=True, metavar="FILE", help="FILE.png, FILE.pdf or FILE.svg")
    add_curve_arguments(add, samples=1000)
    add_method_arguments(parser)
    parser.set_defaults(**NOT_ASKED)
    add_program_arguments(parser, sweep=False)


def run(args):
    from qcrs_jax import Fixed

    from ..report import search_figure

    request = check(args)
    if not (request.search.evaluations or request.search.keeps_sigma):
        raise UserError("--method ddrs has no evaluations to show; --method qcrs or cohen has")
    if request.estimate != Fixed() or request.own_n:
        raise UserError(
            "the figure shows class counts of N samples, and the hard certificates that follow from them: it has no "
            "--tolerance, --budget, --stop_when_wrong or --certificate soft"
        )
    check_ending(args.out)
    sigmas = check_sigmas(args, request.search if request.search.evaluations else None)
    data = args.out.with_suffix(".json")
    search_figure.check_replaceable(data)
    content = measure(request, sigmas, args)
    with writing(data):
        write_text(data, json.dumps(content) + "\n")
    search_figure.draw(data, args.out)
    print(f"{args.out}, drawn from {data}")
