"""Progress of a run: a bar on a terminal; elsewhere, as in a log, one plain line a minute."""

import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from qcrs_jax.extras import needed_for

from .cost import duration

MINUTE = 60.0


def check_installed() -> None:
    """Raises MissingPackage if the bar for a terminal cannot be shown. Call it before the slow part."""
    with needed_for("a bar of progress"):
        import tqdm  # noqa: F401


def progress(things: Iterable | None = None, **options: Any) -> Any:
    """Shows progress on standard error: over `things`, or, without them, by calls of `update`.

    The result is a context and an iterator, with `update`, `write` and `set_postfix_str`, like a bar of tqdm.

    Args:
        options: total, their number; unit, their name; desc, name of the work; initial, number done before; disable,
            no output; leave, whether the bar stays at the end.

    Raises:
        MissingPackage: tqdm is not installed.
    """
    with needed_for("a bar of progress"):
        from tqdm import tqdm

    if sys.stderr is not None and sys.stderr.isatty():
        return tqdm(things, dynamic_ncols=True, **options)
    return Lines(things, **options)


class Lines:
    """Progress as lines: one a minute, and one at the end if it took longer than that.

    clock: function that returns seconds, like `time.monotonic`.
    """

    def __init__(
        self,
        things: Iterable | None = None,
        total: int | None = None,
        unit: str = "it",
        desc: str = "",
        initial: int = 0,
        disable: bool = False,
        leave: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ):
        self.things, self.total, self.unit, self.desc = things, total, unit, desc
        self.done = self.first = initial
        self.disable, self.clock, self.postfix = disable, clock, ""
        self.started = self.printed = clock()

    def __enter__(self) -> "Lines":
        return self

    def __exit__(self, *_) -> None:
        if self.printed > self.started:
            self._print()

    def __iter__(self) -> Iterator:
        with self:
            for thing in self.things or ():
                yield thing
                self.update(1)

    def update(self, number: int = 1) -> None:
        self.done += number
        if self.clock() - self.printed >= MINUTE:
            self._print()

    def set_postfix_str(self, text: str) -> None:
        self.postfix = text

    def write(self, text: str) -> None:
        print(text, flush=True)

    def _print(self):
        now = self.clock()
        self.printed = now
        if self.disable:
            return
        of = f" of {self.total}" if self.total is not None else ""
        said = [f"{self.desc}: " * bool(self.desc) + f"{self.done}{of} {self.unit}", self.postfix]
        said.append(f"{duration(now - self.started)} so far")
        made, left = self.done - self.first, (self.total or 0) - self.done
        if made > 0 and left > 0:
            said.append(f"about {duration((now - self.started) / made * left)} left")
        print(", ".join(filter(None, said)), file=sys.stderr, flush=True)
