"""The source of a run's noise: a seed that the user chose, or one that follows from the whole request of the run.

A request records a chosen seed as a number from 0 to 2**32 - 1. A committed seed is an object. Its "images" is the
number of images of the whole run, and its "sha256" the hash of the request and of that number. Nobody chooses it:
another sigma, another alpha, other weights, other data or fewer images have other noise.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError
from .records import read_sidecar, sidecar_path

MOST_FILES = 200  # in a folder that are looked at for other seeds
MOST_NAMED = 20  # of them that a sidecar names
LARGEST = 2**20  # bytes of a sidecar that is looked at


def canonical(request: dict) -> dict:
    """The request without the parts that change no noise: the seed, the shard, the platform.

    A pilot has the same canonical request as its run. Numbers that are equal have one form.
    """
    asked = {name: value for name, value in request.items() if name not in ("seed", "shard", "platform")}
    if asked.get("kind") == "pilot":
        asked["kind"] = "certificates"
    return {name: _plain(value) for name, value in json.loads(json.dumps(asked)).items()}


def committed(request: dict, images: int) -> dict[str, Any]:
    """The committed seed of a run with this request over this number of images, as its request records it.

    Its hash is SHA-256 of the JSON of `canonical(request)` and of the images, with sorted names and without blanks, in
    ASCII. With "skip" the number of images determines which they are. A key takes as many of its first bits as it has.
    """
    asked = {"request": canonical(request), "images": images}
    text = json.dumps(asked, sort_keys=True, separators=(",", ":"))
    return {"sha256": hashlib.sha256(text.encode()).hexdigest(), "images": images}


def is_committed(request: dict) -> bool:
    """Whether the seed of a request is a committed one, by what the request records."""
    return isinstance(request.get("seed"), dict)


def is_chosen(request: dict) -> bool:
    """Whether the user chose the seed of a request. False for a log without a request, which records no seed."""
    return isinstance(request.get("seed"), int)


def text(seed: int | dict) -> str:
    """The name of a seed in messages."""
    return f"committed seed {seed['sha256'][:12]}" if isinstance(seed, dict) else f"seed {seed}"


def files_with_other_seeds(path: Path, request: dict) -> list[dict]:
    """Results files beside `path` with the same request and another seed: "file" and "seed" of each.

    At most 200 files are looked at, the newest ones. Files that cannot be read are passed over.
    """
    found, ours, request = [], canonical(request), json.loads(json.dumps(request))
    for file in _sidecars_beside(path):
        results = file.with_name(file.name.removesuffix(".json"))
        try:
            if file.stat().st_size > LARGEST:
                continue
            theirs = read_sidecar(results).get("request", {})
        except (UserError, OSError):
            continue
        if theirs.get("kind") == request.get("kind") and "seed" in theirs and theirs["seed"] != request["seed"]:
            if canonical(theirs) == ours:
                found.append({"file": results.name, "seed": theirs["seed"]})
    return found[:MOST_NAMED]


def equal_but_for_seed(requests: Sequence[dict]) -> list[list[int]]:
    """Groups of positions of requests that are equal but for the seed, if the user chose at least one of the seeds."""
    groups: dict[str, list[int]] = {}
    for place, request in enumerate(requests):
        if "seed" in request:
            asked = {**canonical(request), "kind": request.get("kind")}
            groups.setdefault(json.dumps(asked, sort_keys=True), []).append(place)
    return [
        group
        for group in groups.values()
        if len({json.dumps(requests[place]["seed"], sort_keys=True) for place in group}) > 1
        and any(is_chosen(requests[place]) for place in group)
    ]


def _sidecars_beside(path):
    """The newest files in the folder of `path` that have names of sidecars, without its own."""
    try:
        files = [file for file in path.parent.glob("*.json") if file.is_file() and file.name != sidecar_path(path).name]
        return sorted(files, key=lambda file: (-file.stat().st_mtime, file.name))[:MOST_FILES]
    except OSError:
        return []


def _plain(value: Any) -> Any:
    """A value of JSON in which whole numbers are written as such: 1.0 as 1."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value
