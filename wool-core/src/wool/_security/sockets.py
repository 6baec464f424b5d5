"""Directories for Unix sockets that only their user can enter, and what becomes of them."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import socket
import stat
import time
from collections.abc import Iterator

from wool.abc import ConnectFailed

PREFIX = "wool-"
MAX_PATH = 100
"""Longest path of a socket in bytes; the kernel's own limit is little more."""

SUPPORTED = hasattr(socket, "AF_UNIX")
STALE_AFTER = 60.0
_NAME = re.compile(rf"{PREFIX}[0-9a-f]{{16}}")
_STATUS = re.compile(r"p(\d+)-[0-9a-f]{4}")


def new_directory() -> str:
    """Names a directory for the sockets of one pool; the first who `enter`s makes it."""
    parent = place()
    _sweep(parent)
    return os.path.join(parent, f"{PREFIX}{secrets.token_hex(8)}")


def place() -> str:
    """Returns where pools make their directories.

    `/dev/shm` is for containers whose `/tmp` is a volume in which every user may replace things.
    """
    choices = _choices()
    return next(filter(_is_fit, choices), choices[0])


def _choices() -> tuple[str, ...]:
    import tempfile  # which workers do without

    return tempfile.gettempdir(), "/tmp", "/dev/shm"


def _is_fit(parent: str) -> bool:
    """Whether a directory may be in there. A socket's path must be short, and others print it."""
    short = len(os.fsencode(parent)) <= MAX_PATH - 36 and parent.isprintable()
    return short and os.access(parent, os.W_OK | os.X_OK) and not _open_to_all(parent)


def socket_in(directory: str) -> str:
    """Names a socket that nobody has."""
    return os.path.join(directory, secrets.token_hex(4))


def status_socket_in(directory: str) -> str:
    """Names a socket at which this process tells its user what it does."""
    return os.path.join(directory, f"p{os.getpid()}-{secrets.token_hex(2)}")


def is_ours(directory: str) -> bool:
    """Whether a directory has a name that `new_directory` gives."""
    return _NAME.fullmatch(os.path.basename(directory)) is not None


def status_sockets() -> Iterator[tuple[int, str]]:
    """Yields such sockets of this user's processes, each with the number of its process."""
    for parent in dict.fromkeys(_choices()):
        for folder in _entries(parent):
            if _NAME.fullmatch(folder.name) and _is_mine(folder):
                for entry in _entries(folder.path):
                    if found := _STATUS.fullmatch(entry.name):
                        yield int(found[1]), entry.path


def _entries(directory: str) -> list[os.DirEntry[str]]:
    try:
        return list(os.scandir(directory))
    except OSError:
        return []


def _is_mine(entry: os.DirEntry[str]) -> bool:
    """Whether it is a directory of this user that nobody else can enter."""
    status = entry.stat(follow_symlinks=False)
    private = stat.S_ISDIR(status.st_mode) and stat.S_IMODE(status.st_mode) == 0o700
    return private and status.st_uid == os.geteuid()


def enter(directory: str) -> int:
    """Makes a directory if need be, and locks it for as long as the returned descriptor is open.

    Raises:
        ConnectFailed: another user could enter or replace it.
    """
    import fcntl

    try:
        with contextlib.suppress(FileExistsError):
            os.mkdir(directory, 0o700)
        check(directory)
        descriptor = os.open(directory, os.O_RDONLY)
    except OSError as error:
        raise ConnectFailed(f"cannot listen in {directory}: {error.strerror}") from error
    fcntl.flock(descriptor, fcntl.LOCK_SH)
    return descriptor


def check(directory: str) -> None:
    """Checks that nobody else can enter or replace a directory.

    Raises:
        ConnectFailed: that is not so.
        OSError: there is none.
    """
    status = os.lstat(directory)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
        raise ConnectFailed(
            f"{directory} must be a directory of this user with mode 0700 to hold Wool's sockets"
        )
    above = _open_to_all(os.path.dirname(directory))
    if above is not None:
        raise ConnectFailed(
            f"{directory} must not hold Wool's sockets: every user may replace what is in {above} "
            "for want of a sticky bit. Set that with chmod +t, or use another place"
        )


def _open_to_all(directory: str) -> str | None:
    """Returns the directory, or one above it, in which every user may replace what is in it.

    A symbolic link on the way may be replaced as well, so both paths count.
    """
    for path in (os.path.realpath(directory), os.path.abspath(directory)):
        above = ""
        while above != path:
            mode = os.stat(path).st_mode
            if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
                return path
            above, path = path, os.path.dirname(path)
    return None


def reclaim(path: str) -> None:
    """Removes a socket whose listener has died; whatever else is there stays."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as sock:
        sock.setblocking(False)
        if stat.S_ISSOCK(os.lstat(path).st_mode) and sock.connect_ex(path) == errno.ECONNREFUSED:
            os.unlink(path)


def discard(directory: str) -> None:
    """Removes a directory that `new_directory` has named, with the sockets in it. Idempotent."""
    if is_ours(directory):
        with contextlib.suppress(OSError):
            _remove(directory)


def _sweep(parent: str) -> None:
    """Removes directories of pools all of whose processes were killed.

    A listener in a directory holds a lock on it. A young one may not be locked yet. Only what
    looks exactly like one of ours is touched, and nothing in it but sockets.
    """
    for entry in _entries(parent):
        if _NAME.fullmatch(entry.name):
            with contextlib.suppress(OSError):
                age = time.time() - entry.stat(follow_symlinks=False).st_mtime
                if _is_mine(entry) and age > STALE_AFTER:
                    _remove_if_unlocked(entry.path)


def _remove_if_unlocked(directory: str) -> None:
    import fcntl

    descriptor = os.open(directory, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(directory)
    finally:
        os.close(descriptor)


def _remove(directory: str) -> None:
    """Removes the sockets in a directory, and the directory if nothing else is in it."""
    for entry in os.scandir(directory):
        with contextlib.suppress(FileNotFoundError):  # others may be doing the same
            if stat.S_ISSOCK(entry.stat(follow_symlinks=False).st_mode):
                os.unlink(entry.path)
    os.rmdir(directory)
