"""Sidecars of format 1, made of those of format 2: runs of earlier versions had them."""

import json


def as_format_1(content):
    """The sidecar that format 1 would have of the same run; without its own sum, which is of another text."""
    content = json.loads(json.dumps(content))
    content = {name: value for name, value in content.items() if name not in ("format", "sidecar_sha256")}
    return {
        **content,
        "request": _request(content["request"]),
        "provenance": _provenance(content["provenance"], content["request"]),
    }


def _request(now):
    request = {name: value for name, value in now.items() if name not in ("kind", "search", "estimate")}
    if "stored_balls" in request:
        request["memory"] = request.pop("stored_balls")
    if "budget" in request:
        request["budget"] = {"mean": request["budget"]["mean"], "max": request["budget"]["stop"]}
    kind = now["kind"]
    if kind in ("predictions", "curves"):
        return {"method": {"predictions": "predict", "curves": "curve"}[kind], **request}
    search = dict(now["search"])
    method, name = search.pop("method"), search.pop("name")
    request |= {"method": method, "qcrs": None, "ddrs": None} | ({"pilot": True} if kind == "pilot" else {})
    if method == "ddrs":
        request["ddrs"] = search
    if method == "qcrs":
        request["qcrs"] = {"tolerance" if key == "epsilon" else key: value for key, value in search.items()}
        request["qcrs"]["search"] = name
    estimate = dict(now["estimate"])
    name = estimate.pop("name")
    if name == "soft":
        return {**request, "certificate": "soft", **estimate}
    if name == "sequential":
        renamed = {"alpha_upper": "beta", "look_every": "step"}
        return {**request, "sequential": {renamed.get(key, key): value for key, value in estimate.items()}}
    if estimate["bound"] == "clopper-pearson":
        del estimate["bound"]
    return {**request, **estimate}


def _provenance(now, request):
    provenance = {name: value for name, value in now.items() if name not in ("settings", "stored_balls")}
    settings = [value for kind in now.get("settings", {}).values() for value in kind.items()]
    renamed = {"stop": "max"}
    arguments = {renamed.get(name, name): value for name, value in settings}
    numbers = {"n0": "N0", "n": "N", "alpha": "alpha", "sigma": "sigma"}
    arguments |= {theirs: request[ours] for ours, theirs in numbers.items() if ours in request}
    learnt = dict.fromkeys(("class_order", "field", "prefix", "leave_out", "image_size", "max_pool"))
    return {**provenance, "arguments": learnt | arguments}
