"""`qcrs-jax verify`: opens the inputs of a run, and draws some of its lines again."""

import dataclasses
import json
import math
import time
from pathlib import Path

import numpy as np

from qcrs_jax import Fixed, conclude
from qcrs_jax.errors import SettingError, UserError, text_of
from qcrs_jax.results.records import differences, is_cascade, read_sidecar, sidecar_path
from qcrs_jax.results.rows import parse_counts
from qcrs_jax.sampling.devices import choose_devices
from qcrs_jax.sampling.streams import uniform, uniform_words
from qcrs_jax.search import FixedSigma

from ..run import attack, cascade, certify, curve, pilot, predict
from ..run.answers import draw_image, fields, one_record
from ..run.cascade import CascadeRequest
from ..run.file_names import name_troubles, named
from ..run.inputs import digest, digest_of_all, open_inputs
from ..run.request import Request
from ..run.runner import starter
from ..run.settings import Program, Sweep
from .attacks import ATTACK_RULE, compare_attacks
from .choice import duration
from .lines import differing_fields, lines_of, recorded_time, typed_lines
from .near_ties import (
    NUDGE,
    compare_cascades,
    compare_certificates,
    compare_pilots,
    compare_points,
    leaning,
    of_fewer_samples,
    rule_for,
)
from .nudge import draws_nearby
from .trusted_paths import Where, use_paths

MOST_SAMPLES = 10**8  # of an image; more would take hours on any machine
MOST_TABLE = 10**7  # entries of the tables that selection and search look up


def recorded_sweep(path: Path, where: Where) -> Sweep:
    """The settings with which the run in the file `path` was started, for this machine, with paths that may be opened.

    Raises:
        UserError: the sidecar does not record them, or names a path that is not opened.
    """
    sidecar = read_sidecar(path)
    recorded = sidecar["provenance"].get("settings")
    if not recorded:
        raise UserError(
            f"{sidecar_path(path)}: does not record how the run was started, as in all files of earlier versions; "
            "--recount 0 checks the bounds"
        )
    try:
        sweep = Sweep.of(recorded)
    except SettingError as error:
        raise UserError(
            f"{sidecar_path(path)}: not the sidecar of a run: {error}"
        ) from error  # names of settings, not of flags
    data = dataclasses.replace(sweep.data, on_error="skip")  # a damaged image must not stop the others
    if data.class_order is not None:  # the file with the order may have moved
        data = dataclasses.replace(data, class_order=sidecar["request"]["dataset"]["class_names"])
    here = choose_devices()[0].platform  # and not of jax.default_backend(), which would start JAX on one CPU device
    like_here = sidecar["request"].get("platform", "").startswith(f"{here},")
    program = Program(batch_size=sidecar["provenance"].get("batch") if like_here else None)  # a GPU's slows down a CPU
    sweep = dataclasses.replace(sweep, data=data, program=program, results=path)
    return use_paths(sweep, path, where)


def check_inputs(path, request, checks, found):
    """Opens the inputs of the run, and computes some images again."""
    troubles = found.troubles
    _check_effort(path, request)
    sweep = recorded_sweep(path, checks.where)
    try:
        inputs = (checks.where.inputs or open_inputs)(sweep)
    except UserError as error:
        raise UserError(
            f"{path}: its classifier or its data cannot be opened: {text_of(error)}\nIf they have moved, give "
            "--checkpoint, --denoiser and --data_dir; --recount 0 checks the bounds without them"
        ) from error
    indices, whole = sweep.images.of(len(inputs.dataset))
    asked, task = _run_task(path, request, sweep.images, len(whole))
    now = inputs.request(task.request, sweep.images, len(whole))
    inputs = inputs.seeded(now)
    now, then = json.loads(json.dumps(now)), dict(request)
    if sweep.noise.prng == "threefry" and (here := now.get("platform")) != (there := then.get("platform")):
        then["platform"] = here  # threefry draws the same noise on every platform
        yield f"platform: {there} in the file, {here} here: near ties may fall into other classes"
    changed = differences(then, now, ("in the sidecar", "by the inputs"))
    troubles += changed
    yield "the configuration, and the hashes of weights and data, compared with the inputs"
    sidecar = read_sidecar(path)
    yield from _other_programs(sidecar["provenance"], inputs.provenance)
    lines, possible = lines_of(path), sweep.images.extended(len(inputs.dataset), indices)
    troubles += [
        f"image {index}: is not an image of the run, or has another label"
        for index, rows in lines.items()
        if index not in possible or any(row["label"] != inputs.dataset.labels[index] for row in rows)
    ]
    troubles += name_troubles(lines, inputs.dataset)
    yield from _check_left_out(sidecar, inputs, lines, indices, possible, troubles)
    if "pixels_sha256" in sidecar and not changed:
        try:
            digests = {i: digest(inputs.read(i)[0]) for i in lines if i in possible}
        except UserError as error:
            troubles.append(f"an image of the run cannot be read: {error}")
            return
        if digest_of_all(digests) != sidecar["pixels_sha256"]:
            troubles.append("the images are not those of the run: the hash of their pixels differs")
        yield f"the pixels of {len(digests)} images, compared with their hash"
    if changed:
        yield "no counts were drawn again, because the inputs differ"
        return
    own = [index for index in possible if index in lines]
    unplanned = [index for index in own if not task.knows(index)]
    troubles += [f"image {index}: is not in the pilot" for index in unplanned]
    own = [index for index in own if index not in unplanned]
    troubles += _plan_troubles(task, request, lines, own)
    if asked is not None and asked.estimate.randomises and request["kind"] != "pilot":
        for index, u in zip(own, uniform(uniform_words(inputs.keys(own))).tolist()):
            written = lines[index][0]["u"]
            troubles += [f"image {index}: u is {written}, but {u} by its seed"] * (written != repr(u))
    rule = rule_for(request, sidecar["provenance"], now, inputs.provenance)
    own = {index: lines[index] for index in own}
    yield from _draw_again(path, request, task, asked, inputs, own, checks, found, rule)


def _check_effort(path, request):
    """Raises UserError if drawing one image again would take hours, or more memory than there is."""
    search, of = request.get("search", {}), request.get("attack", {})
    names = ("attempts", "restarts", "steps", "draws")
    for name, number, most in (
        (
            "attack: attempts times restarts times steps times draws",
            math.prod(of.get(name, 1) for name in names),
            MOST_SAMPLES,
        ),
        ("attack.rule_n", of.get("rule_n", 0), MOST_SAMPLES),
        ("n", request["n"], MOST_SAMPLES),
        ("n0", request.get("n0", 0), MOST_TABLE),
        ("search.search_n", search.get("search_n", 0), MOST_TABLE),
        ("search.draws", search.get("draws", 0), MOST_TABLE),
    ):
        if number > most:
            raise UserError(
                f"{path}: its sidecar asks for {name} = {number}. Lines with more than {most} are not drawn again, "
                "because each would take hours. --recount 0 checks the lines without drawing any"
            )


def _check_left_out(sidecar, inputs, lines, indices, possible, troubles):
    """Reads the images without a line again: one that can be read was dropped.

    The run was started for `indices`. It may have continued to others of `possible`. An unfinished run may end
    anywhere.
    """
    left_out, last = set(sidecar.get("left_out", ())), max(lines, default=0)
    troubles += [f"image {i}: is left out, and has a line" for i in sorted(left_out & lines.keys())]
    troubles += [
        f"image {i}: is left out, and is not an image of the run" for i in sorted(left_out) if i not in possible
    ]
    finished = "sha256" in sidecar
    without = [i for i in possible if i not in lines and (i < last or i in left_out or finished and i in indices)]
    unread = 0
    for index in without:
        try:
            inputs.read(index)
        except UserError:
            unread += 1
            if finished and index not in left_out:
                troubles.append(f"image {index}: is missing")
            continue
        said = "is left out, though it can be read" if index in left_out else "is missing"
        troubles.append(f"image {index}: {said}")
    if without:
        yield f"{len(without)} images without a line, read again: {unread} of them cannot be read"


def _other_programs(then, now):
    """Reports the versions and devices that draw the lines again, if they differ from those that wrote the file."""
    parts = []
    for name in ("jax", "jaxlib"):
        before, here = (provenance.get("versions", {}).get(name) for provenance in (then, now))
        parts += [f"{name} {here}"] * (before != here)
    if then.get("devices") != now["devices"]:
        parts.append(now["devices"])
    if parts:
        yield f"this machine has {', '.join(parts)}: near ties may be rounded differently"


def _draw_again(path, request, task, asked, inputs, lines, checks, found, rule):
    """Draws some lines again, and compares them."""
    chosen, seed = checks.choice.choose(lines)
    estimate = recorded_time(path, request) * len(chosen) / max(len(lines), 1)
    about = f"; that takes about {duration(estimate)} by the times in the file, and compilation" if estimate else ""
    given = " (given)" if checks.choice.seed is not None else ""
    names = f"images {', '.join(map(str, chosen))}" if len(chosen) <= 20 else f"{len(chosen)} images"
    yield f"to be drawn again: {names}, chosen by seed {seed}{given} of --recount_seed{about}"
    written = typed_lines(path, request)
    start = starter(task, inputs, chosen, together=1)
    seconds, gains, missing, before = [], [], [], len(found.troubles)
    for index in chosen:
        image, label = inputs.read(index)
        started = time.perf_counter()
        (answer,) = start([(index, image, label)], inputs.batch)()
        records = named(task.records(index, label, 0.0, answer), inputs.dataset, index)
        seconds.append(time.perf_counter() - started)
        if len(records) != len(lines[index]):
            found.troubles.append(f"image {index}: has {len(lines[index])} lines, but {len(records)} when drawn again")
            continue
        differing = list(differing_fields(index, records, lines[index]))
        if not differing:
            yield f"image {index} drawn again: the same"
            missing.append(0)
            continue
        comparison = _compare(request, task, asked, inputs, index, image, label, written[index], records, rule)
        gains.append(comparison.gain)
        missing.append(comparison.missing)
        yield f"image {index} drawn again: {comparison}"
        if comparison.troubles:
            found.troubles += differing
            found.troubles += [f"image {index}: {comparison}: {trouble}" for trouble in comparison.troubles]
        else:
            found.by_rule += 1
    found.troubles += [trouble for trouble in (leaning(gains), of_fewer_samples(missing)) if trouble]
    if found.by_rule or len(found.troubles) > before:
        yield ATTACK_RULE if request["kind"] == "attacks" else str(rule)
    found.drawn = len(chosen)
    yield checks.choice.power(len(lines), found.one) + (
        "; not so if the maker of the file knew the seed" if checks.choice.seed is not None else ""
    )
    if 0 < len(chosen) < len(lines):
        yield time_of_all(len(lines), seconds, recorded_time(path, request))


def time_of_all(lines, seconds, recorded):
    """A sentence on the time that drawing all lines again would take. The first line includes compilation."""
    if len(seconds) > 1:
        rest = seconds[1:]
        return f"--recount all takes about {duration(lines * sum(rest) / len(rest))}, by the last {len(rest)} images"
    if recorded:
        return f"--recount all takes about {duration(recorded)} by the times in the file, and compilation"
    return f"--recount all takes less than {duration(lines * seconds[0])}, by the first image, compilation included"


def _compare(request, task, asked, inputs, index, image, label, written, records, rule):
    """The `near_ties.Comparison` of the records of one image with those drawn now."""
    if request["kind"] == "curves":
        return compare_points(written, records, request["n"], rule)
    if request["kind"] == "attacks":
        return compare_attacks(written[0], records[0], request["n"])
    if request["kind"] == "pilot":
        return compare_pilots(written[0], records[0])
    sigma = min(request["search"]["sigmas"]) if is_cascade(request) else written[0].sigma
    nearby = draws_nearby(task, inputs, index, image, label, NUDGE * sigma)
    if is_cascade(request):
        return compare_cascades(written[0], records[0], nearby, request, rule)

    def at_its_sigma():
        estimate = Fixed() if asked.estimate.votes_beta is None else asked.estimate
        n = max(written[0].n or asked.n if written[0].n is not None else asked.n, 1)
        plain = dataclasses.replace(
            asked,
            sigma=written[0].sigma,
            n=n,
            alpha=0.5,
            search=FixedSigma(),
            estimate=estimate,
            budget=None,
            stop_when_wrong=False,
        )
        (key,) = inputs.keys([index])
        made = conclude(draw_image(plain, inputs.classify, image, key=key, **inputs.program))
        return one_record(index, label, 0.0, fields(plain, made))[0]

    return compare_certificates(written[0], records[0], at_its_sigma, nearby, request, rule)


def _plan_troubles(task, request, lines, indices):
    """The lines in which sigma and n differ from those that the pilot gives an image."""
    known = task.own(indices, [lines[index][0]["label"] for index in indices])
    for column, name in (("best_sigma", "sigma"), ("n", "n")):
        for index, value in zip(indices, known.get(name, ())):
            (row,) = lines[index]
            if name == "n" and request.get("stop_when_wrong"):
                value *= np.argmax(parse_counts(row["counts0"])) == row["label"]
            if float(row[column]) != value:
                yield f"image {index}: {column} is {row[column]}, but {value} by the pilot"


def _run_task(path, request, images, whole):
    """The Request of the run (None for curves and predictions), and its task at each image."""
    if request["kind"] == "curves":
        return None, curve.task(curve.Curve.of(request))
    if request["kind"] == "attacks":
        asked, run = attack.again(path)
        return None, attack.task(asked, run.records)
    if request["kind"] == "predictions" and not is_cascade(request):
        return None, predict.task(predict.Prediction.of(request))
    try:
        asked = CascadeRequest.of(request) if is_cascade(request) else Request.of(request)
        if asked.simultaneous:  # an image's share of alpha depends on the number of images
            asked = dataclasses.replace(asked, alpha=asked.simultaneous["alpha"], at_once=True).of_each(whole)
    except UserError as error:
        raise UserError(f"{path}: {error}; --recount 0 checks the lines without drawing any") from error
    if isinstance(asked, CascadeRequest):
        return None, cascade.task(asked)
    if asked.budget:
        asked = dataclasses.replace(asked, budget={**asked.budget, "stop": images.stop})
    if request["kind"] == "pilot":
        return asked, pilot.pilot_task(asked)
    return asked, certify.task(asked, pilot.planned(asked, pilot.pilot_path(path)) if asked.budget else None)
