"""What the file of a process holds: a list of workers."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Sequence

import msgspec

from wool.abc import WorkerInfo
from wool_shm import _place

Record = bytes
"""An encoded worker."""

_encode = msgspec.msgpack.Encoder().encode
_decode_worker = msgspec.msgpack.Decoder(WorkerInfo).decode
_decode_list = msgspec.msgpack.Decoder(list[msgspec.Raw]).decode


def encode(worker: WorkerInfo) -> Record:
    """Encodes one worker."""
    return _encode(worker)


def decode(record: Record) -> WorkerInfo:
    """Decodes one worker; fields that are not known are skipped.

    Raises:
        msgspec.MsgspecError: it is none.
    """
    return _decode_worker(record)


def write(directory: str, presence: str, records: Iterable[Record]) -> None:
    """Replaces what a process announces, as a whole; if that fails, nothing has changed.

    The file is closed under its final name, which is what watchers hear of.
    """
    data = memoryview(_encode([msgspec.Raw(record) for record in records]))
    path = os.path.join(directory, presence)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    descriptor = os.open(path + _place.NEW, flags, 0o600)
    try:
        while data:
            data = data[os.write(descriptor, data) :]
        os.rename(path + _place.NEW, path + _place.WORKERS)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(path + _place.NEW)
        raise
    finally:
        os.close(descriptor)


def read(directory: str, presence: str) -> Sequence[Record]:
    """Returns what a process announces.

    Raises:
        msgspec.MsgspecError: the file is not one of ours.
    """
    try:
        path = os.path.join(directory, presence + _place.WORKERS)
        with open(path, "rb", buffering=0) as file:
            data = file.readall()
    except FileNotFoundError:
        return ()
    return [bytes(raw) for raw in _decode_list(data)]
