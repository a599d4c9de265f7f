"""Optional packages, which an extra of this package installs, and the error if one is missing."""

import contextlib
from collections.abc import Iterator

from .errors import UserError

EXTRAS = {
    "matplotlib": "plots",
    "tensorflow_datasets": "data",
    "array_record": "data",
    "importlib_resources": "data",
    "optax": "train",
    "orbax": "train",
    "flatbuffers": "export",
    "tqdm": "cli",
    "pandas": "cli",
    "torch": "bench",
}
"""The extra that installs each optional package, by the name under which it is imported."""


class MissingPackage(UserError):
    """An optional package is not installed.

    Attributes:
        package: the name under which it is imported.
        extra: the extra of qcrs_jax that installs it.
    """

    def __init__(self, package: str, extra: str, what: str):
        self.package, self.extra = package, extra
        rest = "" if extra in ("cli", "bench") else ", or 'qcrs_jax[cli]' for all that the program needs"
        super().__init__(f"{what} needs the package {package}: pip install 'qcrs_jax[{extra}]'{rest}")


@contextlib.contextmanager
def needed_for(what: str) -> Iterator[None]:
    """A context for imports of optional packages.

    Args:
        what: the feature that needs the package: the subject of the error's sentence.

    Raises:
        MissingPackage: an optional package is not installed. Errors about other modules are raised as they are.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in EXTRAS:
            raise
        raise MissingPackage(package, EXTRAS[package], what) from error
