"""Certificates of another bound from the counts of a finished run; nothing is drawn again."""

import dataclasses
from pathlib import Path

from qcrs_jax.certification.estimates import Fixed, Tolerance, estimate_of
from qcrs_jax.certification.proportions import BOUNDS
from qcrs_jax.data.load import digest
from qcrs_jax.errors import UserError, quoted
from qcrs_jax.results.records import Run, checksum, is_cascade
from qcrs_jax.results.shards import read_runs
from qcrs_jax.results.writer import check_new, write_run
from qcrs_jax.sampling.smoothing import noise_of

MOST_SELECTION = 100_000
"""The largest n0 for which the table of a tolerance is made."""


def rebound(results: Path, bound: str, out: Path) -> str:
    """Writes `out`, the run in `results` with another bound. Returns a line on the changes.

    Raises:
        UserError: the file cannot be read, has no counts, was estimated in another way, or `out` exists.
    """
    if out.exists():
        check_new(out)
    (run,) = read_runs([results])
    old, new = _estimate(run), Fixed(bound)
    if new.randomises:
        raise UserError(f"the bound {bound!r} needs random numbers that a finished run does not have; draw a new run")
    if bound == old.bound:
        raise UserError(f"{results}: has the bound {bound!r} already")
    new, request, noise = dataclasses.replace(old, bound=bound), run.request, noise_of(run.request)
    source = {"source": run.path.name, "source_sha256": digest(run.path.read_bytes()), "bound": old.bound}
    asked = {**request, "estimate": new.recorded(), "rebound": source}
    check_new(out, asked)
    bare = dict.fromkeys(BOUNDS[old.bound].columns)
    records = []
    for record in run.records:
        try:
            found = bare | new.again(record, request["n0"], request["n"], request["alpha"], noise)
        except (ValueError, IndexError, TypeError, KeyError, ArithmeticError) as error:
            raise UserError(
                f"{results}: image {record.idx}: no certificate follows from its counts: {quoted(error)}; `qcrs-jax "
                "verify` checks the file"
            ) from error
        found["n"] = record.n  # as it was drawn
        records.append(dataclasses.replace(record, **found, correct=found["predict"] == record.label))
    if left_out := run.left_out:
        asked["rebound"]["left_out"] = left_out
    write_run(out, records, asked, run.sidecar["provenance"])
    larger, smaller = (
        sum(sign * (ours.radius - theirs.radius) > 0 for ours, theirs in zip(records, run.records)) for sign in (1, -1)
    )
    return f"{out}: of {len(records)} radii {larger} became larger and {smaller} smaller"


def _estimate(run: Run) -> Fixed | Tolerance:
    """The estimate of a run. Raises UserError where its counts cannot be given another bound."""
    request = run.request
    if not run.records:
        raise UserError(f"{run.path}: holds no results yet")
    if request.get("kind") != "certificates" or any(not record.counts or not record.counts0 for record in run.records):
        raise UserError(f"{run.path}: has no counts of certificates; give a results file of `qcrs-jax certify`")
    for made, command in (("stored_balls", "memory"), ("rebound", "rebound")):
        if made in request:
            raise UserError(f"{run.path}: was made by `qcrs-jax {command}`; give the run that it was made of")
    if is_cascade(request):
        raise UserError(f"{run.path}: is a run of a cascade, whose bounds are always over classes")
    if missing := {"n0", "n", "alpha", "estimate"} - set(request):
        raise UserError(f"{run.path}: its sidecar lacks request.{sorted(missing)[0]}, by which its bounds are computed")
    if run.left_out is None:
        raise UserError(f"{run.path}: is not finished; finish it with the command that began it")
    if run.sidecar.get("sha256") not in (None, checksum(run.path)):
        raise UserError(f"{run.path}: its hash differs: it was changed after the run; take the file as it was written")
    estimate = estimate_of(request["estimate"])
    if isinstance(estimate, Tolerance) and request["n0"] > MOST_SELECTION:
        raise UserError(f"{run.path}: no table is made for n0 = {request['n0']}; the largest is {MOST_SELECTION}")
    if not isinstance(estimate, Fixed | Tolerance):
        raise UserError(
            f"{run.path}: was estimated by {estimate.name!r}, which has bounds of its own; give a run of --bound"
        )
    return estimate
