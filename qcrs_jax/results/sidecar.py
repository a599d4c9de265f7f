"""Checks of sidecars, which a stranger may have written: their size, and the types and ranges of their fields.

`parse` is called before anything that a sidecar names is opened, and before anything is allocated by its numbers. Every
reader may rely on what it accepts. Unknown names belong to later versions; the general limits hold for them.
"""

import json
import math
import unicodedata
from collections.abc import Callable
from typing import Any

from . import format1

FORMAT = 2
LARGEST = 8 * 2**20  # bytes of a sidecar; that of 1.3 million images left out
LARGEST_BATCH = 2**20  # noisy copies in a forward pass
DEEPEST = 12  # braces and brackets inside each other
LONGEST = 20_000  # characters of a text
SAMPLES = 2**30  # which are numbered in 32 bits
IMAGES = 2**31 - 1
CLASSES = 100_000
_ABSENT = object()


class Unfit(ValueError):
    """An invalid sidecar. The message names the field."""


def parse(text: bytes) -> dict:
    """The content of a sidecar.

    Raises:
        Unfit: it is not JSON, is larger or deeper than a sidecar, or a field has another type or range.
    """
    if len(text) > LARGEST:
        raise Unfit(f"it has {len(text):,} bytes, and a sidecar at most {LARGEST:,}")
    try:
        content = json.loads(text, object_pairs_hook=_once)
    except RecursionError:
        raise Unfit(f"it is nested deeper than {DEEPEST}") from None
    except Unfit:
        raise
    except ValueError as error:  # of JSON, of UTF-8, or a number of thousands of digits
        raise Unfit(f"it is not JSON: {error}") from None
    _check_limits(content)
    if not isinstance(content, dict):
        raise Unfit("it is no object")
    if content.get("format", 1) == 1:
        _check(content, _SIDECAR_1, "")
        _check({**format1.upgraded(content), "format": FORMAT}, _SIDECAR, "")
    elif content["format"] == FORMAT:
        _check(content, _SIDECAR, "")
    else:
        raise Unfit(f"it is of format {_kind(content['format'])}; this version reads formats 1 and {FORMAT}")
    return content


def check_collapse(recorded) -> None:
    """Raises Unfit for a record of collapse that `parse` would not accept in a sidecar."""
    _check_limits(recorded)
    _check(recorded, _COLLAPSE, "collapse")


def present(content: dict) -> dict:
    """A sidecar in the present format, whatever the format in which it was written."""
    return content if content.get("format") == FORMAT else format1.upgraded(content)


def _once(pairs):
    """An object in which each name occurs once. Readers differ in which of two they take."""
    content = dict(pairs)
    if len(content) < len(pairs):
        names = [name for name, _ in pairs]
        raise Unfit(f"it has {next(name for name in names if names.count(name) > 1)[:60]!r} twice")
    return content


def _check_limits(content):
    """Checks the limits that hold for every value, whatever its name."""
    waiting = [(content, "", 1)]
    while waiting:
        value, name, depth = waiting.pop()
        if depth > DEEPEST:
            raise Unfit(f"it is nested deeper than {DEEPEST}")
        if isinstance(value, dict):
            for key in value:
                if len(key) > 200:
                    raise Unfit(f"{name or 'it'} has a name of {len(key):,} characters")
            waiting += [(inner, f"{name}.{key}".lstrip("."), depth + 1) for key, inner in value.items()]
        elif isinstance(value, list):
            waiting += [(inner, name, depth + 1) for inner in value]
        elif isinstance(value, str) and len(value) > LONGEST:
            raise Unfit(f"{name} has {len(value):,} characters; at most {LONGEST:,} are read")
        elif isinstance(value, int) and abs(value) >= 2**63:
            raise Unfit(f"{name} is a number of {value.bit_length()} bits")


def _check(value, rule, name):
    if isinstance(rule, dict):
        if not isinstance(value, dict):
            raise Unfit(f"{name or 'it'} is {_kind(value)}, and should be an object")
        for key, of_key in rule.items():
            needed, of_key = (True, of_key.rule) if isinstance(of_key, Needed) else (False, of_key)
            found = value.get(key, _ABSENT)
            if found is _ABSENT:
                if needed:
                    raise Unfit(f"{f'{name}.{key}'.lstrip('.')} is missing")
                continue
            _check(found, of_key, f"{name}.{key}".lstrip("."))
    elif isinstance(rule, Nullable):
        if value is not None:
            _check(value, rule.rule, name)
    elif isinstance(rule, Either):
        _check(value, rule.of_objects if isinstance(value, dict) else rule.of_others, name)
    elif isinstance(rule, Several):
        if not isinstance(value, list) or len(value) > rule.most:
            raise Unfit(f"{name} is {_kind(value)}, and should be a list of at most {rule.most:,}")
        for inner in value:
            _check(inner, rule.rule, name)
    elif not rule(value):
        raise Unfit(f"{name} is {_kind(value)}: {rule.__doc__}")


def _kind(value):
    if isinstance(value, str):
        return repr(value[:60]) + ("..." if len(value) > 60 else "")
    if isinstance(value, list):
        return f"a list of {len(value):,}"
    return "an object" if isinstance(value, dict) else json.dumps(value)


class Needed:
    """A required field."""

    def __init__(self, rule):
        self.rule = rule


class Nullable:
    """A value that may be null."""

    def __init__(self, rule):
        self.rule = rule


class Several:
    """A list of at most a given length."""

    def __init__(self, rule, most):
        self.rule, self.most = rule, most


class Either:
    """A value of one of two kinds: the one rule is for objects, the other for anything else."""

    def __init__(self, of_objects, of_others):
        self.of_objects, self.of_others = of_objects, of_others


def whole(least: int, most: int) -> Callable[[Any], bool]:
    """A rule: a whole number from `least` to `most`."""

    def fits(value):
        return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most

    fits.__doc__ = f"it should be a whole number from {least} to {most}"
    return fits


def number(above: int | float = -math.inf, below: int | float = math.inf) -> Callable[[Any], bool]:
    """A rule: a finite number between `least` and `most`."""

    def fits(value):
        return isinstance(value, int | float) and not isinstance(value, bool) and above < value < below

    fits.__doc__ = f"it should be a number above {above:g} and below {below:g}"
    return fits


def text(most: int = 500) -> Callable[[Any], bool]:
    """A rule: a text of at most a given number of characters."""

    def fits(value):
        return isinstance(value, str) and len(value) <= most

    fits.__doc__ = f"it should be a text of at most {most} characters"
    return fits


def one_of(*values) -> Callable[[Any], bool]:
    """A rule: one of these."""

    def fits(value):
        return isinstance(value, type(values[0])) and value in values

    fits.__doc__ = f"it should be one of {', '.join(map(str, values))}"
    return fits


def flag(value) -> bool:
    """it should be true or false"""
    return isinstance(value, bool)


def absent(value) -> bool:
    """it should not be there"""
    return False


def proportion(value) -> bool:
    """it should be a number from 0 to 1"""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= 1


def sha256(value) -> bool:
    """it should be 64 hexadecimal digits"""
    return isinstance(value, str) and len(value) == 64 and not set(value) - set("0123456789abcdef")


def file_name(value) -> bool:
    """it should be the name of a file in the same folder"""
    return (
        isinstance(value, str) and 0 < len(value) <= 255 and value not in (".", "..") and not set(value) & set("/\\\0")
    )


def path(value) -> bool:
    """it should be a path of at most 4096 characters, without control characters"""
    return isinstance(value, str) and len(value) <= 4096 and not any(unicodedata.category(c) == "Cc" for c in value)


_SIGMA = number(0, 1e6)
_ALPHA = number(0, 1)
_SHARE = number(0, 1)
_COUNT = whole(1, SAMPLES)
_NOTE = text(2000)
_LEFT_OUT = Several(whole(0, IMAGES), 10**6)

_CHOSEN = whole(0, 2**32 - 1)
_SEED = Either({"sha256": Needed(sha256), "images": Needed(whole(1, IMAGES))}, _CHOSEN)
"""A committed seed, or one that the user chose."""

_SEARCH = {
    "method": Needed(one_of("cohen", "qcrs", "ddrs", "cascade")),
    "name": Needed(text(50)),
    "search_n": _COUNT,
    "sigma_lower": _SIGMA,
    "sigma_upper": _SIGMA,
    "epsilon": number(0),
    "epsilon_step": number(0),
    "alpha": _ALPHA,
    "objective": text(50),
    "max_evaluations": whole(1, 10_000),
    "widen_above": flag,
    "steps": whole(0, 10**6),
    "draws": _COUNT,
    "sigmas": Several(_SIGMA, 1000),
    "tau": Several(number(-1e-300), 1000),
}

_ESTIMATE = {
    "name": Needed(text(50)),
    "bound": text(50),
    "tolerance": _SHARE,
    "decide": Nullable(number(-1, 1e6)),
    "precision": Nullable(number(0, 1e6)),
    "alpha_upper": Nullable(_SHARE),
    "sequence": text(50),
    "look_every": _COUNT,
    "beta": number(0),
    "votes": _NOTE,
}

_SMOOTHING = {"name": Needed(text(50)), "norm": Needed(one_of("L1", "L2")), "steps": whole(1, 255)}

_CLASSIFIER = {
    "arch": text(200),
    "options": {},
    "mean": Several(number(), 64),
    "std": Several(number(), 64),
    "weights_sha256": text(64),
    "image_shape": Several(whole(1, 100_000), 3),
    "denoiser": {"arch": text(200), "width": whole(1, 2**20), "weights_sha256": text(64)},
}

_INPUTS = {
    "smoothing": _SMOOTHING,
    "noise": _NOTE,
    "platform": _NOTE,
    "dtype": text(50),
    "classifier": _CLASSIFIER,
    "stages": Several(_CLASSIFIER, 1000),
    "dataset": {
        "name": text(255),
        "split": text(50),
        "fingerprint": text(64),
        "class_names": Nullable(Several(text(1000), CLASSES)),
    },
}

_NUMBERS = {
    "sigma": _SIGMA,
    "sigmas": Several(_SIGMA, 10_001),
    "n0": _COUNT,
    "n": _COUNT,
    "alpha": _ALPHA,
    "seed": _CHOSEN,
    "skip": whole(1, IMAGES),
    "stop_when_wrong": flag,
    "simultaneous": Nullable({"alpha": Needed(_ALPHA), "images": Needed(whole(1, IMAGES))}),
    "shard": {
        "part": Needed(whole(1, IMAGES)),
        "of": Needed(whole(1, IMAGES)),
        "images": Needed(whole(1, IMAGES)),
    },
}

_STORED_BALLS = {"procedure": _NOTE, "source": file_name, "source_sha256": text(64), "left_out": _LEFT_OUT}

_REBOUND = {
    "source": Needed(file_name),
    "source_sha256": Needed(text(64)),
    "bound": Needed(text(50)),
    "left_out": _LEFT_OUT,
}

_ATTACK = {
    "method": Needed(text(50)),
    "source": Needed(file_name),
    "source_sha256": Needed(text(64)),
    "attempts": Needed(whole(1, 1000)),
    "restarts": Needed(whole(1, 1000)),
    "steps": Needed(whole(1, 2**20)),
    "draws": Needed(whole(1, 2**20)),
    "looks": Needed(whole(1, 2**20)),
    "inside": Needed(_SHARE),
    "rule_n": _COUNT,
    "rule_alpha": _ALPHA,
}

_REQUEST = {
    "kind": one_of("certificates", "pilot", "predictions", "curves", "attacks"),
    "search": _SEARCH,
    "estimate": _ESTIMATE,
    "budget": Nullable({"mean": Needed(_COUNT), "stop": whole(-IMAGES, IMAGES)}),
    "stored_balls": _STORED_BALLS,
    "rebound": _REBOUND,
    "attack": _ATTACK,
    **_NUMBERS,
    **_INPUTS,
    "seed": _SEED,
}

_SETTINGS = {
    "network": {
        "checkpoint": path,
        "denoiser": Nullable(path),
        "normalization": Nullable(text(1000)),
        "field": Nullable(text(1000)),
        "prefix": Nullable(text(1000)),
        "leave_out": Nullable(Several(text(1000), 1000)),
        "image_size": Nullable(Several(whole(1, 4096), 2)),
        "max_pool": Nullable(flag),
        "stages": Several(path, 1000),
        "macer": flag,
        "dtype": one_of("float32", "bfloat16"),
    },
    "data": {
        "dataset": Nullable(text(255)),
        "data_dir": Nullable(path),
        "class_order": Nullable(path),
        "split": one_of("train", "test", "val"),
        "resize": Nullable(whole(1, 4096)),
        "on_error": one_of("stop", "skip"),
        "memory_limit": Nullable(number(0)),
    },
    "images": {
        "skip": whole(1, IMAGES),
        "stop": whole(-IMAGES, IMAGES),
        "shard": Nullable(Several(whole(1, IMAGES), 2)),
    },
    "noise": {"seed": Nullable(_CHOSEN), "prng": one_of("threefry", "rbg")},
}
"""The settings of a run that decide its results. `verify` opens the inputs by them."""

_COLLAPSE = {
    "levels": Needed(
        Several(
            {
                "sigma": Needed(_SIGMA),
                "accuracy": Needed(Nullable(proportion)),
                "classes": Needed(number(0, CLASSES + 1)),
                "commonest": Needed(whole(0, CLASSES - 1)),
                "share": Needed(proportion),
            },
            256,
        )
    ),
    "constant": Needed(Nullable(proportion)),
    "images": Needed(whole(1, IMAGES)),
    "copies": Needed(_COUNT),
    "lost_at": Nullable(_SIGMA),
    "other_images": flag,
    "ends_bracket": flag,
    "measured": sha256,
}
"""What a run records of the collapse of its classifier, and what is kept beside a checkpoint."""

_PROVENANCE = {
    "collapse": _COLLAPSE,
    "batch": whole(1, LARGEST_BATCH),
    "images": whole(1, 2**16),
    "started": _NOTE,
    "checkpoint": path,
    "data": text(LONGEST),
    "devices": _NOTE,
    "versions": {name: text(200) for name in ("python", "qcrs_jax", "jax", "jaxlib", "flax", "numpy")},
    "stored_balls": {},
}

_SIDECAR = {
    "format": whole(FORMAT, FORMAT),
    "guarantee": text(5000),
    "account": text(5000),
    "request": Needed(_REQUEST),
    "provenance": Needed(
        {
            **_PROVENANCE,
            "settings": _SETTINGS,
            "stored_balls": {},
            "other_seeds": Several({"file": Needed(file_name), "seed": Needed(_SEED)}, 100),
        }
    ),
    "owner": text(64),
    "left_out": _LEFT_OUT,
    "sha256": text(64),
    "pixels_sha256": text(64),
    "sidecar_sha256": text(64),
}

_REQUEST_1 = {
    "method": one_of("cohen", "qcrs", "ddrs", "predict", "curve"),
    "qcrs": Nullable(
        {
            "search": Needed(text(50)),
            "search_n": _COUNT,
            "sigma_lower": _SIGMA,
            "sigma_upper": _SIGMA,
            "tolerance": number(0),
            "epsilon_step": number(0),
            "alpha": _ALPHA,
            "objective": Nullable(text(50)),
            "max_evaluations": whole(1, 10_000),
        }
    ),
    "ddrs": Nullable({"sigma_lower": _SIGMA, "sigma_upper": _SIGMA, "steps": whole(0, 10**6), "draws": _COUNT}),
    "certificate": text(50),
    "beta": number(0),
    "votes": _NOTE,
    "bound": text(50),
    "tolerance": _SHARE,
    "pilot": flag,
    "budget": Nullable({"mean": Needed(_COUNT), "max": whole(-IMAGES, IMAGES)}),
    "sequential": Nullable(
        {
            "decide": Nullable(number(-1, 1e6)),
            "precision": Nullable(number(0, 1e6)),
            "beta": Nullable(_SHARE),
            "sequence": text(50),
            "step": _COUNT,
        }
    ),
    "memory": _STORED_BALLS,
    **_NUMBERS,
    **_INPUTS,
}

_ARGUMENTS_1 = {
    "checkpoint": path,
    "dataset": Nullable(text(255)),
    "data_dir": Nullable(path),
    "class_order": Nullable(path),
    "split": one_of("train", "test", "val"),
    "on_error": one_of("stop", "skip"),
    "resize": Nullable(whole(1, 4096)),
    "skip": whole(1, IMAGES),
    "max": whole(-IMAGES, IMAGES),
    "sigma": _SIGMA,
    "N0": _COUNT,
    "N": _COUNT,
    "alpha": _ALPHA,
    "sigmas": Nullable(Several(number(0, 1e6), 3)),
    "curve_n": _COUNT,
    "gradient_n": _COUNT,
    "evaluations": whole(1, 10_000),
    "seed": whole(0, 2**32 - 1),
    "shard": Nullable(Several(whole(1, IMAGES), 2)),
    "normalization": Nullable(text(1000)),
    "field": Nullable(text(1000)),
    "prefix": Nullable(text(1000)),
    "leave_out": Nullable(Several(text(1000), 1000)),
    "image_size": Nullable(Several(whole(1, 4096), 2)),
    "max_pool": Nullable(flag),
    "macer": flag,
}

_SIDECAR_1 = {
    **_SIDECAR,
    "format": absent,
    "request": Needed(_REQUEST_1),
    "provenance": Needed({**_PROVENANCE, "arguments": _ARGUMENTS_1, "memory": {}}),
}
"""The rules for a sidecar of format 1, which has no number."""
