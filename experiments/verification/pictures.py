"""The data set of a run, opened to show its images beside its results. Nothing is certified."""

import dataclasses
from pathlib import Path

from qcrs_jax.data.image_files import resized
from qcrs_jax.errors import SettingError, UserError, text_of
from qcrs_jax.results.records import Run

from ..run.data_sets import open_dataset
from ..run.settings import IN_MEMORY, Data, typed
from .trusted_paths import Where, is_near, use_data_path

SIZES = [(size, size) for size in (224, 32, 28, 64, 256, 299, 384)]
"""Of images that networks take, where a file does not record it."""


def open_pictures(run: Run, path: Path, where: Where):
    """The data set of `run`, whose results are in `path`.

    Raises:
        UserError: it cannot be opened as recorded or as `where` says, or it is another one.
    """
    data = _recorded(run, where)
    given = where.data_dir is not None or where.trust_paths
    if not given and data.data_dir is not None and not is_near(data.data_dir, path):
        raise UserError(
            f"the data set {data.data_dir} lies neither below the current folder nor below that of the results, and "
            "was not opened; give --data_dir, or --trust_paths to open what the sidecar names"
        )
    data = use_data_path(data, path, where)
    try:
        dataset = open_dataset(data)
    except UserError as error:
        raise UserError(f"the data set could not be opened: {text_of(error)}") from error
    dataset = _prepared(run, data, dataset)
    if trouble := _other(run, dataset):
        raise UserError(f"the data set in {dataset.source} is not the one of {path.name}: {trouble}")
    return dataset


def _recorded(run, where):
    """How the data set was opened."""
    settings = run.sidecar.get("provenance", {}).get("settings", {})
    recorded = settings.get("data")
    if where.data_dir is None and str(settings.get("network", {}).get("checkpoint")).startswith(IN_MEMORY):
        raise UserError(f"the images of {run.path.name} were in the memory of a program")
    if recorded is None:
        if where.data_dir is None:
            raise UserError(f"{run.path.name} does not record where its images are")
        return Data(on_error="skip")
    try:
        data = typed(Data, recorded)
    except SettingError as error:
        raise UserError(f"{run.path.name}: not the sidecar of a run: {error}") from error
    if data.class_order is not None:  # its file may be elsewhere by now
        data = dataclasses.replace(data, class_order=run.request["dataset"]["class_names"])
    return dataclasses.replace(data, on_error="skip")


def _prepared(run, data, dataset):
    """The data set, its images resized as those of the run, of whose fingerprint that is a part."""
    if data.resize is None:
        return dataset
    shape = run.request.get("classifier", {}).get("image_shape")
    for h, w in [tuple(shape[:2])] if shape else SIZES:
        if max(h, w) <= data.resize:
            made = resized(dataset, data.resize, h, w)
            if made.fingerprint == run.request.get("dataset", {}).get("fingerprint"):
                return made
    return dataset


def _other(run, dataset):
    """The reason why `dataset` is not that of `run`; None if it is."""
    due = run.request.get("dataset", {}).get("fingerprint")
    if due is not None and due != dataset.fingerprint:
        return "its fingerprint differs"
    for record in run.records:
        if record.idx >= len(dataset):
            return f"it has {len(dataset)} images, and the results are of image {record.idx} too"
        if dataset.labels[record.idx] != record.label:
            return f"image {record.idx} has another label"
    return None
