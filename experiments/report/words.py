"""The words around the figures of tables and plots: names of runs, and notes on their certificates."""

import math
from pathlib import Path

from qcrs_jax.errors import UserError
from qcrs_jax.printable import printable
from qcrs_jax.results import stored_balls as memory
from qcrs_jax.results.account import account
from qcrs_jax.results.records import (
    CASCADE,
    EARLIER_VERSION,
    INPUT_SPECIFIC,
    count_unclassified,
    is_cascade,
    is_ddrs,
    is_soft,
)
from qcrs_jax.results.seeds import equal_but_for_seed, is_chosen, is_committed, text

NOISE_WORDS = {
    "gaussian": "normal noise in float32",
    "grid": "normal noise rounded to the grid of the pixels",
    "uniform": "uniform noise",
}
DDRS_SAMPLES = (
    "Samples of DDRS's search are differentiated: each costs a forward pass and one of its derivative, about twice a "
    "sample of QCRS's search or of a certificate."
)
SOFT = (
    "A soft certificate is about the class with the largest mean softmax under noise, a hard one about the class that "
    "noisy copies most often fall into: two smoothed classifiers, which may differ."
)
REBOUND = (
    "A file of `qcrs-jax rebound` has another bound for the counts of a finished run. Its certificates hold where the "
    "bound was chosen before anyone looked at these counts."
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


def group_by_images(runs):
    """Groups of runs over the same images in one norm. Without a fingerprint, indices and labels are compared."""

    def same(a, b):
        (ids, fingerprint), (other_ids, other) = a.images, b.images
        return a.norm == b.norm and ids == other_ids and (fingerprint == other or None in (fingerprint, other))

    groups = []
    for run in sorted(runs, key=lambda run: run.images[1] is None):  # files without a fingerprint last
        home = next((group for group in groups if all(same(run, member) for member in group)), None)
        if home is None:
            groups.append(home := [])
        home.append(run)
    return [sorted(group, key=runs.index) for group in groups]


def only_norm(runs) -> str:
    """The norm of all radii of `runs`. Raises UserError where there are several: such radii cannot be compared."""
    for run in runs:
        if run.norm != runs[0].norm:
            raise UserError(
                f"{run.path}: has radii of {run.norm}, and {runs[0].path} of {runs[0].norm}: they cannot be compared; "
                "give runs of one norm"
            )
    return runs[0].norm


def independent(run) -> bool:
    """Whether the certificate of an image does not depend on the other images, as intervals over images assume."""
    return "stored_balls" not in run.request


def images_heading(run):
    name = f" of {found}" if (found := data_name(run)) else ""
    indices = [r.idx for r in run.records]
    norm = "" if run.norm == "L2" else f", radii of {run.norm}"
    return f"{len(indices)} images{name}, {indices[0]} to {indices[-1]}{norm}"


ONE_CLASSIFIER = "one classifier"
"""The column of tables that states whether a run's certificates are sound for one classifier of all inputs."""


def one_classifier(run) -> str:
    """The entry of a run in that column; - for a log that does not say how its sigma was chosen."""
    if not run.request and not any(record.sigma for record in run.records):
        return "-"
    return "yes" if run.one_classifier else "no"


def data_name(run) -> str | None:
    """The data set and its split; None if not recorded. Images of the user have the name of their folder or file."""
    data = run.request.get("dataset")
    if not data:
        return None
    name, settings = data.get("name"), run.sidecar.get("provenance", {}).get("settings", {})
    if name in ("folder", "npz") and (place := settings.get("data", {}).get("data_dir")):
        name = Path(place).name or name
    return printable(f"{name} ({data.get('split')})")


def label(run) -> str:
    """The name of a run in notes: its method and its file."""
    return f"{name} ({run.path.name})" if (name := method(run)) else run.path.name


def method(run) -> str:
    """The method of a run, with its special settings; empty for a log that does not record it."""
    request, parts = run.request, []
    if "kind" in request:
        names = {"predictions": "PREDICT", "curves": "curves"}
        search = _search(request.get("search") or {})
        method = names.get(request["kind"], search)
        if is_cascade(request) and method != search:
            method += f" of the {search}"
        parts = [
            method,
            *(f"sigma {request[name]:g}" for name in ("sigma",) if name in request and not is_cascade(request)),
        ]
    if request.get("smoothing", {}).get("norm") == "L1":
        parts.append(f"{request['smoothing']['name']} noise")
    if is_soft(request):
        parts.append(f"soft, beta {request['estimate']['beta']:g}")
    if request.get("estimate", {}).get("bound") == "classes":
        parts.append("bound over classes")
    if "stored_balls" in request:
        parts.append("memory-based")
    if "shard" in request:
        parts.append(f"shard {request['shard']['part']}/{request['shard']['of']}")
    return ", ".join(parts)


def _search(settings):
    """The name of a search, with its objective if that is not the search's default."""
    method, name = settings.get("method"), settings.get("name") or "of an unnamed search"
    if method != "qcrs":
        ladder = f"cascade {', '.join(f'{sigma:g}' for sigma in settings.get('sigmas', ()))}"
        return {"cohen": "Cohen", "ddrs": "DDRS", "cascade": ladder}.get(method, name)
    return f"QCRS {name}{' of bounds' if settings.get('objective') == 'lcb' and name in ('golden', 'grid') else ''}"


def interval_text(low: float, high: float, images: int) -> str:
    """An interval as text, rounded outwards, with more digits for more images; - for NaN."""
    if math.isnan(low):
        return "-"
    digits = 2 if images < 1000 else 3
    ends = math.floor(low * 10**digits) / 10**digits, math.ceil(high * 10**digits) / 10**digits
    return "-".join(f"{end:.{digits}f}".removeprefix("0") for end in ends)


def _number_left_out(run):
    """The number of images that were left out; empty if it is not known."""
    return "" if run.left_out is None else len(run.left_out)


def seed_words(run) -> str:
    """The source of a run's seed; empty if it is not known."""
    return "committed" if is_committed(run.request) else "chosen by the user" if is_chosen(run.request) else ""


def _limits(run):
    """The limits of a run's certificates, if these are not for one classifier at all inputs; else empty."""
    if "stored_balls" in run.request:
        return memory.LIMITS
    return INPUT_SPECIFIC if run.input_specific else ""


def claims(run) -> str | None:
    """A sentence on the claims of a run with --decide: images robust or not, right or wrong. None for another run.

    A claim is about the class that was selected. If that is not the label, the image may be robust, and wrong.
    """
    decided = [record for record in run.records if record.robust is not None]
    radius = run.request.get("estimate", {}).get("decide")
    if radius is None or len(decided) < len(run.records) or not decided:
        return None
    right = [record.label == _selected(record) for record in decided if record.robust == 1]
    yes, no, unknown = ([record.robust for record in decided].count(claim) for claim in (1, 0, -1))
    return (
        f"{yes} robust at {radius:g}, {no} not, {unknown} undecided; robust and right are {sum(right)} of "
        f"{len(decided)} images, robust and wrong {len(right) - sum(right)}"
    )


def _selected(record):
    """The class that a claim is about; an image that abstains has one too."""
    return record.counts0.index(max(record.counts0)) if record.counts0 else record.predict


def earlier_notes(runs) -> list[str]:
    """A sentence on the runs that an earlier version made; none if there are none."""
    earlier = [run for run in runs if run.of_an_earlier_version]
    return [f"{_labels(earlier, runs)}: {EARLIER_VERSION}"] if earlier else []


def _labels(some, runs) -> str:
    """The names of `some` of `runs`; "all runs" if these are all of several."""
    return "all runs" if len(some) == len(runs) > 1 else ", ".join(map(label, some))


def seed_notes(runs) -> list[str]:
    """Sentences on the runs whose seed the user chose, and on those that have one request with different seeds."""
    asked = [run for run in runs if "seed" in run.request]
    chosen = [run for run in asked if is_chosen(run.request)]
    notes = []
    if chosen:
        whose = _labels(chosen, runs)
        notes.append(f"{whose}: seed chosen by the user. Nothing shows that no other was tried before.")
    for places in equal_but_for_seed([run.request for run in asked]):
        which = ", ".join(f"{label(asked[place])} ({text(asked[place].request['seed'])})" for place in places)
        notes.append(f"{which}: these have the same request, with different seeds. The best of them is no certificate.")
    for run in asked:
        if others := run.sidecar.get("provenance", {}).get("other_seeds"):
            names = ", ".join(f"{other['file']} ({text(other['seed'])})" for other in others)
            notes.append(f"{label(run)}: was started beside {names}, with the same request and another seed.")
    return notes


def origin_notes(runs) -> list[str]:
    """Sentences on the noise of the runs, and on when and where they were made, as far as it is recorded."""
    origins = {}
    for run in runs:
        origins.setdefault(_origin(run), []).append(run)
    return [f"{_labels(of, runs)}: {origin}." for origin, of in origins.items() if origin]


def _origin(run):
    provenance = run.sidecar.get("provenance", {})
    started, devices, versions = (provenance.get(name) for name in ("started", "devices", "versions"))
    versions = versions if isinstance(versions, dict) else {}
    packages = [f"{name} {versions[name]}" for name in ("qcrs_jax", "jax") if name in versions]
    made = [f"on {str(started)[:10]}"] if started else []
    made += [f"on {devices}"] if devices else []
    made += [f"with {' and '.join(packages)}"] if packages else []
    name = run.request.get("smoothing", {}).get("name", "gaussian")
    noise = NOISE_WORDS.get(name) if "noise" in run.request else None
    return "; ".join(part for part in (noise, f"made {' '.join(made)}" if made else None) if part)


def left_out_notes(runs) -> list[str]:
    """Sentences on the images that `runs` left out, or on the lack of that record."""
    notes = []
    for run in runs:
        left_out = run.left_out
        if left_out is None:
            notes.append(
                f"{label(run)}: is not finished, or the record of left-out images was taken out of its sidecar. Images "
                "may be missing."
            )
        elif left_out:
            notes.append(
                f"{label(run)}: {len(left_out)} images could not be read and were left out. All figures are over the "
                f"other {len(run.records)}."
            )
    return notes


def notes_on_runs(runs):
    accounts = {}
    for run in runs:
        if "alpha" in run.request:
            accounts.setdefault(account(run.request, len(run.records)), []).append(label(run))
    notes = [f"{', '.join(of)}: {text}" if len(accounts) > 1 else text for text, of in accounts.items()]
    if not any(run.predicts for run in runs):
        kinds = {BUDGET: any(run.request.get("budget") for run in runs), DEPENDENT: not all(map(independent, runs))}
        notes.append(" ".join([INTERVALS, *(text for text, there_is in kinds.items() if there_is)]))
    notes += [f"{label(run)}: {text}." for run in runs if (text := claims(run))]
    notes += left_out_notes(runs) + seed_notes(runs) + origin_notes(runs) + earlier_notes(runs)
    for run in runs:
        spoilt = [missing for record in run.records if (missing := count_unclassified([record], run.request)[0])]
        if spoilt:
            notes.append(
                f"{label(run)}: {sum(spoilt):,} noisy copies of {len(spoilt)} images, {max(spoilt):,} of one at "
                "most, count for no class: a logit is not finite. They count against the answer."
            )
    if any(run.input_specific and "stored_balls" not in run.request for run in runs):
        notes.append(INPUT_SPECIFIC)
    if any(is_cascade(run.request) and not run.predicts for run in runs):
        notes.append(CASCADE)
    if any(is_ddrs(run.request) for run in runs):
        notes.append(DDRS_SAMPLES)
    if any("stored_balls" in run.request for run in runs):
        notes.append(memory.LIMITS)
    if any("rebound" in run.request for run in runs):
        notes.append(REBOUND)
    if any(is_soft(run.request) for run in runs):
        notes.append(SOFT)
    if len(runs) > 1 and any(run.predicts for run in runs):
        notes.insert(0, AGREEMENT)
    return notes
