"""How a process hears that something in a directory has changed.

On Linux the kernel tells (inotify). Elsewhere, and where a user has used up the instances of
inotify there may be (128, unless configured otherwise), the directory is looked through four
times a second.
"""

from __future__ import annotations

import fcntl
import logging
import os
import struct
import sys
import termios
from abc import ABC, abstractmethod

_log = logging.getLogger("wool.shm")

INTERVAL = 0.25
"""Seconds between two looks where nobody tells of changes."""

_CLOSE_WRITE, _DELETE = 0x0000_0008, 0x0000_0200
_DELETE_SELF, _MOVE_SELF = 0x0000_0400, 0x0000_0800
_UNMOUNT, _Q_OVERFLOW, _IGNORED = 0x0000_2000, 0x0000_4000, 0x0000_8000
_ONLYDIR = 0x0100_0000

# A file that is replaced is closed under its final name, and that of a process that ends is closed
# by the kernel; so two kinds of events tell all.
_WANTED = _CLOSE_WRITE | _DELETE | _DELETE_SELF | _MOVE_SELF | _ONLYDIR
_EVERYTHING = _DELETE_SELF | _MOVE_SELF | _UNMOUNT | _Q_OVERFLOW | _IGNORED
_HEADER = struct.Struct("iIII")


class Changes(ABC):
    """Tells which files of a directory have changed.

    Attributes:
        descriptor: readable when there is something to read; None: there is none.
        interval: seconds after which to `read` without having been told; None: never.
    """

    descriptor: int | None = None
    interval: float | None = None

    @abstractmethod
    def follow(self, directory: str) -> None:
        """Begins to tell of what happens from now on; to be repeated if the directory is new."""

    @abstractmethod
    def read(self) -> list[str] | None:
        """Returns files that have been closed or removed; None: look at all there are."""


class _Inotify(Changes):
    def __init__(self) -> None:
        import ctypes

        self._errno = ctypes.get_errno
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._own: int = self._libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._own < 0:
            self._fail()
        self.descriptor = self._own

    def follow(self, directory: str) -> None:
        if self._libc.inotify_add_watch(self._own, os.fsencode(directory), _WANTED) < 0:
            self._fail()

    def read(self) -> list[str] | None:
        answer = fcntl.ioctl(self._own, termios.FIONREAD, b"\0\0\0\0")
        size = int.from_bytes(answer, sys.byteorder)
        data = os.read(self._own, size) if size else b""
        names, everything, at = list[str](), False, 0
        while at < len(data):
            _, mask, _, length = _HEADER.unpack_from(data, at)
            at += _HEADER.size + length
            everything |= bool(mask & _EVERYTHING)
            names.append(os.fsdecode(data[at - length : at].rstrip(b"\0")))
        return None if everything else names

    def _fail(self) -> None:
        number = self._errno()
        raise OSError(number, os.strerror(number))


class _Looking(Changes):
    interval = INTERVAL

    def follow(self, directory: str) -> None: ...

    def read(self) -> list[str] | None:
        return None


def changes() -> Changes:
    """Returns the best way there is; whoever closes its `descriptor` has ended it."""
    if sys.platform != "linux":
        return _Looking()
    try:
        return _Inotify()
    except (OSError, AttributeError, ImportError) as error:  # no more instances, or no such call
        _log.warning(
            "the kernel gives no instance of inotify (%s), so workers are looked for every %g s; "
            "perhaps fs.inotify.max_user_instances is too low",
            error,
            INTERVAL,
        )
        return _Looking()
