"""Table of results files: ACR, certified accuracy at radii, abstention, samples and time an image.

Reads our files and those of Cohen's and QCRS's programs. The best of each column is marked. The row below a run has 95%
intervals of ACR and of certified accuracy over all images like these; in csv they are columns, ..._low and ..._high.
Runs over different images are put in tables of their own. The files of a run that was split by --shard are one run, if
all are given. With --classes each run has a table with a row for each class. With files of `qcrs-jax predict` among
them it is the table of agreement instead: how often each run answers, is right, and answers as the run with the most
samples.
"""

import collections
import csv
import dataclasses
import io
import math
import textwrap
from pathlib import Path

from qcrs_jax.errors import UserError
from qcrs_jax.files import write_text, writing
from qcrs_jax.printable import printable, printable_lines
from qcrs_jax.results.account import account
from qcrs_jax.results.records import EARLIER_VERSION, INPUT_SPECIFIC, without_class

from .latex import comment, escape

FORMATS = ("terminal", "markdown", "latex", "csv")

DDRS_SAMPLES = (
    "Samples of DDRS's search are differentiated: each costs a forward pass and one of its derivative, about twice a "
    "sample of QCRS's search or of a certificate."
)

SOFT = (
    "A soft certificate is about the class with the largest mean softmax under noise, a hard one about the class that "
    "noisy copies most often fall into: two smoothed classifiers, which may differ."
)
INTERVALS = (
    "For images like these: 95% confidence intervals of the figures over the population, if these images were drawn "
    "from it at random; every 20th image of a test set is close to that. Accuracies have the exact interval "
    "(Clopper-Pearson), each radius by itself. ACR has that of a bootstrap (BCa), which is approximate; fewer than 20 "
    "images, or equal radii, give none (-). These intervals are about which images were drawn; alpha is about the "
    "noise, and is not in them. Runs over the same images differ by less than their intervals suggest: `qcrs-jax "
    "compare` has the interval of the difference."
)
BUDGET = (
    "With --budget the samples of an image depend a little on the other images; for such a run the intervals are "
    "approximate."
)
DEPENDENT = "A memory-based run has no such intervals (-): its answers depend on the images before."
AGREEMENT = (
    "Shares of the images. agrees and differs: answers that are, and are not, the class that most samples of the run "
    "with the largest N (marked -) fall into. Runs of one seed share samples: those of a smaller N are the first of a "
    "larger."
)


def add_arguments(parser):
    parser.add_argument("results", metavar="RESULTS", nargs="+", type=Path)
    parser.add_argument("--format", choices=FORMATS, default="terminal", help="default: terminal")
    parser.add_argument("--radii", type=float, nargs="+", metavar="R", help="default: 0, 0.25, 0.5, ...")
    parser.add_argument("--classes", action="store_true", help="a row for each class, by its name, in a table a run")
    parser.add_argument("--out", type=Path, help="write to this file instead of the terminal")


def run(args):
    from qcrs_jax.results.shards import read_runs

    check_replaceable(args.out, args.results)
    write((class_tables if args.classes else tables)(read_runs(args.results), args.format, args.radii), args.out)


def print_tables(paths) -> None:
    """Prints a table for each set of images among the files in `paths`, each as it is, if it is a shard as well.

    Raises:
        UserError: a file cannot be read or has no results.
    """
    from qcrs_jax.results.records import read_run

    write(tables([read_run(path) for path in paths]), None)


def check_replaceable(out, paths) -> None:
    """Raises UserError if `out` is one of the results files `paths`, or another one; None is the terminal."""
    from qcrs_jax.results.records import sidecar_path

    if out is None:
        return
    with writing(out):
        if out in paths or sidecar_path(out).exists():
            raise UserError(f"{out}: holds the results of a run, which the table would replace; choose another file")


def write(text, out) -> None:
    """Writes `text`, printable, to the file `out`, or to the terminal if that is None."""
    if out is None:
        print(printable_lines(text), end="")
    else:
        with writing(out):
            write_text(out, printable_lines(text))


class Body(str):
    """A table, as its format has it; the other parts of a page are prose."""


def tables(runs, format="terminal", radii=None) -> str:
    """The text of a table for each set of images among `runs`, and what its certificates say."""
    groups = group_by_images(runs)
    if any(run.predicts for run in runs):
        if radii is not None:
            raise UserError("--radii: predictions have no radii; leave it out, or give files of certify alone")
        columns, figures = _agreement(groups)
    else:
        columns, figures = _certified(groups, _default_radii(runs) if radii is None else radii)
    if format == "csv":
        return _csv(groups, figures)
    parts = []
    if len(groups) > 1:
        parts.append(
            f"These runs are over {len(groups)} different sets of images. ACR and accuracy move a lot between sets: "
            "do not compare figures across the tables."
        )
    header = ["run", *(title for _, title, _, _ in columns)]
    for group, rows in zip(groups, figures):
        cells = [cells for run, row in zip(group, rows) for cells in _rows([label(run)], row, columns)]
        parts.append(_heading(group[0]))
        parts.append(Body(LAYOUTS[format](header, cells)))
    return page([*parts, *_notes(runs)], format)


def class_tables(runs, format="terminal", radii=None) -> str:
    """The text of a table for each of `runs`, with a row for each class of its images and one for all."""
    import numpy as np

    radii = np.asarray(_default_radii(runs) if radii is None else radii, float)
    if format == "csv":
        return _class_csv(runs, radii)
    columns = [*_figure_columns(radii), ("abstention", "abstains", ".3f", False)]
    header = ["class", "images", *(title for _, title, _, _ in columns), "mistaken for"]
    parts = []
    for run in runs:
        rows = []
        for name, figures, mistake in _class_figures(run, radii):
            row, below = _rows([name, f"{figures['images']:,}"], figures, [(*c[:3], False) for c in columns])
            rows += [[*row, (mistake, None)], [*below, ("", None)]]
        parts.append(f"{label(run)}: {_heading(run)}")
        parts.append(Body(LAYOUTS[format](header, rows)))
    return page([*parts, *_notes(runs)], format)


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


def _class_csv(runs, radii):
    return _csv_text(
        {"run": label(run), "class": name, **figures, "mistaken_for": mistake, "guarantee": _limits(run)}
        for run in runs
        for name, figures, mistake in _class_figures(run, radii)
    )


def page(parts, format) -> str:
    """Tables and prose, one after another; of LaTeX the prose is comments."""
    if format == "latex":
        parts = [part if isinstance(part, Body) else comment(part) for part in parts]
    elif format == "terminal":
        parts = [part if isinstance(part, Body) else textwrap.fill(part, 100) for part in parts]
    else:
        parts = [part if isinstance(part, Body) else printable(part) for part in parts]
    return "\n\n".join(parts) + "\n"


def _default_radii(runs):
    largest = max((r.radius for run in runs for r in run.records if r.correct), default=0)
    return [0.25 * i for i in range(min(math.floor(largest / 0.25), 7) + 1)]


def group_by_images(runs):
    """Runs over the same images together; a file without a fingerprint goes by its indices and labels."""

    def same(a, b):
        (ids, fingerprint), (other_ids, other) = a.images, b.images
        return ids == other_ids and (fingerprint == other or None in (fingerprint, other))

    groups = []
    for run in sorted(runs, key=lambda run: run.images[1] is None):  # the doubtful ones last
        home = next((group for group in groups if all(same(run, member) for member in group)), None)
        if home is None:
            groups.append(home := [])
        home.append(run)
    return [sorted(group, key=runs.index) for group in groups]


def independent(run) -> bool:
    """Whether what is certified at an image does not depend on the other images, as intervals over images suppose."""
    return "memory" not in run.request


def _heading(run):
    data = run.request.get("dataset", {})
    name = printable(f" of {data.get('name')} ({data.get('split')})") if data else ""
    indices = [r.idx for r in run.records]
    return f"{len(indices)} images{name}, {indices[0]} to {indices[-1]}"


def label(run) -> str:
    """What a run is called in tables and plots: its file and its method."""
    request, parts = run.request, []
    if "method" in request:
        names = {"cohen": "Cohen", "ddrs": "DDRS", "predict": "PREDICT"}
        method = names.get(request["method"]) or _search(request.get("qcrs") or {})
        parts = [method, *[f"sigma {request['sigma']:g}"] * ("sigma" in request)]
    if request.get("certificate") == "soft":
        parts.append("soft" + (f", beta {request['beta']:g}" if "beta" in request else ""))
    if "memory" in request:
        parts.append("memory-based")
    if "shard" in request:
        parts.append(f"shard {request['shard']['part']}/{request['shard']['of']}")
    return f"{', '.join(parts)} ({run.path.name})" if parts else run.path.name


def _search(settings):
    """The name of a search, with its objective where that is not the search's own."""
    search = settings.get("search", "of an unnamed search")
    return f"QCRS {search}{' of bounds' if settings.get('objective') == 'lcb' and search in ('golden', 'grid') else ''}"


def _certified(groups, radii):
    """Columns (key, title, format, whether larger is better), and for each group the figures of its runs by key."""
    shown = [
        *_figure_columns(radii),
        ("abstention", "abstains", ".3f", False),
        ("samples", "samples", ",.0f", False),
        ("seconds", "median s", ".2f", False),
    ]
    return shown, [[_figures(run, radii) for run in group] for group in groups]


def _figure_columns(radii):
    """The columns, as in `_certified`, of the figures that have an interval."""
    accuracies = ((_accuracy_key(r), f"r = {r:g}", ".3f", True) for r in radii)
    return [("acr", "ACR", ".4f", True), *accuracies]


def _accuracy_key(radius):
    return f"certified_accuracy_{radius:g}"


def _figures(run, radii):
    """The figures of a run of certificates by key; the ends of the interval of KEY are KEY_low and KEY_high."""
    import numpy as np

    from qcrs_jax.results.metrics import (
        acr_interval,
        certified_accuracy,
        certified_accuracy_interval,
        columns,
        summarise,
    )

    figures, (correct, radius) = summarise(run)._asdict(), columns(run)
    at = np.asarray([0.0, *radii], float)
    found = certified_accuracy(correct, radius, at).tolist()
    if independent(run):
        intervals = {"acr": acr_interval(correct, radius)}
        ends = zip(*(end.tolist() for end in certified_accuracy_interval(correct, radius, at)))
    else:
        intervals, ends = {"acr": (math.nan, math.nan)}, [(math.nan, math.nan)] * len(at)
    for key, share, interval in zip(["accuracy", *map(_accuracy_key, radii)], found, ends):
        figures[key], intervals[key] = share, interval
    beside = {}
    for key, value in figures.items():
        beside[key] = value
        if key in intervals:
            beside |= zip((f"{key}_low", f"{key}_high"), intervals[key])
    return beside


def _agreement(groups):
    """As `_certified`, of runs of PREDICT."""
    from qcrs_jax.results.metrics import agreement, largest_run

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
    """The row of a run, whose first cells are given, and below it one of intervals where its figures have any.

    A cell is (text, number to compare or None).
    """
    row = [(text, None) for text in first]
    for key, _, form, compares in columns:
        text = "-" if math.isnan(figures[key]) else format(figures[key], form)
        row.append((text, float(text) if compares else None))
    ends = [(figures.get(f"{key}_low"), figures.get(f"{key}_high")) for key, *_ in columns]
    below = ["" if low is None else interval_text(low, high, figures["images"]) for low, high in ends]
    if not any(below):
        return [row]
    return [row, [(text, None) for text in ("  for images like these (95%)", *[""] * (len(first) - 1), *below)]]


def interval_text(low: float, high: float, images: int) -> str:
    """An interval over so many images, rounded outwards to as many digits as it is worth; - for NaN."""
    if math.isnan(low):
        return "-"
    digits = 2 if images < 1000 else 3
    ends = math.floor(low * 10**digits) / 10**digits, math.ceil(high * 10**digits) / 10**digits
    return "-".join(f"{end:.{digits}f}".removeprefix("0") for end in ends)


def _marked(rows, mark):
    """The texts of the cells, the best of each column marked where there is something to compare."""
    compared = [[row[i][1] for row in rows if row[i][1] is not None] for i in range(len(rows[0]))]
    return [
        [
            mark(text) if len(compared[i]) > 1 and number == max(compared[i]) else text
            for i, (text, number) in enumerate(row)
        ]
        for row in rows
    ]


def _terminal(header, rows):
    body = [[printable(cell) for cell in row] for row in (header, *_marked(rows, lambda text: f"*{text}"))]
    widths = [max(len(row[i]) for row in body) for i in range(len(header))]
    lines = [
        "  ".join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(row, widths)))
        for row in body
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *(line.rstrip() for line in lines[1:])])


def _markdown(header, rows):
    body = [header, ["---", *["---:"] * (len(header) - 1)], *_marked(rows, lambda text: f"**{text}**")]
    return "\n".join("| " + " | ".join(printable(cell).replace("|", "\\|") for cell in row) + " |" for row in body)


def _latex(header, rows):
    body = _marked(
        [[(escape(text), number) for text, number in row] for row in rows], lambda text: rf"\textbf{{{text}}}"
    )
    header = [f"${cell}$" if cell.startswith("r = ") else escape(cell) for cell in header]
    lines = [r"\begin{tabular}{l" + "r" * (len(header) - 1) + "}", r"\hline"]
    lines += [" & ".join(header) + r" \\", r"\hline"]
    lines += [" & ".join(row) + r" \\" for row in body]
    return "\n".join([*lines, r"\hline", r"\end{tabular}"])


LAYOUTS = {"terminal": _terminal, "markdown": _markdown, "latex": _latex}


def _csv(groups, figures):
    """Full precision; the column image_set tells which runs are over the same images."""
    return _csv_text(
        {"run": label(run), "image_set": number, **row, "left_out": _number_left_out(run), "guarantee": _limits(run)}
        for number, (group, rows) in enumerate(zip(groups, figures), start=1)
        for run, row in zip(group, rows)
    )


def _number_left_out(run):
    """How many images were left out; nothing where that is not known."""
    return "" if run.left_out is None else len(run.left_out)


def _csv_text(rows):
    rows = list(rows)
    out = io.StringIO()
    writer = csv.DictWriter(out, rows[0], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _limits(run):
    """What the certificates of a run hold for, where that is not one classifier for all inputs; else nothing."""
    from qcrs_jax.results import stored_balls as memory

    if "memory" in run.request:
        return memory.LIMITS
    return INPUT_SPECIFIC if run.input_specific else ""


def claims(run) -> str | None:
    """How many images a run with --decide claims to be robust, right and wrong ones apart; None for another run.

    A claim is about the class that was selected. Where that is not the label, the image is robust, and wrong.
    """
    decided = [record for record in run.records if record.robust is not None]
    radius = (run.request.get("sequential") or {}).get("decide")
    if radius is None or len(decided) < len(run.records) or not decided:
        return None
    right = [record.label == _selected(record) for record in decided if record.robust == 1]
    yes, no, unknown = ([record.robust for record in decided].count(claim) for claim in (1, 0, -1))
    return (
        f"{yes} robust at {radius:g}, {no} not, {unknown} undecided; robust and right are {sum(right)} of "
        f"{len(decided)} images, robust and wrong {len(right) - sum(right)}"
    )


def _selected(record):
    """The class that a claim is about: also of an image that abstains."""
    return record.counts0.index(max(record.counts0)) if record.counts0 else record.predict


def earlier_notes(runs) -> list[str]:
    """A sentence on those of `runs` that an earlier version made, where there are any."""
    earlier = [label(run) for run in runs if run.of_an_earlier_version]
    return [f"{', '.join(earlier)}: {EARLIER_VERSION}"] if earlier else []


def left_out_notes(runs) -> list[str]:
    """A sentence on the images that each of `runs` left out, where there are any or where that is not known."""
    notes = []
    for run in runs:
        left_out = run.left_out
        if left_out is None:
            notes.append(
                f"{label(run)}: is not finished, or what its sidecar said of that was taken out. Images may be missing."
            )
        elif left_out:
            notes.append(
                f"{label(run)}: {len(left_out)} images were left out, as they could not be read, beside the "
                f"{len(run.records)} that are here. All figures are over these."
            )
    return notes


def _notes(runs):
    from qcrs_jax.results import stored_balls as memory

    accounts = {}
    for run in runs:
        if "alpha" in run.request:
            accounts.setdefault(account(run.request, len(run.records)), []).append(label(run))
    notes = [f"{', '.join(of)}: {text}" if len(accounts) > 1 else text for text, of in accounts.items()]
    if not any(run.predicts for run in runs):
        kinds = {BUDGET: any(run.request.get("budget") for run in runs), DEPENDENT: not all(map(independent, runs))}
        notes.append(" ".join([INTERVALS, *(text for text, there_is in kinds.items() if there_is)]))
    notes += [f"{label(run)}: {text}." for run in runs if (text := claims(run))]
    notes += left_out_notes(runs) + earlier_notes(runs)
    for run in runs:
        spoilt = [missing for record in run.records if (missing := without_class([record], run.request)[0])]
        if spoilt:
            notes.append(
                f"{label(run)}: {sum(spoilt):,} noisy copies of {len(spoilt)} images, {max(spoilt):,} of one at "
                "most, count for no class: a logit is not finite. They speak against the class that is answered."
            )
    if any(run.input_specific and "memory" not in run.request for run in runs):
        notes.append(INPUT_SPECIFIC)
    if any(run.request.get("method") == "ddrs" for run in runs):
        notes.append(DDRS_SAMPLES)
    if any("memory" in run.request for run in runs):
        notes.append(memory.LIMITS)
    if any(run.request.get("certificate") == "soft" for run in runs):
        notes.append(SOFT)
    if len(runs) > 1 and any(run.predicts for run in runs):
        notes.insert(0, AGREEMENT)
    return notes
