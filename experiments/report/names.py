"""Names of the runs in a table or a figure: their methods, and the settings in which they differ."""

from collections.abc import Sequence

from qcrs_jax.errors import UserError
from qcrs_jax.printable import printable
from qcrs_jax.results.records import Run, flat

from .words import method

_TOLD = "smoothing.name search. estimate. budget. n0 n alpha stop_when_wrong dtype seed skip".split()
"""Settings that distinguish runs of one method, the most important first. A final dot stands for all names below."""
_CALLED = {"n": "N", "n0": "N0", "budget.mean": "budget", "search_n": "samples", "max_evaluations": "evaluations"}
_CALLED |= {"smoothing.name": "noise"}


def names_of(runs: Sequence[Run], given: Sequence[str] | None = None) -> list[str]:
    """A name for each of `runs`, no two the same: `given`, or its method with the settings in which they differ.

    A run whose settings are not known is called as its file, and so are runs that differ in nothing else.

    Raises:
        UserError: `given` has another number of names.
    """
    if given is not None:
        if len(given) != len(runs):
            raise UserError(f"--names has {len(given)} entries for {len(runs)} runs")
        return list(given)
    names = [method(run) for run in runs]
    for name in dict.fromkeys(names):
        alike = [place for place, other in enumerate(names) if other == name]
        if name and len(alike) > 1:
            told = _differing([runs[place] for place in alike])
            for place, more in zip(alike, told):
                names[place] = ", ".join([name, *more])
    return [
        name if name and names.count(name) == 1 else f"{name} ({printable(run.path.name)})" if name else run.path.name
        for name, run in zip(names, runs)
    ]


def row_names(runs: Sequence[Run], given: Sequence[str] | None = None) -> list[str]:
    """Names for the rows of a table: those of `names_of`, followed by the file unless the name was given."""
    names, files = names_of(runs, given), [run.path.name for run in runs]
    if given is not None:
        return names
    return [name if name.endswith((file, f"({file})")) else f"{name} ({file})" for name, file in zip(names, files)]


def _differing(runs):
    """For each of `runs`, in words, its settings that are not the same in all of them."""
    settings = [{**flat(run.request), "network": _network(run)} for run in runs]
    every = list(dict.fromkeys(key for one in settings for key in one))
    different = [key for key in every if len({str(one.get(key)) for one in settings}) > 1]
    keys = [
        key for of in ("network", *_TOLD) for key in different if key == of or of.endswith(".") and key.startswith(of)
    ]
    keys = [key for key in keys if key not in ("search.name", "search.method", "estimate.votes")][:3]
    return [[_in_words(key, one[key]) for key in keys if one.get(key) is not None] for one in settings]


def _network(run):
    """The name of the network: its file if it is known, else the hash of its weights; and that of its denoiser."""
    file = run.sidecar.get("provenance", {}).get("checkpoint")
    weights = run.request.get("classifier", {}).get("weights_sha256")
    if weights is None:
        return None
    name = str(file).rpartition("/")[2] if file else weights[:8]
    denoiser = run.request["classifier"].get("denoiser", {}).get("weights_sha256")
    return printable(f"{name} behind denoiser {denoiser[:8]}" if denoiser else name)


def _in_words(key, value):
    if key == "network":
        return value
    name = _CALLED.get(key) or _CALLED.get(key.rpartition(".")[2]) or key.rpartition(".")[2]
    if value is True:
        return name
    return f"{name} {value:g}" if isinstance(value, float) else f"{name} {printable(value)}"
