"""The gap between certified and attacked: rows of attacks below those of their runs."""

import math

import numpy as np

from qcrs_jax.results.attacks import Attacks
from qcrs_jax.results.metrics import certified_accuracy, columns

from .layouts import LAYOUTS, PLAIN, Body, page
from .names import row_names

NOTE = (
    "changed: images whose answer an attack changed, by fresh samples, of those with a correct certificate; inside: "
    "those changed inside their certified radius. radius and upper bound: means of the certified radius, and of the "
    "distance of the attack, over the changed images. r = ...: share of all images that have a correct certificate of "
    "at least that radius, and, in the row of an attack, share of those with a correct certificate that was not "
    "changed within it. For the classifiers of the certificates, the true share of robust images among them lies "
    "between the two, but for alpha. An image that no attack changed is not thereby robust."
)
FROZEN = (
    "frozen: the attack is on the rule that searches sigma anew at every input. Certificates are not about it, so its "
    "answer may change inside their radius."
)
INSIDE = (
    "{name}: {count} of {of} answers changed inside the certified radius. That cannot be where both the certificate "
    "and the attack hold. Each image's certificate fails with probability at most its alpha, and its attack with at "
    "most {alpha:g}."
)


def figures_of(attacks: Attacks, radii) -> dict:
    """The figures of the attacks on a run, by key."""
    changed = [record for record in attacks.records if record.distance is not None]
    found = {
        "attacked": sum(record.attacked for record in attacks.records),
        "changed": len(changed),
        "inside": sum(record.inside for record in changed),
        "radius": float(np.mean([record.radius for record in changed])) if changed else math.nan,
        "upper_bound": float(np.mean([record.distance for record in changed])) if changed else math.nan,
    }
    return found | {
        f"accuracy_{r:g}": share for r, share in zip(radii, attacks.accuracy(np.asarray(radii, float)).tolist())
    }


def default_radii(runs, attacks) -> list[float]:
    """0, 0.25, 0.5, ... up to the largest radius or distance, at most to 1.75."""
    largest = max(
        [
            *(r.radius for run in runs for r in run.records if r.correct),
            *(r.distance for each in attacks for one in each for r in one.records if r.distance is not None),
            0,
        ]
    )
    return [0.25 * i for i in range(min(math.floor(largest / 0.25), 7) + 1)]


def gap_parts(runs, attacks, format="terminal", radii=None, names=None, around=PLAIN, number=1) -> list[str]:
    """A table of the runs that were attacked, each above its attacks, and notes on it.

    Args:
        attacks: for each of `runs`, its `Attacks`.
        number: number of the table on its page.
    """
    radii = default_radii(runs, attacks) if radii is None else list(radii)
    rows, notes = [], []
    for run, name, on_it in zip(runs, row_names(runs, names), attacks):
        if not on_it:
            continue
        correct, radius = columns(run)
        shares = certified_accuracy(correct, radius, np.asarray(radii, float)).tolist()
        rows.append([name, str(len(correct)), *[""] * 4, *(f"{share:.3f}" for share in shares)])
        for each in on_it:
            found = figures_of(each, radii)
            file = each.paths[0].name
            cells = [f"  attacked, {each.method} ({file})", str(found["attacked"])]
            cells += [str(found["changed"]), str(found["inside"])]
            cells += ["-" if math.isnan(found[key]) else f"{found[key]:.4f}" for key in ("radius", "upper_bound")]
            rows.append([*cells, *(f"{found[f'accuracy_{r:g}']:.3f}" for r in radii)])
            if each.method != "frozen" and found["inside"]:
                notes.append(INSIDE.format(name=file, count=found["inside"], of=found["attacked"], alpha=each.alpha))
    header = ["run", "images", "changed", "inside", "radius", "upper bound", *(f"r = {r:g}" for r in radii)]
    body = LAYOUTS[format](header, [[(text, None) for text in row] for row in rows])
    frozen = any(each.method == "frozen" for on_it in attacks for each in on_it)
    return ["Certified and attacked", Body(around.around(body, number)), NOTE, *[FROZEN] * frozen, *notes]


def gap_text(runs, attacks) -> str:
    """The table of `gap_parts` for a terminal, with its notes."""
    return page(gap_parts(runs, attacks), "terminal")


def csv_columns(attacks, methods, radii) -> dict:
    """The figures of the attacks on one run as columns, METHOD_...; empty for methods that did not attack it."""
    found = {}
    for method in methods:
        own = next((each for each in attacks if each.method == method), None)
        names = ["attacked", "changed", "inside", "radius", "upper_bound", *(f"accuracy_{r:g}" for r in radii)]
        figures = figures_of(own, radii) if own else dict.fromkeys(names)
        found |= {f"{method}_{name}": None if (value := figures[name]) != value else value for name in names}
    return found
