"""Presences: files that are locked for as long as a process lives.

The locks are POSIX record locks (`lockf`), for two reasons. A forked child does not inherit them,
so it cannot keep its dead parent alive. And when a process ends, however it ends, the kernel
drops them *before* it tells watchers that the file was closed; the locks of `flock` it drops
afterwards, so that a watcher that is quick would still find them. Their one trap: a process
loses its lock when it closes any descriptor of that file. So none looks at its own.

Who finds a presence unlocked removes it, while holding a shared lock itself. A newborn presence
that is not locked yet may fall victim to that, notices, and is born again under another name.
"""

from __future__ import annotations

import contextlib
import fcntl
import os

from wool.exceptions import WoolError
from wool_shm import _place
from wool_shm._process import Process

_ATTEMPTS = 1000


def enter(process: Process, directory: str, namespace: str) -> tuple[str, int]:
    """Makes a presence in a namespace, given as its digest, and the directory if need be.

    Returns:
        The presence and the descriptor that holds it; `leave` takes both.

    Raises:
        ConfigurationError: the directory cannot be used.
        OSError: the file cannot be made.
    """
    with process.lock:
        for _ in range(_ATTEMPTS):
            _place.make(directory)
            presence = _place.new_presence(namespace)
            path = os.path.join(directory, presence + _place.LOCK)
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            except FileNotFoundError:
                continue  # the last user has just removed the directory
            process.keep(descriptor)
            process.presences.add(presence)
            try:
                born = _lock(descriptor) and is_in_place(descriptor)
            except BaseException:
                leave(process, directory, presence, descriptor)
                raise
            if born:
                return presence, descriptor
            leave(process, directory, presence, descriptor)
    raise WoolError(f"{directory} or what is in it is removed again and again; find out by whom")


def is_in_place(descriptor: int) -> bool:
    """Whether nobody has removed the file of a presence."""
    return os.fstat(descriptor).st_nlink > 0


def leave(process: Process, directory: str, presence: str, descriptor: int) -> None:
    """Removes a presence of ours with all that belongs to it."""
    with process.lock:
        _remove(directory, presence)
        process.presences.discard(presence)
        process.close(descriptor)


def is_alive(process: Process, directory: str, presence: str) -> bool:
    """Whether the process of a presence lives; if not, removes what it has left.

    The caller holds `process.lock`: threads share their process's locks.
    """
    if presence in process.presences:
        return True
    try:
        path = os.path.join(directory, presence + _place.LOCK)
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        _remove(directory, presence)  # if it was left, somebody was killed while doing this
        return False
    try:
        alive = not _lock(descriptor, shared=True)
        if not alive:
            _remove(directory, presence)
    finally:
        os.close(descriptor)
    return alive


def sweep(process: Process, directory: str) -> None:
    """Removes what dead processes have left, in all namespaces."""
    try:
        files = os.listdir(directory)
    except FileNotFoundError:
        return
    for presence in _place.presences(files):
        with process.lock:
            is_alive(process, directory, presence)


def abandon(process: Process, directory: str) -> None:
    """Removes the directory if it has no living user. Never fails."""
    with contextlib.suppress(OSError):
        sweep(process, directory)
        os.rmdir(directory)


def _lock(descriptor: int, *, shared: bool = False) -> bool:
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.lockf(descriptor, kind | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # POSIX allows either
        return False
    return True


def _remove(directory: str, presence: str) -> None:
    for suffix in (_place.NEW, _place.WORKERS, _place.LOCK):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(directory, presence + suffix))
