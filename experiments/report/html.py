"""A page to hand in: what results files hold, for a reviewer or a safety board. One file, which loads nothing."""

import base64
import dataclasses
import datetime
import hashlib
import html
import json
import math
import shlex
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from qcrs_jax.printable import printable, printable_lines
from qcrs_jax.results.account import account
from qcrs_jax.results.metrics import (
    certified_accuracy,
    certified_accuracy_interval,
    columns,
    paired_gain,
    summarise,
)
from qcrs_jax.results.records import INPUT_SPECIFIC, Run, checksum, sidecar_path
from qcrs_jax.version import version

from . import svg
from .gains import extremes, gains, reference_of
from .names import names_of
from .steps import distribution, probabilities, steps_of
from .styles import styles
from .table import _certified, _class_figures, _default_radii
from .thumbnails import thumbnails
from .words import _heading, _notes, data_name, group_by_images, independent, interval_text

ASSETS = Path(__file__).parents[1] / "assets"
NORM, LENGTH, BALL = "L2", "L2 length", "the square root of the sum of the squared changes of all colour values"
PICTURES = 3_000_000
"""Characters of all thumbnails together."""
TOP = 10
STEPS = 600
"""Of a curve, at most: more than a page has pixels for."""
MOST_CLASSES = 200
SHOWN_COUNTS = 4


@dataclasses.dataclass(frozen=True)
class Verified:
    """What `verify` found out of the files of a run.

    verdict: in a sentence; lines: all that it said; troubles: what is wrong.
    whole: whether every line was drawn again, and agrees.
    """

    verdict: str
    lines: list[str]
    troubles: list[str]
    whole: bool


@dataclasses.dataclass(frozen=True)
class Part:
    """A run of the report, the files it was read from, what was verified of them (None: nothing), and its name."""

    run: Run
    files: list[Path]
    verified: Verified | None = None
    name: str = ""


@dataclasses.dataclass(frozen=True)
class Pictures:
    """The data set of runs over the same images, or None and a sentence that says why it is not there."""

    dataset: object | None
    why: str = ""


def page(parts: Sequence[Part], pictures: dict[int, Pictures], title: str | None = None) -> str:
    """The page of the runs in `parts`.

    Args:
        parts: of runs of certificates, none of them empty.
        pictures: of each set of images, by the place of its first run in `parts`.
        title: of the page; by default it names the network and the data.
    """
    named = zip(parts, names_of([part.run for part in parts]))
    parts, groups = [dataclasses.replace(part, name=name) for part, name in named], []
    for group in group_by_images([part.run for part in parts]):
        members = [part for part in parts if any(part.run is run for run in group)]
        groups.append(Group(members, pictures[parts.index(members[0])]))
    radii = _default_radii([part.run for part in parts])
    title = title or f"Certification of {_network(parts[0].run)} on {_data(parts[0].run)}"
    body = [
        _head(groups, title),
        _plain_words(groups, radii),
        _section("results", "Results", "".join(_results(group, radii, len(groups) > 1) for group in groups)),
        _section("distributions", "How radii, noise and probabilities are distributed", _distributions(groups)),
        _section("classes", "Class by class", "".join(_classes(part, radii) for part in parts)),
        _section("gains", "What a noise level for each image gained", "".join(_gains(group) for group in groups)),
        _section("images", "All images", _images(groups)),
        _section("sure", "How sure this is", _sure(groups)),
        _section("origin", "Where it comes from, and how to check it", "".join(_origin(part) for part in parts)),
    ]
    script, style = (ASSETS / "report.js").read_text(), (ASSETS / "report.css").read_text()
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    policy = (
        f"default-src 'none'; script-src 'sha256-{allowed}'; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" '
        f'content="light dark"><title>{_e(title)}</title><style>{style}</style></head>\n<body>'
        '<a class="skip" href="#results">To the results</a>\n' + "\n".join(body) + "\n"
        f'<script type="application/json" id="data">{_data_of_images(groups)}</script>\n<script>{script}</script>'
        "</body></html>\n"
    )


class Group:
    """Runs over the same images, and the pictures of these."""

    def __init__(self, parts: list[Part], pictures: Pictures):
        self.parts, self.pictures = parts, pictures
        self.runs = [part.run for part in parts]
        reference = reference_of(self.runs)
        self.reference = next((part for part in parts if part.run is reference), None)
        self.styles = styles(self.runs)

    @property
    def compared(self) -> list[Part]:
        """The runs that gain or lose over the reference."""
        return [] if self.reference is None else [part for part in self.parts if part is not self.reference]

    @property
    def drawn(self):
        """(name, run, style) of each run."""
        return [(part.name, part.run, style) for part, style in zip(self.parts, self.styles)]

    def interesting(self) -> list[int]:
        """The indices of all images; those that gained or lost most come first, the others spread evenly."""
        sides = [side for part in self.compared for side in extremes(self.reference.run, part.run, TOP)]
        first = [place for side in sides for place in side]
        places = range(len(self.runs[0].records))
        spread = sorted(places, key=lambda place: (int(f"{place:024b}"[::-1], 2), place))
        return [self.runs[0].records[i].idx for i in dict.fromkeys([*first, *spread])]


def _e(text) -> str:
    """A text of a file, as HTML shows it."""
    return html.escape(printable(text))


def _section(name, title, content):
    return f'<section id="{name}" aria-labelledby="{name}-title"><h2 id="{name}-title">{title}</h2>{content}</section>'


def _p(text):
    return f"<p>{_e(text)}</p>"


def _table(name, header, rows, marks="", caption=""):
    """A table that is scrolled sideways where it is wide.

    Args:
        header: titles of the columns; one of text, not of numbers, begins with a blank.
    """
    titles = "".join(
        f"<th scope=col{' class=text' * title.startswith(' ')}>{_e(title.strip())}</th>" for title in header
    )
    above = f"<caption>{_e(caption)}</caption>" if caption else ""
    return (
        f'<div class=wide tabindex=0 role=region aria-label="{_e(name)}"><table class=figures {marks}>{above}<thead><tr>'
        f"{titles}</tr></thead><tbody>{rows}</tbody></table></div>"
    )


def _network(run):
    classifier = run.request.get("classifier", {})
    return classifier.get("arch") or "a classifier"


def _data(run):
    return data_name(run) or f"{len(run.records)} images"


def _head(groups, title):
    parts = [part for group in groups for part in group.parts]
    today = datetime.date.today().isoformat()
    states = "".join(f"<li>{_state(part)}</li>" for part in parts)
    figures = "".join(map(_card, parts))
    links = {
        "words": "In plain words",
        "results": "Results",
        "distributions": "Distributions",
        "classes": "Classes",
        "gains": "Gains",
        "images": "All images",
        "sure": "How sure",
        "origin": "Origin",
    }
    inside = "".join(f'<a href="#{name}">{text}</a>' for name, text in links.items())
    return (
        f"<header><h1>{_e(title)}</h1><p class=quiet>Made on {today} by qcrs-jax {_e(version('qcrs_jax'))} from "
        f"results files. Nothing was certified again for this page.</p><ul class=states>{states}</ul>"
        f"<nav aria-label=Sections>{inside}</nav><div class=cards>{figures}</div></header>"
    )


def _card(part):
    figures = summarise(part.run)
    terms = [
        ("average certified radius (ACR)", f"{figures.acr:.4f}"),
        ("right, with a certificate", f"{100 * figures.accuracy:.1f}%"),
        ("no answer", f"{100 * figures.abstention:.1f}%"),
        ("images", f"{figures.images:,}"),
    ]
    inside = "".join(f"<div><dt>{term}</dt><dd>{value}</dd></div>" for term, value in terms)
    return f"<div class=card><h3>{_e(part.name)}</h3><dl>{inside}</dl></div>"


def _state(part):
    """Whether the files of a run were verified, in a sentence that does not say more than was done."""
    name = f"<b>{_e(part.name)}</b>: "
    if part.verified is None:
        sums = _sums(part)
        mark = "bad" if any(kind == "bad" for kind, _ in sums) else "open"
        told = " ".join(_e(text) for kind, text in sums if kind != "good") or _e(
            "Its file has the sum that its sidecar says."
        )
        return f"<span class={mark}>not verified by this report</span> {name}{told}"
    if part.verified.troubles:
        return f"<span class=bad>not what was computed</span> {name}{_e(part.verified.troubles[0])}"
    mark, word = ("good", "verified") if part.verified.whole else ("open", "not verified as a whole")
    return f"<span class={mark}>{word}</span> {name}{_e(part.verified.verdict)}"


def _sums(part):
    """(kind, sentence) of each file: whether it is the one that was finished, by the sum in its sidecar."""
    due = part.run.sidecar.get("sha256")
    if not part.run.sidecar:
        return [("open", "It has no sidecar: nothing says how it was made.")]
    if len(part.files) > 1:  # shards, each with a sum of its own
        from qcrs_jax.results.records import read_sidecar

        pairs = [(file, read_sidecar(file).get("sha256")) for file in part.files]
    else:
        pairs = [(part.files[0], due)]
    said = []
    for file, sum_ in pairs:
        if sum_ is None:
            said.append(("open", f"{file.name} has no sum in its sidecar, with which it could be compared."))
        elif sum_ != checksum(file):
            said.append(("bad", f"{file.name} was changed after its run was finished: its sum is another."))
        else:
            said.append(("good", f"{file.name} is the file that was finished: its sum is that of its sidecar."))
    return said


def _plain_words(groups, radii):
    parts, at = [], min(_telling(run, radii) for group in groups for run in group.runs)
    for group in groups:
        parts += [_of_a_run(part, at) for part in group.parts]
    first = groups[0]
    shape = _shape(first)
    size = f"A change of length {at:g} is one colour value of one pixel that changes by {at * 255:.0f} of 255 levels"
    if at > 1:
        size = f"A change of length {at:g} is {math.ceil(at**2)} colour values that change by all of their 255 levels"
    if shape:
        size += f", or all {math.prod(shape):,} values, each by {at * 255 / math.sqrt(math.prod(shape)):.2g} levels"
    limits = [
        "It is about the classifier together with its noise: many noisy copies of an image are classified, and the "
        "class that most of them fall into is the answer. It is not about the network alone.",
        f"It is about changes of the pixels that are shorter than the radius, in {LENGTH}. Of longer changes, and of "
        "others such as a turned camera or another kind of object, it says nothing.",
        "It is about these images. What it means for other images like them is estimated: that is what the 95% "
        "intervals are for, and they suppose that the images were drawn at random.",
        "A certificate is a statistical statement: each may fail, with a small probability that was set before. See "
        '"How sure this is".',
        "Right and wrong are meant by the labels of the data set. A wrong answer can have a certificate too.",
    ]
    if any(run.input_specific for group in groups for run in group.runs):
        limits.append(INPUT_SPECIFIC)
    points = "".join(f"<li>{_e(text)}</li>" for text in limits)
    about = (
        "For each image the certifier gives an answer, and a radius: as long as an image is changed by less than its "
        f"radius, the answer stays the same, whatever the change is. The length of a change is {BALL} ({NORM}), where "
        f"colours run from 0 to 1. {size}. Where too few noisy copies agree, it gives no answer (it abstains)."
    )
    return _section(
        "words",
        "What was certified, in plain words",
        f"{_p(about)}<ul>{''.join(parts)}</ul><h3>What it does not say</h3><ul>{points}</ul>",
    )


def _of_a_run(part, at):
    correct, radius = columns(part.run)
    m = len(correct)
    silent = sum(record.predict == -1 for record in part.run.records)
    right, robust = int(correct.sum()), int((correct & (radius >= at)).sum())
    wrong = m - right - silent
    return (
        f"<li><b>{_e(part.name)}</b>. Of {m:,} images {right:,} ({_per_cent(right, m)}) are answered rightly, with a "
        f"certificate. For {robust:,} ({_per_cent(robust, m)}) the right answer stays the same under every change "
        f"shorter than {at:g}. {wrong:,} {'is' if wrong == 1 else 'are'} answered wrongly, and {silent:,} not at all.</li>"
    )


def _per_cent(part, whole):
    return f"{math.floor(1000 * part / whole) / 10:g}%"


def _telling(run, radii):
    """A radius to tell of: the largest of `radii` that half of the images that are answered rightly reach."""
    correct, radius = columns(run)
    shares = certified_accuracy(correct, radius, np.asarray(radii, float))
    reached = [r for r, share in zip(radii, shares) if r > 0 and share >= correct.mean() / 2]
    return max(reached, default=next((r for r in radii if r > 0), 0.25))


def _shape(group):
    """Height, width and channels of the images that the classifier takes; None where that is not known."""
    request = group.runs[0].request
    if shape := request.get("classifier", {}).get("image_shape"):
        return tuple(shape)
    resize = group.runs[0].sidecar.get("provenance", {}).get("settings", {}).get("data", {}).get("resize")
    if group.pictures.dataset is None or resize is not None:
        return None
    return group.pictures.dataset[group.runs[0].records[0].idx][0].shape


def _results(group, radii, several):
    """The table and the curves of runs over the same images."""
    shown, (figures,) = _certified([group.runs], radii)
    rows = "".join(
        f"<tr><th scope=row>{_e(part.name)}</th>{''.join(_cell(row, key, form) for key, _, form, _ in shown)}</tr>"
        for part, row in zip(group.parts, figures)
    )
    heading = f"<h3>{_e(_heading(group.runs[0]))}</h3>"
    table = _table("Table of results", ["run", *(title for _, title, _, _ in shown)], rows, marks="data-table")
    note = (
        "ACR is the average certified radius: the mean of the radii, where an image that is not answered rightly "
        "counts as 0. A few images with large radii can raise it much, so read it beside the curve. r = 0.5 is the certified "
        "accuracy at 0.5: the share of the images that are answered rightly with a radius of at least 0.5. Samples are "
        "noisy copies of an image that were classified. Small figures below are 95% intervals for images like these."
    )
    return f"{heading}{table}{_p(note)}{_curves(group)}"


def _cell(row, key, form):
    value = row[key]
    text = "-" if math.isnan(value) else format(value, form)
    low, high = row.get(f"{key}_low"), row.get(f"{key}_high")
    below = "" if low is None else f"<small>{_e(interval_text(low, high, row['images']))}</small>"
    return f'<td data-key="{_e(key)}">{text}{below}</td>'


def _curves(group):
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
    axes = svg.Axis(f"radius ({NORM}, pixels in [0, 1])", 0, end), svg.Axis("certified accuracy", 0, 1)
    chart = svg.steps(series, *axes, "Certified accuracy over the radius, with 95% intervals")
    return (
        f"<figure>{chart}<figcaption>Certified accuracy over the radius. Bands are 95% intervals for all images like "
        "these, at each radius by itself.</figcaption></figure>"
    )


def _distributions(groups):
    return "".join(
        (f"<h3>{_e(_heading(group.runs[0]))}</h3>" if len(groups) > 1 else "")
        + f"<div class=pair>{_of_radii(group)}{_of_sigma(group)}{_of_probabilities(group)}</div>"
        for group in groups
    )


def _of_radii(group):
    found = []
    for name, run, style in group.drawn:
        correct, radius = columns(run)
        found.append((name, style, radius[correct], len(radius)))
    end = max((values.max() for _, _, values, _ in found if len(values)), default=0) or 1.0
    chart = svg.histogram(found, svg.Axis(f"certified radius ({NORM})", 0, end), "How certified radii are distributed")
    return f"<figure>{chart}<figcaption>Radii of the images that are answered rightly.</figcaption></figure>"


def _of_sigma(group):
    varying, fixed = [], []
    for name, run, style in group.drawn:
        sigmas = np.array([record.sigma for record in run.records if record.sigma])
        if len(set(sigmas.tolist())) > 1:
            varying.append((name, style, sigmas, len(run.records)))
        elif len(sigmas) or run.request.get("sigma"):
            sigma = sigmas[0] if len(sigmas) else run.request["sigma"]
            fixed.append(f"{name} has sigma {sigma:.4g} for all images.")
    said = "".join(map(_p, fixed))
    if not varying:
        return f"<figure>{said}</figure>" if said else ""
    ends = [f(f(values) for _, _, values, _ in varying) for f in (min, max)]
    axis = svg.Logarithmic("sigma (noise level)", ends[0] * 0.98, ends[1] * 1.02)
    chart = svg.histogram(varying, axis, "How the noise levels are distributed")
    said = " ".join(["Noise levels that were chosen for the images.", *fixed])
    return f"<figure>{chart}<figcaption>{_e(said)}</figcaption></figure>"


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
        "p_A is a lower bound of the probability that a noisy copy falls into the answer's class. The line is the share "
        "of images with at most this p_A; an image that is not answered rightly counts as 0. Unlike the ACR, it is not "
        "raised by a few images with large radii. Compare runs of the same sigma: there the lower line is the better "
        "one. A search may take a larger sigma, at which p_A is smaller and the radius larger."
    )
    return f"<figure>{chart}<figcaption>{_e(said)}</figcaption></figure>"


def _classes(part, radii):
    run = part.run
    number = len({record.label for record in run.records})
    if number > MOST_CLASSES:
        return _p(f"{part.name}: {number} classes; `qcrs-jax table --classes` has a row for each.")
    shown = [("acr", "ACR", ".4f")]
    shown += [(f"certified_accuracy_{radius:g}", f"r = {radius:g}", ".3f") for radius in radii]
    shown += [("abstention", "abstains", ".3f")]
    rows = ""
    for name, figures, mistake in _class_figures(run, np.asarray(radii, float)):
        cells = "".join(_cell(figures, key, form) for key, _, form in shown)
        bar = f'<td class=bar><span style="--share:{figures["accuracy"]:.3f}"></span></td>'
        rows += (
            f"<tr><th scope=row>{_e(name)}</th><td>{figures['images']:,}</td>{bar}{cells}"
            f"<td class=text>{_e(mistake)}</td></tr>"
        )
    header = ["class", "images", " right", *(title for _, title, _ in shown), " mistaken for"]
    return f"<h3>{_e(part.name)}</h3>{_table('Table of classes', header, rows)}"


def _gains(group):
    if group.reference is None:
        return _p(
            f"{_heading(group.runs[0])}: there is no run with one noise level for all images beside another run, so "
            "nothing is compared. Give a run of --method cohen over the same images too."
        )
    parts, reference = [], group.reference.run
    for part in group.compared:
        gain, low, high = paired_gain(columns(part.run), columns(reference))
        interval = "no interval" if math.isnan(low) else f"95% interval {low:+.4f} to {high:+.4f}"
        each = gains(reference, part.run)
        parts.append(
            f"<h3>{_e(part.name)}</h3>"
            + _p(
                f"Over {group.reference.name} it gains {gain:+.4f} in ACR ({interval}, a paired bootstrap over the "
                f"images). {int((each > 0).sum())} images gained, {int((each < 0).sum())} lost, and "
                f"{int((each == 0).sum())} stayed the same."
            )
        )
        more, less = extremes(reference, part.run, TOP)
        parts += [_extreme(group, part, each, places, name) for places, name in ((more, "gained"), (less, "lost"))]
    return "".join(parts)


def _extreme(group, part, each, places, name):
    if not places:
        return _p(f"No image {name}.")
    rows, run = "", part.run
    for place in places:
        before, now = group.reference.run.records[place], run.records[place]
        rows += (
            f'<tr><td data-picture="{now.idx}" data-run="{_e(part.name)}"></td>'
            f"<th scope=row>{_e(_called(group, now.idx))}</th><td class=text>{_e(run.class_name(now.label))}</td>"
            f"<td>{_radius(before, run)}</td><td>{_radius(now, run)}</td><td>{each[place]:+.4f}</td></tr>"
        )
    header = "picture", " image", " label", "radius before", "radius now", "gain"
    return _table(f"Images that {name} most", header, rows, caption=f"The images that {name} most")


def _radius(record, run):
    if record.predict == -1:
        return "no answer"
    return f"{_floor(record.radius):.4f}" + ("" if record.correct else f" for {_e(run.class_name(record.predict))}")


def _called(group, index):
    name = _file_of(group, index)
    return f"{index} {name}" if name else str(index)


def _file_of(group, index):
    """The last parts of the name of an image's file; nothing where images are not files."""
    files = getattr(group.pictures.dataset, "files", None)
    return "/".join(Path(files[index]).parts[-2:]) if files else ""


def _images(groups):
    notes = "".join(_p(f"No thumbnails: {group.pictures.why}.") for group in groups if group.pictures.dataset is None)
    return notes + (ASSETS / "report_list.html").read_text()


def _data_of_images(groups):
    """The list of images as JSON, which no text of a file can leave."""
    runs, sets, left = [], [], PICTURES
    for group in groups:
        found = {}
        if group.pictures.dataset is not None:
            found = thumbnails(group.pictures.dataset, group.interesting(), left)
            left -= sum(map(len, found.values()))
        indices = [record.idx for record in group.runs[0].records]
        files = {index: printable(name) for index in indices if (name := _file_of(group, index))}
        sets.append({"pictures": found, "files": files})
        for part in group.parts:
            over = gains(group.reference.run, part.run).tolist() if part in group.compared else None
            runs.append({"name": printable(part.name), "set": len(sets) - 1, **_list(part.run, over)})
    text = json.dumps({"runs": runs, "sets": sets}, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _list(run, over):
    names = {record.label for record in run.records} | {record.predict for record in run.records} - {-1}
    rows = []
    for place, record in enumerate(run.records):
        counts = sorted(enumerate(record.counts or ()), key=lambda item: (-item[1], item[0]))[:SHOWN_COUNTS]
        counts = [[k, count] for k, count in counts if count]
        names |= {k for k, _ in counts}
        rows.append(
            [
                record.idx,
                record.label,
                record.predict,
                _floor(record.radius),
                None if record.sigma is None else float(f"{record.sigma:.5g}"),
                None if record.pa_lower is None else _floor(record.pa_lower),
                None if over is None else round(over[place], 4),
                counts,
                sum(record.counts or ()),
            ]
        )
    classes = {number: printable(run.class_name(number)) for number in sorted(names)}
    return {"classes": classes, "rows": rows}


def _floor(number):
    """A bound to four digits, never above what it is."""
    return math.floor(number * 10**4 + 1e-9) / 10**4


def _sure(groups):
    members, parts = [part for group in groups for part in group.parts], []
    runs = [part.run for part in members]
    for name, run in ((part.name, part.run) for part in members):
        if "alpha" in run.request:
            text = account(run.request, len(run.records))
        else:
            text = "Its file does not say with what probability a certificate may fail; the program that made it may."
        parts.append(f"<h3>{_e(name)}</h3>{_p(text)}")
    accounts = {account(run.request, len(run.records)) for run in runs if "alpha" in run.request}
    notes = [note for group in groups for note in _notes(group.runs) if not any(text in note for text in accounts)]
    return "".join(parts) + "<h3>Notes</h3>" + "".join(map(_p, dict.fromkeys(notes)))


def _origin(part):
    run = part.run
    request, provenance = run.request, run.sidecar.get("provenance", {})
    data, network = request.get("dataset", {}), request.get("classifier", {})
    versions = provenance.get("versions", {})
    facts = {
        "classifier": network.get("arch"),
        "its file": provenance.get("checkpoint"),
        "sum of its weights (SHA-256)": network.get("weights_sha256"),
        "data": data_name(run),
        "where they were": provenance.get("data"),
        "fingerprint of the data (SHA-256)": data.get("fingerprint"),
        "noise level sigma": request.get("sigma"),
        "samples: selection (N0), certificate (N)": ", ".join(str(request[k]) for k in ("n0", "n") if k in request),
        "alpha": request.get("alpha"),
        "seed": request.get("seed"),
        "search": _settings(request.get("search")),
        "estimate": _settings(request.get("estimate")),
        "noise": request.get("noise"),
        "started": provenance.get("started"),
        "devices": provenance.get("devices"),
        "versions": ", ".join(f"{name} {number}" for name, number in versions.items()),
        "images left out": _left_out(run),
    }
    for file in part.files:
        facts[f"sum of {file.name} (SHA-256)"] = checksum(file)
    for _, sentence in _sums(part):
        facts.setdefault("the file", "")
        facts["the file"] = f"{facts['the file']} {sentence}".strip()
    rows = "".join(
        f"<div><dt>{_e(name)}</dt><dd>{_e(value)}</dd></div>"
        for name, value in facts.items()
        if value not in (None, "")
    )
    files = " ".join(shlex.quote(printable(file)) for file in part.files)
    command = f"<pre><code>qcrs-jax verify {html.escape(files)} --recount all</code></pre>"
    told = _p(
        "This command draws all counts again from their seed, and compares them with the file. It needs the checkpoint "
        "and the data set; --checkpoint and --data_dir say where they are now."
    )
    if part.verified is None:
        state = _p("It was not verified by this report. `qcrs-jax report --verify N` verifies N images of it.")
    else:
        lines = "\n".join([*part.verified.lines, *part.verified.troubles, part.verified.verdict])
        state = (
            f"<p>{_state(part)}</p><details><summary>What the check said</summary><pre>"
            f"{html.escape(printable_lines(lines))}</pre></details>"
        )
    asked = {key: value for key, value in request.items() if key != "dataset"}
    whole = json.dumps(asked, indent=1, ensure_ascii=True) if asked else ""
    details = (
        f"<details><summary>Everything that was asked</summary><pre>{html.escape(whole)}</pre></details>"
        if whole
        else ""
    )
    return f"<h3>{_e(part.name)}</h3><dl class=facts>{rows}</dl>{state}{told}{command}{details}"


def _settings(settings):
    return ", ".join(f"{name} {value}" for name, value in (settings or {}).items() if value is not None)


def _left_out(run):
    left_out = run.left_out
    if left_out is None:
        return "not known: the run is not finished"
    return f"{len(left_out)}, as they could not be read: {', '.join(map(str, left_out[:50]))}" if left_out else "none"


def sidecars(parts: Sequence[Part]) -> list[Path]:
    """The sidecars of all files of `parts`."""
    return [sidecar_path(file) for part in parts for file in part.files]
