"""Certified accuracy against radius of results files, with the ACR in the legend."""

import math
import textwrap

import numpy as np

from qcrs_jax.errors import UserError
from qcrs_jax.results.attacks import read_runs_and_attacks
from qcrs_jax.results.metrics import (
    acr_interval,
    average_certified_radius,
    certified_accuracy_interval,
    columns,
)

from .figures import LOOKS, NORMS, Look, check_ending, literal, pyplot, save, tidy
from .names import names_of
from .steps import distribution, probabilities, steps_of
from .styles import styles
from .words import data_name, group_by_images, independent, interval_text, only_norm

ATTACKED = ((1, 1.5), (4, 1, 1, 1))
"""Dots and dashes of the lines of attacks on one run."""
NINES = (0.5, 0.9, 0.99, 0.999, 0.9999, 0.99999)


def plot(paths, out, title=None, names=None, look: Look = LOOKS["page"], p_a: bool = False) -> None:
    """Draws the curves of the runs in `paths`, as step functions, to the file `out`.

    Args:
        title: title of the figure; "" for none. None takes the number of images and the data set, if the look has
            titles.
        names: names of the runs; None takes the settings in which they differ.
        p_a: whether a second panel shows the distribution of p_A.

    Raises:
        UserError: a file cannot be read, or `out` has another ending.
    """
    check_ending(out)

    runs, attacks = read_runs_and_attacks(paths)
    called = names_of(runs, names)
    for empty in (run for run in runs if not run.records):
        raise UserError(f"{empty.path}: holds no results yet")
    only_norm(runs)
    different = len(group_by_images(runs)) > 1
    plt = pyplot()
    with look.applied():
        figure, panels = plt.subplots(1, 1 + p_a, figsize=look.size(1 + p_a), layout="constrained", squeeze=False)
        axes = panels[0, 0]
        _draw_curves(axes, runs, called if names else [literal(name) for name in called], different, attacks)
        if p_a:
            _draw_probabilities(panels[0, 1], runs)
        note = "bands and brackets: 95% intervals for all images like these, at each radius by itself"
        size = 8 if look.font is None else 0.75 * look.font
        note = _filled(note, look.width, size)
        style = {"frameon": False, "title": note, "title_fontsize": size}
        handles, labels = axes.get_legend_handles_labels()
        labels = [label if "$" in label else _filled(label, look.width, look.font or 10) for label in labels]
        figure.legend(handles, labels, loc="outside lower center", **style)  # inside the axes it would hide curves
        if different:
            title = title or "Different images: curves are not comparable"
        elif title is None and look.titled:
            data = data_name(runs[0])
            title = f"{len(runs[0].records)} images" + (f" of {literal(data)}" if data else "")
        if title:
            axes.set_title(title, fontsize=look.font or 11)
    save(figure, out)


def _filled(text, width, size):
    """`text` in lines that a figure of this width in inches holds, in letters of `size` points."""
    return textwrap.fill(text, int(110 * width / size), break_long_words=False, break_on_hyphens=False)


def _draw_curves(axes, runs, called, different, attacks):
    """Certified accuracy of each run with its band, and the accuracy that attacks on it left."""
    curves = [columns(run) for run in runs]
    distances = [one.distance for on_it in attacks for one in on_it]
    far = max((found[np.isfinite(found)].max(initial=0) for found in distances), default=0)
    end = 1.02 * max(far, max(radius.max() for _, radius in curves)) or 1.0
    for name, style, run, (correct, radius), on_it in zip(called, styles(runs), runs, curves, attacks):
        for number, one in enumerate(on_it):
            at, share = steps_of(one.correct, np.nextafter(one.distance, 0), end)
            line = {"color": style.colour, "linestyle": (0, ATTACKED[number % len(ATTACKED)]), "linewidth": 1.2}
            changed = np.isfinite(one.distance).sum()
            text = f"{name}, attacked by {one.method}: {changed} of {one.correct.sum()} changed"
            axes.step(at, share, where="pre", label=text, **line)
        at, share = steps_of(correct, radius, end)
        images = f", {len(correct)} images" if different else ""
        low, high = acr_interval(correct, radius) if independent(run) else (math.nan, math.nan)
        interval = "" if math.isnan(low) else f" ({interval_text(low, high, len(correct))})"
        text = f"{name}{images}: ACR {average_certified_radius(correct, radius):.4f}{interval}"
        axes.step(at, share, where="pre", label=text, **_line(style))
        if not independent(run):
            continue
        parts = np.array_split(at, 1 + len(at) // 500)
        band = [np.concatenate(ends) for ends in zip(*(certified_accuracy_interval(correct, radius, p) for p in parts))]
        axes.fill_between(at, *band, step="pre", color=style.colour, alpha=0.02 + 0.16 / len(runs), linewidth=0)
    what = "certified and attacked accuracy" if any(attacks) else "certified accuracy"
    axes.set(xlabel=f"{NORMS[runs[0].norm]} radius", ylabel=what, xlim=(0, end), ylim=(0, 1))
    tidy(axes)


def _draw_probabilities(axes, runs):
    """The distribution of p_A of each run, on an axis with 0.9, 0.99 and 0.999 equally far apart."""
    nines = lambda p: -np.log10(1 - np.asarray(p))  # noqa: E731
    found = [(style, values) for run, style in zip(runs, styles(runs)) if (values := probabilities(run)) is not None]
    largest = max([0.99, *(values.max() for _, values in found)])
    at = 1 - np.geomspace(0.5, max((1 - largest) / 1.5, 1e-9), 1001)
    for style, values in found:
        axes.step(nines(at), distribution(values, at), where="post", **_line(style))
    ticks = [p for p in NINES if p <= at[-1]]
    axes.set_xticks(nines(ticks), [f"{p:g}" for p in ticks])
    axes.set(xlabel="$p_A$, lower bound", ylabel="share of images up to $p_A$", ylim=(0, 1))
    axes.set_xlim(nines(at[0]), nines(at[-1]))
    tidy(axes)


def _line(style):
    """The colour and the dashes of a line, as arguments of Matplotlib."""
    return {"color": style.colour, "linestyle": (0, style.dash) if style.dash else "-"}
