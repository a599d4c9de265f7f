"""Draw what QCRS does to single images: the image under noise, R(sigma), the search, and both certificates.

Each image of --index has a row. The curve is measured with its own noise. Certificates and search are those of
`qcrs-jax certify` with the same flags. The counts behind the figure are written beside it, FILE.json;
`qcrs-jax plot FILE.json --out OTHER.pdf` draws it again from them alone.

  qcrs-jax visualize models/cifar10/resnet110/noise_0.25/checkpoint.pth.tar --index 7 42 --sigma 0.25 \\
      --left 0.08 --right 0.9 --epsilon 0.03 --out search.png
"""

from pathlib import Path

from .curve import add_curve, curve_of
from .flags import Parser
from .method import add_request, request_of, with_noise
from .sweep import add_inputs, sweep_of


def add_arguments(parser: Parser) -> None:
    group = parser.add_argument_group("figure")
    add = group.add_argument
    add("--index", type=int, nargs="+", required=True, metavar="I", help="images of the data set, one row each")
    add("--out", type=Path, required=True, metavar="FILE", help="FILE.png, FILE.pdf or FILE.svg")
    add_curve(group, samples=1000)
    add_request(parser)
    add_inputs(parser)


def run(args) -> None:
    import json

    from qcrs_jax import Fixed
    from qcrs_jax.errors import SettingError
    from qcrs_jax.files import write_text, writing

    from ..report import search_figure
    from ..report.figures import check_ending
    from ..run.visualize import measure

    request, sweep = request_of(args), sweep_of(args)
    if not (request.search.evaluations or request.search.keeps_sigma):
        raise SettingError("{method} ddrs has no evaluations to show; {method} qcrs or cohen has")
    if request.estimate != Fixed() or request.plans_n or request.at_once:
        raise SettingError(
            "the figure shows class counts of N samples, and the hard certificates that follow from them: it has no "
            "{tolerance}, {decide}, {precision}, {bound}, {budget}, {stop_when_wrong}, {simultaneous} or "
            "{certificate} soft"
        )
    check_ending(args.out)
    search = request.search
    curve = curve_of(args, (search.sigma_lower, search.sigma_upper) if search.evaluations else None)
    data = args.out.with_suffix(".json")
    search_figure.check_replaceable(data)
    request, inputs = with_noise(args, request, sweep)
    content = measure(request, curve, sweep, args.index, inputs)
    with writing(data):
        write_text(data, json.dumps(content) + "\n")
    search_figure.draw(data, args.out)
    print(f"{args.out}, drawn from {data}")
