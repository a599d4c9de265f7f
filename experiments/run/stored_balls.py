"""Memory-based post-processing of a results file: radii are trimmed so that no balls of two classes overlap."""

import dataclasses
import functools
from pathlib import Path

import numpy as np

from qcrs_jax.data.load import digest
from qcrs_jax.errors import UserError
from qcrs_jax.printable import printable_lines
from qcrs_jax.results import stored_balls
from qcrs_jax.results.metrics import columns
from qcrs_jax.results.shards import read_runs
from qcrs_jax.results.writer import check_new, write_run

from .class_names import order_warning
from .data_sets import open_dataset
from .settings import Data

PROCEDURE = "memory-based, Alfarra et al. 2022, algorithm 2; no radius grows; abstentions neither stored nor changed"


def postprocess(
    results: Path,
    out: Path,
    data: Data,
) -> str:
    """Writes the corrected results file `out`. Returns a line on the changes.

    Raises:
        UserError: a file cannot be read, the data set is not that of the results, or `out` exists.
    """
    if out.exists():
        check_new(out)
    (run,) = read_runs([results])
    if not run.records:
        raise UserError(f"{results}: holds no results yet")
    if "stored_balls" in run.request:
        raise UserError(f"{results}: is already memory-based")
    if run.norm != "L2":
        raise UserError(
            f"{results}: has radii of {run.norm}, and balls are compared in L2; give a run with radii of L2"
        )
    _, radii = columns(run)
    dataset = open_dataset(data)
    theirs = run.request.get("dataset", {}).get("class_names")
    if said := order_warning(theirs, dataset.class_names, str(results)):
        print(printable_lines(f"warning: {said}"))
    _check_data(run, dataset)
    source = {"source": results.name, "source_sha256": digest(results.read_bytes())}
    if left_out := run.left_out:
        source["left_out"] = left_out
    described = {"name": dataset.name, "split": dataset.split, "fingerprint": dataset.fingerprint}
    request = {"dataset": described, **run.request, "stored_balls": {"procedure": PROCEDURE, **source}}
    check_new(out, request)
    predictions = np.array([record.predict for record in run.records])
    corrected = stored_balls.correct(RunImages(run, dataset), predictions, radii)
    records = [
        dataclasses.replace(
            record,
            predict=int(predict),
            radius=float(radius),
            correct=bool(predict == record.label),
            robust=None,  # of the radius before
            radius_upper=None,
        )
        for record, predict, radius in zip(run.records, corrected.predictions, corrected.radii)
    ]
    provenance = {
        **run.sidecar.get("provenance", {}),
        "stored_balls": {"results": str(results), "limits": stored_balls.LIMITS},
    }
    write_run(out, records, request, provenance)
    changed = int((corrected.predictions != predictions).sum())
    trimmed = int(((corrected.radii < radii) & (corrected.predictions == predictions)).sum())
    return f"{out}: of {len(records)} images {changed} took the class of an earlier ball, {trimmed} others were trimmed"


@dataclasses.dataclass(frozen=True)
class RunImages:
    """The images of a run, float32, in the order of its lines. Each is read when it is needed.

    Raises:
        UserError: an image cannot be read, or has another shape than the first.
    """

    run: object
    data: object

    def __len__(self):
        return len(self.run.records)

    def __getitem__(self, place):
        image, _ = self.data[self.run.records[place].idx]
        if place and image.shape != self._shape:
            raise UserError(
                f"{self.data.source}: images of different shapes, {self._shape} and {image.shape}, have no distance"
            )
        return image

    @functools.cached_property
    def _shape(self):
        return self[0].shape


def _check_data(run, data):
    """Raises UserError unless `data` is the run's data set."""
    theirs = run.request.get("dataset", {}).get("fingerprint")
    if theirs not in (None, data.fingerprint):
        raise UserError(
            f"{run.path}: was made from another data set than {data.source} ({data.split}); name its own with "
            "--dataset, --data_dir and --split"
        )
    for record in run.records:
        label = data.labels[record.idx] if 0 <= record.idx < len(data) else None
        if label != record.label:
            raise UserError(
                f"{run.path}: image {record.idx} has label {record.label}, and in {data.source} ({data.split}) "
                f"{'there is none' if label is None else f'label {label}'}; name its data set with --dataset, "
                "--data_dir and --split"
            )
