"""The paths of a sidecar that `qcrs-jax verify` opens. A stranger may have written them."""

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path

from qcrs_jax.errors import UserError
from qcrs_jax.files import check_regular

from ..run.inputs import Inputs
from ..run.python_classifier import is_python
from ..run.settings import IN_MEMORY, Data, Sweep

SHIPPED = Path(__file__).parents[1] / "assets"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Where:
    """The present places of the inputs of a run, as the user gives them.

    checkpoint, denoiser, data_dir: their paths; None for those in the sidecar.
    trust_paths: whether any path in the sidecar may be opened.
    inputs: a function that opens them, for a run whose classifier and data set are in memory.
    otherwise: the end of messages, on what can be done without opening anything.
    """

    checkpoint: Path | None = None
    denoiser: Path | None = None
    data_dir: Path | None = None
    trust_paths: bool = False
    inputs: Callable[[Sweep], Inputs] | None = None
    otherwise: str = ", or --recount 0 to open nothing"


def use_paths(sweep: Sweep, results: Path, where: Where) -> Sweep:
    """The recorded sweep of the run in `results`, with paths that may be opened.

    A path from the user is opened, and with `trust_paths` every path. A path of the sidecar is opened if it lies below
    the current folder or that of the results, links followed, or comes with the package. TensorFlow Datasets is then
    not asked about anything below it. Without such a path the data that the user has is read, and nothing is
    downloaded.

    Raises:
        UserError: a path lies elsewhere, or is no file and no folder.
    """
    if where.inputs:
        return sweep
    checkpoint = where.checkpoint or sweep.network.checkpoint
    if str(checkpoint).startswith(IN_MEMORY):
        raise UserError(
            f"{results}: was made by a program, of a classifier in its memory; `qcrs_jax.verify(path, classify, "
            "dataset)` there draws lines again, and --recount 0 checks its lines alone"
        )
    if is_python(checkpoint):
        if where.checkpoint is None:
            raise UserError(
                f"{results}: its sidecar names the classifier {checkpoint}, which would run that file; it was not run. "
                f"Read it, and give --checkpoint python:FILE.py:FUNCTION{where.otherwise}"
            )
    elif not str(checkpoint).startswith("zoo:"):
        _check(checkpoint, where.checkpoint, "checkpoint", "--checkpoint", results, where)
    for stage in sweep.network.stages:
        if not stage.startswith("zoo:"):
            _check(Path(stage), None, "network of a stage", "--trust_paths", results, where)
    denoiser = where.denoiser or sweep.network.denoiser
    if denoiser is not None and not str(denoiser).startswith("zoo:"):
        _check(denoiser, where.denoiser, "denoiser", "--denoiser", results, where)
    network = dataclasses.replace(sweep.network, checkpoint=checkpoint, denoiser=denoiser)
    return dataclasses.replace(sweep, network=network, data=use_data_path(sweep.data, results, where))


def use_data_path(data: Data, results: Path, where: Where) -> Data:
    """The data set of the run in `results`, with a path that may be opened; as `use_paths`."""
    data_dir = where.data_dir or data.data_dir
    if data_dir is not None:
        _check(data_dir, where.data_dir, "data set", "--data_dir", results, where)
    asks = "prepare" if where.trust_paths or where.data_dir else "leave" if data_dir is not None else "read"
    return dataclasses.replace(data, data_dir=data_dir, tfds=asks)


def _check(path, own, what, flag, results, where):
    if own is None and not where.trust_paths and not is_near(path, results):
        raise UserError(
            f"{results}: its sidecar names the {what} {path}, which lies neither below the current folder nor below "
            f"that of the results; it was not opened. Give {flag}, or --trust_paths to open what the sidecar "
            f"names{where.otherwise}"
        )
    check_regular(path)


def is_near(path: Path, results: Path) -> bool:
    """Whether a path of the sidecar of `results` is opened without being given again."""
    file = os.path.realpath(path)
    return any(Path(file).is_relative_to(os.path.realpath(root)) for root in (".", results.parent, SHIPPED))
