"""Sidecars of format 1, converted to format 2. Format 1 has no number, and recorded a command's parsed arguments.

Its request named a method, with the settings of a search in "qcrs" or "ddrs", and those of an estimate beside them.
"""

KINDS = {"predict": "predictions", "curve": "curves"}

_BRACKET = ("sigma_lower", "sigma_upper", "search_n")
_VALUES = (*_BRACKET, "epsilon", "objective", "alpha")
OWN = {
    "golden": _VALUES,
    "grid": _VALUES,
    "bisection": (*_VALUES, "epsilon_step"),
    "shrinking": (*_VALUES, "epsilon_step"),
    "bayesian": (*_BRACKET, "max_evaluations"),
}
"""Settings of each search: early versions recorded those of the others as well."""

SETTINGS = {
    "network": (
        *("checkpoint", "normalization", "field", "prefix", "leave_out", "image_size", "max_pool"),
        *("macer", "dtype"),
    ),
    "data": ("dataset", "data_dir", "class_order", "split", "resize", "on_error"),
    "images": ("skip", "stop", "shard"),
    "noise": ("seed", "prng"),
}
"""The arguments that decide the results, by the settings that they are now."""


def upgraded(content: dict) -> dict:
    """A sidecar of format 1 in format 2. Its arguments are kept, besides the settings made from them."""
    provenance = dict(content["provenance"])
    if "arguments" in provenance:
        provenance["settings"] = settings_of(provenance["arguments"])
    if "memory" in provenance:
        provenance["stored_balls"] = provenance.pop("memory")
    return {**content, "request": request_of(content["request"]), "provenance": provenance}


def request_of(before: dict) -> dict:
    """A request of format 1 in format 2."""
    request = dict(before)
    method = request.pop("method", None)
    pilot = request.pop("pilot", False)
    qcrs, ddrs = request.pop("qcrs", None), request.pop("ddrs", None)
    names = ("certificate", "beta", "votes", "tolerance", "bound", "sequential")
    asked = {name: request.pop(name) for name in names if name in request}
    if "memory" in request:
        request["stored_balls"] = request.pop("memory")
    if request.get("budget"):
        request["budget"] = {"stop" if name == "max" else name: value for name, value in request["budget"].items()}
    if method is None:
        return request
    if method in KINDS:
        return {"kind": KINDS[method], **request}
    kind = "pilot" if pilot else "certificates"
    return {"kind": kind, "search": _search(method, qcrs, ddrs), "estimate": _estimate(asked), **request}


def _search(method, qcrs, ddrs):
    if method == "cohen":
        return {"method": "cohen", "name": "fixed"}
    if method == "ddrs":
        return {"method": "ddrs", "name": "ddrs", **(ddrs or {})}
    settings = {"epsilon" if name == "tolerance" else name: value for name, value in (qcrs or {}).items()}
    name = settings.pop("search", "")
    own = {setting: value for setting, value in settings.items() if setting in OWN.get(name, settings)}
    return {"method": "qcrs", "name": name, **own}


def _estimate(asked):
    bound = asked.get("bound", "clopper-pearson")
    if asked.get("certificate") == "soft":
        return {"name": "soft", **{name: asked[name] for name in ("beta", "votes") if name in asked}}
    if asked.get("sequential"):
        renamed = {"beta": "alpha_upper", "step": "look_every"}
        return {"name": "sequential", **{renamed.get(name, name): v for name, v in asked["sequential"].items()}}
    if asked.get("tolerance"):
        return {"name": "tolerance", "tolerance": asked["tolerance"], "bound": bound}
    return {"name": "fixed", "bound": bound}


def settings_of(arguments: dict) -> dict:
    """The settings that decided the results of a run with these parsed arguments; others have their defaults."""
    given = {"stop" if name == "max" else name: value for name, value in arguments.items()}
    return {
        kind: {name: given[name] for name in names if given.get(name) is not None} for kind, names in SETTINGS.items()
    }
