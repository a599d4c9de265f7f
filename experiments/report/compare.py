"""Runs compared with a reference run, image by image: gain in ACR with its interval, cost of the search, regret."""

import itertools
import math
import textwrap

import numpy as np

from qcrs_jax.errors import UserError
from qcrs_jax.results.metrics import average_certified_radius, columns, paired_gain, summarise
from qcrs_jax.results.records import CASCADE, INPUT_SPECIFIC, is_cascade, is_ddrs

from .collapse import beyond_notes
from .figures import NORMS, literal, pyplot, save, tidy
from .gains import extremes, gains
from .layouts import LAYOUTS, Body, page
from .names import names_of, row_names
from .styles import method_of, styles
from .words import (
    DDRS_SAMPLES,
    ONE_CLASSIFIER,
    earlier_notes,
    group_by_images,
    label,
    left_out_notes,
    one_classifier,
    only_norm,
    origin_notes,
    seed_notes,
)


def comparison(reference, runs, format="terminal", names=None, top=0, beyond=None) -> str:
    """The text of a table that compares each of `runs` with `reference`.

    Args:
        names: names of the reference and the runs; None takes the settings in which they differ.
        top: how many of the images that gain most, and that lose most, are listed for each run.
        beyond: the sigma beyond which images are counted; None takes the one that each run recorded.

    Raises:
        UserError: the runs are not over the same images.
    """
    only_norm((reference, *runs))
    for run in (reference, *runs):
        if not run.records:
            raise UserError(f"{run.path}: holds no results yet")
        if len(group_by_images([reference, run])) > 1:
            raise UserError(
                f"{run.path}: is not over the images of {reference.path}; give both the same data, --skip and --max"
            )
    header = (
        "run",
        ONE_CLASSIFIER,
        "ACR",
        "gain in ACR (95%)",
        "of the reference",
        "search / N",
        "regret",
        "sigma ratio",
    )
    called = row_names((reference, *runs), names)
    rows = [_row(reference, run, name) for run, name in zip((reference, *runs), called)]
    body = Body(LAYOUTS[format](header, rows))
    images = [part for run, name in zip(runs, called[1:]) for part in _images(reference, run, name, top, format)]
    notes = (
        f"Reference: {label(reference)}, {len(reference.records)} images. Regret: mean of (reference radius - radius), "
        "negative ones as 0, where both predict the label. Sigma ratio: quartiles of sigma / the reference's sigma. "
        "Intervals of the gain: a paired bootstrap over the images (BCa), approximate for few images."
    )
    if any(is_ddrs(run.request) for run in (reference, *runs)):
        notes += f" {DDRS_SAMPLES}"
    if any(run.input_specific for run in (reference, *runs)):
        notes += f" {INPUT_SPECIFIC}"
    if any(is_cascade(run.request) for run in (reference, *runs)):
        notes += f" {CASCADE}"
    everyone = (reference, *runs)
    notes_on_runs = [*left_out_notes(everyone), *seed_notes(everyone), *origin_notes(everyone)]
    notes_on_runs += earlier_notes(everyone)
    return page([body, *images, *beyond_notes(everyone, beyond, reference), notes, *notes_on_runs], format)


def plot(reference, runs, out, names=None) -> None:
    """Draws sigma and radius of every image in each of `runs` against those in `reference` to the file `out`."""
    plt, called = pyplot(), [literal(name) for name in names_of((reference, *runs), names)]
    figure, panels = plt.subplots(2, len(runs), figsize=(3.0 * len(runs), 6.2), layout="constrained", squeeze=False)
    for column, (run, style) in enumerate(zip(runs, styles(runs))):
        for axes, quantity in zip(panels[:, column], ("sigma", "radius")):
            pairs = [(getattr(a, quantity), getattr(b, quantity)) for a, b in zip(reference.records, run.records)]
            pairs = [pair for pair in pairs if None not in pair]
            end = 1.05 * max(map(max, pairs), default=1.0) or 1.0
            axes.plot([0, end], [0, end], color="0.7", linewidth=1)
            axes.plot(*zip(*pairs), ".", markersize=5, alpha=0.6, color=style.colour)
            axes.set(xlim=(0, end), ylim=(0, end), aspect="equal", xlabel=f"{quantity} of the reference")
            tidy(axes)
        panels[0, column].set_title(textwrap.fill(called[1 + column], 34), fontsize=9)
    panels[0, 0].set_ylabel("sigma of the run")
    panels[1, 0].set_ylabel(f"certified {NORMS[reference.norm]} radius of the run")
    figure.suptitle(f"Each image, compared with the reference {called[0]}", fontsize=10)
    save(figure, out)


def frontier(reference, runs, out, names=None) -> None:
    """Draws the gain in ACR of each run over `reference`, against its mean samples an image, to the file `out`.

    Bars are 95% intervals of the gain; the reference has none. A run of one sigma may lie far below the others. It is
    then drawn at the lower edge, with its value.
    """
    every = (reference, *runs)
    called = [literal(name) for name in names_of(every, names)]
    figure, axes = pyplot().subplots(figsize=(7.2, 5.2), layout="constrained")
    ends = []
    far = []
    for run, name, style, marker in zip(every, called, styles(every), itertools.cycle("Dos^vPX*<>")):
        gain, low, high = (
            (0.0, math.nan, math.nan) if run is reference else paired_gain(columns(run), columns(reference))
        )
        samples, told = summarise(run).samples, f"{name}: {gain:+.4f}"
        look = {"marker": marker, "color": style.colour, "markersize": 6}
        if run is not reference and not run.input_specific and method_of(run) == "cohen" and len(every) > 2:
            far.append((samples, gain, {**look, "linestyle": "none", "label": told}))
            continue
        bars = None if math.isnan(low) else [[gain - low], [high - gain]]
        ends += [gain] if bars is None else [low, high]
        axes.errorbar(samples, gain, bars, capsize=3, linestyle="none", label=told, **look)
    bottom, top = _widened(min(ends), max(ends))
    for samples, gain, look in far:
        inside = bottom <= gain <= top
        where = gain if inside else bottom if gain < bottom else top
        axes.plot(samples, where, clip_on=False, zorder=3, **look)
        if not inside:
            side = {"xytext": (7, 5 if gain < bottom else -12), "textcoords": "offset points", "fontsize": 8}
            axes.annotate(f"at {gain:+.3f}", (samples, where), **side)
    axes.axhline(0, color="0.7", linewidth=1, zorder=0)
    axes.margins(x=0.08)
    axes.set(xlabel="samples an image, of search and certificate", ylabel="gain in ACR", ylim=(bottom, top))
    axes.set_title(
        f"gain over {called[0]} (ACR {summarise(reference).acr:.4f}), {len(reference.records)} images, 95% intervals",
        fontsize=10,
    )
    figure.legend(
        loc="outside lower center",
        frameon=False,
        fontsize=8,
    )  # names next to points would overlap
    tidy(axes)
    save(figure, out)


def _widened(low, high):
    room = 0.12 * (high - low) or 0.01
    return low - room, high + room


def _images(reference, run, name, top, format):
    """Yields a heading and a table for the images of a run that gain most, and for those that lose most."""
    gain = gains(reference, run)
    for places, what in zip(extremes(reference, run, top), ("gained", "lost")):
        if not places:
            continue
        with_files = any(run.records[place].file for place in places)
        header = ["image", *["file"] * with_files, "label", "reference", "radius", "gain", "sigma"]
        rows = []
        for place in places:
            record = run.records[place]
            cells = [str(record.idx), *[record.file or ""] * with_files, run.class_name(record.label)]
            cells += [_radius(reference.records[place], reference), _radius(record, run), f"{gain[place]:+.4f}"]
            rows.append([(cell, None) for cell in (*cells, "-" if record.sigma is None else f"{record.sigma:.4g}")])
        yield f"{name}: the {len(places)} images that {what} most, by certified radius (0 for a wrong answer or none)"
        yield Body(LAYOUTS[format](header, rows))


def _radius(record, run):
    if record.predict == -1:
        return "abstains"
    return f"{record.radius:.4f}" + ("" if record.correct else f" for {run.class_name(record.predict)}")


def _row(reference, run, name):
    ours, theirs = columns(run), columns(reference)
    acr, base = average_certified_radius(*ours), average_certified_radius(*theirs)
    both = ours[0] & theirs[0]
    regret = np.maximum(theirs[1] - ours[1], 0)[both]
    cells = [name, one_classifier(run), f"{acr:.4f}"]
    if run is reference:
        return [(text, None) for text in (*cells, "", "", _overhead(run), "", "")]
    gain, low, high = paired_gain(ours, theirs)
    interval = "no interval" if math.isnan(low) else f"{low:+.4f} to {high:+.4f}"
    cells += [f"{gain:+.4f} ({interval})", f"{100 * acr / base:.1f}%" if base else "-", _overhead(run)]
    cells += [f"{regret.mean():.4f}" if both.any() else "-", _ratios(run, reference)]
    return [(text, None) for text in cells]


def _overhead(run):
    """Samples of the search in per cent of those of the certificate."""
    certified = [sum(r.counts) for r in run.records if r.counts]
    if not certified:
        return "-"
    return f"{100 * sum(r.search_samples for r in run.records) / sum(certified):.1f}%"


def _ratios(run, reference):
    pairs = [(a.sigma, b.sigma) for a, b in zip(run.records, reference.records) if a.sigma and b.sigma]
    if not pairs:
        return "-"
    ratio = np.array([a / b for a, b in pairs])
    return " / ".join(f"{q:.2f}" for q in np.quantile(ratio, [0.25, 0.5, 0.75]))
