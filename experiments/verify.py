"""Check results files: bounds from their counts, hashes from their inputs, and some counts from their seeds.

Every line's bound, radius and class are computed again from its counts, and the file is compared with its sum in the
sidecar. The checkpoint and the data set are opened as the run opened them, and compared with what the sidecar says of
them, and the images' pixels with their sum in it. Then K images, chosen anew each time, are done over from their seeds,
and each of their numbers compared. What is changed by hand, in counts and all that follows from them, shows where the
image is among these K; --recount all does all of them over. Of a run with --budget, RESULTS.pilot is checked too; a
file that `qcrs-jax memory` made is made again of the one that it was made of. Times are not checked, and images that
the run might have ended before are not missed. It ends with status 2 where anything differs.

  qcrs-jax verify cifar_exp --recount 5
"""

import argparse
import json
import math
from pathlib import Path

from qcrs_jax.errors import UserError

CLOSE = 1e-9  # by which SciPy's functions may differ between machines
KEYS = ("idx", "label")
SUMS = {"sha256", "pixels_sha256", "sidecar_sha256"}
NEAR = dict.fromkeys(("mean", "deviation"), 1e-3)  # and what a pilot computes in float32, which no guarantee rests on


def add_arguments(parser):
    add = parser.add_argument
    add("results", metavar="RESULTS", nargs="+", type=Path)
    add(
        "--recount",
        type=count,
        default=2,
        metavar="K",
        help="images whose counts are drawn again, or all; 0 opens neither checkpoint nor data (default: 2)",
    )
    add("--checkpoint", type=Path, help="where the checkpoint is now (default: where it was)")
    add("--data_dir", type=Path, help="where the data set is now (default: where it was)")


def count(text: str) -> int | None:
    """The number of images that `text` stands for; None for all."""
    if text == "all":
        return None
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of images nor all")
    return int(text)


def run(args):
    for path in args.results:
        troubles = []
        for said in verify(path, args.recount, args.checkpoint, args.data_dir, troubles):
            print(f"{path}: {said}", flush=True)
        if troubles:
            raise UserError(f"{path}: is not what was computed:\n  " + "\n  ".join(troubles))
        print(f"{path}: verified")


def verify(path: Path, recount: int | None, checkpoint: Path | None, data_dir: Path | None, troubles: list):
    """Yields a line for each thing checked; what is wrong is appended to `troubles`.

    Raises:
        UserError: the file cannot be read, or what is needed for a check is not there.
    """
    from qcrs_jax.records import read_run, read_sidecar

    from .budget import pilot_path

    request = read_sidecar(path).get("request", {})
    if "memory" in request:
        yield from _memory(path, request["memory"], recount, checkpoint, data_dir, troubles)
        return
    if request.get("method") != "curve" and "pilot" not in request:
        run = read_run(path)
        if not all(record.counts for record in run.records):
            raise UserError(f"{path}: has no counts, from which anything could be computed again")
        if not request:
            raise UserError(f"{path}: has no sidecar, which tells n and alpha")
        for record in run.records:
            troubles += [f"image {record.idx}: {trouble}" for trouble in _bound_troubles(record, request)]
        yield f"{len(run.records)} lines, each compared with what follows from its counts"
    yield _check_whole(path, troubles)
    pilot = pilot_path(path)
    if "budget" in request and "pilot" not in request and (recount != 0 or pilot.exists()):
        found = []
        yield from (f"{pilot.name}: {said}" for said in verify(pilot, recount, checkpoint, data_dir, found))
        troubles += [f"{pilot.name}: {trouble}" for trouble in found]
    if recount == 0:
        yield "neither checkpoint nor data were opened"
        return
    yield from _inputs(path, request, recount, checkpoint, data_dir, troubles)


def _memory(path, made, recount, checkpoint, data_dir, troubles):
    """Checks the file that `path` was made of by memory, and makes it again."""
    import tempfile

    from qcrs_jax.records import checksum, read_sidecar

    from . import inputs as recorded
    from .memory import postprocess

    source = path.with_name(made["source"])
    if not source.exists():
        raise UserError(f"{path}: was made of {source.name}; put that beside it")
    if checksum(source) != made["source_sha256"]:
        troubles.append(f"{source.name} is not the file that it was made of: its sum is another")
        return
    found = []
    yield from (f"{source.name}: {said}" for said in verify(source, recount, checkpoint, data_dir, found))
    troubles += [f"{source.name}: {trouble}" for trouble in found]
    if recount == 0:
        yield f"its own lines were not compared with those of {source.name}, which takes the data"
        return
    args = recorded.recorded_arguments(source)
    with tempfile.TemporaryDirectory() as folder:
        again = Path(folder) / path.name
        postprocess(source, again, args.dataset, data_dir or args.data_dir, args.split, args.class_order)
        sidecars = [{name: read_sidecar(file)[name] for name in ("request", "said")} for file in (again, path)]
        if again.read_text() != path.read_text() or sidecars[0] != sidecars[1]:
            troubles.append(f"it is not what `qcrs-jax memory` makes of {source.name}")
    yield f"compared with what `qcrs-jax memory` makes of {source.name}"


def _check_whole(path, troubles):
    """Compares the file with its sum, and what the sidecar says of the guarantee with what it says of the run."""
    from qcrs_jax.records import checksum, read_sidecar, said_of, sidecar_checksum, sidecar_path

    sidecar = read_sidecar(path)
    said, due = sidecar["said"], said_of(sidecar["request"])
    if "arguments" not in sidecar["provenance"]:  # as of older versions, which said less
        due = {name: text for name, text in due.items() if name in said}
    if said != due:
        troubles.append(f"{sidecar_path(path).name}: what it says of the guarantee is not that of its request")
    if SUMS & sidecar.keys() not in (set(), {"sha256"}, SUMS):  # an older version knew but one
        troubles.append(f"{sidecar_path(path).name}: {', '.join(sorted(SUMS - sidecar.keys()))} was taken out of it")
    if "sidecar_sha256" in sidecar:
        content = json.loads(sidecar_path(path).read_text())
        if content["sidecar_sha256"] != sidecar_checksum(content):
            troubles.append(f"{sidecar_path(path).name} is not the one that was finished: its sum is another")
    if "sha256" not in sidecar:
        return "the run is not finished: the file has no sum yet"
    if sidecar["sha256"] != checksum(path):
        troubles.append("the file is not the one that was finished: its sum is another")
    return "file and sidecar, compared with their sums"


def _bound_troubles(record, request):
    """Where the record is not what follows from its counts."""
    try:
        made = _concluded(record, request)
    except (ValueError, IndexError, TypeError) as error:
        yield f"nothing follows from its counts: {error}"
        return
    for name, value in made.items():
        written = getattr(record, name)
        if written is None or not math.isclose(written, value, rel_tol=CLOSE, abs_tol=1e-300):
            yield f"{name} is {written}, and {value} by its counts and the request"


def _concluded(record, request) -> dict:
    """The fields of a record that follow from its counts, computed again."""
    import numpy as np

    from qcrs_jax import bounds, verdict
    from qcrs_jax.sequential import Sequential

    n, alpha, counts = request["n"], request["alpha"], (np.array(record.counts0 or ()), np.array(record.counts))
    if request["method"] == "predict":
        return {"predict": int(verdict.make_prediction(counts[1], n, alpha).prediction)}
    found = {}
    if request["method"] == "cohen":
        found["sigma"] = float(np.float32(request["sigma"]))
    if record.n is not None and not request.get("budget"):
        found["n"] = n
    if request.get("tolerance"):
        found["n"] = int(bounds.enough_table(request["n0"], n, alpha, request["tolerance"])[counts[0].max()])
    if request.get("stop_when_wrong") and np.argmax(counts[0]) != record.label:
        found["n"] = 0
    if request.get("certificate") == "soft":
        sums = (np.array(getattr(record, name)) for name in ("sums0", "sums", "squares"))
        made = verdict.make_soft_certificate(*counts, *sums, record.sigma, n, alpha)
        found["pb_upper"] = float(made.soft.pb_upper)
    elif request.get("sequential"):
        sequential = Sequential(**request["sequential"])
        looks = sequential.looks(n)
        if record.n not in looks:
            return {"n": looks[-1]}
        made = verdict.make_sequential_certificate(*counts, record.sigma, looks.index(record.n), sequential, n, alpha)
        found |= {"n": record.n, "radius_upper": float(made.radius_upper)}
        if made.robust is not None:
            found["robust"] = int(made.robust)
    elif request.get("bound") == "randomised":
        made = verdict.make_randomised_certificate(*counts, record.sigma, _n(record, request), alpha, record.u)
    else:
        made = verdict.make_certificate(*counts, record.sigma, _n(record, request), alpha)
    return {
        "predict": int(made.prediction),
        "radius": float(made.radius),
        "pa_lower": float(made.pa_lower),
        **found,
    }


def _n(record, request):
    return request["n"] if record.n is None else record.n


def _inputs(path, request, recount, checkpoint, data_dir, troubles):
    """Opens what the run opened, and does some images over."""
    import numpy as np

    from qcrs_jax.procedure import uniform, uniform_words
    from qcrs_jax.records import differences, read_sidecar

    from . import inputs as recorded
    from .runner import starter

    args = recorded.recorded_arguments(path)
    for name, value in (("checkpoint", checkpoint), ("data_dir", data_dir)):
        if value is not None:
            setattr(args, name, value)
    try:
        inputs = recorded.open_inputs(args)
    except UserError as error:
        raise UserError(
            f"{path}: what it was made of is not to be had: {error}\nGive --checkpoint and --data_dir where they are "
            "elsewhere now, or --recount 0 to check the bounds alone"
        ) from error
    indices, whole = recorded.indices_of(args, inputs.dataset)
    task = _task(path, args, request, len(whole))
    now = {**task.request, **inputs.circumstances, **recorded.shard_of(args, len(whole))}
    changed = differences(request, json.loads(json.dumps(now)), ("in the sidecar", "by the inputs"))
    troubles += changed
    yield "the configuration, the weights' and the data's hashes, compared with the inputs"
    lines, possible = _lines(path), recorded.continued(args, inputs.dataset, indices)
    troubles += [
        f"image {index}: is not one of the run's, with this label"
        for index, rows in lines.items()
        if index not in possible or any(row["label"] != inputs.dataset.labels[index] for row in rows)
    ]
    sidecar = read_sidecar(path)
    if "sha256" in sidecar:
        there, last = {*lines, *sidecar.get("left_out", ())}, max(lines, default=0)
        troubles += [f"image {i}: is missing" for i in possible if i < last and i not in there]
    if "pixels_sha256" in sidecar and not changed:
        try:
            digests = {i: recorded.digest(inputs.read(i)[0]) for i in lines if i in possible}
        except UserError as error:
            troubles.append(f"an image of the run cannot be read: {error}")
            return
        if recorded.digest_of_all(digests) != sidecar["pixels_sha256"]:
            troubles.append("the images are not those of the run: the sum of their pixels is another")
        yield f"the pixels of {len(digests)} images, compared with their sum"
    if changed:
        yield "no counts were drawn again: what they would be drawn from differs"
        return
    own = [index for index in possible if index in lines]
    unplanned = [index for index in own if not task.knows(index)]
    troubles += [f"image {index}: is not in the pilot" for index in unplanned]
    own = [index for index in own if index not in unplanned]
    troubles += _plan_troubles(task, request, lines, own)
    if request.get("bound") == "randomised" and "pilot" not in request:
        for index, u in zip(own, uniform(uniform_words(inputs.keys(own))).tolist()):
            written = lines[index][0]["u"]
            troubles += [f"image {index}: u is {written}, and {u} by its seed"] * (written != repr(u))
    chosen = own if recount is None else sorted(np.random.default_rng().permutation(own)[:recount].tolist())
    start = starter(task, inputs, chosen, together=1)
    for index in chosen:
        image, label = inputs.read(index)
        (answer,) = start([(index, image, label)], inputs.batch)()
        columns = tuple(lines[index][0])
        records = task.records(index, label, 0.0, answer)
        if len(records) != len(lines[index]):
            troubles.append(f"image {index}: has {len(lines[index])} lines, and {len(records)} when it is drawn again")
        for record, row in zip(records, lines[index]):
            again = dict(zip(columns, record.line(columns).rstrip("\n").split("\t")))
            troubles += [
                f"image {index}: {name} is {row[name]}, and {again[name]} when it is drawn again"
                for name in columns
                if name != "time" and not _same(row[name], again[name], NEAR.get(name, CLOSE))
            ]
        yield f"image {index} drawn again"


def _plan_troubles(task, request, lines, indices):
    """Where sigma and n are not those that the pilot gives an image."""
    import numpy as np

    from qcrs_jax.records import parse_counts

    known = task.own(indices, [lines[index][0]["label"] for index in indices])
    for column, name in (("best_sigma", "sigma"), ("n", "n")):
        for index, value in zip(indices, known.get(name, ())):
            (row,) = lines[index]
            if name == "n" and request.get("stop_when_wrong"):
                value *= np.argmax(parse_counts(row["counts0"])) == row["label"]
            if float(row[column]) != value:
                yield f"image {index}: {column} is {row[column]}, and {value} by the pilot"


def _same(written, again, close):
    try:
        return written == again or math.isclose(float(written), float(again), rel_tol=close, abs_tol=1e-300)
    except ValueError:  # counts
        return False


def _lines(path):
    """The rows of a results file by column, of each image; all but idx and label is text."""
    from qcrs_jax.records import read_rows

    images = {}
    for row in read_rows(path, {"idx", "label"}, lambda row: {**row, **{name: int(row[name]) for name in KEYS}}):
        images.setdefault(row["idx"], []).append(row)
    return images


def _task(path, args, request, images):
    """What the run did at each image."""
    from . import budget, certify, curve, predict
    from .request import check, request_of

    if request["method"] == "curve":
        return curve.task(curve.check(args), args)
    if request["method"] == "predict":
        predict.check(args)
        return predict.task(args)
    asked = request_of(check(args), images, args)
    if "pilot" in request:
        return budget.pilot_task(asked)
    return certify.task(asked, budget.planned(asked, budget.pilot_path(path)) if asked.budget else None)
