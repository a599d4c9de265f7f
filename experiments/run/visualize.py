"""The effect of QCRS on single images: the image under noise, R(sigma), the search, and both certificates."""

import base64
import dataclasses
import io

import jax
import numpy as np

from qcrs_jax import conclude, sample_curve
from qcrs_jax.errors import SettingError
from qcrs_jax.results.sidecar import FORMAT
from qcrs_jax.sampling.smoothing import Noise
from qcrs_jax.sampling.streams import CURVE
from qcrs_jax.search import FixedSigma

from ..report.search_figure import axis_ends
from .answers import draw_image, fields
from .curve import Curve
from .inputs import Inputs, open_inputs
from .progress import check_installed, progress
from .request import Request
from .settings import Sweep

STRIP = 7  # noisy copies above a curve


def measure(request: Request, curve: Curve, sweep: Sweep, indices: list[int], inputs: Inputs | None = None) -> dict:
    """Everything that the figure shows: counts, certificates, the search's trace and noisy copies of each image.

    Raises:
        UserError: the checkpoint or the data set do not fit, or there is no such image.
    """
    check_installed()
    inputs = open_inputs(sweep) if inputs is None else inputs
    inputs.warn_of_sigma(request.sigma)
    for index in indices:
        if not 0 <= index < len(inputs.dataset):
            raise SettingError(f"{{index}} {index}: {inputs.dataset.name} has images 0 to {len(inputs.dataset) - 1}")
    bar = progress(indices, total=len(indices), unit="images")
    images = [measure_image(request, curve, inputs, index) for index in bar]
    numbers = {**request.recorded(), "seed": sweep.noise.seed, "sigmas": list(curve.sigmas), "curve_n": curve.n}
    return {
        "format": FORMAT,
        "kind": "visualize",
        "request": {**numbers, "noise": request.noise.draws(sweep.noise.prng), **inputs.common_request},
        "provenance": {**inputs.provenance, "settings": sweep.recorded()},
        "images": images,
    }


def measure_image(request: Request, curve: Curve, inputs, index: int) -> dict:
    """The content of the row of one image."""
    image, label = inputs.read(index)
    program = {"key": inputs.keys([index])[0], **inputs.program}
    fixed = dataclasses.replace(request, search=FixedSigma())
    measured = {
        "idx": index,
        "label": label,
        "curve": sample_curve(
            inputs.classify, image, list(curve.sigmas), n=curve.n, noise=request.noise, **program
        ).tolist(),
        "cohen": fields(fixed, conclude(draw_image(fixed, inputs.classify, image, **program))),
        "qcrs": None,
        "search": None,
    }
    if request.search.evaluations:
        certificate = conclude(draw_image(request, inputs.classify, image, **program))
        trace = certificate.search
        count = int(trace.evaluations)
        measured["qcrs"] = fields(request, certificate)
        measured["search"] = {
            "prediction": int(trace.prediction),
            **{name: np.asarray(getattr(trace, name))[:count].tolist() for name in ("sigmas", "successes", "radii")},
        }
    ends = axis_ends({"sigmas": list(curve.sigmas), "search": request.search.recorded()}, measured)
    return {**measured, "strip": noisy_copies(image, *ends, program["key"], request.noise)}


def noisy_copies(image, lower, upper, key, noise: Noise) -> list[dict]:
    """The image, and copies under the first noise of the curve at `STRIP` sigmas between the ends; clipped PNGs."""
    from PIL import Image

    stream = jax.random.fold_in(jax.random.fold_in(key, CURVE), 0)
    places = (np.arange(STRIP) + 0.5) / STRIP
    copies = []
    for sigma in (0.0, *(lower * (upper / lower) ** places).tolist()):
        noisy = image if not sigma else _copy(noise, image, jax.numpy.float32(sigma), stream)
        pixels = np.rint(255 * np.clip(noisy, 0, 1)).astype(np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(file, "PNG")
        copies.append({"sigma": sigma, "png": base64.b64encode(file.getvalue()).decode()})
    return copies


def _copy(noise, image, sigma, stream):
    """The first noisy copy of an image."""
    return np.asarray(noise.add(jax.numpy.asarray(image), noise.level(sigma), stream, jax.numpy.arange(1)))[0]
