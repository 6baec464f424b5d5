"""Records: the files that say which workers there are, each for as long as its process lives.

A record consists of up to three files with the same name:

    NAME.lock     exists first and goes last; locked for as long as the process lives
    NAME.worker   the worker, replaced as a whole
    NAME.new      the file that is about to replace it

Each record has one writer, and a reader sees a worker before or after a change, never in between.
So nobody waits for anybody, and a killed writer leaves nothing half done: the next reader finds
its lock free, and removes the files.

The locks are POSIX record locks (`lockf`), for two reasons. A forked child does not inherit them,
so it cannot keep the record of its dead parent. And when a process ends, however it ends, the
kernel drops them *before* it tells watchers that the file was closed; the locks of `flock` it drops
afterwards, so that a quick watcher would still find them. Their one trap: a process loses a lock
when it closes any descriptor of that file. So a process never opens its own; it knows them by name.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import logging
import os
import re
import secrets
import weakref
from functools import partial

import msgspec

from wool.abc import WorkerInfo
from wool.exceptions import WoolError
from wool_shm import _directory

_log = logging.getLogger("wool.shm")

LOCK, WORKER, NEW = ".lock", ".worker", ".new"
_FILE = re.compile(r"([0-9a-f]{32}-[0-9a-f]+-[0-9a-f]{16})\.(?:lock|worker|new)")
_TOKEN = secrets.token_hex(8)
_ATTEMPTS = 1000

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(WorkerInfo).decode  # skips fields that it does not know


def digest(namespace: str) -> str:
    """Returns what stands for a namespace in names of records."""
    data = namespace.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def name_of(file: str) -> str | None:
    """Returns the name of the record that a file belongs to; None if it is none of ours."""
    match = _FILE.fullmatch(file)
    return match[1] if match else None


def _process() -> str:
    """Returns what stands for this process in names of records. A forked child is another one."""
    return f"{_TOKEN}{os.getpid():x}"


class Record:
    """The record of a worker that this process announces. A forked child can do nothing with it.

    Args:
        namespace: as its digest.

    Raises:
        ConfigurationError: the directory cannot be used.
        OSError: there is no room, or no descriptor left.
    """

    def __init__(self, directory: str, namespace: str, worker: WorkerInfo) -> None:
        self._directory = directory
        self._namespace = namespace
        self._pid = os.getpid()
        self._lock = -1
        self._create()
        # The kernel tells of a dead process when the last descriptor is closed, so forked children
        # must have none. Nothing can be unregistered there; a weak reference is what remains.
        os.register_at_fork(after_in_child=partial(_close, weakref.ref(self)))
        try:
            self.write(worker)
        except BaseException:
            self.remove()
            raise

    def _create(self) -> None:
        for _ in range(_ATTEMPTS):
            _directory.make(self._directory)
            self._name = f"{self._namespace}-{_process()}-{secrets.token_hex(8)}"
            path = os.path.join(self._directory, self._name + LOCK)
            try:
                self._lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
            except FileNotFoundError:
                continue  # the directory has just been removed by its last user
            # Somebody may take it for that of a dead process until it is locked, and remove it.
            try:
                if _locks(self._lock, fcntl.LOCK_EX) and self._is_in_place():
                    return
            except BaseException:
                self.remove()
                raise
            self.remove()
        raise WoolError(
            f"{self._directory} or what is in it is removed again and again; find out by whom"
        )

    def _is_in_place(self) -> bool:
        return os.fstat(self._lock).st_nlink > 0

    def write(self, worker: WorkerInfo) -> None:
        """Replaces what is announced. If that fails, it is as it was."""
        if os.getpid() != self._pid:
            return
        if not self._is_in_place():  # somebody has tidied up
            self.close()
            self._create()
        data = memoryview(_encode(worker))
        path = os.path.join(self._directory, self._name)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
        descriptor = os.open(path + NEW, flags, 0o600)
        try:
            while data:
                data = data[os.write(descriptor, data) :]
            os.rename(path + NEW, path + WORKER)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(path + NEW)
            raise
        finally:
            os.close(descriptor)  # under the final name, which is what watchers are told

    def remove(self) -> None:
        """Removes the record, and the directory with the last one."""
        if os.getpid() != self._pid:
            return
        try:
            _remove(self._directory, self._name)
        finally:
            self.close()
        _directory.leave(self._directory)

    def close(self) -> None:
        """Closes what is open. In a forked child, that is all there is to do."""
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)


def _close(itself: weakref.ref[Record]) -> None:
    if (record := itself()) is not None:
        record.close()


def read(directory: str, name: str) -> WorkerInfo | None:
    """Returns the worker that a record tells of; None if there is none, or none any more."""
    if not is_alive(directory, name):
        return None
    path = os.path.join(directory, name + WORKER)
    try:
        with open(path, "rb", buffering=0) as file:
            return _decode(file.readall())
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        _log.warning("what a process announces in %s is ignored: %s", path, error)
        return None


def is_alive(directory: str, name: str) -> bool:
    """Whether the process that made a record lives. If not, the record is removed."""
    if name.split("-")[1] == _process():
        return True
    try:
        path = os.path.join(directory, name + LOCK)
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except FileNotFoundError:
        _remove(directory, name)  # if something is left, somebody was killed while doing this
        return False
    try:
        alive = not _locks(descriptor, fcntl.LOCK_SH)
        if not alive:
            _remove(directory, name)
    finally:
        os.close(descriptor)
    return alive


def names(directory: str) -> list[str]:
    """Returns the names of all records, in all namespaces; none if there is no directory."""
    try:
        files = os.listdir(directory)
    except FileNotFoundError:
        return []
    return list(dict.fromkeys(filter(None, map(name_of, files))))


def sweep(directory: str) -> None:
    """Removes the records of dead processes, in all namespaces."""
    for name in names(directory):
        is_alive(directory, name)


def _locks(descriptor: int, kind: int) -> bool:
    try:
        fcntl.lockf(descriptor, kind | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):  # POSIX allows either
        return False
    return True


def _remove(directory: str, name: str) -> None:
    for suffix in (NEW, WORKER, LOCK):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(directory, name + suffix))
