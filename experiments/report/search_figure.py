"""The figure of `qcrs-jax visualize`, from its file of counts alone."""

import base64
import io
import json
import math
import textwrap
from pathlib import Path

import numpy as np

from qcrs_jax.bounds import radius_table
from qcrs_jax.errors import UserError
from qcrs_jax.files import read_regular
from qcrs_jax.results import format1
from qcrs_jax.sampling.smoothing import noise_of

from .figures import COHEN, QCRS, SIGMA, check_ending, draw_band, literal, log_sigma, pyplot, radius_label, save, tidy
from .styles import METHODS

LARGEST = 64 * 2**20  # bytes of a file that is read


def read(path: Path) -> dict:
    """The content of a file that `qcrs-jax visualize` wrote.

    Raises:
        UserError: it cannot be read or is another file.
    """
    try:
        content = json.loads(read_regular(path, LARGEST))
        if content["kind"] != "visualize" or not content["images"]:
            raise ValueError("of another kind")
        if "format" not in content:
            content["request"] = format1.request_of(content["request"])
    except (UserError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: not a file that `qcrs-jax visualize` wrote beside a figure: {error}") from error
    return content


def check_replaceable(path: Path) -> None:
    """Raises UserError if `path` exists and is not such a file."""
    if path.exists():
        try:
            read(path)
        except UserError as error:
            raise UserError(f"{path}: is another file, which the counts of the figure would replace") from error


def draw(path: Path, out: Path) -> None:
    """Draws the figure of the counts in `path` to the file `out`.

    Raises:
        UserError: `path` is no such file, or `out` cannot be written.
    """
    check_ending(out)
    content = read(path)
    images = content["images"]
    height = 5.4 if images[0]["search"] else 4.3
    figure = pyplot().figure(figsize=(9.6, height * len(images) + 0.2), layout="constrained")
    figure.get_layout_engine().set(hspace=0.02, h_pad=0.06, w_pad=0.12)
    rows = figure.subfigures(len(images), 1, squeeze=False, hspace=0.03)[:, 0]
    for row, image in zip(rows, images):
        _draw_image(row, content["request"], image)
    note = f"A certificate holds for the classifier smoothed with this image's {SIGMA}, held fixed."
    figure.supxlabel(note, fontsize=8, color="0.35")
    save(figure, out)


def _draw_image(figure, request, image):
    """A row of the figure: noisy copies, R(sigma) and the order of the search, one below the other over sigma."""
    names, search = [literal(name) for name in request["dataset"]["class_names"]], image["search"]
    sigmas = np.array(request["sigmas"])
    counts = np.array(image["curve"])
    original = request["sigmas"].index(float(np.float32(request["sigma"])))
    top_class = search["prediction"] if search else int(counts[original].argmax())
    heights = [1.0, 3.0, 1.2] if search else [1.0, 3.0]
    panels = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    log_sigma(panels[0], *axis_ends(request, image))
    _draw_strip(panels[0], image["strip"])
    taken = "" if top_class == image["label"] else f", taken for {names[top_class]}"
    panels[0].set_title(f"image {image['idx']}: {names[image['label']]}{taken}", loc="left", x=-0.135, fontsize=11)
    _draw_radii(panels[1], request, image, sigmas, counts[:, top_class], names[top_class])
    if search:
        order = np.arange(1, len(search["sigmas"]) + 1)
        panels[2].plot(search["sigmas"], order, "o-", color=_colour(request), linewidth=0.8, mfc="white", ms=4.5)
        panels[2].set(ylabel="evaluation", ylim=(1.06 * len(order) + 0.2, 0.8 - 0.06 * len(order)))
        panels[2].set_yticks(order[:: math.ceil(len(order) / 6)])
    for panel in panels[1:]:
        tidy(panel)
        for certificate, _, color, _ in _certificates(request, image):
            panel.axvline(certificate["sigma"], color=color, linewidth=1, linestyle="--", zorder=1)
    panels[-1].set_xlabel(f"noise level {SIGMA}, pixels in [0, 1]")


def axis_ends(request, image):
    """The ends of the axis of sigma. They include all evaluated sigmas, except those far beyond the curve."""
    lower, upper = request["sigmas"][0], request["sigmas"][-1]
    reached = [c["sigma"] for c, *_ in _certificates(request, image)] + (image["search"] or {"sigmas": []})["sigmas"]
    return max(min(lower, *reached), lower / 2) / 1.03, min(max(upper, *reached), 2 * upper) * 1.03


def _colour(request):
    """The colour of the search, as in every figure."""
    return METHODS.get(request["search"]["name"], QCRS)


def _certificates(request, image):
    """(certificate, name, colour, marker) of each method that was run."""
    found = [(image["cohen"], "Cohen", COHEN, "s")]
    if image["qcrs"]:
        found.append((image["qcrs"], f"QCRS, {request['search']['name']}", _colour(request), "D"))
    return found


def _draw_radii(axes, request, image, sigmas, successes, name):
    """R(sigma) with its band, the radii that the search compared, and the certificates."""
    n, alpha, search = request["curve_n"], request["alpha"], image["search"]
    certificates = _certificates(request, image)
    radii = [c["radius"] for c, *_ in certificates] + (search["radii"] if search else [])
    top = 1.25 * max(*radii, 0.1 * sigmas[-1])
    unit_radius = noise_of(request).unit_radius
    estimate, band = draw_band(axes, sigmas, successes, n, alpha, top, unit_radius)
    name = textwrap.shorten(name, 30, placeholder="...")
    estimate.set_label(f"R({SIGMA}) of {name},\nestimated by {n:,} samples at each {SIGMA}")
    band.set_label(
        f"{100 * (1 - alpha):g}% confidence band of the whole curve;\nlighter and open above: all samples agree"
    )
    handles = [estimate, band]
    if search:
        label = f"radii that the search compared,\n{request['search']['search_n']:,} samples each"
        handles += axes.plot(
            search["sigmas"], search["radii"], "o", color=_colour(request), mfc="white", ms=4.5, label=label, zorder=3
        )
    for certificate, method, color, marker in certificates:
        said = "abstains" if certificate["predict"] < 0 else f"radius {certificate['radius']:.3f}"
        label = f"{method}: {said} at {SIGMA} = {certificate['sigma']:.3g}"
        place = certificate["sigma"], certificate["radius"]
        style = {"color": color, "ms": 8, "mec": "black", "mew": 0.8, "zorder": 4, "clip_on": False}
        handles += axes.plot(*place, marker, label=label, **style)
    most = sigmas * radius_table(request["n"], alpha, unit_radius)[-1]
    label = f"most that {request['n']:,} samples can certify"
    handles += axes.plot(sigmas, most, ":", color="black", linewidth=1, label=label)
    axes.set(ylabel=f"R({SIGMA}): {radius_label(noise_of(request).norm)}", ylim=(0, top))
    certified = f"certified with N = {request['n']:,}, $\\alpha$ = {alpha:g}"
    style = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.02), "alignment": "left", "frameon": False}
    axes.legend(handles=handles, title=certified, fontsize=8.5, title_fontsize=8.5, labelspacing=0.8, **style)


def _draw_strip(axes, strip):
    """Draws noisy copies above their sigmas, and the clean image to their left."""
    from PIL import Image

    axes.set_axis_off()
    lower, upper = np.log(axes.get_xlim())
    step = 1 / (len(strip) - 1)
    for i, copy in enumerate(strip):
        at = (np.log(copy["sigma"]) - lower) / (upper - lower) if i else -0.5 * step
        inset = axes.inset_axes([at - 0.46 * step, 0, 0.92 * step, 0.84])
        pixels = Image.open(io.BytesIO(base64.b64decode(copy["png"])))
        inset.imshow(np.asarray(pixels), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        inset.set(xticks=[], yticks=[])
        inset.spines[:].set_linewidth(0.5)
        inset.set_title(f"{SIGMA} = {copy['sigma']:.2g}" if i else "no noise", fontsize=8, pad=2)
