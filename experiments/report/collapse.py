"""Collapse: the sentences on images whose sigma lies beyond that at which accuracy under noise is lost, and figures."""

from collections.abc import Sequence
from pathlib import Path

from qcrs_jax.results.collapse import Beyond, Collapse, beyond, limit_of
from qcrs_jax.results.records import Run

from .figures import literal, log_sigma, pyplot, save, tidy
from .gains import gains
from .layouts import LAYOUTS, Body
from .styles import METHODS
from .words import label

MEANS = (
    "The certificates of such images hold. But the less the smoothed classifier tells images apart under so much "
    "noise, the less its certificates say; in the extreme it answers one class, whatever the image is. Read the ACR "
    "without them too."
)
MOST_NAMED = 5


def beyond_of(run: Run, given: float | None = None) -> Beyond | None:
    """The images of a run beyond the sigma `given`, or beyond the one that it recorded; None if there are none."""
    return beyond(run, limit_of(run, given))


def beyond_notes(runs: Sequence[Run], given: float | None = None, reference: Run | None = None) -> list[str]:
    """A sentence for each run that has images beyond its limit, and one on their meaning; none without such images.

    Args:
        given: the limit of all runs; None takes what each recorded.
        reference: the run over whose radii the others gain, if there is one.
    """
    found = [(run, beyond_of(run, given)) for run in runs]
    notes = [
        f"{label(run)}: {sentence(run, far, given is not None, reference)}" for run, far in found if far is not None
    ]
    return [*notes, MEANS] if notes else []


def sentence(run: Run, far: Beyond, given: bool, reference: Run | None = None) -> str:
    """The number of images beyond the limit, their answers, their share of the ACR, and the ACR without them."""
    where = "as given" if given else "where accuracy under noise is lost"
    said = (
        f"{len(far.places)} of {far.images:,} images have a sigma beyond {far.limit:g}, {where}. They are answered "
        f"{answers(run, far)}. They carry {far.share:.1%} of the ACR, which is {far.acr:.4f}, and "
        f"{far.acr_without:.4f} where they count as 0."
    )
    if reference is not None and reference is not run:
        gain = gains(reference, run)
        if gain.sum() > 0:
            said += f" They carry {gain[far.places].sum() / gain.sum():.1%} of the gain over the reference."
    return said


def answers(run: Run, far: Beyond) -> str:
    """The answers to the images beyond the limit, with their numbers, the most frequent first."""
    told = [f"{_answer(run, number)} ({count:,})" for number, count in far.answered.items()]
    more = sum(list(far.answered.values())[MOST_NAMED:])
    return ", ".join([*told[:MOST_NAMED], *([f"others ({more:,})"] if more else [])])


def _answer(run, number):
    return "nothing" if number == -1 else run.class_name(number)


def columns_of(runs: Sequence[Run], given: float | None = None) -> list[dict]:
    """The columns of csv for each run: limit, number of images beyond it, ACR without them; {} where no run has any."""
    found = [beyond_of(run, given) for run in runs]
    if not any(found):
        return [{} for _ in runs]
    names = "sigma_limit", "beyond_limit", "acr_without_beyond"
    return [
        dict(zip(names, (far.limit, len(far.places), far.acr_without) if far else (limit_of(run, given), 0, "")))
        for run, far in zip(runs, found)
    ]


def collapse_table(collapse: Collapse, class_names: Sequence[str], format: str) -> Body:
    """The text of a table with a line for each sigma."""
    header = ["sigma", "accuracy", "classes answered", "commonest", "its share"]
    rows = []
    for level in collapse.levels:
        accuracy = "-" if level.accuracy is None else f"{level.accuracy:.3f}"
        texts = (
            f"{level.sigma:.3g}",
            accuracy,
            f"{level.classes:.1f}",
            _name(class_names, level),
            f"{level.share:.0%}",
        )
        rows.append([(text, None) for text in texts])
    return Body(LAYOUTS[format](header, rows))


def _name(class_names, level):
    return class_names[level.commonest] if level.commonest < len(class_names) else str(level.commonest)


def draw(collapse: Collapse, class_names: Sequence[str], title: str, out: Path) -> None:
    """Draws accuracy, share of the commonest class and number of classes over sigma to the file `out`."""
    figure, (above, below) = pyplot().subplots(2, 1, figsize=(6.4, 5.6), layout="constrained", sharex=True)
    sigmas = [level.sigma for level in collapse.levels]
    if collapse.constant is not None:
        accuracies = [level.accuracy for level in collapse.levels]
        above.plot(sigmas, accuracies, "o-", color=METHODS["cohen"], markersize=4, label="accuracy under noise")
        if collapse.least is not None:
            above.axhline(collapse.least, color=METHODS["cohen"], linewidth=1, linestyle=(0, (4, 3)))
            above.annotate("lost below", (sigmas[0], collapse.least), (2, 3), textcoords="offset points", fontsize=8)
        above.axhline(collapse.constant, color="0.5", linewidth=1, linestyle=":")
        told = {"textcoords": "offset points", "fontsize": 8}
        above.annotate("one answer for all", (sigmas[-1], collapse.constant), (0, 3), ha="right", **told)
    shares = [level.share for level in collapse.levels]
    above.plot(sigmas, shares, "s--", color=METHODS["bisection"], markersize=4, label="share of the commonest answer")
    classes = [level.classes for level in collapse.levels]
    below.plot(sigmas, classes, "D-", color=METHODS["bayesian"], markersize=4)
    last = None
    for level in collapse.levels:
        if level.share > 0.5 and level.commonest != last:
            last = level.commonest
            name = literal(_name(class_names, level))
            above.annotate(name, (level.sigma, level.share), (0, 6), textcoords="offset points", fontsize=8, ha="right")
    for axes in (above, below):
        if collapse.lost_at is not None:
            axes.axvspan(collapse.lost_at, 2 * sigmas[-1], color="0.5", alpha=0.15, linewidth=0)
        log_sigma(axes, sigmas[0] / 1.05, sigmas[-1] * 1.05)
        tidy(axes)
    above.set(ylim=(0, 1.05), ylabel="share")
    below.set(ylim=(0, None), ylabel="classes answered", xlabel="sigma (noise level)")
    above.set_title(title, fontsize=10)
    figure.legend(*above.get_legend_handles_labels(), loc="outside lower center", frameon=False, fontsize=8, ncols=2)
    save(figure, out)
