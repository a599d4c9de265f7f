"""The loop of a run over images. The next images are read and launched while the results of the last are awaited."""

import concurrent.futures
import contextlib
import itertools
import signal
import threading
from collections.abc import Callable, Iterable, Iterator

import jax

from qcrs_jax.errors import UserError, setting, text_of

from .full_card import REMEDY, memory_is_full
from .stopped import Stopped

_HOST_IS_GONE = ("Gloo", "UNAVAILABLE", "DEADLINE_EXCEEDED", "heartbeat")


@contextlib.contextmanager
def stopping():
    """A context in which SIGTERM and Ctrl-C raise Stopped, at once if the main thread only waits for others."""

    def stop(number, frame):
        raise Stopped({signal.SIGTERM: "stopped by SIGTERM", signal.SIGINT: "interrupted"}[number], 128 + number)

    if threading.current_thread() is not threading.main_thread():  # only the main thread may set handlers
        yield
        return
    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def read_ahead(read: Callable, indices: Iterable, ahead: int = 1) -> Iterator:
    """Yields (index, a function that returns `read(index)`) for each of `indices`, of images or of whole batches.

    The next `ahead` are read meanwhile.
    """
    reader = concurrent.futures.ThreadPoolExecutor(1)
    try:
        upcoming = []
        for index in itertools.chain(indices, [None] * ahead):
            upcoming.append(index is not None and (index, reader.submit(read, index).result))
            if len(upcoming) > ahead and (next_one := upcoming.pop(0)):
                yield next_one
    finally:
        reader.shutdown(wait=False, cancel_futures=True)


def groups(reads: Iterable, size: int, left_out: Callable | None) -> Iterator[list]:
    """Groups of `size` (index, image, label); the last may be smaller.

    left_out: called with (index, error) for an unreadable image. None stops there, after the images before it.

    Raises:
        UserError: names the image that cannot be read.
    """
    group = []
    for index, read in reads:
        try:
            image, label = read()
        except UserError as error:
            if left_out is None:
                yield from [group] if group else []
                raise UserError(
                    f"image {index}: {text_of(error)}\nWith {setting('on_error')} skip such images are left out"
                ) from error
            left_out(index, error)
            continue
        group.append((index, image, label))
        if len(group) == size:
            yield group
            group = []
    yield from [group] if group else []


def in_turn(calls: Iterable, launch: Callable) -> Iterator[tuple]:
    """Yields (call, its result), in order. Each call is launched before the result of the one before it is awaited.

    Args:
        launch: call -> a function that waits for its result. Both run in a thread of their own, so that signals are
            handled.

    Raises:
        Exception: the error of a call, once all calls before it are yielded.
    """
    worker = concurrent.futures.ThreadPoolExecutor(1)
    try:
        calls, waiting, failure = iter(calls), None, None
        while True:
            launched = None
            try:
                if failure is None and (call := next(calls, None)) is not None:
                    launched = call, worker.submit(launch, call).result()
            except Exception as error:
                failure = error
            if waiting:
                yield waiting[0], worker.submit(waiting[1]).result()
            waiting = launched
            if waiting is None:
                break
        if failure:
            raise failure
    finally:
        worker.shutdown(wait=False, cancel_futures=True)


def check_hosts(error: Exception) -> None:
    """Raises Stopped if an error of JAX means that another host of the run is gone."""
    if jax.process_count() > 1 and any(sign in str(error) for sign in _HOST_IS_GONE):
        raise Stopped(f"the hosts lost each other; start all of them again: {error}", 75) from error


class Launcher:
    """Launches calls for `in_turn`. It halves the noisy copies in a forward pass once memory does not hold them.

    start: (call, copies of each image in a forward pass of a device) -> a function that waits for the result.
    say: called with a sentence when the copies are halved.
    """

    def __init__(self, start: Callable, copies: int, say: Callable):
        self._start, self._copies, self._say = start, copies, say

    def __call__(self, call):
        copies = self._copies
        try:
            waiting = self._start(call, copies)
        except RuntimeError as error:
            self._halve(copies, error)
            return self(call)

        def conclude():
            try:
                return waiting()
            except RuntimeError as error:
                self._halve(copies, error)
                return self(call)()

        return conclude

    def _halve(self, copies, error):
        """Halves the copies, if the error means that memory is full. An earlier call may already have done so."""
        if not isinstance(error, jax.errors.JaxRuntimeError):
            raise error
        check_hosts(error)
        if not memory_is_full(error):
            raise error
        if copies == 1:
            raise UserError(
                "the device's memory does not hold a single copy of each image; give "
                f"{setting('images')} 1. {REMEDY}. {error}"
            )
        if jax.process_count() > 1:  # the other hosts would continue with a program of another shape
            raise UserError(f"the device's memory is full; give all hosts a smaller {setting('batch')}: {error}")
        if self._copies == copies:
            self._copies = copies // 2
            self._say(
                f"the device's memory does not hold {copies} noisy copies of an image in a forward pass; continuing "
                f"with {self._copies}, which changes no count"
            )
