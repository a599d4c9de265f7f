"""The report's section on images whose sigma lies beyond that at which accuracy under noise is lost."""

from qcrs_jax.results.collapse import record_of

from . import svg
from .collapse import MEANS, beyond_of, sentence
from .markup import e, p, per_cent, table
from .styles import METHODS, Style


def collapse(groups, given: float | None = None) -> str:
    """The content of the section; nothing where no run has images beyond its limit."""
    parts = "".join(_of_a_run(group, part, given) for group in groups for part in group.parts)
    return parts + p(MEANS) if parts else ""


def _of_a_run(group, part, given):
    far = beyond_of(part.run, given)
    if far is None:
        return ""
    reference = group.reference.run if part in group.compared else None
    said = p(sentence(part.run, far, given is not None, reference))
    rows = ""
    for number, count in far.answered.items():
        name = "no answer" if number == -1 else part.run.class_name(number)
        rows += f"<tr><th scope=row>{e(name)}</th><td>{count:,}</td><td>{per_cent(count, len(far.places))}</td></tr>"
    answers = table("Answers beyond the limit", ["answer", "images", "share"], rows)
    return f"<h3>{e(part.name)}</h3>{said}{answers}{_chart(part.run, far.limit)}"


def _chart(run, limit):
    """Accuracy and the share of the commonest answer over sigma, where the run recorded them."""
    record = record_of(run)
    if record is None or record.constant is None or len(record.levels) < 2:
        return ""
    sigmas = [level.sigma for level in record.levels]
    series = [
        svg.Series(
            "accuracy under noise", Style(METHODS["cohen"], ()), sigmas, [lv.accuracy or 0 for lv in record.levels]
        ),
        svg.Series(
            "share of the commonest answer",
            Style(METHODS["bisection"], (4, 2)),
            sigmas,
            [level.share for level in record.levels],
        ),
        svg.Series(f"sigma {limit:g}", Style("#7d8590", (1, 1.5)), [limit, limit], [0, 1]),
    ]
    axis = svg.Logarithmic("sigma (noise level)", min(sigmas), max(*sigmas, limit))
    chart = svg.lines(series, axis, svg.Axis("share", 0, 1), "Accuracy and commonest answer over sigma")
    measured = (
        f"Measured before the run on {record.images:,} images, {record.copies} noisy copies of each. At the largest "
        f"sigma, {record.levels[-1].sigma:.3g}, {record.levels[-1].share:.0%} of them are answered "
        f"{run.class_name(record.levels[-1].commonest)}."
    )
    return f"<figure>{chart}<figcaption>{e(measured)}</figcaption></figure>"
