"""How a watcher hears that something in a directory has changed.

On Linux the kernel tells (inotify). Elsewhere, and where a user has used up the instances of
inotify there may be (128, unless configured otherwise), the directory is looked through four
times a second.
"""

from __future__ import annotations

import asyncio
import logging
import os
import struct
import sys

from wool_shm import _directory

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


class Changes:
    """Tells which files of a directory have changed, in the event loop that made it."""

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._arrived = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self._inotify: int | None = None
        if sys.platform != "linux":
            return
        try:
            self._inotify = _called("inotify_init1", os.O_NONBLOCK | os.O_CLOEXEC)
        except (OSError, ImportError) as error:  # no instance is left, or Python has no ctypes
            _log.warning(
                "the kernel gives no instance of inotify (%s), so workers are looked for every "
                "%g s; perhaps fs.inotify.max_user_instances is too low, or the limit of open "
                "files",
                error,
                INTERVAL,
            )
        else:
            self._loop.add_reader(self._inotify, self._arrived.set)

    def follow(self) -> None:
        """Begins to tell of what happens from now on. The directory is made if need be.

        Raises:
            ConfigurationError: the directory cannot be used.
            OSError: the kernel cannot tell of it.
        """
        while True:
            _directory.make(self._directory)
            if self._inotify is None:
                return
            try:
                path = os.fsencode(self._directory)
                _called("inotify_add_watch", self._inotify, path, _WANTED)
                return
            except FileNotFoundError:
                continue  # its last user has just removed it

    async def wait(self) -> None:
        """Waits until there is something to read."""
        await (self._arrived.wait() if self._inotify is not None else asyncio.sleep(INTERVAL))

    def read(self) -> list[str] | None:
        """Returns files that have been closed or removed; None: follow again, and look at all."""
        if self._inotify is None:
            return None
        self._arrived.clear()
        try:
            data = os.read(self._inotify, 1 << 16)  # if there is more, the loop says so again
        except BlockingIOError:
            return []
        names, everything, at = list[str](), False, 0
        while at < len(data):
            _, mask, _, length = _HEADER.unpack_from(data, at)
            at += _HEADER.size + length
            everything |= bool(mask & _EVERYTHING)
            names.append(os.fsdecode(data[at - length : at].rstrip(b"\0")))
        return None if everything else names

    def close(self) -> None:
        """Ends it."""
        if self._inotify is not None:
            self._loop.remove_reader(self._inotify)
            os.close(self._inotify)


def _called(function: str, *args: int | bytes) -> int:
    """Calls a function of the C library; returns what it returns, which is an error if negative."""
    import ctypes

    result: int = getattr(ctypes.CDLL(None, use_errno=True), function)(*args)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
