"""`qcrs-jax verify`: compares the lines of a results file with the fields that follow from their counts."""

import math

import numpy as np

from qcrs_jax.analysis.curves import Point, read_points
from qcrs_jax.certification.estimates import estimate_of
from qcrs_jax.certification.verdict import make_prediction
from qcrs_jax.errors import quoted
from qcrs_jax.files import read_regular
from qcrs_jax.results.attacks import AttackRecord, read_attack_records
from qcrs_jax.results.records import PREDICT_COLUMNS, Record, chooses_sigma, is_cascade, read_rows, read_run
from qcrs_jax.results.rows import parse_counts, parse_seconds, whole_number
from qcrs_jax.sampling.smoothing import noise_of

from ..run.answers import recorded_fields
from ..run.cascade import PREDICTED, CascadeRequest
from ..run.file_names import COLUMN
from ..run.pilot import Pilot, read_pilots

CLOSE = 1e-9  # by which SciPy's functions may differ between machines
MOST_SELECTION = 100_000  # samples, for whose table --tolerance takes seconds
KEYS = ("idx", "label")
NEAR = dict.fromkeys(("mean", "deviation"), 1e-3)  # a pilot computes these in float32; no guarantee rests on them


def expected_columns(request) -> tuple[str, ...]:
    """The columns, in their order, of a file of this request."""
    if request["kind"] == "curves":
        return Point.columns()
    if request["kind"] == "pilot":
        return Pilot.columns()
    if request["kind"] == "predictions":
        return PREDICTED if is_cascade(request) else PREDICT_COLUMNS
    if request["kind"] == "attacks":
        return AttackRecord.columns()
    return Record.columns(recorded_fields(request))


def header_trouble(path, request) -> str | None:
    """The difference between the first line and that of this request, byte by byte: readers use names or places."""
    due = expected_columns(request)
    first = read_regular(path).split(b"\n", 1)[0].rstrip(b"\r")
    also = [(*due, COLUMN)] if request["kind"] == "certificates" else []  # of images that are files
    if first in ["\t".join(columns).encode() for columns in (due, *also)]:
        return None
    found = first.decode(errors="replace").split("\t")
    said = [f"it has {name!r} {found.count(name)} times" for name in due if found.count(name) > 1]
    said += [f"it lacks {name!r}" for name in due if name not in found]
    said += [f"{name[:60]!r} is not a column of this run" for name in dict.fromkeys(found) if name not in due][:5]
    return (
        f"its first line is not that of this run: {'; '.join(said) or 'the columns are in another order'}. It should "
        f"be, with tabs between: {' '.join(due)}"
    )


def recorded_time(path, request) -> float:
    """The seconds that all images took by the file's own times; 0 if it has none."""
    try:
        seconds = [parse_seconds(rows[0].get("time")) for rows in lines_of(path).values()]
    except ValueError:
        return 0.0
    return sum((s for s in seconds if s == s), 0.0)


def curve_troubles(images, request):
    """The lines of a curve that do not have the sigmas and the samples of the request."""
    for index, rows in images.items():
        for row in rows:
            try:
                counts, sigma = parse_counts(row["counts"]), float(row["sigma"])
            except (KeyError, ValueError) as error:
                yield f"image {index}: not a line of a curve: {quoted(error)}"
                continue
            if not 0 <= min(counts) <= sum(counts) <= request["n"] or sigma not in request["sigmas"]:
                yield f"image {index}: sigma {sigma:g} with {sum(counts)} samples is not in the request"


def bound_troubles(record, request):
    """The fields of the record that do not follow from its counts."""
    if not record.counts:
        yield "has no counts"
        return
    try:
        made = recomputed_fields(record, request)
    except (ValueError, IndexError, TypeError, KeyError, ArithmeticError) as error:
        yield f"no certificate follows from its counts: {quoted(error)}"
        return
    for name, value in made.items():
        written = getattr(record, name)
        if isinstance(value, tuple):
            if written != value:
                yield f"{name} are {written}, but {value} by the counts of all stages"
        elif written is None or not math.isclose(written, value, rel_tol=CLOSE, abs_tol=1e-300):
            yield f"{name} is {written}, but {value} by its counts and the request"


def recomputed_fields(record, request) -> dict:
    """The fields of a record that follow from its counts, computed again."""
    n, alpha = request["n"], request["alpha"]
    if is_cascade(request):
        return CascadeRequest.of(request).again(record)
    if request["kind"] == "predictions":
        return {"predict": int(make_prediction(np.array(record.counts), n, alpha).prediction)}
    if request["estimate"].get("tolerance") and request["n0"] > MOST_SELECTION:
        raise ValueError(f"no table is made for n0 = {request['n0']}; the largest is {MOST_SELECTION}")
    found = {}
    if not chooses_sigma(request):
        found["sigma"] = float(np.float32(request["sigma"]))
    if record.n is not None and not request.get("budget"):
        wrong = request.get("stop_when_wrong") and np.argmax(record.counts0) != record.label
        found["n"] = 0 if wrong else n
    again = estimate_of(request["estimate"]).again(record, request["n0"], n, alpha, noise_of(request))
    return again | found if found.get("n") == 0 else found | again  # no sample was drawn where the class was wrong


def differing_fields(index, records, rows):
    """The differences, number by number, between the lines drawn now and the lines of the file."""
    for record, row in zip(records, rows):
        columns = tuple(name for name in row if name != "time")
        again = dict(zip(columns, record.line(columns).rstrip("\n").split("\t")))
        for name in columns:
            if not same(row[name], again[name], NEAR.get(name, CLOSE)):
                yield f"image {index}: {name} is {row[name]}, but {again[name]} when drawn again"


def typed_lines(path, request) -> dict:
    """The lines of a file by image, as objects."""
    found = {}
    if request["kind"] == "curves":
        read = read_points(path)
    elif request["kind"] == "attacks":
        read = read_attack_records(path)
    else:
        read = read_pilots(path) if request["kind"] == "pilot" else read_run(path).records
    for record in read:
        found.setdefault(record.idx, []).append(record)
    return found


def same(written, again, close):
    try:
        return written == again or math.isclose(float(written), float(again), rel_tol=close, abs_tol=1e-300)
    except (ValueError, OverflowError):  # counts
        return False


def lines_of(path):
    """The rows of a results file by column, for each image. All but idx and label are texts."""
    images = {}
    rows = read_rows(path, set(KEYS), lambda row: {**row, **{name: whole_number(row[name]) for name in KEYS}})
    for row in rows:
        images.setdefault(row["idx"], []).append(row)
    return images
