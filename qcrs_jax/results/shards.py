"""Results files of one run that was split over machines (shard I/N), read as the one run that they are.

The sidecar of such a file records its part, the number of parts, and the number of images of the whole run. Its images
are every `of`th of the run's, from the `part`th. Everything else in the request is the same in all of them.
"""

import dataclasses
import itertools
import json
import os
from collections.abc import Sequence
from pathlib import Path

from .records import RecordsError, Run, differences, read_run


def read_runs(paths: Sequence[str | Path]) -> list[Run]:
    """The runs in results files, in the order of their first files; the shards of a run are put together.

    Raises:
        RecordsError: a file cannot be read, or shards overlap, are missing or not finished; names the files.
    """
    return join([read_run(path) for path in paths])


def join(runs: Sequence[Run]) -> list[Run]:
    """`runs` with the shards of each run put together, in the order of their first files. Raises as `read_runs`."""
    return [merge(group) if "shard" in group[0].request else group[0] for group in gather(runs)]


def gather(runs: Sequence[Run]) -> list[list[Run]]:
    """The shards of each run together, every other run alone, in the order of the first of them.

    Raises:
        RecordsError: the shards of a run overlap, or are not all there.
    """
    groups = {}
    for place, run in enumerate(runs):
        shard = run.request.get("shard")
        whole = place if shard is None else json.dumps(_without_part(run.request), sort_keys=True)
        groups.setdefault(whole, []).append(run)
    found = list(groups.values())
    for group in found:
        if "shard" in group[0].request:
            _check_parts(group, [other[0] for other in found if other is not group and "shard" in other[0].request])
    return found


def _without_part(request):
    return {**request, "shard": {**request["shard"], "part": None}}


def _check_parts(group, others):
    of, parts = group[0].request["shard"]["of"], {}
    for run in group:
        part = run.request["shard"]["part"]
        if part in parts:
            raise RecordsError(
                f"{parts[part].path} and {run.path}: are both shard {part}/{of} of one run; give one of them"
            )
        parts[part] = run
    missing = [str(part) for part in itertools.islice((p for p in range(1, of + 1) if p not in parts), 20)]
    if not missing:
        return
    names = ", ".join(str(run.path) for run in group)
    numbers = ", ".join([*missing, *["..."] * (of - len(parts) > len(missing))])
    message = f"{names}: of the {of} shards of this run, number {numbers} is missing; give its file too"
    for other in others:
        where = f"in {group[0].path}", f"in {other.path}"
        changed = differences(_without_part(group[0].request), _without_part(other.request), where)
        message += f"\n{other.path} is a shard of another run. Different are\n  " + "\n  ".join(changed)
    raise RecordsError(message)


def merge(group: Sequence[Run]) -> Run:
    """The run whose shards are `group`, in the order of its images.

    Raises:
        RecordsError: a shard lacks images, or has some that belong to another shard.
    """
    for run in group:
        shard, skip = run.request["shard"], run.request.get("skip", 1)
        own = range(0, shard["images"] * skip, skip)[shard["part"] - 1 :: shard["of"]]
        here = {record.idx for record in run.records}
        there = here.union(run.sidecar.get("left_out", []))
        name = f"{run.path}: shard {shard['part']}/{shard['of']}"
        if strays := sorted(index for index in here if index not in own):
            raise RecordsError(
                f"{name} has image {strays[0]}, which belongs to another shard; give the files as they were written"
            )
        if missing := len(own) - sum(index in own for index in there):
            first = next(index for index in own if index not in there)
            raise RecordsError(
                f"{name} is not finished: {missing} of its {len(own)} images are missing, the first is {first}; give "
                "its command again"
            )
    first = group[0]
    request = {key: value for key, value in first.request.items() if key != "shard"}
    records = sorted((record for run in group for record in run.records), key=lambda record: record.idx)
    path = first.path.with_name(_pattern([run.path.name for run in group]))
    left_out = sorted(index for run in group for index in run.sidecar.get("left_out", []))
    sidecar = {**first.sidecar, "request": request} | ({"left_out": left_out} if left_out else {})
    return dataclasses.replace(first, path=path, records=records, sidecar=sidecar)


def _pattern(names):
    """The common part of file names, with * for the rest: run-1.tsv and run-2.tsv become run-*.tsv."""
    if len(names) == 1:
        return names[0]
    start = os.path.commonprefix(names)
    end = os.path.commonprefix([name[len(start) :][::-1] for name in names])[::-1]
    return f"{start}*{end}"
