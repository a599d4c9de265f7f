"""Results files that were forged with correct hashes. None is called verified, whatever was changed.

The forger knows the program. He writes all hashes again, and everything that follows from a changed count. He cannot
change the noise, nor the images and the weights of the verifier.
"""

import copy
import json
import math

import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

import qcrs_jax
from qcrs_jax import Fixed, GoldenSection, Sequential, Soft, Tolerance
from qcrs_jax.certification.estimates import estimate_of
from qcrs_jax.errors import UserError
from qcrs_jax.experiments.run.answers import one_record
from qcrs_jax.experiments.run.inputs import digest, digest_of_all
from qcrs_jax.results.records import Record, checksum, guarantee_texts, read_run, sidecar_checksum
from qcrs_jax.results.seeds import committed
from qcrs_jax.sampling.smoothing import noise_of

SHAPE, NUMBERS = (4, 4, 1), {"n0": 20, "n": 2000, "alpha": 0.01}
IMAGES = np.linspace(0.42, 0.58, 4, dtype=np.float32)[:, None, None, None] * np.ones((1, *SHAPE), np.float32)
LABELS = np.array([0, 0, 1, 1])
KINDS = {
    "fixed": {},
    "chosen": {"seed": 3},
    "randomised": {"estimate": Fixed("randomised")},
    "golden": {"search": GoldenSection(0.1, 0.6, epsilon=0.2, search_n=40)},
    "tolerance": {"estimate": Tolerance(0.1)},
    "decide": {"estimate": Sequential(decide=0.1)},
    "soft": {"estimate": Soft(2.0)},
    "simultaneous": {"simultaneous": True},
    "stopped": {"stop_when_wrong": True},
    "shard": {"shard": (1, 2)},
}


def brightness(weights, images):
    """Two classes: dark and bright."""
    level = images.mean((1, 2, 3)) - 0.5
    return jnp.stack([-level, level], axis=-1) * weights


CLASSIFY = Partial(brightness, jnp.float32(3.0))


@pytest.fixture(scope="module", params=KINDS)
def made(tmp_path_factory, request):
    path = tmp_path_factory.mktemp("made") / "r.tsv"
    qcrs_jax.run(CLASSIFY, (IMAGES, LABELS), path, 0.25, **{**NUMBERS, **KINDS[request.param]})
    return path


def sidecar_of(path):
    return path.with_name(f"{path.name}.json")


def write(path, lines, content, seal=True):
    """Writes the file and its sidecar, with all sums as they are due."""
    path.write_text("".join("\t".join(line) + "\n" for line in lines))
    if seal:
        indices = [int(line[0]) for line in lines[1:] if line[0].isdecimal() and int(line[0]) < len(IMAGES)]
        content = {**content, **guarantee_texts(content["request"]), "sha256": checksum(path)}
        content["pixels_sha256"] = digest_of_all({index: digest(IMAGES[index]) for index in indices})
        content["sidecar_sha256"] = sidecar_checksum(content)
    sidecar_of(path).write_text(json.dumps(content))


def follows(request, record):
    """A record whose bounds, class and radius are those of its counts."""
    numbers = (request[name] for name in ("n0", "n", "alpha"))
    again = estimate_of(request["estimate"]).again(record, *numbers, noise_of(request))
    known = {name: value for name, value in vars(record).items() if name in Record.columns()} | vars(record)
    fields = {**known, **again}
    return one_record(record.idx, record.label, record.seconds, {k: fields[k] for k in fields if k not in SKIPPED})[0]


SKIPPED = ("idx", "label", "seconds", "correct")


def other_counts(record):
    """Records with more copies of the selected class, and the fields that tell of them."""
    counts = record.counts
    if not counts or not sum(counts):
        return
    chosen = int(np.argmax(record.counts0))
    for moved in (5, 20, 60):
        if counts[1 - chosen] >= moved:
            changed = list(counts)
            changed[chosen], changed[1 - chosen] = changed[chosen] + moved, changed[1 - chosen] - moved
            yield f"{moved} copies moved", {"counts": tuple(changed)}
    yield "the other class selected", {"counts0": record.counts0[::-1], "counts": counts[::-1]}


def fields_changed(value, path=()):
    """Each value inside a request, by its way, and another of its kind."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from fields_changed(inner, (*path, name))
    elif isinstance(value, bool):
        yield path, not value
    elif isinstance(value, int):
        yield path, value + 1
        yield path, max(1, value // 2)
    elif isinstance(value, float):
        yield path, value * 1.01
        yield path, value / 2
    elif isinstance(value, str):
        yield path, value[:-1] + ("0" if value[-1:] != "0" else "1")
    elif isinstance(value, list) and value:
        yield path, value[:-1]
        yield path, [*value, value[0]]


def at(content, path, value):
    """The content with another value at this way."""
    content = copy.deepcopy(content)
    inner = content
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return content


def forgeries(path):
    """Yields what was forged, the lines and the sidecar."""
    lines = [line.split("\t") for line in path.read_text().splitlines()]
    content, run, header = json.loads(sidecar_of(path).read_text()), read_run(path), lines[0]
    for place, record in enumerate(run.records, start=1):
        for what, changes in other_counts(record):
            if content["request"]["estimate"]["name"] == "soft":
                continue
            try:
                forged = follows(content["request"], Record(**{**vars(record), **changes}))
            except Exception as error:
                raise AssertionError(f"the forger failed: {error!r}") from error
            line = forged.line(tuple(header)).rstrip("\n").split("\t")
            yield f"image {record.idx}: {what}", [*lines[:place], line, *lines[place + 1 :]], content
        for column, name in enumerate(header):
            if name == "time":
                continue
            field = lines[place][column]
            head, *rest = field.split(",")
            soft = name in ("sums0", "sums", "squares")  # whose last digits are rounding
            whole, more = head.lstrip("-").isdecimal(), int(head) // 5 if soft else 1
            for other in (str(int(head) + more),) if whole else (repr(float(head) + 0.05), "0.0"):
                if other != head:
                    line = [*lines[place][:column], ",".join([other, *rest]), *lines[place][column + 1 :]]
                    yield f"image {record.idx}: {name}", [*lines[:place], line, *lines[place + 1 :]], content
        without = [*lines[:place], *lines[place + 1 :]]
        yield f"image {record.idx} dropped", without, content
        yield f"image {record.idx} dropped and named", without, {**content, "left_out": [record.idx]}
        stop = at(content, ("provenance", "settings", "images", "stop"), record.idx)
        yield f"ends before image {record.idx}", lines[:place], stop
        if isinstance(content["request"]["seed"], dict) and "shard" not in content["request"] and place > 2:
            seed = committed(content["request"], record.idx)
            yield f"ends before image {record.idx}, with that seed", lines[:place], at(stop, ("request", "seed"), seed)
        doubled = [*lines, [str(int(record.idx) + 100), *lines[place][1:]]]
        yield f"image {record.idx} once more", doubled, content
    for way, value in fields_changed(content["request"]):
        forged = at(content, ("request", *way), value)
        yield f"request.{'.'.join(way)}", lines, forged
        if isinstance(content["request"]["seed"], dict) and way[0] != "seed":  # and the seed that belongs to it
            seed = committed(forged["request"], content["request"]["seed"]["images"])
            yield f"request.{'.'.join(way)} and its seed", lines, at(forged, ("request", "seed"), seed)
    for column, name in enumerate(header):
        yield f"column {name} twice", [[*line, line[column]] for line in lines], content
        yield f"column {name} missing", [[*line[:column], *line[column + 1 :]] for line in lines], content
    for name in ("sha256", "pixels_sha256", "sidecar_sha256", "left_out"):
        yield f"{name} taken out", lines, {key: value for key, value in content.items() if key != name}
    yield "no sums", lines, {key: value for key, value in content.items() if "sha256" not in key}
    yield "no settings", lines, at(content, ("provenance",), {"versions": {}})
    if "shard" not in content["request"]:
        yield "of another seed", lines, at(content, ("request", "seed"), 12345)
        other = at(content, ("request", "seed"), 12345)
        yield "of another seed, chosen", lines, at(other, ("provenance", "settings", "noise", "seed"), 12345)
        yield "a seed that is committed", lines, committed_only(content)


def committed_only(content):
    """A sidecar that says that its seed is committed."""
    content = copy.deepcopy(content)
    content["request"]["seed"] = committed(content["request"], len(IMAGES))
    content["provenance"]["settings"]["noise"].pop("seed", None)
    return content


def provable(what, content):
    """Whether a file can prove that this was not done: of a platform, on which no count depends, it cannot, nor when
    the end of a run was chosen whose seed was chosen."""
    chosen = isinstance(content["request"]["seed"], int)
    return not what.startswith("request.platform") and not (chosen and what.startswith("ends before"))


def test_nothing_forged_is_verified(made, tmp_path, counted, request):
    path, counts, passed = tmp_path / "r.tsv", {"refused": 0, "consistent": 0, "what no file proves": 0}, []
    original = made.read_bytes(), json.loads(sidecar_of(made).read_text())
    assert verdict(made).endswith("verified")
    for what, lines, content in forgeries(made):
        seal = not what.endswith("taken out") and what != "no sums"
        try:
            write(path, lines, content, seal)
        except (KeyError, ValueError, TypeError):  # a request of which no sidecar is made
            path.write_bytes(original[0])
            sidecar_of(path).write_text(json.dumps(content))
        if (path.read_bytes(), json.loads(sidecar_of(path).read_text())) == original:
            continue
        said = verdict(path)
        if said is None:
            counts["refused"] += 1
        elif "verified" in said and not provable(what, content):
            counts["what no file proves"] += 1
        elif "verified" in said:
            passed.append(f"{what}: {said}")
        else:
            counts["consistent"] += 1
    name = request.node.callspec.id
    told = ", ".join(f"{key} {count}" for key, count in counts.items())
    counted(f"results files forged, {name}: {sum(counts.values()) + len(passed)}: {told}, verified {len(passed)}")
    assert not passed, passed


def verdict(path):
    """What `verify` concludes when it draws all lines again; None where it refuses the file."""
    try:
        return qcrs_jax.verify(path, CLASSIFY, (IMAGES, LABELS), recount=math.inf)[-1]
    except UserError:
        return None
