"""The images of the report: those that gained and lost most, and the list of all, as JSON for the page's script."""

import json
import math
from pathlib import Path

from qcrs_jax.printable import printable
from qcrs_jax.results.metrics import columns, paired_gain

from .gains import extremes, gains
from .markup import e, floor, p, table
from .parts import TOP
from .thumbnails import thumbnails
from .words import images_heading

ASSETS = Path(__file__).parents[1] / "assets"
PICTURES = 3_000_000
"""Characters of all thumbnails together."""
SHOWN_COUNTS = 4


def gains_of(group):
    if group.reference is None:
        return p(
            f"{images_heading(group.runs[0])}: nothing to compare. That needs a run with one noise level for all "
            "images (--method cohen) and another run."
        )
    parts, reference = [], group.reference.run
    for part in group.compared:
        gain, low, high = paired_gain(columns(part.run), columns(reference))
        interval = "no interval" if math.isnan(low) else f"95% interval {low:+.4f} to {high:+.4f}"
        each = gains(reference, part.run)
        parts.append(
            f"<h3>{e(part.name)}</h3>"
            + p(
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
        return p(f"No image {name}.")
    rows, run = "", part.run
    for place in places:
        before, now = group.reference.run.records[place], run.records[place]
        rows += (
            f'<tr><td data-picture="{now.idx}" data-run="{e(part.name)}"></td>'
            f"<th scope=row>{e(_called(group, now))}</th><td class=text>{e(run.class_name(now.label))}</td>"
            f"<td>{_radius(before, run)}</td><td>{_radius(now, run)}</td><td>{each[place]:+.4f}</td></tr>"
        )
    header = "picture", " image", " label", "radius before", "radius now", "gain"
    return table(f"Images that {name} most", header, rows, caption=f"The images that {name} most")


def _radius(record, run):
    if record.predict == -1:
        return "no answer"
    return f"{floor(record.radius):.4f}" + ("" if record.correct else f" for {e(run.class_name(record.predict))}")


def _called(group, record):
    return f"{record.idx} {_file_of(group, record)}".strip()


def _file_of(group, record):
    """The name of an image's file from the results, or the end of its path in the data set; else nothing."""
    files = getattr(group.pictures.dataset, "files", None)
    return record.file or ("/".join(Path(files[record.idx]).parts[-2:]) if files else "")


def images(groups):
    notes = "".join(p(f"No thumbnails: {group.pictures.why}.") for group in groups if group.pictures.dataset is None)
    return notes + (ASSETS / "report_list.html").read_text()


def data_of_images(groups):
    """The list of images as JSON, escaped so that no text of a file can end it."""
    runs, sets, left = [], [], PICTURES
    for group in groups:
        found = {}
        if group.pictures.dataset is not None:
            found = thumbnails(group.pictures.dataset, group.interesting(), left)
            left -= sum(map(len, found.values()))
        named = ((record.idx, _file_of(group, record)) for record in group.runs[0].records)
        files = {index: printable(name) for index, name in named if name}
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
                floor(record.radius),
                None if record.sigma is None else float(f"{record.sigma:.5g}"),
                None if record.pa_lower is None else floor(record.pa_lower),
                None if over is None else round(over[place], 4),
                counts,
                sum(record.counts or ()),
            ]
        )
    classes = {number: printable(run.class_name(number)) for number in sorted(names)}
    return {"classes": classes, "rows": rows}
