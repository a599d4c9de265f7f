"""Draw what QCRS does to single images: the image under noise, R(sigma), the search, and both certificates.

Each image of --index gives a row. The curve is measured with noise of its own; certificates and search are those that
`qcrs-jax certify` gives with the same flags. The counts behind the figure are written beside it, FILE.json;
`qcrs-jax plot FILE.json --out OTHER.pdf` draws it again from them alone.

  qcrs-jax visualize models/cifar10/resnet110/noise_0.25/checkpoint.pth.tar --index 7 42 --sigma 0.25 \\
      --left 0.08 --right 0.9 --epsilon 0.03 --out search.png
"""

import base64
import dataclasses
import io
import json
from pathlib import Path

from qcrs_jax.errors import UserError
from qcrs_jax.extras import needed_for
from qcrs_jax.files import write_text, writing

from . import certify
from .arguments import add_input_arguments, add_program_arguments
from .curve import add_curve_arguments, check_sigmas
from .figures import check_ending
from .guarantees import NOT_ASKED
from .inputs import open_inputs
from .request import add_method_arguments, check, recorded_numbers

STRIP = 7  # noisy copies above a curve


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

    from . import search_figure

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


def measure(request, sigmas, args) -> dict:
    """All that the figure shows: counts, certificates, the search's trace and noisy copies of each image.

    Raises:
        UserError: the checkpoint or the data set do not fit, or there is no such image.
    """
    with needed_for("a bar of progress"):
        from tqdm import tqdm

    inputs = open_inputs(args)
    for index in args.index:
        if not 0 <= index < len(inputs.dataset):
            raise UserError(f"--index {index}: {inputs.dataset.name} has images 0 to {len(inputs.dataset) - 1}")
    images = [
        measure_image(request, sigmas, args.curve_n, inputs, index)
        for index in tqdm(args.index, unit="img", dynamic_ncols=True)
    ]
    numbers = {**recorded_numbers(request), "sigmas": sigmas, "curve_n": args.curve_n}
    return {
        "kind": "visualize",
        "request": {**numbers, **inputs.circumstances},
        "provenance": inputs.provenance,
        "images": images,
    }


def measure_image(request, sigmas, curve_n, inputs, index) -> dict:
    """What the row of one image shows."""
    import numpy as np

    from qcrs_jax import conclude, sample_curve
    from qcrs_jax.search import FixedSigma

    from .search_figure import axis_ends

    image, label = inputs.read(index)
    program = {"key": inputs.keys([index])[0], **inputs.program}
    fixed = dataclasses.replace(request, method="cohen", search=FixedSigma())
    measured = {
        "idx": index,
        "label": label,
        "curve": sample_curve(inputs.classify, image, sigmas, n=curve_n, **program).tolist(),
        "cohen": certify.fields(fixed, conclude(certify.draw_image(fixed, inputs.classify, image, **program))),
        "qcrs": None,
        "search": None,
    }
    if request.search.evaluations:
        certificate = conclude(certify.draw_image(request, inputs.classify, image, **program))
        trace = certificate.search
        count = int(trace.evaluations)
        measured["qcrs"] = certify.fields(request, certificate)
        measured["search"] = {
            "prediction": int(trace.prediction),
            **{name: np.asarray(getattr(trace, name))[:count].tolist() for name in ("sigmas", "successes", "radii")},
        }
    ends = axis_ends({"sigmas": sigmas, "qcrs": recorded_numbers(request)["qcrs"]}, measured)
    return {**measured, "strip": noisy_copies(image, *ends, program["key"])}


def noisy_copies(image, lower, upper, key) -> list[dict]:
    """The image, and copies under the first noise of the curve at `STRIP` sigmas between the ends; clipped PNGs."""
    import jax
    import numpy as np
    from PIL import Image

    from qcrs_jax.sampling.noise import gaussian_noise
    from qcrs_jax.sampling.streams import CURVE

    stream = jax.random.fold_in(jax.random.fold_in(key, CURVE), 0)
    noise = np.asarray(gaussian_noise(stream, jax.numpy.arange(1), image.shape))[0]
    places = (np.arange(STRIP) + 0.5) / STRIP
    copies = []
    for sigma in (0.0, *(lower * (upper / lower) ** places).tolist()):
        pixels = np.rint(255 * np.clip(image + sigma * noise, 0, 1)).astype(np.uint8)
        stream = io.BytesIO()
        Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(stream, "PNG")
        copies.append({"sigma": sigma, "png": base64.b64encode(stream.getvalue()).decode()})
    return copies
