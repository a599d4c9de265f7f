"""Certified accuracy against radius of results files, with the ACR in the legend."""

import math

import numpy as np

from qcrs_jax.errors import UserError
from qcrs_jax.results.metrics import (
    acr_interval,
    average_certified_radius,
    certified_accuracy,
    certified_accuracy_interval,
    columns,
)
from qcrs_jax.results.shards import read_runs

from .figures import NORMS, check_ending, literal, pyplot, save, tidy
from .words import group_by_images, independent, interval_text, label, only_norm


def plot(paths, out, title=None, names=None) -> None:
    """Draws the curves of the runs in `paths` to the file `out`.

    Raises:
        UserError: a file cannot be read, or `out` has another ending.
    """
    check_ending(out)

    runs = read_runs(paths)
    if names is not None and len(names) != len(runs):
        raise UserError(f"--names has {len(names)} entries for {len(runs)} runs")
    for empty in (run for run in runs if not run.records):
        raise UserError(f"{empty.path}: holds no results yet")
    norm = only_norm(runs)
    different = len(group_by_images(runs)) > 1
    curves = [columns(run) for run in runs]
    end = 1.02 * max(radius.max() for _, radius in curves) or 1.0
    at = np.linspace(0, end, 1001)
    figure, axes = pyplot().subplots(figsize=(6.4, 4.2), layout="constrained")
    for i, (run, (correct, radius)) in enumerate(zip(runs, curves)):
        name = names[i] if names else literal(label(run))
        images = f", {len(correct)} images" if different else ""
        low, high = acr_interval(correct, radius) if independent(run) else (math.nan, math.nan)
        interval = "" if math.isnan(low) else f" ({interval_text(low, high, len(correct))})"
        (line,) = axes.plot(
            at,
            certified_accuracy(correct, radius, at),
            label=f"{name}{images}: ACR {average_certified_radius(correct, radius):.4f}{interval}",
            linewidth=1.8,
        )
        if not independent(run):
            continue
        band = certified_accuracy_interval(correct, radius, at)
        axes.fill_between(at, *band, color=line.get_color(), alpha=0.02 + 0.16 / len(runs), linewidth=0)
    axes.set(xlabel=f"{NORMS[norm]} radius", ylabel="certified accuracy", xlim=(0, end), ylim=(0, 1))
    tidy(axes)
    note = "bands and brackets: 95% intervals for all images like these, at each radius by itself"
    style = {"frameon": False, "title": note, "title_fontsize": 8}
    figure.legend(loc="outside lower center", **style)  # inside it would hide curves
    if title is None:
        data = runs[0].request.get("dataset")
        title = f"{len(runs[0].records)} images" + (f" of {literal(data['name'])} ({data['split']})" if data else "")
        title = "Different images: curves are not comparable" if different else title
    axes.set_title(title, fontsize=11)
    save(figure, out)
