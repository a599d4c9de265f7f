"""Results files: one tab-separated line per image, and beside it a sidecar with the configuration of the run.

    RESULTS        first the reference's columns (idx label predict radius correct best_sigma pABar time; PREDICT's
                   are idx label predict correct time), then ours
    RESULTS.json   the request, which a rerun must repeat to resume, and where it ran

The sidecar also has the names of the classes, which `label` and `predict` count from 0: request.dataset.class_names.
"guarantee" states, for a method that chooses sigma per input, what the certificates hold for. "account" states, for
every run, what alpha means for the whole data set. Once the run is finished, "left_out" lists the images that were left
out, and there are hashes: "sha256" of the file, "pixels_sha256" of its images' pixels as they are then, and
"sidecar_sha256" of the sidecar without this hash.

Files of Cohen's, QCRS's and MACER's programs can be read too, and those of their relatives: with other names of the
same columns, with padded fields, a byte order mark, or a header that is repeated where logs were joined.
"""

import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ..errors import UserError, quoted
from ..extras import needed_for
from ..files import is_there, read_regular
from . import sidecar as sidecars
from .account import account
from .rows import Row, Seconds, column, whole_number

PREDICT_COLUMNS = ("idx", "label", "predict", "correct", "time", "counts")
CASCADE_COLUMNS = ("stage", "stages0", "stages")
"""The columns that a run of a cascade has beside those of every run, by the names of Record."""
INPUT_SPECIFIC = (
    "Where sigma is chosen per input, a certificate holds for the classifier smoothed with that input's sigma, held "
    "fixed. It says nothing of a classifier that would search sigma again at the perturbed input. Runs of one "
    "sigma certify one and the same classifier at all inputs."
)
"""The meaning of an input-specific certificate, for sidecars and tables."""

CASCADE = (
    "A certificate of the cascade is about one classifier for all inputs: the one that answers at the first stage "
    "whose smoothed classifier has a class above its threshold (at threshold 0, a majority). At every input within the "
    "radius that classifier gives the certified class."
)
"""The meaning of a certificate of a cascade, for sidecars and tables."""

ATTACKED = (
    "A distance is an upper bound: fresh samples showed that the classifier that was attacked answers another class at "
    "an image so far away. All distances of one image hold with probability at least 1 - alpha. An image without a "
    "distance is not thereby robust: no attack proves that."
)
"""The meaning of a file of attacks."""

EARLIER_VERSION = (
    "written by an earlier version, with other noise and searches, and without hashes. `qcrs-jax verify` computes "
    "bounds from the counts, but cannot draw the counts again."
)
"""The remark on results files whose counts cannot be verified."""

MOST_COLUMNS, LONGEST_NAME = 1000, 500
LONGEST_FIELD = 4 * 2**20  # characters; the counts of 100 000 classes have a million
_NO_RESULT = (ValueError, TypeError, KeyError, AttributeError, IndexError, OverflowError)

WHEN_FINISHED = ("left_out", "sha256", "pixels_sha256", "sidecar_sha256")


# Names of the columns in other programs' logs, in lower case with _ for blanks; the first one there is read.
_OTHER_NAMES = {
    "idx": ("index", "id", "image", "image_idx", "img_idx"),
    "label": ("true_label", "true_class", "target", "y"),
    "predict": ("prediction", "predicted", "pred", "predicted_label", "predicted_class"),
    "radius": ("l2_radius", "radius_l2", "certified_radius", "certified_l2_radius", "cert_radius"),
    "correct": ("is_correct",),
    "best_sigma": ("sigma", "min_sigma"),  # and whatever else has sigma in its name
    "pABar": (
        "pa_bar",
        "pa_lower",
        "pa_lb",
        "p_lower",
        "p_lb",
        "prob_lower",
        "prob_lb",
        "pa_lower_bound",
        "lower_bound",
    ),
    "time": ("elapsed", "runtime"),
}


class RecordsError(UserError):
    """A results file that cannot be read or continued. The message names the file, the line and the remedy."""


@dataclasses.dataclass(frozen=True)
class Record(Row):
    """The result of one image.

    Attributes:
        idx, label: index in the data set, and true class.
        predict: certified class, or PREDICT's; -1 for ABSTAIN.
        radius: certified radius, pixels in [0, 1]; None in PREDICT's files.
        correct: whether predict is label.
        sigma: noise level of the certificate (column best_sigma), a float32 in full; None if there is no column.
        pa_lower: lower bound of the selected class's probability (column pABar); None if there is no column.
        seconds: wall-clock time (column time, h:mm:ss.ffffff).
        search_samples: number of samples spent on the choice of sigma.
        counts0, counts: class counts of selection and estimation; None if there is no column.
        n: number of certification samples, in a run that chose it per image; None in other files.
        robust, radius_upper: results of a sequential estimation, as in `verdict.Certificate`; None in other files.
        u: number that randomised the bound of pa_lower; None in other files.
        pb_upper: upper bound of every other class's probability or mean soft vote; None in other files.
        stage: deciding stage of a cascade, counted from 0; -1 for an abstention. None in other files.
        stages0, stages: class counts of selection and certification of all stages of a cascade, one stage after the
            other; None in other files. Those of the deciding stage are also counts0 and counts.
        sums0, sums, squares: votes of a soft certificate, as in `verdict.SoftVotes`; None in other files.
        file: the name of the image's file below the folder of the data set; None where images are not files.
    """

    idx: int
    label: int
    predict: int
    radius: float | None
    correct: bool
    sigma: float | None = column(None, name="best_sigma")
    pa_lower: float | None = column(None, name="pABar")
    seconds: Seconds = column(math.nan, name="time")
    search_samples: int = 0
    counts0: tuple[int, ...] | None = None
    counts: tuple[int, ...] | None = None
    n: int | None = column(None, where="asked")
    robust: int | None = column(None, where="asked")
    radius_upper: float | None = column(None, where="asked")
    u: float | None = column(None, where="asked")
    pb_upper: float | None = column(None, name="pBBar", where="asked")
    stage: int | None = column(None, where="asked")
    stages0: tuple[int, ...] | None = column(None, where="asked")
    stages: tuple[int, ...] | None = column(None, where="asked")
    sums0: tuple[int, ...] | None = column(None, where="asked")
    sums: tuple[int, ...] | None = column(None, where="asked")
    squares: tuple[int, ...] | None = column(None, where="asked")
    file: str | None = column(None, where="asked")

    @property
    def samples(self) -> float:
        """The number of noisy copies that were counted for the image; NaN if the file has no counts."""
        return float(self.search_samples + sum(self.counts0 or ()) + sum(self.counts)) if self.counts else math.nan


COLUMNS = Record.columns()
"""The columns of every run of certificates."""


@dataclasses.dataclass(frozen=True)
class Run:
    """The content of a results file: its records, and its sidecar ({} if there is none).

    The sidecar has "request", everything that decides the results, and "provenance", where they were computed. That of
    a finished run also has "left_out", the indices of images that could not be read, and hashes of file and pixels.

    Attributes:
        path: the file.
        records: a Record for each line, or a `Point` for each line of a file of curves.
        sidecar: the sidecar, as described above.
        per_image: whether another program's log has a column of sigmas that belongs to a search.
    """

    path: Path
    records: list  # of Record; of a file of curves, of its points
    sidecar: dict
    per_image: bool = False

    def to_pandas(self):
        """A pandas.DataFrame with a row for each record, by the names of `Record`. Counts are tuples.

        Raises:
            MissingPackage: pandas is not installed.
        """
        with needed_for("a data frame"):
            import pandas

        names = [field.name for field in dataclasses.fields(self.records[0])] if self.records else list(COLUMNS)
        rows = [[getattr(record, name) for name in names] for record in self.records]
        frame = pandas.DataFrame(rows, columns=names)
        return frame.loc[:, frame.notna().any()] if len(frame) else frame

    @property
    def request(self) -> dict:
        return self.sidecar.get("request", {})

    def class_name(self, label: int) -> str:
        """The name of a class in the sidecar, or its number if the sidecar has none."""
        names = self.request.get("dataset", {}).get("class_names") or []
        return names[label] if 0 <= label < len(names) else str(label)

    @property
    def input_specific(self) -> bool:
        """Whether sigma was chosen per input, so that certificates of two images are about two classifiers."""
        if is_cascade(self.request):
            return False
        return self.per_image or chooses_sigma(self.request) or len({r.sigma for r in self.records}) > 1

    @property
    def one_classifier(self) -> bool:
        """Whether its certificates are sound for one classifier of all inputs."""
        return not self.input_specific and "stored_balls" not in self.request

    @property
    def norm(self) -> str:
        """The norm of its radii: L2 or L1."""
        return self.request.get("smoothing", {}).get("norm", "L2")

    @property
    def of_an_earlier_version(self) -> bool:
        """Whether its sidecar lacks what `qcrs-jax verify` needs to draw its counts again."""
        provenance = self.sidecar.get("provenance", {})
        return "versions" in provenance and "settings" not in provenance

    @property
    def left_out(self) -> list[int] | None:
        """The images that could not be read. None for an unfinished run; empty for a log without a sidecar."""
        for made in ("stored_balls", "rebound"):
            if self.request.get(made):
                return self.request[made].get("left_out", [])
        if "settings" in self.sidecar.get("provenance", {}):
            return self.sidecar.get("left_out")
        return self.sidecar.get("left_out", [])

    @property
    def predicts(self) -> bool:
        """Whether it is a run of PREDICT, which certifies no radius."""
        return self.request.get("kind") == "predictions" or any(r.radius is None for r in self.records)

    @property
    def images(self) -> tuple:
        """The images of the run, for comparison with another run: indices, labels, and the data set if it is known."""
        return tuple((r.idx, r.label) for r in self.records), self.request.get("dataset", {}).get("fingerprint")


def count_unclassified(records: Sequence, request: dict) -> tuple[int, int]:
    """The number of noisy copies of `records` in no class, because a logit is not finite, and the number of all copies.

    They are copies of selection and certification in a run of this request; those of a search are not in the file.
    Records whose counts, or whose numbers of samples, are not known add nothing.
    """
    drawn = counted = 0
    for record in records:
        for name, n in _expected_counts(record, request).items():
            if n is not None and (counts := getattr(record, name, None)):
                drawn, counted = drawn + n, counted + sum(counts)
    return drawn - counted, drawn


def _expected_counts(record, request):
    """The sum that each of a record's counts has if all logits are finite, by name; None if it is not known."""
    n = getattr(record, "n", None)  # 0 where none were drawn
    return {"counts0": request.get("n0"), "counts": request.get("n") if n is None else n}


def sidecar_path(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def read_run(path: str | Path) -> Run:
    """The run in a results file: ours, Cohen's (of certificates or of predictions), QCRS's or MACER's hard ones.

    Raises:
        RecordsError: the file cannot be read; the message names the file and the line.
    """
    path = Path(path)
    header, rows = _read_table(path, "results file")
    columns = _columns(header, [row for _, row in rows])
    _check_no_attacks(path, header)
    if len(radii := [name for name in header if _plain(name) in _OTHER_NAMES["radius"]]) > 1 and "radius" not in header:
        raise RecordsError(
            f"{path}: its columns {' and '.join(radii)} could both be the radius; call one of them radius"
        )
    _check_columns(path, header, {"idx", "label", "predict", "correct"} - set(columns), "results file")
    sidecar = read_sidecar(path)
    if "radius" not in columns and sidecar.get("request", {}).get("kind") != "predictions":
        _check_prediction_columns(path, header, columns)
    records, seen = [], set()
    for number, row in rows:
        try:
            record = _parse({ours: row[theirs] for ours, theirs in columns.items()})
        except _NO_RESULT as error:
            raise RecordsError(f"{path}, line {number}: not a result: {quoted(error)}") from error
        if record.idx in seen:
            raise RecordsError(f"{path}, line {number}: image {record.idx} is listed twice")
        if trouble := _count_error(record, sidecar.get("request", {})):
            raise RecordsError(f"{path}, line {number}: not a result: {trouble}")
        seen.add(record.idx)
        records.append(record)
    of_a_search = "best_sigma" in columns and not sidecar and _is_search_sigma(columns["best_sigma"], records)
    return Run(path, records, sidecar, of_a_search)


def _check_no_attacks(path, header):
    """Raises RecordsError for a file of attacks, which has certified radii too."""
    if {"distance", "answer", "image_sha256"} <= set(header):
        raise RecordsError(
            f"{path}: holds attacks, not results; `qcrs-jax table` and `qcrs-jax plot` show it beside the results file "
            "that was attacked"
        )


def read_texts(path: str | Path) -> list[dict]:
    """The lines of a results file as they are written, {column: text}, with our names of the columns."""
    header, rows = _read_table(Path(path), "results file")
    columns = _columns(header, [row for _, row in rows])
    return [{ours: row[theirs] for ours, theirs in columns.items()} for _, row in rows]


def is_results(path: Path) -> bool:
    """Whether a file looks like one of results, of curves or of attacks, by its first line."""
    try:
        with open(path, "rb") as file:
            line = file.readline(4096).decode("utf-8-sig").strip("\r\n")
    except (OSError, UnicodeDecodeError):
        return False
    header = _fields(line)
    columns = _columns(header, [])
    others = ({"idx", "label", "sigma", "counts"}, {"idx", "label", "distance", "answer"})  # curves, attacks
    return {"idx", "label", "predict", "correct"} <= set(columns) or any(names <= set(header) for names in others)


def _columns(header, rows):
    """The name of each of our columns in this header. Of several columns of sigmas it is the first that varies."""
    found = {name: name for name in header}
    plain = {_plain(name): name for name in reversed(header)}
    for ours, others in _OTHER_NAMES.items():
        names = [plain[name] for name in (ours.lower(), *others) if name in plain]
        if ours == "best_sigma":
            names += [
                n for plainly, n in plain.items() if "sigma" in plainly and "rad" not in plainly and n not in names
            ]
            names.sort(key=lambda name: len({row[name] for row in rows}) < 2)
        if ours not in found and names:
            found[ours] = names[0]
    return found


def _plain(name):
    return re.sub(r"[\s-]+", "_", name.lower())


def _is_search_sigma(name, records):
    """Whether a column of this name, in a log without further hints, has the sigmas of a search; True if in doubt."""
    return len(records) == 1 or name.lower() not in ("sigma", "best_sigma")


def _check_prediction_columns(path, header, columns):
    """Raises RecordsError for a file without radii that has more columns than PREDICT writes: it is of certificates."""
    known = {columns.get(name) for name in PREDICT_COLUMNS}
    if others := [name for name in header if name not in known]:
        raise RecordsError(
            f"{path}: has no column radius, and is no run of PREDICT either: it has the columns "
            f"{', '.join(map(repr, others))}. If one of them is the certified L2 radius, of pixels in [0, 1], call it "
            "radius; if the file has predictions alone, leave these columns out"
        )


def _count_error(record, request):
    """The error in the counts of a record; None without one. A sum below n is no error: some logits were not finite."""
    for name, n in _expected_counts(record, request).items():
        counts = getattr(record, name)
        if counts and n is not None and not 0 <= min(counts) <= sum(counts) <= n:
            return f"{name} are not those of {n} samples: they sum to {sum(counts)}"
    return None


def read_rows(path: Path, needed: set[str], parse: Callable[[dict], Any], kind: str = "results file") -> list:
    """The results of `parse` for each line of a tab-separated file, given as a dict by the columns of its first line.

    Raises:
        RecordsError: the file cannot be read, lacks a column of `needed`, or has a line that cannot be parsed. The
            message names it.
    """
    header, lines = _read_table(path, kind)
    _check_columns(path, header, needed - set(header), kind)
    rows = []
    for number, row in lines:
        try:
            rows.append(parse(row))
        except _NO_RESULT as error:
            raise RecordsError(f"{path}, line {number}: not a result: {quoted(error)}") from error
    return rows


def _check_columns(path, header, missing, kind):
    if missing:
        message = f"{path}: not a {kind}: its first line has no column {', '.join(sorted(missing))}"
        if len(header) == 1 and "," in header[0]:
            message += "; separate the columns by tabs, not by commas"
        raise RecordsError(message)


def _read_table(path, kind):
    """The names in the first line of a tab-separated file, and (line number, {name: text}) for each line below it."""
    try:
        content = read_regular(path, error=RecordsError, as_a=kind)
        encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8"
        text = content.decode(encoding).replace("\ufeff", "")
    except UnicodeDecodeError as error:
        raise RecordsError(f"{path}: cannot be read as a {kind}: {quoted(error)}") from error
    lines = text.splitlines()
    header = _fields(lines[0].rstrip()) if lines else []
    if len(header) > MOST_COLUMNS or any(len(name) > LONGEST_NAME for name in header):
        raise RecordsError(
            f"{path}: not a {kind}: its first line has {len(header):,} columns, the longest name "
            f"{max(map(len, header)):,} characters"
        )
    if twice := sorted({name for name in header if header.count(name) > 1}):
        raise RecordsError(f"{path}: not a {kind}: its first line has the column {twice[0]!r} twice")
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        fields = _fields(line)
        while len(fields) > len(header) and not fields[-1]:  # tabs after the last field
            del fields[-1]
        if fields == header or not line.strip():  # logs that were joined
            continue
        ended = number < len(lines) or text.endswith(("\n", "\r"))
        if (longest := max(map(len, fields))) > LONGEST_FIELD:
            raise RecordsError(f"{path}, line {number}: not a result: it has a field of {longest:,} characters")
        if trouble := _line_error(header, fields, ended, sidecar_path(path).exists()):
            raise RecordsError(f"{path}, line {number}: not a result: {trouble}")
        rows.append((number, dict(zip(header, fields))))
    return header, rows


def _fields(line):
    return [field.strip() for field in line.split("\t")]


def _line_error(header, fields, ended, ours):
    """The reason why the fields are not those of a whole line under this header, with the remedy; None if they are."""
    remedy = "delete it, " + (
        "and the same command computes that image again" if ours else "or put the whole line there"
    )
    if header[0] in fields and len(set(header) & set(fields)) > 1:
        return "it is a header of other columns: two kinds of logs were joined; put each into a file of its own"
    if len(fields) != len(header):
        cut = ": the line is cut" if len(fields) < len(header) else ""
        return f"it has another number of fields than the first line, {len(fields)} for {len(header)}{cut}; {remedy}"
    whole = ended or header[-1] == "time" and re.fullmatch(r"(.*, )?\d+:\d\d:\d\d(\.\d+)?", fields[-1])
    if not whole:
        return (
            f"it ends in {header[-1]} {fields[-1]!r} without a newline, and may be cut; {remedy}, or, if it is whole, "
            "end it with a newline"
        )
    return None


def read_sidecar(path: Path) -> dict:
    """The sidecar of the results file `path`; {} if there is none.

    It has "request", "provenance" and, as "said", the sentences on the guarantee. That of a finished run also has
    "left_out" and the hashes "sha256", "pixels_sha256" and "sidecar_sha256". Its fields have the types and ranges of
    `sidecar`.

    Raises:
        RecordsError: it is damaged, or no run has such a sidecar.
    """
    content = whole_sidecar(path)
    if not content:
        return {}
    content = sidecars.present(content)
    known = {name: content[name] for name in ("request", "provenance")}
    known["said"] = {name: content[name] for name in ("guarantee", "account") if name in content}
    return known | {name: content[name] for name in WHEN_FINISHED if name in content}


def whole_sidecar(path: Path) -> dict:
    """The whole sidecar of the results file `path`; {} if there is none. Errors as for `read_sidecar`."""
    file = sidecar_path(path)
    try:
        if not is_there(file):
            return {}
    except (OSError, ValueError) as error:  # ValueError: a name with a null character
        raise RecordsError(f"{file}: cannot be read: {quoted(error)}") from error
    try:
        return sidecars.parse(read_regular(file, sidecars.LARGEST, RecordsError))
    except sidecars.Unfit as error:
        raise RecordsError(f"{file}: not the sidecar of a run: {quoted(error)}") from error


def _parse(row):
    predict = whole_number(row["predict"])
    if predict == -2:  # where a program tells abstentions of selection from those of certification
        predict = -1
    if predict == -1 and "radius" in row and not (row["radius"] and float(row["radius"]) > 0):
        row = {**row, "radius": "0"}  # an abstention may have none
    record = Record.of({**row, "predict": str(predict)})
    if record.radius is None and "radius" in row:
        raise ValueError("radius: nothing")
    if record.radius is not None and not (record.radius >= 0 and math.isfinite(record.radius)):
        raise ValueError(f"radius {record.radius}")
    if record.sigma is not None and not 0 < record.sigma < math.inf:
        raise ValueError(f"sigma {record.sigma}")
    if record.idx < 0 or record.label < 0 or record.predict < -1:
        raise ValueError(f"idx {record.idx}, label {record.label}, predict {record.predict}: classes count from 0")
    if record.correct != (record.predict == record.label):
        raise ValueError(f"correct is {int(record.correct)}, but predict {record.predict} and label {record.label}")
    return record


def differences(before: dict, now: dict, where: tuple[str, str] = ("in the file", "now")) -> list[str]:
    """A line for each setting in which two requests, in JSON's types, differ. `where` names their places."""
    before, now = flat(_seed_in_words(before)), flat(_seed_in_words(now))
    return [
        f"{key}: {before.get(key)!r} {where[0]}, {now.get(key)!r} {where[1]}"
        for key in sorted({*before, *now})
        if before.get(key) != now.get(key)
    ]


def _seed_in_words(request):
    """A request in which a committed seed is written as one text."""
    seed = request.get("seed")
    if not isinstance(seed, dict):
        return request
    return {**request, "seed": f"committed, {seed.get('sha256')} of {seed.get('images')} images"}


def checksum(path: Path) -> str:
    """SHA-256 of a results file."""
    return hashlib.sha256(read_regular(path, error=RecordsError)).hexdigest()


def sidecar_checksum(content: dict) -> str:
    """SHA-256 of everything in a sidecar but this hash itself."""
    rest = {name: value for name, value in content.items() if name != "sidecar_sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def guarantee_texts(request: dict) -> dict:
    """The sentences of a sidecar about the guarantees of a run with this request."""
    said = {}
    if request.get("kind") == "attacks":
        return {"guarantee": ATTACKED}
    if chooses_sigma(request) and "stored_balls" not in request:
        said["guarantee"] = INPUT_SPECIFIC
    if is_cascade(request):
        said["guarantee"] = CASCADE
    if "alpha" in request:
        said["account"] = account(request)
    return said


def is_soft(request: dict) -> bool:
    """Whether the certificates of a run of this request are for the class with the largest mean soft vote."""
    return request.get("estimate", {}).get("name") == "soft"


def is_ddrs(request: dict) -> bool:
    """Whether a run of this request chose sigma by gradient ascent, which differentiates each of its samples."""
    return request.get("search", {}).get("method") == "ddrs"


def chooses_sigma(request: dict) -> bool:
    """Whether a run of this request chose sigma per input."""
    return request.get("search", {}).get("method", "cohen") not in ("cohen", "cascade")


def is_cascade(request: dict) -> bool:
    """Whether a run of this request certified a cascade."""
    return request.get("search", {}).get("method") == "cascade"


def flat(nested: dict, prefix: str = "") -> dict:
    """{"a": {"b": 1}} as {"a.b": 1}."""
    found = {}
    for key, value in nested.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found
