"""Files that the user named: errors of the operating system become messages with a remedy; files are regular, and
written as a whole or not at all; and a lock of a file.
"""

import contextlib
import errno
import functools
import inspect
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, TypeVar, cast

from .errors import UserError

F = TypeVar("F", bound=Callable)

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EROFS)
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)


@contextlib.contextmanager
def writing(path, error: type[UserError] = UserError, again: str = "give the same command again"):
    """Turns an OSError of the code inside into an `error` that names the file `path` and the remedy.

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

    Any other OSError of the code inside does not concern the user's file, and is raised as it is.
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


def reads(argument: str, error: type[UserError] = UserError) -> Callable[[F], F]:
    """A decorator: the function is `reading` the file that `argument` names. None is the current folder."""

    def decorate(function: F) -> F:
        signature = inspect.signature(function)

        @functools.wraps(function)
        def call(*args, **kwargs):
            with reading(signature.bind(*args, **kwargs).arguments.get(argument) or ".", error):
                return function(*args, **kwargs)

        return cast(F, call)

    return decorate


def read_regular(
    path: str | Path, most: int | None = None, error: type[UserError] = UserError, as_a: str | None = None
) -> bytes:
    """The content of a regular file. A pipe or a device is not opened: it could keep a reader waiting for ever.

    Args:
        most: largest number of bytes; None for any.
        as_a: the kind of file that it is read as, for the message.

    Raises:
        error: it is not a regular file, is larger, or cannot be read; the message names it.
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


def is_there(path: str | os.PathLike) -> bool:
    """Whether something of this name exists. A link counts, wherever it leads.

    Raises:
        OSError: that cannot be found out. `os.path.lexists` would return False then.
    """
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def check_regular(path: str | Path, error: type[UserError] = UserError) -> None:
    """Raises `error` for a pipe, a device or a socket, which must not be read. A missing file passes."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):
        return
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise error(f"{path}: is neither a regular file nor a folder, and is not opened")


def _is_below(file, folder):
    return Path(os.path.abspath(os.fsdecode(file))).is_relative_to(os.path.abspath(folder))


def open_regular(path: str | os.PathLike) -> BinaryIO:
    """The regular file `path`, opened for reading. A pipe or a device might block, or never end.

    Raises:
        OSError: it cannot be opened, or is something else.
    """
    number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        if not stat.S_ISREG(os.fstat(number).st_mode):
            raise OSError(errno.EINVAL, "is not a regular file", os.fspath(path))
        return os.fdopen(number, "rb")
    except BaseException:
        os.close(number)
        raise


_PARTIAL = re.compile(r"\.qcrs-jax-[0-9a-f]{16}\.partial")


def is_partial(name: str) -> bool:
    """Whether a file of this name was left by an interrupted write of `replacing`."""
    return _PARTIAL.fullmatch(name) is not None


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """Yields a new file. It becomes `path` when the block ends, and is removed when the block raises.

    A process that is killed leaves `path` as it was, and beside it a hidden file that `is_partial` recognises. A
    symbolic link of the name `path` is replaced and not followed. The file keeps the permissions of the one that it
    replaces.

    Raises:
        OSError: the folder or the earlier file may not be written to, or has no room.
    """
    path = Path(path)
    try:
        mode = stat.S_IMODE(os.lstat(path).st_mode) if not path.is_symlink() else None
    except FileNotFoundError:
        mode = None
    if mode is not None and not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
    partial = path.with_name(f".qcrs-jax-{secrets.token_hex(8)}.partial")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    number = os.open(partial, flags, 0o666)
    try:
        with os.fdopen(number, "wb") as file:
            yield file
            file.flush()
            if mode is not None:
                os.chmod(partial, mode)
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(partial)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder):
    """Writes the names in `folder` to the disk, if the system can do that."""
    with contextlib.suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


@contextlib.contextmanager
def output(path: str | os.PathLike) -> Iterator[BinaryIO]:
    """The file `path` that the user named, for a write as a whole, as `replacing` does it.

    A symbolic link is followed, and the file behind it is written. A pipe or a device, such as /dev/stdout, is written
    to directly.
    """
    try:
        special = not stat.S_ISREG(os.stat(path).st_mode)
    except FileNotFoundError:
        special = False
    if special:
        with open(path, "wb") as file:
            yield file
    else:
        with replacing(os.path.realpath(path) if os.path.islink(path) else path) as file:
            yield file


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes `text` to the file `path` that the user named, in UTF-8: all of it or nothing, as `output` does.

    File names in `text` that are not UTF-8 keep their bytes.
    """
    with output(path) as file:
        file.write(text.encode(errors="surrogateescape"))


def lock(file, message: str, error: type[UserError] = UserError) -> None:
    """Locks an open file. The lock ends when the file is closed, or with the process.

    Raises:
        error: another process, or another opening of the file in this one, holds the lock; with `message`.
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
