"""Results files: one tab-separated line an image, and beside it a sidecar with the configuration of the run.

    RESULTS        the reference's columns first (idx label predict radius correct best_sigma pABar time; PREDICT's
                   are idx label predict correct time), then ours
    RESULTS.json   what was asked (a rerun must ask the same to resume), and where it ran; the names of the classes,
                   which `label` and `predict` count from 0, are its request.dataset.class_names; of a method that
                   chooses sigma per input it says what the certificates hold for ("guarantee"), and of every run what
                   alpha amounts to over a data set ("account"); once the run is finished, which images were left out
                   ("left_out"), and sums of the file ("sha256") and of its images' pixels as they are then
                   ("pixels_sha256"), and of the sidecar but for this sum ("sidecar_sha256")

Files of Cohen's, QCRS's and MACER's programs can be read too.
"""

import csv
import dataclasses
import datetime
import hashlib
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from .account import account
from .errors import UserError

COLUMNS = (
    "idx",
    "label",
    "predict",
    "radius",
    "correct",
    "best_sigma",
    "pABar",
    "time",
    "search_samples",
    "counts0",
    "counts",
)
OPTIONAL_COLUMNS = ("n", "robust", "radius_upper", "u", "pBBar", "sums0", "sums", "squares")
PREDICT_COLUMNS = ("idx", "label", "predict", "correct", "time", "counts")
INPUT_SPECIFIC = (
    "Where sigma is chosen per input, a certificate holds for the classifier smoothed with that input's sigma, held "
    "fixed. It says nothing of a classifier that would search sigma again at the perturbed input. Runs of one "
    "sigma certify one and the same classifier at all inputs."
)
"""What an input-specific certificate says; sidecars and tables carry it."""

# Where a column has another name.
_ATTRIBUTES = {"best_sigma": "sigma", "pABar": "pa_lower", "pBBar": "pb_upper", "time": "seconds"}
WHEN_FINISHED = ("left_out", "sha256", "pixels_sha256", "sidecar_sha256")
_REALS = ("radius", "best_sigma", "pABar", "pBBar", "radius_upper", "u")


def columns_of(fields) -> tuple[str, ...]:
    """The columns of records with these fields, whose names are those of `Record`."""
    return (*COLUMNS, *(column for column in OPTIONAL_COLUMNS if _ATTRIBUTES.get(column, column) in fields))


class RecordsError(UserError):
    """A results file that cannot be read or continued; the message names the file, the line and the remedy."""


@dataclasses.dataclass(frozen=True)
class Record:
    """One image's result.

    Attributes:
        idx, label: index in the data set, and true class.
        predict: certified class, or PREDICT's; -1 for ABSTAIN.
        radius: certified L2 radius, pixels in [0, 1]; None in PREDICT's files.
        correct: whether predict is label.
        sigma: noise level of the certificate (column best_sigma), a float32 in full; None where there is no column.
        pa_lower: lower bound of the selected class's probability (column pABar), None where there is no column.
        seconds: wall-clock time (column time, h:mm:ss.ffffff).
        search_samples: samples spent on the choice of sigma.
        counts0, counts: class counts of selection and estimation; None where there is no column.
        n: number of certification samples, in a run that chose it per image; None in other files.
        robust, radius_upper: of a sequential estimation, as `verdict.Certificate` has them; None in other files.
        u: what randomised the bound of pa_lower; None in other files.
        pb_upper, sums0, sums, squares: of a soft certificate, as `verdict.SoftVotes` has them; None in other files.
    """

    idx: int
    label: int
    predict: int
    radius: float | None
    correct: bool
    sigma: float | None = None
    pa_lower: float | None = None
    seconds: float = math.nan
    search_samples: int = 0
    counts0: tuple[int, ...] | None = None
    counts: tuple[int, ...] | None = None
    n: int | None = None
    robust: int | None = None
    radius_upper: float | None = None
    u: float | None = None
    pb_upper: float | None = None
    sums0: tuple[int, ...] | None = None
    sums: tuple[int, ...] | None = None
    squares: tuple[int, ...] | None = None

    @property
    def samples(self) -> float:
        """Noisy copies that were counted for the image, NaN where the file has no counts."""
        return float(self.search_samples + sum(self.counts0 or ()) + sum(self.counts)) if self.counts else math.nan

    def line(self, columns: Sequence[str] = COLUMNS) -> str:
        """The line of a results file with these columns, with its newline; what is not known is empty."""
        return "\t".join(map(self._text, columns)) + "\n"

    def _text(self, column):
        value = getattr(self, _ATTRIBUTES.get(column, column))
        if value is None or value != value:
            return ""
        if column == "time":
            return str(datetime.timedelta(seconds=value))
        if isinstance(value, tuple):
            return ",".join(map(str, value))
        if isinstance(value, bool):
            return str(int(value))
        return repr(float(value)) if column in _REALS else str(value)


@dataclasses.dataclass(frozen=True)
class Run:
    """A results file: its records, and its sidecar ({} where there is none).

    The sidecar has "request", everything that decides the results, and "provenance", where they were computed; of a
    finished run also "left_out", the indices of images that could not be read, and sums of file and pixels.
    """

    path: Path
    records: list  # of Record; of a file of curves, of its points
    sidecar: dict

    @property
    def request(self) -> dict:
        return self.sidecar.get("request", {})

    def class_name(self, label: int) -> str:
        """The name of a class by the sidecar, or its number where that has none."""
        names = self.request.get("dataset", {}).get("class_names") or []
        return names[label] if 0 <= label < len(names) else str(label)

    @property
    def input_specific(self) -> bool:
        """Whether sigma was chosen per input."""
        return len({r.sigma for r in self.records}) > 1 or self.request.get("method") in ("qcrs", "ddrs")

    @property
    def predicts(self) -> bool:
        """Whether it is a run of PREDICT, which certifies no radius."""
        return self.request.get("method") == "predict" or any(r.radius is None for r in self.records)

    @property
    def images(self) -> tuple:
        """What tells whether two runs are over the same images: indices, labels, and the data set where it is known."""
        return tuple((r.idx, r.label) for r in self.records), self.request.get("dataset", {}).get("fingerprint")


def without_class(records: Sequence, request: dict) -> tuple[int, int]:
    """How many noisy copies of `records` fell into no class, for a logit that is not finite; and of how many.

    Copies of selection and certification in a run of this request; a search's are not in the file. Records whose counts
    or their number are not known add nothing.
    """
    drawn = counted = 0
    for record in records:
        for name, n in _asked(record, request).items():
            if n is not None and (counts := getattr(record, name, None)):
                drawn, counted = drawn + n, counted + sum(counts)
    return drawn - counted, drawn


def _asked(record, request):
    """How many samples the counts of a record are of, by their name; None where that is not known."""
    n = getattr(record, "n", None)  # 0 where none were drawn
    return {"counts0": request.get("n0"), "counts": request.get("n") if n is None else n}


def sidecar_path(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def read_run(path: str | Path) -> Run:
    """The run in a results file: ours, Cohen's (of certificates or of predictions), QCRS's or MACER's hard ones.

    Raises:
        RecordsError: names the file and the line.
    """
    path = Path(path)
    records = read_rows(path, {"idx", "label", "predict", "correct"}, _parse)
    seen = set()
    for number, record in enumerate(records, start=2):
        if record.idx in seen:
            raise RecordsError(f"{path}, line {number}: image {record.idx} is there twice")
        seen.add(record.idx)
    sidecar = read_sidecar(path)
    for number, record in enumerate(records, start=2):
        if trouble := _counting_trouble(record, sidecar.get("request", {})):
            raise RecordsError(f"{path}, line {number}: not a result: {trouble}")
    return Run(path, records, sidecar)


def _counting_trouble(record, request):
    """What is wrong with the counts of a record; None where nothing is. Fewer than n is right: of logits not finite."""
    for name, n in _asked(record, request).items():
        counts = getattr(record, name)
        if counts and n is not None and not 0 <= min(counts) <= sum(counts) <= n:
            return f"{name} are not those of {n} samples: they sum to {sum(counts)}"
    return None


def read_rows(path: Path, needed: set[str], parse: Callable[[dict], Any], kind: str = "results file") -> list:
    """What `parse` makes of each line of a tab-separated file, a dict by the columns that its first line names.

    Raises:
        RecordsError: it cannot be read, lacks a column of `needed`, or has a line that cannot be parsed; names it.
    """
    try:
        lines = path.read_text().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise RecordsError(f"{path}: cannot be read as a {kind}: {error}") from error
    missing = needed - set(lines[0].split("\t") if lines else [])
    if missing:
        raise RecordsError(f"{path}: not a {kind}: its first line has no column {', '.join(sorted(missing))}")
    rows = []
    for number, row in enumerate(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE), start=2):
        try:
            if None in row or None in row.values():
                raise ValueError("it has another number of fields than the first line")
            rows.append(parse(row))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise RecordsError(f"{path}, line {number}: not a result: {error}") from error
    return rows


def read_sidecar(path: Path) -> dict:
    """The sidecar of the results file `path`: "request", "provenance", what is "said" of guarantees, and, of a run that
    is finished, "left_out" and the sums "sha256", "pixels_sha256" and "sidecar_sha256"; {} where there is none.

    Raises:
        RecordsError: it is damaged.
    """
    file = sidecar_path(path)
    if not file.exists():
        return {}
    try:
        content = json.loads(file.read_text())
        known = {"request": dict(content["request"]), "provenance": dict(content["provenance"])}
        known["said"] = {name: content[name] for name in ("guarantee", "account") if name in content}
        return known | {name: content[name] for name in WHEN_FINISHED if name in content}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecordsError(f"{file}: not the sidecar of a run: {error}") from error


def _parse(row):
    optional = lambda name, convert: convert(row[name]) if row.get(name) else None  # noqa: E731
    record = Record(
        idx=int(row["idx"]),
        label=int(row["label"]),
        predict=int(row["predict"]),
        radius=float(row["radius"]) if "radius" in row else None,
        correct={"0": False, "1": True}[row["correct"]],
        sigma=optional("best_sigma", float),
        pa_lower=optional("pABar", float),
        seconds=parse_seconds(row.get("time")),
        search_samples=int(row.get("search_samples") or 0),
        counts0=optional("counts0", parse_counts),
        counts=optional("counts", parse_counts),
        n=optional("n", int),
        robust=optional("robust", int),
        radius_upper=optional("radius_upper", float),
        u=optional("u", float),
        pb_upper=optional("pBBar", float),
        sums0=optional("sums0", parse_counts),
        sums=optional("sums", parse_counts),
        squares=optional("squares", parse_counts),
    )
    if record.radius is not None and not (record.radius >= 0 and math.isfinite(record.radius)):
        raise ValueError(f"radius {record.radius}")
    if record.correct != (record.predict == record.label):
        raise ValueError(f"correct is {int(record.correct)}, but predict {record.predict} and label {record.label}")
    return record


def parse_counts(text: str) -> tuple[int, ...]:
    """The class counts that a field holds: 1,2,3."""
    return tuple(int(v) for v in text.split(","))


def parse_seconds(text):
    if not text:
        return math.nan
    days, _, clock = text.rpartition(", ")  # "1 day, 2:03:04.5"
    parts = [float(p) for p in clock.split(":")]
    return sum(p * 60**i for i, p in enumerate(reversed(parts))) + 86400 * int(days.split()[0] if days else 0)


def differences(before: dict, now: dict, where: tuple[str, str] = ("in the file", "now")) -> list[str]:
    """A line for each setting in which two requests, as JSON has them, differ; `where` tells where each is."""
    before, now = _flat(before), _flat(now)
    return [
        f"{key}: {before.get(key)!r} {where[0]}, {now.get(key)!r} {where[1]}"
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key)
    ]


def checksum(path: Path) -> str:
    """SHA-256 of a results file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def sidecar_checksum(content: dict) -> str:
    """SHA-256 of all that a sidecar says but for this sum itself."""
    rest = {name: value for name, value in content.items() if name != "sidecar_sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def said_of(request: dict) -> dict:
    """What a sidecar says, in words, of the guarantees of a run with this request."""
    said = {}
    if request.get("method") in ("qcrs", "ddrs") and "memory" not in request:
        said["guarantee"] = INPUT_SPECIFIC
    if "alpha" in request:
        said["account"] = account(request)
    return said


def _flat(nested, prefix=""):
    """{"a": {"b": 1}} as {"a.b": 1}."""
    flat = {}
    for key, value in nested.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
