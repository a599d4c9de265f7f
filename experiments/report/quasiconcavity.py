"""Tests whether R(sigma) is quasiconcave: counts the measured curves whose band contains a quasiconcave function."""

import math
from pathlib import Path

import numpy as np

from qcrs_jax.analysis.curves import dips, oracle, radius_band
from qcrs_jax.errors import UserError

from .figures import QCRS, SIGMA, draw_band, literal, log_sigma, pyplot, radius_label, save, tidy

MOST_PANELS = 12


def report(path, curves, alpha: float) -> str:
    """The findings about the curves of one file, as lines for the terminal."""
    names = curves.request["dataset"]["class_names"]
    images = len(curves.idx)
    band = radius_band(curves.successes, curves.n, curves.sigmas, alpha, curves.noise.unit_radius)
    found = dips(band)
    best = oracle(curves.successes, curves.n, curves.sigmas, alpha, curves.noise.unit_radius)
    original = [curves.original]
    at_original = oracle(
        curves.successes[:, original], curves.n, curves.sigmas[original], alpha, curves.noise.unit_radius
    )
    correct = curves.classes == curves.labels
    rises = (band.lower > 0).any(axis=1)
    at_best = np.take_along_axis(band.upper - band.lower, band.lower.argmax(axis=1)[:, None], axis=1)[:, 0]
    lines = [
        f"{path}: {images} images of {curves.request['dataset']['name']}, {curves.n:,} samples at each of "
        f"{len(curves.sigmas)} sigmas from {curves.sigmas[0]:.3g} to {curves.sigmas[-1]:.3g}",
        f"consistent with quasiconcavity: {found.consistent.sum()} of {images} images "
        f"({100 * found.consistent.mean():.1f}%); by chance alone up to {alpha * images:.2g} would not be",
        f"  of these {(found.consistent & ~rises).sum()} have no radius that is certainly above 0 at any sigma",
    ]
    if rises.any():
        share = np.median(at_best[rises] / best.radius[rises])
        lines.append(
            f"  width of the band at its highest: {100 * share:.0f}% of the radius (median); smaller dips may hide"
        )
    for i in np.flatnonzero(~found.consistent)[np.argsort(-found.depth[~found.consistent])]:
        (left, at, right), (first, middle, last) = found.triple[i], curves.sigmas[found.triple[i]]
        lines.append(
            f"  image {curves.idx[i]} ({names[curves.classes[i]]}): R({first:.3g}) >= {band.lower[i, left]:.3f}, "
            f"R({middle:.3g}) <= {band.upper[i, at]:.3f}, R({last:.3g}) >= {band.lower[i, right]:.3f}"
        )
    lines.append(
        f"ACR at these sigmas with {curves.n:,} samples: {np.mean(correct * best.radius):.4f} at each image's best "
        f"(an oracle), {np.mean(correct * at_original.radius):.4f} at {curves.request['sigma']:g}"
    )
    return "\n".join(lines)


def draw_exceptions(several, alpha: float, out: Path) -> int:
    """Draws the deepest dips among the curves to the file `out`, unless there are none. Returns their number."""
    norms = {curves.noise.norm for curves in several}
    if len(norms) > 1:
        raise UserError(f"{out}: the curves are of radii in {' and '.join(sorted(norms))}; draw those of one norm")
    exceptions = []
    for curves in several:
        band = radius_band(curves.successes, curves.n, curves.sigmas, alpha, curves.noise.unit_radius)
        found = dips(band)
        exceptions += [(found.depth[i], curves, i) for i in range(len(curves.idx)) if not found.consistent[i]]
    exceptions = sorted(exceptions, key=lambda e: -e[0])[:MOST_PANELS]
    if not exceptions:
        return 0
    columns = min(3, len(exceptions))
    rows = math.ceil(len(exceptions) / columns)
    figure, panels = pyplot().subplots(
        rows, columns, figsize=(3.6 * columns + 0.4, 2.8 * rows + 0.4), layout="constrained", squeeze=False
    )
    for axes in panels.flat[len(exceptions) :]:
        axes.set_visible(False)
    for axes, (_, curves, i) in zip(panels.flat, exceptions):
        _draw_exception(axes, curves, i, alpha)
    figure.supxlabel(f"noise level {SIGMA}, pixels in [0, 1]", fontsize=10)
    figure.supylabel(f"R({SIGMA}): {radius_label(exceptions[0][1].noise.norm)}", fontsize=10)
    save(figure, out)
    return len(exceptions)


def _draw_exception(axes, curves, i, alpha):
    successes, sigmas = curves.successes[i], curves.sigmas
    band = radius_band(successes, curves.n, sigmas, alpha, curves.noise.unit_radius)
    left, at, right = dips(band).triple
    top = 1.2 * band.lower.max()
    draw_band(axes, sigmas, successes, curves.n, alpha, top, curves.noise.unit_radius)
    axes.plot(sigmas[[left, right]], band.lower[[left, right]], "^", color=QCRS, mec="black", zorder=3)
    axes.plot(sigmas[at], band.upper[at], "v", color=QCRS, mec="black", zorder=3)
    axes.set_ylim(0, top)
    log_sigma(axes, sigmas[0], sigmas[-1])
    tidy(axes)
    name = curves.request["dataset"]["class_names"][curves.classes[i]]
    axes.set_title(f"image {curves.idx[i]}: {literal(name)}", fontsize=10)
