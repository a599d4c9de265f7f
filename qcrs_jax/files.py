"""Files that the user named: errors of the operating system become messages with a remedy; regular ones; and locks."""

import contextlib
import errno
import functools
import inspect
import os
import stat
from pathlib import Path

from .errors import UserError

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def writing(path, error: type[UserError] = UserError, again: str = "give the same command again"):
    """Turns an OSError of what is done inside into an `error` that names the file `path` and the remedy.

    Args:
        again: what to do once there is room on a full disk.
    """
    try:
        yield
    except OSError as reason:
        remedy = "Choose another file"
        if reason.errno in _FULL:
            remedy = f"Make room, and {again}"
        elif reason.errno in _FORBIDDEN:
            remedy = "Choose a folder that you may write to, or have its permissions changed"
        elif reason.errno in _NO_LOCKS:
            remedy = "Its file system has no locks, which keep two runs apart; choose a folder on another"
        raise error(f"{path}: cannot be written: {reason.strerror}. {remedy}") from reason


@contextlib.contextmanager
def reading(path, error: type[UserError] = UserError):
    """Turns an OSError about the file `path`, or about one below it, into an `error` that names it and the remedy.

    Any other OSError of what is done inside is none of the user's, and passes.
    """
    try:
        yield
    except OSError as reason:
        if reason.filename is None or not _is_below(reason.filename, path):
            raise
        raise error(
            f"{os.fsdecode(reason.filename)}: cannot be read: {reason.strerror}; name another file, or have its "
            "permissions changed"
        ) from reason


def reads(argument: str, error: type[UserError] = UserError):
    """A decorator: the function is `reading` the file that `argument` names; None stands for the current folder."""

    def decorate(function):
        signature = inspect.signature(function)

        @functools.wraps(function)
        def call(*args, **kwargs):
            with reading(signature.bind(*args, **kwargs).arguments.get(argument) or ".", error):
                return function(*args, **kwargs)

        return call

    return decorate


def read_regular(
    path: str | Path, most: int | None = None, error: type[UserError] = UserError, as_a: str | None = None
) -> bytes:
    """What a regular file holds. A pipe or a device, which could keep a reader waiting for ever, is not opened.

    Args:
        most: bytes that it may have; None for any number.
        as_a: the kind of file that it is read as, for the message.

    Raises:
        error: it is not a regular file, is larger, or cannot be read; names it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        with open(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise error(f"{path}: cannot be read{f' as a {as_a}' if as_a else ''}: it is not a regular file")
            if most is not None and status.st_size > most:
                raise error(f"{path}: has {status.st_size:,} bytes; at most {most:,} are read")
            return file.read() if most is None else file.read(most)
    except (OSError, ValueError) as reason:  # ValueError: a name with a null character
        kind = f" as a {as_a}" if as_a else ""
        raise error(f"{path}: cannot be read{kind}: {getattr(reason, 'strerror', None) or reason}") from reason


def check_regular(path: str | Path, error: type[UserError] = UserError) -> None:
    """Raises `error` for a pipe, a device or a socket, which nothing is to read; passes over what is not there."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise error(f"{path}: is neither a regular file nor a folder, and is not opened")


def _is_below(file, folder):
    return Path(os.path.abspath(os.fsdecode(file))).is_relative_to(os.path.abspath(folder))


def lock(file, message: str, error: type[UserError] = UserError) -> None:
    """Takes the lock of an open file; it ends when the file is closed, or with the process.

    Raises:
        error: another process, or another opening of the file in this one, has it; with `message`.
        OSError: the file system has no locks.
    """
    try:
        import fcntl
    except ImportError:  # not on this platform
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as reason:
        raise error(message) from reason
