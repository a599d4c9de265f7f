"""Files of attacks: beside each certified radius, the distance of the nearest image that is answered otherwise.

ATTACKS        one line for each line of a results file: idx label predict radius best_sigma distance answer ...
ATTACKS.json   the sidecar; request.attack names the results file, by its name and its hash
"""

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float

from .records import RecordsError, Run, checksum, read_rows, read_run, read_sidecar
from .rows import Row, Seconds, column
from .shards import gather, merge

NEEDED = {"idx", "label", "predict", "radius", "distance", "answer"}


@dataclasses.dataclass(frozen=True)
class AttackRecord(Row):
    """The attack on one image; one line of a file of attacks.

    Attributes:
        idx, label: index in the data set, and true class.
        predict, radius, sigma: certified class, radius and noise level (column best_sigma), from the results file. An
            image without a correct certificate is not attacked.
        distance: distance of the nearest image that was shown to be answered otherwise; None if none was found.
        answer: the class that is answered there; -1 if none was found.
        answer_sigma: noise level at which it is answered; None if none was found.
        counts: class counts of the samples that show it; None if none was found.
        checks: number of images that were checked by fresh samples.
        failed: largest distance below `distance` at which the attack failed; 0 if it failed nowhere.
        image_sha256: hash of the pixels of that image, float32; None if none was found.
        seconds: wall-clock time (column time, h:mm:ss.ffffff).
    """

    idx: int
    label: int
    predict: int
    radius: float
    sigma: float = column(name="best_sigma")
    distance: float | None = None
    answer: int = -1
    answer_sigma: float | None = None
    counts: tuple[int, ...] | None = None
    checks: int = 0
    failed: float = 0.0
    image_sha256: str | None = None
    seconds: Seconds = column(math.nan, name="time")

    @property
    def attacked(self) -> bool:
        """Whether the image has a correct certificate, and was attacked."""
        return self.predict == self.label

    @property
    def inside(self) -> bool:
        """Whether its answer was changed inside its certified radius."""
        return self.distance is not None and self.distance < self.radius


def read_attack_records(path: str | Path) -> list[AttackRecord]:
    """The lines of a file of attacks.

    Raises:
        RecordsError: names the file and the line.
    """
    records = read_rows(Path(path), NEEDED, _parse, "file of attacks")
    seen = set()
    for number, record in enumerate(records, start=2):
        if record.idx in seen:
            raise RecordsError(f"{path}, line {number}: image {record.idx} is listed twice")
        seen.add(record.idx)
    return records


def _parse(row):
    record = AttackRecord.of(row)
    if record.idx < 0 or record.label < 0 or record.predict < -1 or record.answer < -1:
        raise ValueError(f"idx {record.idx}, label {record.label}, predict {record.predict}, answer {record.answer}")
    numbers = (record.radius, record.failed, 0.0 if record.distance is None else record.distance)
    if not all(0 <= number < math.inf for number in numbers):
        raise ValueError(f"radius {record.radius}, distance {record.distance}, failed {record.failed}")
    if not 0 < record.sigma < math.inf:
        raise ValueError(f"sigma {record.sigma}")
    if (record.distance is None) != (record.answer == -1):
        raise ValueError(f"distance is {record.distance}, but answer is {record.answer}")
    if record.distance is not None and (not record.attacked or record.answer == record.label):
        raise ValueError(f"label {record.label}, predict {record.predict}, answer {record.answer}: no answer changed")
    return record


def is_attack(path: str | Path) -> bool:
    """Whether `path` is a file of attacks, by its sidecar."""
    return read_sidecar(Path(path)).get("request", {}).get("kind") == "attacks"


@dataclasses.dataclass(frozen=True)
class Attacks:
    """The attacks of one method on the images of a run.

    Attributes:
        paths: the files; several for the shards of a run.
        method: the classifier that was attacked, "cohen" or "frozen".
        alpha: failure probability of the distances of one image.
        records: one for each record of the run, in its order.
    """

    paths: tuple[Path, ...]
    method: str
    alpha: float
    records: list[AttackRecord]

    @property
    def correct(self) -> Bool[np.ndarray, "m"]:
        """Whether each image has a correct certificate, (m,)."""
        return np.array([record.attacked for record in self.records], bool)

    @property
    def distance(self) -> Float[np.ndarray, "m"]:
        """The distance at which the answer of each image changed, (m,); infinite where no other answer was found."""
        return np.array([math.inf if r.distance is None else r.distance for r in self.records])

    def accuracy(self, at: Float[np.ndarray, "r"]) -> Float[np.ndarray, "r"]:
        """The share of images with a correct certificate that no attack changed within each of `at`."""
        return (self.correct[:, None] & (self.distance[:, None] > at)).mean(axis=0)


def read_runs_and_attacks(paths: Sequence[str | Path]) -> tuple[list[Run], list[list[Attacks]]]:
    """The runs in `paths`, and for each of them the attacks on it. The shards of a run are put together.

    Raises:
        RecordsError: a file cannot be read, a file of attacks is not finished, or the results file that it attacked is
            not among `paths`.
    """
    files = [Path(path) for path in paths]
    attacks = [path for path in files if is_attack(path)]
    groups = gather([read_run(path) for path in files if path not in attacks])
    found: list[dict[str, list]] = [{} for _ in groups]
    homes = {checksum(run.path): place for place, group in enumerate(groups) for run in group} if attacks else {}
    for path in attacks:
        sidecar = read_sidecar(path)
        of = sidecar["request"].get("attack", {})
        if of.get("source_sha256") not in homes:
            raise RecordsError(
                f"{path}: holds attacks on {of.get('source')}, as it was then; give that file beside it. If it was "
                "changed since, attack it again"
            )
        if "sha256" not in sidecar:
            raise RecordsError(f"{path}: is not finished; finish it with the command that began it")
        found[homes[of["source_sha256"]]].setdefault(of["method"], []).append((path, sidecar))
    runs = [merge(group) if "shard" in group[0].request else group[0] for group in groups]
    return runs, [[_joined(run, method, parts) for method, parts in of.items()] for run, of in zip(runs, found)]


def _joined(run, method, parts):
    """The attacks of one method on a run, from the files of its shards."""
    if len({sidecar["request"]["attack"]["source_sha256"] for _, sidecar in parts}) < len(parts):
        raise RecordsError(f"{parts[1][0]}: {parts[0][0]} has attacks of {method} on the same run; give one of them")
    records = {record.idx: record for path, _ in parts for record in read_attack_records(path)}
    paths = tuple(path for path, _ in parts)
    if missing := [record.idx for record in run.records if record.idx not in records]:
        raise RecordsError(
            f"{paths[0]}: has no attack on image {missing[0]} of {run.path}; attack all files of the run"
        )
    own = [records[record.idx] for record in run.records]
    for ours, theirs in zip(own, run.records):
        if differs(ours, theirs):
            raise RecordsError(f"{paths[0]}: image {ours.idx}: its certificate is not that of {run.path}")
    return Attacks(paths, method, parts[0][1]["request"]["alpha"], own)


def differs(record: AttackRecord, certified) -> bool:
    """Whether a line has another label or certificate than the record of the results file."""
    return any(
        getattr(record, name) != getattr(certified, name) for name in ("idx", "label", "predict", "radius", "sigma")
    )
