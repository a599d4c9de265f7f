"""Tables of results files: ACR, certified accuracy at radii, abstention, samples and time an image."""

import collections
import csv
import dataclasses
import io
import math

import numpy as np

from qcrs_jax.errors import UserError
from qcrs_jax.results.metrics import (
    acr_interval,
    agreement,
    certified_accuracy,
    certified_accuracy_interval,
    columns,
    largest_run,
    summarise,
)
from qcrs_jax.results.records import read_run

from .collapse import beyond_notes, columns_of
from .gaps import csv_columns, default_radii, gap_parts
from .layouts import LAYOUTS, PLAIN, Body, page, write
from .names import row_names
from .steps import distribution, probabilities
from .words import (
    ONE_CLASSIFIER,
    _limits,
    _number_left_out,
    group_by_images,
    images_heading,
    independent,
    interval_text,
    notes_on_runs,
    one_classifier,
    seed_words,
)


def print_tables(paths) -> None:
    """Prints a table for each set of images among the files in `paths`. A shard is shown by itself.

    Raises:
        UserError: a file cannot be read or has no results.
    """
    write(tables([read_run(path) for path in paths]), None)


def tables(runs, format="terminal", radii=None, names=None, shown=None, around=PLAIN, beyond=None, attacks=None) -> str:
    """The text of a table for each set of images among `runs`, with notes on the certificates.

    Args:
        radii: radii of the certified accuracies; None takes 0, 0.25, 0.5, ...
        names: names of the runs; None takes the settings in which they differ.
        shown: columns to show, of `layouts.COLUMNS`, in order; None shows the usual ones. csv has all of them.
        around: caption and label in LaTeX.
        beyond: the sigma beyond which images are counted; None takes the one that each run recorded.
        attacks: for each run the attacks on it, which have a table of their own; in csv they are columns.
    """
    attacks = attacks if attacks and any(attacks) else None
    groups = group_by_images(runs)
    called = dict(zip(map(id, runs), row_names(runs, names)))
    if any(run.predicts for run in runs):
        if radii is not None:
            raise UserError("--radii: predictions have no radii; leave it out, or give files of certify alone")
        if shown is not None:
            raise UserError("--columns: the table of predictions has its own; leave it out")
        columns, figures = _agreement(groups)
    else:
        columns, figures = _certified(groups, _default_radii(runs) if radii is None else radii, shown or USUAL)
    if format == "csv":
        return _csv(groups, figures, called, beyond, dict(zip(map(id, runs), attacks or ())), radii)
    parts = []
    if len({run.norm for run in runs}) > 1:
        parts.append("These runs have radii of L1 and of L2, in tables of their own: do not compare them.")
    elif len(groups) > 1:
        parts.append(
            f"These runs are over {len(groups)} different sets of images. ACR and accuracy move a lot between sets: "
            "do not compare figures across the tables."
        )
    header = ["run", *(title for _, title, _, _ in columns)]
    for number, (group, rows) in enumerate(zip(groups, figures), start=1):
        cells = [cells for run, row in zip(group, rows) for cells in _rows([called[id(run)]], row, columns)]
        parts.append(images_heading(group[0]))
        parts.append(Body(around.around(LAYOUTS[format](header, cells), number)))
    gaps = gap_parts(runs, attacks, format, radii, names, around, len(groups) + 1) if attacks else []
    return page([*parts, *gaps, *beyond_notes(runs, beyond), *notes_on_runs(runs)], format)


def class_tables(runs, format="terminal", radii=None, names=None, around=PLAIN, beyond=None) -> str:
    """The text of a table for each of `runs`, with a row for each class of its images and one for all.

    Arguments as for `tables`.
    """
    called = row_names(runs, names)
    radii = np.asarray(_default_radii(runs) if radii is None else radii, float)
    if format == "csv":
        return _class_csv(runs, radii, called)
    columns = [*_figure_columns(radii), ("abstention", "abstains", ".3f", False)]
    header = ["class", "images", *(title for _, title, _, _ in columns), "mistaken for"]
    parts = []
    for number, (run, its_name) in enumerate(zip(runs, called), start=1):
        rows = []
        for name, figures, mistake in _class_figures(run, radii):
            row, below = _rows([name, f"{figures['images']:,}"], figures, [(*c[:3], False) for c in columns])
            rows += [[*row, (mistake, None)], [*below, ("", None)]]
        parts.append(f"{its_name}: {images_heading(run)}")
        parts.append(Body(around.around(LAYOUTS[format](header, rows), number)))
    return page([*parts, *beyond_notes(runs, beyond), *notes_on_runs(runs)], format)


def _class_figures(run, radii):
    """Yields, for each class and then for all images: name, figures by key, most frequent mistake."""
    for truth in [*sorted({record.label for record in run.records}), None]:
        records = [record for record in run.records if truth in (None, record.label)]
        part = dataclasses.replace(run, records=records)
        wrong = collections.Counter(r.predict for r in records if not r.correct and r.predict != -1)
        mistake = "-"
        if truth is not None and wrong:
            other, count = max(wrong.items(), key=lambda item: (item[1], -item[0]))
            mistake = f"{run.class_name(other)} ({count})"
        name = "all" if truth is None else run.class_name(truth)
        yield name, _figures(part, radii), mistake


def image_rows(runs, names=None) -> str:
    """A line of csv for each image of each of `runs`: numbers as numbers, times in seconds, counts as JSON lists."""
    rows = []
    for run, called in zip(runs, row_names(runs, names)):
        for record in run.records:
            row = {"run": called, "idx": record.idx, "label": record.label, "label_name": run.class_name(record.label)}
            row |= {"predict": record.predict, "predict_name": ""}
            if record.predict != -1:
                row["predict_name"] = run.class_name(record.predict)
            for field in dataclasses.fields(record)[3:]:
                value = getattr(record, field.name)
                row[field.name] = list(value) if isinstance(value, tuple) else _plain(value)
            rows.append(row | {"samples": _plain(record.samples)})
    known = [name for name in rows[0] if any(row[name] not in (None, "") for row in rows)]
    return _csv_text({name: row[name] for name in known} for row in rows)


def _plain(value):
    """A number or text for csv: empty for NaN, 0 or 1 for a truth value."""
    return None if value != value else int(value) if isinstance(value, bool) else value


def _class_csv(runs, radii, called):
    return _csv_text(
        {"run": its_name, "class": name, **figures, "mistaken_for": mistake, "guarantee": _limits(run)}
        for run, its_name in zip(runs, called)
        for name, figures, mistake in _class_figures(run, radii)
    )


def _default_radii(runs):
    largest = max((r.radius for run in runs for r in run.records if r.correct), default=0)
    return [0.25 * i for i in range(min(math.floor(largest / 0.25), 7) + 1)]


USUAL = ("one_classifier", "acr", "radii", "abstains", "samples", "seconds")
P_A = (0.9, 0.99, 0.999)


def _certified(groups, radii, shown=USUAL):
    """Columns (key, title, format, whether larger is better), and for each group the figures of its runs by key."""
    acr, *accuracies = _figure_columns(radii)
    of = {
        "one_classifier": [("one_classifier", ONE_CLASSIFIER, "", False)],
        "acr": [acr],
        "radii": accuracies,
        "p_a": [(_probability_key(p), f"p_A > {p:g}", ".3f", True) for p in P_A],
        "abstains": [("abstention", "abstains", ".3f", False)],
        "samples": [("samples", "samples", ",.0f", False)],
        "seconds": [("seconds", "median s", ".2f", False)],
    }
    figures = [[_figures(run, radii) for run in group] for group in groups]
    return [column for name in shown for column in of[name]], figures


def _figure_columns(radii):
    """The columns of figures that have an interval, in the form of `_certified`."""
    accuracies = ((_accuracy_key(r), f"r = {r:g}", ".3f", True) for r in radii)
    return [("acr", "ACR", ".4f", True), *accuracies]


def _accuracy_key(radius):
    return f"certified_accuracy_{radius:g}"


def _probability_key(p):
    return f"p_a_above_{p:g}"


def _figures(run, radii):
    """The figures of a run of certificates by key; the ends of the interval of KEY are KEY_low and KEY_high."""
    figures, (correct, radius) = {"one_classifier": one_classifier(run)} | summarise(run)._asdict(), columns(run)
    at = np.asarray([0.0, *radii], float)
    found = certified_accuracy(correct, radius, at).tolist()
    if independent(run):
        intervals = {"acr": acr_interval(correct, radius)}
        ends = zip(*(end.tolist() for end in certified_accuracy_interval(correct, radius, at)))
    else:
        intervals, ends = {"acr": (math.nan, math.nan)}, [(math.nan, math.nan)] * len(at)
    values = probabilities(run)
    above = [math.nan] * len(P_A) if values is None else (1 - distribution(values, np.array(P_A))).tolist()
    figures |= zip(map(_probability_key, P_A), above)
    for key, share, interval in zip(["accuracy", *map(_accuracy_key, radii)], found, ends):
        figures[key], intervals[key] = share, interval
    beside = {}
    for key, value in figures.items():
        beside[key] = value
        if key in intervals:
            beside |= zip((f"{key}_low", f"{key}_high"), intervals[key])
    return beside


def _agreement(groups):
    """The same as `_certified`, for runs of PREDICT."""
    shown = [
        ("n", "N", ",.0f", False),
        ("correct", "correct", ".3f", False),
        ("incorrect", "incorrect", ".3f", False),
        ("abstention", "abstains", ".3f", False),
        ("agrees", "agrees", ".3f", False),
        ("differs", "differs", ".3f", False),
        ("seconds", "median s", ".2f", False),
    ]
    return shown, [[agreement(run, largest_run(group))._asdict() for run in group] for group in groups]


def _rows(first, figures, columns):
    """The row of a run with the given `first` cells, and below it a row of intervals if its figures have any.

    A cell is (text, number to compare or None).
    """
    row = [(text, None) for text in first]
    for key, _, form, compares in columns:
        text = "-" if figures[key] != figures[key] else format(figures[key], form)
        row.append((text, float(text) if compares and text != "-" else None))
    ends = [(figures.get(f"{key}_low"), figures.get(f"{key}_high")) for key, *_ in columns]
    below = ["" if low is None else interval_text(low, high, figures["images"]) for low, high in ends]
    if not any(below):
        return [row]
    return [row, [(text, None) for text in ("  for images like these (95%)", *[""] * (len(first) - 1), *below)]]


def _csv(groups, figures, called, beyond, attacks, radii):
    """The text of csv, in full precision. The column image_set numbers the sets of images."""
    runs = [run for group in groups for run in group]
    far = dict(zip(map(id, runs), columns_of(runs, beyond)))
    methods = list(dict.fromkeys(each.method for on_it in attacks.values() for each in on_it))
    if methods and radii is None:
        radii = default_radii(runs, attacks.values())
    return _csv_text(
        {
            "run": called[id(run)],
            "image_set": number,
            **row,
            **far[id(run)],
            **csv_columns(attacks.get(id(run), ()), methods, radii),
            "left_out": _number_left_out(run),
            "seed": seed_words(run),
            "guarantee": _limits(run),
        }
        for number, (group, rows) in enumerate(zip(groups, figures), start=1)
        for run, row in zip(group, rows)
    )


def _csv_text(rows):
    rows = list(rows)
    out = io.StringIO()
    writer = csv.DictWriter(out, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()
