"""`qcrs-jax verify`: attacks, compared with their counts, with the run that was attacked, and with a new attack."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from qcrs_jax.errors import quoted
from qcrs_jax.results.attacks import differs, read_attack_records
from qcrs_jax.results.records import differences, read_sidecar

from ..run.attack import again
from .near_ties import Comparison, allowed, moved

SAME = 0.1
"""Relative difference up to which the distances of two attacks on one image count as the same."""
ATTACK_RULE = (
    "rule for attacks: another device or program may round a gradient otherwise, so that an attack ends at another "
    "image. Both have to change the answer, or neither, at distances within 10% of each other. Where they end at the "
    "same image, the distance has to be the same, and of its copies 2 may be in another class (but not more than 1 in "
    "100)"
)
NOT_THE_SOURCE = "the certificates of {source} were not drawn again: `qcrs-jax verify` checks that file by itself"


def source_name(request: dict) -> str:
    """The name of the results file that was attacked."""
    return request["attack"].get("source", "the run")


def attack_troubles(path: Path) -> Iterator[str]:
    """The fields of a file of attacks that do not follow from its counts, or are not those of the run beside it.

    Raises:
        UserError: that run is missing, or is another one.
    """
    request, run = again(path)
    sidecar = read_sidecar(path)["request"]
    asked = json.loads(json.dumps(request.recorded()))
    names = {*asked, *(name for name in ("search", "estimate", "smoothing") if name in sidecar)}
    yield from differences({name: sidecar.get(name) for name in names}, asked, ("in the sidecar", "by the run"))
    inputs = ("classifier", "stages", "dataset", "dtype")
    ours, theirs = ({name: of.get(name) for name in inputs} for of in (sidecar, run.request))
    yield from differences(ours, theirs, ("in the sidecar", f"in that of {run.path.name}"))
    certified = {record.idx: record for record in run.records}
    most = request.settings.attempts * request.parts
    for record in read_attack_records(path):
        where = f"image {record.idx}"
        if record.idx not in certified or differs(record, certified[record.idx]):
            yield f"{where}: its label or its certificate is not that of {run.path.name}"
            continue
        if record.checks > most:
            yield f"{where}: has {record.checks} checks, and an attack makes at most {most}"
        if not record.attacked and (record.checks or record.failed):
            yield f"{where}: has no correct certificate, and was attacked"
        shown = (record.counts, record.answer_sigma, record.image_sha256)
        if record.distance is None:
            if any(value is not None for value in shown):
                yield f"{where}: has no distance, but the counts, the sigma or the hash of one"
            continue
        if any(value is None for value in shown) or not record.checks:
            yield f"{where}: lacks the counts, the sigma or the hash of its distance, or was not checked"
            continue
        if record.failed >= record.distance:
            yield f"{where}: failed at {record.failed}, which is not below its distance"
        if min(record.counts) < 0 or sum(record.counts) > request.samples:
            yield f"{where}: its counts are not those of {request.samples} samples"
            continue
        try:
            answer = request.answer(np.array(record.counts))
        except (ValueError, IndexError) as error:
            yield f"{where}: {quoted(error)}"
            continue
        if answer != record.answer:
            yield f"{where}: answer is {record.answer}, but {answer} by its counts and the request"
        if request.method == "cohen" and record.answer_sigma != record.sigma:
            yield f"{where}: was answered at sigma {record.answer_sigma}, and its certificate has {record.sigma}"


def compare_attacks(record, other, n: int) -> Comparison:
    """Compares the line of an attack with the attack made now.

    `ATTACK_RULE` is the rule.
    """
    result = Comparison(drawn=n)
    if record.image_sha256 == other.image_sha256:
        if record.counts:
            result.moved = moved(record.counts, other.counts, n)
            result.gain = record.counts[record.answer] - other.counts[record.answer]
            result.missing = max(0, sum(other.counts) - sum(record.counts))
        if record.distance != other.distance or record.answer != other.answer:
            result.troubles.append("at the same image, the distance or the answer differs")
        if result.moved > allowed(n):
            result.troubles.append("that is more than near ties")
        result.remark = "; the attack ended at the same image"
    else:
        result.drawn = 0
        result.remark = "; the attack ended at another image here, as after other rounding of a gradient"
    if (record.distance is None) != (other.distance is None):
        result.troubles.append(f"the distance is {record.distance} in the file and {other.distance} here")
    elif record.distance is not None and abs(record.distance - other.distance) > SAME * other.distance:
        result.troubles.append(f"the distance is {record.distance:.6g} in the file and {other.distance:.6g} here")
    return result
