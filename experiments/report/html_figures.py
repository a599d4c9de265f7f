"""The charts of the report: curves, and distributions of radii, noise levels and probabilities."""

import numpy as np

from qcrs_jax.results.metrics import certified_accuracy_interval, columns

from . import svg
from .markup import e, p
from .steps import distribution, probabilities, steps_of
from .words import images_heading, independent

STEPS = 600
"""The most steps of a curve; more would not be visible."""


def curves(group):
    end = 1.02 * max(columns(run)[1].max() for run in group.runs) or 1.0
    series = []
    for name, run, style in group.drawn:
        correct, radius = columns(run)
        at, share = steps_of(correct, radius, end, STEPS)
        band = None
        if independent(run):
            ends = [certified_accuracy_interval(correct, radius, few) for few in np.array_split(at, 1 + len(at) // 200)]
            band = tuple(np.concatenate(side) for side in zip(*ends))
        series.append(svg.Series(name, style, at, share, band))
    axes = svg.Axis(f"radius ({group.runs[0].norm}, pixels in [0, 1])", 0, end), svg.Axis("certified accuracy", 0, 1)
    chart = svg.steps(series, *axes, "Certified accuracy over the radius, with 95% intervals")
    return (
        f"<figure>{chart}<figcaption>Certified accuracy over the radius. Bands are 95% intervals for all images like "
        "these, at each radius by itself.</figcaption></figure>"
    )


def distributions(groups):
    return "".join(
        (f"<h3>{e(images_heading(group.runs[0]))}</h3>" if len(groups) > 1 else "")
        + f"<div class=pair>{_of_radii(group)}{_of_sigma(group)}{_of_probabilities(group)}</div>"
        for group in groups
    )


def _of_radii(group):
    found = []
    for name, run, style in group.drawn:
        correct, radius = columns(run)
        found.append((name, style, radius[correct], len(radius)))
    end = max((values.max() for _, _, values, _ in found if len(values)), default=0) or 1.0
    axis = svg.Axis(f"certified radius ({group.runs[0].norm})", 0, end)
    chart = svg.histogram(found, axis, "Distribution of certified radii")
    return f"<figure>{chart}<figcaption>Radii of the images that are classified correctly.</figcaption></figure>"


def _of_sigma(group):
    varying, fixed = [], []
    for name, run, style in group.drawn:
        sigmas = np.array([record.sigma for record in run.records if record.sigma])
        if len(set(sigmas.tolist())) > 1:
            varying.append((name, style, sigmas, len(run.records)))
        elif len(sigmas) or run.request.get("sigma"):
            sigma = sigmas[0] if len(sigmas) else run.request["sigma"]
            fixed.append(f"{name} has sigma {sigma:.4g} for all images.")
    said = "".join(map(p, fixed))
    if not varying:
        return f"<figure>{said}</figure>" if said else ""
    ends = [f(f(values) for _, _, values, _ in varying) for f in (min, max)]
    axis = svg.Logarithmic("sigma (noise level)", ends[0] * 0.98, ends[1] * 1.02)
    chart = svg.histogram(varying, axis, "Distribution of the noise levels")
    said = " ".join(["Noise levels that were chosen for the images.", *fixed])
    return f"<figure>{chart}<figcaption>{e(said)}</figcaption></figure>"


def _of_probabilities(group):
    known = [(name, style, values) for name, run, style in group.drawn if (values := probabilities(run)) is not None]
    if not known:
        return ""
    largest = max(values.max() for _, _, values in known)
    axis = svg.Nines("p_A, lower bound", 0.5, min(max(0.95, 1 - (1 - largest) / 1.5), 1 - 1e-9))
    at = 1 - np.geomspace(1 - axis.start, 1 - axis.end, 401)
    series = []
    for name, style, values in known:
        shares = distribution(values, at)
        series.append(svg.Series(name, style, at, np.append(shares[:1], shares[:-1])))
    share = svg.Axis("share of images with at most this p_A", 0, 1)
    chart = svg.steps(series, axis, share, "Distribution of p_A")
    said = (
        "p_A is a lower bound of the probability that a noisy copy falls into the answer's class. The line is the "
        "share of images with at most this p_A; an image that is not classified correctly counts as 0. Unlike the ACR, "
        "it is not raised by a few images with large radii. Compare runs of the same sigma: there the lower line is "
        "the better one. A search may take a larger sigma, at which p_A is smaller and the radius larger."
    )
    return f"<figure>{chart}<figcaption>{e(said)}</figcaption></figure>"
