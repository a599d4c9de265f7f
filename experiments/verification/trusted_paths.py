"""Which paths of a sidecar `qcrs-jax verify` opens: a stranger may have written them."""

import os
from pathlib import Path

from qcrs_jax.errors import UserError
from qcrs_jax.files import check_regular

from ..run.names import is_python

SHIPPED = Path(__file__).parent / "assets"


WHAT = {"checkpoint": "checkpoint", "data_dir": "data set"}


def use_paths(args, results: Path, given, trust: bool) -> None:
    """Puts the paths that may be opened into `args`, the recorded arguments of the run in `results`.

    A path that the user gives is opened, and so is each with `trust`. A path of the sidecar is opened where it lies
    below the current folder or that of the results, links followed, or comes with the package. Then nothing is asked of
    TensorFlow Datasets below it; without such a path what the user has of it is read, and nothing is downloaded.

    Args:
        given: what the user gave as checkpoint and data_dir; None for what was not given.

    Raises:
        UserError: a path lies elsewhere, or is no file and no folder.
    """

    for name, what in WHAT.items():
        own = getattr(given, name)
        path = getattr(args, name) if own is None else own
        setattr(args, name, path)
        if path is None or name == "checkpoint" and str(path).startswith("zoo:"):
            continue
        if name == "checkpoint" and is_python(path):
            if own is None:
                raise UserError(
                    f"{results}: its sidecar names the classifier {path}, which would run that file; it was not run. "
                    "Read it, and give --checkpoint python:FILE.py:FUNCTION, or --recount 0 to open nothing"
                )
            continue
        if own is None and not trust and not _is_near(path, results):
            raise UserError(
                f"{results}: its sidecar names the {what} {path}, which lies neither below the current folder nor "
                f"below that of the results; it was not opened. Give --{name}, or --trust_paths to open what the "
                "sidecar names, or --recount 0 to open nothing"
            )
        check_regular(path)
    args.tfds = "prepare" if trust or given.data_dir is not None else "leave" if args.data_dir is not None else "read"


def _is_near(path, results):
    file = os.path.realpath(path)
    return any(Path(file).is_relative_to(os.path.realpath(root)) for root in (".", results.parent, SHIPPED))
