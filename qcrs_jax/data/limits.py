"""Limits on the size of a data set. Sizes are compared with them before anything is read into memory."""

import dataclasses
import math
import os
from pathlib import Path

from ..errors import setting
from ..files import open_regular
from ..machine import usable_memory
from .dataset import DataError

GIB = 2**30
MOST_CLASSES = 100_000
MOST_PIXELS = 2**26  # of one image; decoding takes up to eleven bytes a pixel
TEXT = 2**28  # bytes of a file of labels or of names


def default_memory_limit() -> float:
    """The default limit of a data set in GiB: 4, or half of the usable memory if that is less."""
    memory = usable_memory()
    return 4.0 if memory is None else min(4.0, memory / GIB / 2)


@dataclasses.dataclass(frozen=True)
class Limit:
    """The largest memory of the arrays of a data set, in bytes."""

    size: int = dataclasses.field(default_factory=lambda: int(default_memory_limit() * GIB))

    @classmethod
    def of(cls, gib: float | int | None) -> "Limit":
        """The limit of this number of GiB, or the default.

        Raises:
            DataError: not a positive number.
        """
        if gib is None:
            return cls()
        if not (0 < gib < math.inf):
            raise DataError(f"{setting('memory_limit')} must be a positive number of GiB, not {gib}")
        return cls(int(gib * GIB))

    def check(self, size: int, where: str | Path) -> None:
        """Raises DataError unless `size` bytes are within the limit; `where` is the file that needs them."""
        if size > self.size:
            raise DataError(
                f"{where}: would take {size / GIB:.3g} GiB of memory, more than {setting('memory_limit')}, "
                f"{self.size / GIB:.3g} GiB; if you trust the file, raise the limit"
            )

    def read(self, file: Path) -> bytes:
        """The content of a regular file. Raises DataError if it exceeds the limit, OSError if it cannot be read."""
        with open_regular(file) as stream:
            self.check(os.fstat(stream.fileno()).st_size, file)
            return stream.read()


def check_classes(count: int, where: str | Path) -> None:
    """Raises DataError for more classes than any data set has."""
    if count > MOST_CLASSES:
        raise DataError(f"{where}: has {count} classes, but a data set may have {MOST_CLASSES}; its labels are damaged")


def read_text(file: Path) -> str:
    """The text of a regular file of labels or names; bytes that are not UTF-8 are replaced.

    Raises:
        DataError: longer than TEXT bytes.
        OSError: it cannot be read.
    """
    return Limit(TEXT).read(file).decode(errors="replace")
