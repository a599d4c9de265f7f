"""The report: results files as one HTML page for a reviewer or a safety board. The page loads nothing."""

import base64
import dataclasses
import datetime
import hashlib
import math
from collections.abc import Sequence

import numpy as np

from qcrs_jax.results.metrics import certified_accuracy, columns, summarise
from qcrs_jax.results.records import INPUT_SPECIFIC
from qcrs_jax.version import version

from .html_collapse import collapse
from .html_figures import curves, distributions
from .html_images import ASSETS, data_of_images, gains_of, images
from .html_origin import origin, state, sure
from .markup import cell, e, p, per_cent, section, table
from .names import names_of
from .parts import Group, Part, Pictures
from .table import _certified, _class_figures, _default_radii
from .words import data_name, group_by_images, images_heading, only_norm

LENGTHS = {
    "L2": ("the square root of the sum of the squared changes of all colour values", 2),
    "L1": ("the sum of the changes of all colour values", 1),
}
"""The length of a change in each norm, in words, and the power of which it is a root."""
MOST_CLASSES = 200


def page(
    parts: Sequence[Part], pictures: dict[int, Pictures], title: str | None = None, beyond: float | None = None
) -> str:
    """The page of the runs in `parts`.

    Args:
        parts: runs of certificates, none of them empty.
        pictures: the pictures of each set of images, by the place of its first run in `parts`.
        title: title of the page; by default it names the network and the data.
        beyond: the sigma beyond which images are counted; None takes the one that each run recorded.

    Raises:
        UserError: the runs have radii of different norms.
    """
    only_norm([part.run for part in parts])
    named = zip(parts, names_of([part.run for part in parts]))
    parts, groups = [dataclasses.replace(part, name=name) for part, name in named], []
    for group in group_by_images([part.run for part in parts]):
        members = [part for part in parts if any(part.run is run for run in group)]
        groups.append(Group(members, pictures[parts.index(members[0])]))
    radii = _default_radii([part.run for part in parts])
    title = title or f"Certification of {_network(parts[0].run)} on {_data(parts[0].run)}"
    far = collapse(groups, beyond)
    body = [
        _head(groups, title, bool(far)),
        _plain_words(groups, radii),
        section("results", "Results", "".join(_results(group, radii) for group in groups)),
        section("distributions", "Distributions of radii, noise and probabilities", distributions(groups)),
        *([section("collapse", "Images beyond the noise that the classifier bears", far)] if far else []),
        section("classes", "Class by class", "".join(_classes(part, radii) for part in parts)),
        section("gains", "Gain by a noise level for each image", "".join(gains_of(group) for group in groups)),
        section("images", "All images", images(groups)),
        section("sure", "How sure this is", sure(groups)),
        section("origin", "Origin of the results, and how to check them", "".join(origin(part) for part in parts)),
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
        f'content="light dark"><title>{e(title)}</title><style>{style}</style></head>\n<body>'
        '<a class="skip" href="#results">To the results</a>\n' + "\n".join(body) + "\n"
        f'<script type="application/json" id="data">{data_of_images(groups)}</script>\n<script>{script}</script>'
        "</body></html>\n"
    )


def _network(run):
    classifier = run.request.get("classifier", {})
    return classifier.get("arch") or "a classifier"


def _data(run):
    return data_name(run) or f"{len(run.records)} images"


def _head(groups, title, collapses):
    parts = [part for group in groups for part in group.parts]
    today = datetime.date.today().isoformat()
    states = "".join(f"<li>{state(part)}</li>" for part in parts)
    figures = "".join(map(_card, parts))
    links = {
        "words": "In plain words",
        "results": "Results",
        "distributions": "Distributions",
        **({"collapse": "Collapse"} if collapses else {}),
        "classes": "Classes",
        "gains": "Gains",
        "images": "All images",
        "sure": "How sure",
        "origin": "Origin",
    }
    inside = "".join(f'<a href="#{name}">{text}</a>' for name, text in links.items())
    return (
        f"<header><h1>{e(title)}</h1><p class=quiet>Made on {today} by qcrs-jax {e(version('qcrs_jax'))} from "
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
    return f"<div class=card><h3>{e(part.name)}</h3><dl>{inside}</dl></div>"


def _plain_words(groups, radii):
    parts, at = [], min(_example_radius(run, radii) for group in groups for run in group.runs)
    for group in groups:
        parts += [_of_a_run(part, at) for part in group.parts]
    first = groups[0]
    shape, norm = _shape(first), first.runs[0].norm
    words, power = LENGTHS[norm]
    size = f"A change of length {at:g} is one colour value of one pixel that changes by {at * 255:.0f} of 255 levels"
    if at > 1:
        whole = math.ceil(at**power)
        size = f"A change of length {at:g} is {whole} colour values that change by all of their 255 levels"
    if shape:
        each = at * 255 / math.prod(shape) ** (1 / power)
        size += f", or all {math.prod(shape):,} values, each by {each:.2g} levels"
    limits = [
        "It says nothing about the network without noise. The classifier here is the network together with its noise: "
        "it classifies many noisy copies of an image, and answers the class that most of them fall into.",
        f"It says nothing about changes of the pixels that are longer than the radius, in {norm} length, nor about "
        "other changes, such as a turned camera or another kind of object.",
        "It says nothing certain about other images. The 95% intervals estimate the figures for images like these, and "
        "assume that these were drawn at random.",
        "A certificate is a statistical statement. Each may fail, with a small probability that was set before. See "
        '"How sure this is".',
        "Right and wrong refer to the labels of the data set. A wrong answer can have a certificate too.",
    ]
    if any(run.input_specific for group in groups for run in group.runs):
        limits.append(INPUT_SPECIFIC)
    points = "".join(f"<li>{e(text)}</li>" for text in limits)
    about = (
        "For each image the certifier gives an answer and a radius. The answer stays the same under every change of "
        f"the image that is shorter than the radius. The length of a change is {words} ({norm}), where colours run "
        f"from 0 to 1. {size}. If too few noisy copies agree, the certifier gives no answer (it abstains)."
    )
    return section(
        "words",
        "What was certified, in plain words",
        f"{p(about)}<ul>{''.join(parts)}</ul><h3>What it does not say</h3><ul>{points}</ul>",
    )


def _of_a_run(part, at):
    correct, radius = columns(part.run)
    m = len(correct)
    silent = sum(record.predict == -1 for record in part.run.records)
    right, robust = int(correct.sum()), int((correct & (radius >= at)).sum())
    wrong = m - right - silent
    return (
        f"<li><b>{e(part.name)}</b>. Of {m:,} images {right:,} ({per_cent(right, m)}) are classified correctly, with a "
        f"certificate. For {robust:,} ({per_cent(robust, m)}) the right answer stays the same under every change "
        f"shorter than {at:g}. {wrong:,} {'is' if wrong == 1 else 'are'} classified wrongly, and {silent:,} not at "
        "all.</li>"
    )


def _example_radius(run, radii):
    """The radius used as an example: the largest of `radii` that half of the correctly classified images reach."""
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


def _results(group, radii):
    """The table and the curves of runs over the same images."""
    shown, (figures,) = _certified([group.runs], radii)
    rows = "".join(
        f"<tr><th scope=row>{e(part.name)}</th>{''.join(cell(row, key, form) for key, _, form, _ in shown)}</tr>"
        for part, row in zip(group.parts, figures)
    )
    heading = f"<h3>{e(images_heading(group.runs[0]))}</h3>"
    body = table("Table of results", ["run", *(title for _, title, _, _ in shown)], rows, marks="data-table")
    note = (
        "ACR is the average certified radius: the mean of the radii, where an image that is not classified correctly "
        "counts as 0. A few images with large radii can raise it much, so read it together with the curve. r = 0.5 is "
        "the certified accuracy at 0.5: the share of the images that are classified correctly with a radius of at "
        "least 0.5. Samples are noisy copies of an image that were classified. Small figures below are 95% intervals "
        "for images like these."
    )
    return f"{heading}{body}{p(note)}{curves(group)}"


def _classes(part, radii):
    run = part.run
    number = len({record.label for record in run.records})
    if number > MOST_CLASSES:
        return p(f"{part.name}: {number} classes; `qcrs-jax table --classes` has a row for each.")
    shown = [("acr", "ACR", ".4f")]
    shown += [(f"certified_accuracy_{radius:g}", f"r = {radius:g}", ".3f") for radius in radii]
    shown += [("abstention", "abstains", ".3f")]
    rows = ""
    for name, figures, mistake in _class_figures(run, np.asarray(radii, float)):
        cells = "".join(cell(figures, key, form) for key, _, form in shown)
        bar = f'<td class=bar><span style="--share:{figures["accuracy"]:.3f}"></span></td>'
        rows += (
            f"<tr><th scope=row>{e(name)}</th><td>{figures['images']:,}</td>{bar}{cells}"
            f"<td class=text>{e(mistake)}</td></tr>"
        )
    header = ["class", "images", " right", *(title for _, title, _ in shown), " mistaken for"]
    return f"<h3>{e(part.name)}</h3>{table('Table of classes', header, rows)}"
