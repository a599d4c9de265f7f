"""Check results files: bounds from their counts, hashes from their inputs, and some counts from their seeds.

Every line's bound, radius and class are computed again from its counts, and the file is compared with its sum in the
sidecar. The checkpoint and the data set are opened as the run opened them, and compared with what the sidecar says of
them, and the images' pixels with their sum in it. Then K images, chosen anew each time, are done over from their seeds,
and each of their numbers compared. What is changed by hand, in counts and all that follows from them, shows where the
image is among these K; the output says how likely that is. --recount all does all of them over.

RESULTS may be a folder: then each results file in it is checked. Of a run with --budget, RESULTS.pilot is checked too.
A file that `qcrs-jax memory` made is made again of the one that it was made of. A log without counts is checked as far
as it can be, and the output says what was not checked. Times are not checked, and images that the run might have ended
before are not missed.

Another program or device may put a copy that is nearly a tie into another class. The output says how many copies of an
image moved. They are accepted where they are at most 2 copies (and at most 1 in 100), or at most 0.1% of the copies and
the radius is the same within 1%; the class has to be the same, and over all lines they must not lean to the certified
class. Where a search went another way, the counts at the file's own sigma are compared so, and the radius of the search
here is the same within 3%.

It ends with status 2 where anything differs by more, or where lines were to be drawn again and could not be.

  qcrs-jax verify cifar_exp --recount 5
  qcrs-jax verify cifar_exp --confidence 95% --forged 5%
"""

import argparse
import dataclasses
import json
import math
import time
from pathlib import Path

from qcrs_jax.errors import UserError

from .arguments import share
from .choice import Choice, duration
from .near_ties import RULE, compare_certificates, compare_pilots, compare_points, leaning
from .uncounted import check_uncounted

CLOSE = 1e-9  # by which SciPy's functions may differ between machines
KEYS = ("idx", "label")
SUMS = {"sha256", "pixels_sha256", "sidecar_sha256"}
NEAR = dict.fromkeys(("mean", "deviation"), 1e-3)  # and what a pilot computes in float32, which no guarantee rests on
RECOUNT = 2


def add_arguments(parser):
    add = parser.add_argument
    add("results", metavar="RESULTS", nargs="+", type=Path, help="results files, or folders of them")
    add(
        "--recount",
        type=count,
        metavar="K",
        help="images whose counts are drawn again, or all; 0 opens neither checkpoint nor data (default: 2)",
    )
    add(
        "--confidence",
        type=share,
        metavar="C",
        help="instead of --recount: draw so many images again that a forged one is among them with probability C, as "
        "95%% or 0.95, where a share --forged of them is forged",
    )
    add("--forged", type=share, metavar="S", help="goes with --confidence: the share, as 5%% or 0.05")
    add(
        "--recount_seed",
        type=int,
        metavar="SEED",
        help="chooses the images that are drawn again (default: a fresh one each time, which is printed)",
    )
    add("--checkpoint", type=Path, help="where the checkpoint is now (default: where it was)")
    add("--data_dir", type=Path, help="where the data set is now (default: where it was)")
    add = parser.add_argument_group("logs of other programs, which have no sidecar").add_argument
    add("--sigma", type=float, help="noise level of all images, where the log has no column of sigmas")
    add("--N", type=int, help="samples for each certificate")
    add("--alpha", type=float, help="failure probability of each certificate")


def count(text: str) -> int | float:
    """The number of images that `text` stands for; infinite for all."""
    if text == "all":
        return math.inf
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of images nor all")
    return int(text)


def run(args):
    checks = Checks(_choice(args), args.recount is not None or args.confidence is not None, args)
    paths, failed = list(results_files(args.results)), []
    for path in paths:
        try:
            checks.check(path)
        except UserError as error:
            if len(paths) == 1:
                raise
            failed.append(path)
            print(f"{error if str(path) in str(error) else f'{path}: {error}'}", flush=True)
    if len(paths) > 1:
        print(f"{len(paths) - len(failed)} of {len(paths)} files passed what is said of each above")
    if failed:
        raise UserError(f"{len(failed)} of {len(paths)} files did not pass: {', '.join(map(str, failed))}")


def _choice(args) -> Choice:
    """The lines that are to be drawn again; raises UserError for flags that do not go together."""
    if (args.confidence is None) != (args.forged is None):
        raise UserError(
            "--confidence and --forged go together: the one says how surely, the other how many forged lines"
        )
    if args.confidence is not None and args.recount is not None:
        raise UserError("--recount says how many images are drawn again, and so does --confidence; give one of them")
    if args.confidence is not None and not (0 < args.confidence <= 1 and 0 < args.forged <= 1):
        raise UserError(
            f"--confidence {args.confidence:g}, --forged {args.forged:g}: both lie above 0 and up to 1, as 95% and 5%"
        )
    return Choice(RECOUNT if args.recount is None else args.recount, args.confidence, args.forged, args.recount_seed)


def results_files(paths):
    """Yields the files of `paths`, and of a folder the results files below it; raises UserError where it has none."""
    from qcrs_jax.files import reading
    from qcrs_jax.records import is_results

    for path in paths:
        if not path.is_dir():
            yield path
            continue
        with reading(path):
            visible = [
                f for f in sorted(path.rglob("*")) if not any(p.startswith(".") for p in f.relative_to(path).parts)
            ]
        found = [file for file in visible if file.is_file() and is_results(file)]
        if not found:
            raise UserError(f"{path}: has no results files")
        yield from found


@dataclasses.dataclass
class Found:
    """What the checks of one file came to.

    troubles: what is wrong.
    lines, drawn: images of the file, and how many were drawn again; by_rule: how many of these had copies that moved.
    agree: what all lines agree with.
    one: what a line is called: of curves an image has several.
    words: the verdict, where it is none about counts.
    """

    troubles: list = dataclasses.field(default_factory=list)
    lines: int = 0
    drawn: int = 0
    by_rule: int = 0
    agree: str = "their counts"
    one: str = "line"
    words: str = ""

    def verdict(self) -> str:
        """What was done, in words; nothing is called verified that was not drawn again."""
        if self.words:
            return self.words
        if not self.drawn:
            return (
                f"consistent: its {self.lines} {self.one}s agree with {self.agree}; nothing was opened or drawn again"
            )
        how = f", {self.by_rule} of them by the rule for near ties," if self.by_rule else ""
        if self.drawn == self.lines:
            return f"all {self.lines} {self.one}s were drawn again{how} and verified"
        return (
            f"its {self.lines} {self.one}s agree with {self.agree}; {self.drawn} of them drawn again{how} and verified"
        )


@dataclasses.dataclass
class Checks:
    """What is checked of each file.

    choice: the lines that are drawn again.
    asked: whether the user asked for some. Then a log of which none can be drawn is refused.
    args: where the inputs are now, and the numbers of logs without a sidecar.
    """

    choice: Choice
    asked: bool
    args: argparse.Namespace

    def check(self, path: Path) -> None:
        """Prints what is found out of one file.

        Raises:
            UserError: it is not what was computed, or something that a check needs is not there.
        """
        found = Found()
        for said in self.verify(path, found):
            print(f"{path}: {said}", flush=True)
        if found.troubles:
            raise UserError(f"{path}: is not what was computed:\n  " + "\n  ".join(found.troubles))
        print(f"{path}: {found.verdict()}")

    def verify(self, path: Path, found: Found):
        """Yields a line for each thing checked; what is wrong is appended to `found.troubles`.

        Raises:
            UserError: the file cannot be read, or what is needed for a check is not there.
        """
        from qcrs_jax.records import read_run, read_sidecar

        from .budget import pilot_path

        sidecar = read_sidecar(path)
        request, troubles = sidecar.get("request", {}), found.troubles
        if "memory" in request:
            yield from _memory(path, request["memory"], self, found)
            return
        if request:
            yield summary(sidecar)
        if request.get("method") != "curve" and "pilot" not in request:
            run = read_run(path)
            found.lines = len(run.records)
            if not request or not all(record.counts for record in run.records):
                yield from self._uncounted(path, run, found)
                return
            for record in run.records:
                troubles += [f"image {record.idx}: {trouble}" for trouble in _bound_troubles(record, request)]
            yield f"{len(run.records)} lines, each compared with what follows from its counts"
        else:
            images = _lines(path)
            found.lines, found.agree = len(images), "its sum"
            if request["method"] == "curve":
                troubles += _curve_troubles(images, request)
                found.agree, found.one = "its settings", "image"
        yield _check_whole(path, troubles)
        earlier = _earlier(sidecar)
        if earlier:
            yield earlier
        pilot = pilot_path(path)
        if "budget" in request and "pilot" not in request and (self.choice.draws or pilot.exists()):
            of_pilot = Found()
            yield from (f"{pilot.name}: {said}" for said in self.verify(pilot, of_pilot))
            troubles += [f"{pilot.name}: {trouble}" for trouble in of_pilot.troubles]
        if not self.choice.draws:
            yield (
                f"0 of {found.lines} {found.one}s drawn again: forged counts would not be found; neither checkpoint "
                "nor data were opened"
            )
            estimate = _recorded_time(path, request)
            if estimate and not earlier:
                yield _whole_time(found.lines, [], estimate)
            return
        if earlier:
            raise UserError(
                "\n  ".join([f"{path}: no line can be drawn again: {earlier}", *troubles])
                + "\n--recount 0 checks its lines alone"
            )
        yield from _inputs(path, request, self, found)

    def _uncounted(self, path, run, found):
        """The checks of a file without counts, or without a sidecar that says of how many samples they are."""
        request, found.agree = run.request, "each other as far as could be checked"
        if self.asked and self.choice.draws:
            raise UserError(
                f"{path}: has no counts, or no sidecar that says how they were drawn: no line can be drawn again; "
                "--recount 0 checks what can be"
            )
        numbers = {"sigma": self.args.sigma, "n": self.args.N, "alpha": self.args.alpha}
        if request.get("method") == "cohen":
            numbers["sigma"] = request["sigma"]
        numbers |= {name: request[name] for name in ("n", "alpha") if name in request}
        yield from check_uncounted(path, run, numbers, found.troubles)
        if request:
            yield _check_whole(path, found.troubles)


def summary(sidecar: dict) -> str:
    """What a file is of: method, sigma, samples, alpha, images, seed, network, and the program that wrote it."""
    try:
        return _summary(sidecar["request"], sidecar["provenance"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return f"its sidecar does not say what it is of: {error!r}"


def _summary(request, provenance):
    name = {"cohen": "Cohen's certificates", "ddrs": "DDRS", "predict": "predictions", "curve": "curves R(sigma)"}.get(
        request.get("method"), ""
    )
    settings = request.get("qcrs") or request.get("ddrs") or {}
    if request.get("qcrs"):
        name = f"QCRS {settings['search']}"
    if "pilot" in request:
        name += ", pilot"
    said = [name, f"sigma {request['sigma']:g}"] if "sigma" in request else [name]
    if "sigma_lower" in settings:
        said[-1] += f" in a bracket of {settings['sigma_lower']:g} to {settings['sigma_upper']:g}"
    said += [
        f"{label} = {request[key]:g}" for key, label in (("n0", "N0"), ("n", "N"), ("alpha", "alpha")) if key in request
    ]
    for key in ("tolerance", "certificate", "bound", "stop_when_wrong"):
        if request.get(key):
            said.append(key if request[key] is True else f"{key} {request[key]}")
    for key, inside in (("sequential", ("decide", "precision")), ("budget", ("mean",)), ("shard", ("part", "of"))):
        if request.get(key):
            said.append(key + "".join(f" {n} {request[key][n]}" for n in inside if request[key].get(n) is not None))
    if request.get("simultaneous"):
        said[-1] += f" ({request['simultaneous']['alpha']:g} for all {request['simultaneous']['images']} images)"
    data, network = request.get("dataset", {}), request.get("classifier", {})
    if data:
        said.append(f"images 0, {request.get('skip', 1)}, ... of {data['name']} ({data['split']})")
    if "seed" in request:
        said.append(f"seed {request['seed']}")
    if network:
        said.append(f"network {network.get('arch')}, weights {network['weights_sha256'][:12]}")
    versions = provenance.get("versions", {})
    by = ", ".join(f"{name} {versions[name]}" for name in ("qcrs_jax", "jax") if name in versions)
    device = provenance.get("devices", "an unnamed device")
    return f"holds {', '.join(said)}; written by {by or 'an unnamed program'} on {device}"


def _earlier(sidecar) -> str | None:
    """Why nothing of a file of an earlier version can be drawn again; None for a file of this one."""
    from qcrs_jax.noise import recorded

    request = sidecar["request"]
    if "arguments" in sidecar["provenance"] or "memory" in request:
        return None
    said = "it is of an earlier version, which did not record how the run was started"
    if request.get("noise") not in map(recorded, ("threefry", "rbg")):
        said += f", and whose noise ({request.get('noise')}) is not drawn any more"
    return said


def _recorded_time(path, request) -> float:
    """The seconds that all images took by the file's own times; 0 where it has none."""
    from qcrs_jax.records import parse_seconds

    try:
        seconds = [parse_seconds(rows[0].get("time")) for rows in _lines(path).values()]
    except ValueError:
        return 0.0
    return sum((s for s in seconds if s == s), 0.0)


def _curve_troubles(images, request):
    """Where a line of a curve is not of the sigmas and the samples of the request."""
    from qcrs_jax.records import parse_counts

    for index, rows in images.items():
        for row in rows:
            try:
                counts, sigma = parse_counts(row["counts"]), float(row["sigma"])
            except (KeyError, ValueError) as error:
                yield f"image {index}: not a line of a curve: {error}"
                continue
            if not 0 <= min(counts) <= sum(counts) <= request["n"] or sigma not in request["sigmas"]:
                yield f"image {index}: sigma {sigma:g} with {sum(counts)} samples is not of the run"


def _memory(path, made, checks, found):
    """Checks the file that `path` was made of by memory, and makes it again."""
    import tempfile

    from qcrs_jax.records import checksum, read_sidecar

    from . import inputs as recorded
    from .memory import postprocess

    troubles, source = found.troubles, path.with_name(made["source"])
    if not source.exists():
        raise UserError(f"{path}: was made of {source.name}; put that beside it")
    if checksum(source) != made["source_sha256"]:
        troubles.append(f"{source.name} is not the file that it was made of: its sum is another")
        return
    of_source = Found()
    yield from (f"{source.name}: {said}" for said in checks.verify(source, of_source))
    troubles += [f"{source.name}: {trouble}" for trouble in of_source.troubles]
    if not checks.choice.draws or not read_sidecar(source):
        found.words = f"its own lines were compared with nothing; {source.name} is {of_source.verdict()}"
        yield f"its own lines were not compared with those of {source.name}, which takes the data that this was made of"
        return
    found.words = f"it is what `qcrs-jax memory` makes of {source.name}, of which {of_source.verdict()}"
    args = recorded.recorded_arguments(source)
    with tempfile.TemporaryDirectory() as folder:
        again = Path(folder) / path.name
        data_dir = checks.args.data_dir or args.data_dir
        postprocess(source, again, args.dataset, data_dir, args.split, args.class_order)
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
    if "sha256" not in sidecar and "arguments" not in sidecar["provenance"]:
        return "no sums are recorded, as files of an earlier version have none: whether it is whole cannot be told"
    if "sha256" not in sidecar:
        return "the run is not finished: the file has no sum yet"
    if sidecar["sha256"] != checksum(path):
        troubles.append("the file is not the one that was finished: its sum is another")
    if "sidecar_sha256" not in sidecar:
        return (
            "the file, compared with its sum; none is recorded of pixels and sidecar, as of files of an earlier version"
        )
    return "file and sidecar, compared with their sums"


def _bound_troubles(record, request):
    """Where the record is not what follows from its counts."""
    try:
        made = _concluded(record, request)
    except (ValueError, IndexError, TypeError, KeyError) as error:
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


def _inputs(path, request, checks, found):
    """Opens what the run opened, and does some images over."""
    from qcrs_jax.procedure import uniform, uniform_words
    from qcrs_jax.records import COLUMNS, OPTIONAL_COLUMNS, differences, read_sidecar

    from . import inputs as recorded

    args, troubles = recorded.recorded_arguments(path), found.troubles
    for name in ("checkpoint", "data_dir"):
        if (value := getattr(checks.args, name)) is not None:
            setattr(args, name, value)
    try:
        inputs = recorded.open_inputs(args)
    except UserError as error:
        raise UserError(
            f"{path}: what it was made of is not to be had: {error}\nGive --checkpoint and --data_dir where they are "
            "elsewhere now, or --recount 0 to check the bounds alone"
        ) from error
    indices, whole = recorded.indices_of(args, inputs.dataset)
    asked, task = _task(path, args, request, len(whole))
    now = {**task.request, **inputs.circumstances, **recorded.shard_of(args, len(whole))}
    now, then = json.loads(json.dumps(now)), dict(request)
    if args.prng == "threefry" and (here := now.get("platform")) != (there := then.get("platform")):
        then["platform"] = here  # the noise is the same everywhere
        yield f"platform: {there} in the file, {here} here, where near ties may fall otherwise"
    changed = differences(then, now, ("in the sidecar", "by the inputs"))
    troubles += changed
    yield "the configuration, the weights' and the data's hashes, compared with the inputs"
    yield from _other_programs(read_sidecar(path)["provenance"], inputs.provenance)
    lines, possible = _lines(path), recorded.continued(args, inputs.dataset, indices)
    known, header = {*COLUMNS, *OPTIONAL_COLUMNS}, {name for rows in lines.values() for name in rows[0]}
    if lines and not set(columns := task.file.get("columns", COLUMNS)) <= header <= {*known, *columns}:
        troubles.append(f"its first line is not that of such a run, {' '.join(columns)}")
        return
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
    yield from _drawn_again(path, request, task, asked, inputs, {index: lines[index] for index in own}, checks, found)


def _other_programs(then, now):
    """Says which versions and devices draw the lines again, where they are not those that wrote the file."""
    parts = []
    for name in ("jax", "jaxlib"):
        before, here = (provenance.get("versions", {}).get(name) for provenance in (then, now))
        parts += [f"{name} {here}"] * (before != here)
    if then.get("devices") != now["devices"]:
        parts.append(now["devices"])
    if parts:
        yield f"here are {', '.join(parts)}, which may round near ties otherwise"


def _drawn_again(path, request, task, asked, inputs, lines, checks, found):
    """Draws some lines again, and compares them."""
    from .runner import starter

    chosen, seed = checks.choice.choose(lines)
    estimate = _recorded_time(path, request) * len(chosen) / max(len(lines), 1)
    about = (
        f"; that takes about {duration(estimate)} by the times in the file, and what compiling takes"
        if estimate
        else ""
    )
    given = ", which was given," if checks.choice.seed is not None else ""
    names = f"images {', '.join(map(str, chosen))}" if len(chosen) <= 20 else f"{len(chosen)} images"
    yield f"to be drawn again: {names}, chosen by seed {seed}{given} of --recount_seed{about}"
    written = _typed(path, request)
    start = starter(task, inputs, chosen, together=1)
    seconds, gains, before = [], [], len(found.troubles)
    for index in chosen:
        image, label = inputs.read(index)
        started = time.perf_counter()
        (answer,) = start([(index, image, label)], inputs.batch)()
        records = task.records(index, label, 0.0, answer)
        seconds.append(time.perf_counter() - started)
        if len(records) != len(lines[index]):
            found.troubles.append(
                f"image {index}: has {len(lines[index])} lines, and {len(records)} when it is drawn again"
            )
            continue
        differing = list(_differing(index, records, lines[index]))
        if not differing:
            yield f"image {index} drawn again: the same"
            continue
        comparison = _compare(request, asked, inputs, index, image, label, written[index], records)
        gains.append(comparison.gain)
        yield f"image {index} drawn again: {comparison}"
        if comparison.troubles:
            found.troubles += differing
            found.troubles += [f"image {index}: {comparison}: {trouble}" for trouble in comparison.troubles]
        else:
            found.by_rule += 1
    if trouble := leaning(gains):
        found.troubles.append(trouble)
    if found.by_rule or len(found.troubles) > before:
        yield RULE
    found.drawn = len(chosen)
    yield checks.choice.power(len(lines), found.one) + (
        "; of a seed that the maker of the file knew this does not hold" if checks.choice.seed is not None else ""
    )
    if 0 < len(chosen) < len(lines):
        yield _whole_time(len(lines), seconds, _recorded_time(path, request))


def _whole_time(lines, seconds, recorded):
    """What it takes to draw all lines again, in words: the first that is drawn has its program compiled."""
    if len(seconds) > 1:
        rest = seconds[1:]
        return (
            f"--recount all takes about {duration(lines * sum(rest) / len(rest))}, by the time of the last {len(rest)}"
        )
    if recorded:
        return f"--recount all takes about {duration(recorded)} by the times in the file, and what compiling takes"
    return f"--recount all takes less than {duration(lines * seconds[0])}, by the time of the first, with its compiling"


def _differing(index, records, rows):
    """What differs, number by number, between what was drawn now and the lines of the file."""
    for record, row in zip(records, rows):
        columns = tuple(name for name in row if name != "time")
        again = dict(zip(columns, record.line(columns).rstrip("\n").split("\t")))
        for name in columns:
            if not _same(row[name], again[name], NEAR.get(name, CLOSE)):
                yield f"image {index}: {name} is {row[name]}, and {again[name]} when it is drawn again"


def _compare(request, asked, inputs, index, image, label, written, records):
    """The `near_ties.Comparison` of the records of one image with those drawn now."""
    if request["method"] == "curve":
        return compare_points(written, records, request["n"])
    if "pilot" in request:
        return compare_pilots(written[0], records[0])

    def at_its_sigma():
        from qcrs_jax import Fixed, conclude

        from . import certify
        from .runner import one_record

        estimate = Fixed() if asked.estimate.votes_beta is None else asked.estimate
        n = max(written[0].n or asked.n if written[0].n is not None else asked.n, 1)
        plain = dataclasses.replace(
            asked,
            method="cohen",
            sigma=written[0].sigma,
            n=n,
            alpha=0.5,
            qcrs=None,
            ddrs=None,
            estimate=estimate,
            budget=None,
            stop_when_wrong=False,
        )
        (key,) = inputs.keys([index])
        made = conclude(certify.draw_image(plain, inputs.classify, image, key=key, **inputs.program))
        return one_record(index, label, 0.0, certify.fields(plain, made))[0]

    return compare_certificates(written[0], records[0], at_its_sigma, request)


def _typed(path, request) -> dict:
    """The lines of a file by image, as objects."""
    from qcrs_jax.curves import read_points
    from qcrs_jax.records import read_run

    from .budget import read_pilots

    found = {}
    if request["method"] == "curve":
        read = read_points(path)
    else:
        read = read_pilots(path) if "pilot" in request else read_run(path).records
    for record in read:
        found.setdefault(record.idx, []).append(record)
    return found


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
    """The run's `request.Request`, None for curves and predictions, and what it did at each image."""
    from . import budget, certify, curve, predict
    from .request import check, request_of

    if request["method"] == "curve":
        return None, curve.task(curve.check(args), args)
    if request["method"] == "predict":
        predict.check(args)
        return None, predict.task(args)
    asked = request_of(check(args), images, args)
    if "pilot" in request:
        return asked, budget.pilot_task(asked)
    return asked, certify.task(asked, budget.planned(asked, budget.pilot_path(path)) if asked.budget else None)
