"""Versions of packages, for records of how results were made."""

import importlib.metadata
import tomllib
from pathlib import Path


def version(package: str) -> str:
    """The version of `package`; "unknown" if it cannot be found.

    This package may run from a checkout that is not installed. Then its pyproject.toml has the version.
    """
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        if package != "qcrs_jax":
            return "unknown"
    try:
        return tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text())["project"]["version"]
    except (OSError, KeyError, tomllib.TOMLDecodeError):
        return "unknown"
