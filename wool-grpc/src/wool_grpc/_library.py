"""gRPC itself, imported here and nowhere else: it comes without types."""

from __future__ import annotations

import importlib
import os
import socket
import sys
from typing import Any

from wool import WoolError
from wool_grpc import _installed

CHOICES = {
    # It would print every failed TLS handshake, also those of strangers, on standard error.
    "GRPC_VERBOSITY": "NONE",
    # It would have forked children carry on with its threads, of which they die. A child that does
    # not use gRPC needs nothing of it, and one that wants to call has to open a pool of its own.
    "GRPC_ENABLE_FORK_SUPPORT": "0",
}

FEWER_THREADS = {"GRPC_EXPERIMENTS": "-event_engine_client,-event_engine_listener"}
"""By default, since 1.80, a thread of its own waits for sockets and wakes the one that tells
Python. Without it the latter waits for them itself: a wake-up less on each side.

Where there is no epoll, a socket that no call uses would be looked after every 5 seconds only."""

TRIED = 1, 85
"""The last version of gRPC that is known to have these experiments. One that has them no more would
say so on standard error, even if its log is off."""


def choices() -> dict[str, str]:
    """Returns what environment gRPC shall find."""
    return CHOICES | (
        FEWER_THREADS if sys.platform == "linux" and _installed.version() <= TRIED else {}
    )


def _load() -> Any:
    """Imports gRPC with settings of ours, unless somebody else has made some.

    It reads them when it is imported; processes started later shall not inherit our choice.
    """
    chosen = {name: value for name, value in choices().items() if name not in os.environ}
    if "grpc" in sys.modules:
        chosen = {}
    os.environ.update(chosen)
    try:
        return importlib.import_module("grpc.aio")
    finally:
        for name in chosen:
            del os.environ[name]


class _Sockets:
    """What `grpc.aio` uses of the module `socket`: a pair whose writer wakes the event loop.

    It writes a byte for all that ends, and where nobody reads, 278 of them fill the pair. The
    thread would wait for room while it has all sockets to look after, so peers would get no sign of
    life. A byte that finds none is not missed: for each the loop takes all that there is.
    """

    @staticmethod
    def socketpair() -> tuple[socket.socket, socket.socket]:
        reader, writer = socket.socketpair()
        writer.setblocking(False)
        return reader, writer


aio: Any = _load()
grpc: Any = importlib.import_module("grpc")
cygrpc: Any = importlib.import_module("grpc._cython.cygrpc")
cygrpc.socket = _Sockets


_PROCESS = os.getpid()

_NEEDED = 16
"""Files that gRPC may want to open: when it starts, it takes 6 for itself."""


def check_process() -> None:
    """Checks that this is the process that has loaded gRPC: in a forked child it would hang.

    Raises:
        WoolError: it is a child.
    """
    if os.getpid() != _PROCESS:
        raise WoolError(
            f"process {os.getpid()} is a fork of process {_PROCESS}, which has loaded gRPC: there "
            "it would wait for ever. Start processes anew (multiprocessing's method 'spawn'), fork "
            "before the first pool is opened, or choose another transport"
        )


def check_room() -> None:
    """Checks that gRPC can open files: where it cannot, it ends the process without a word.

    Raises:
        OSError: there may be too many open files soon.
    """
    opened: list[int] = []
    try:
        while len(opened) < _NEEDED:
            opened.append(os.open(os.devnull, os.O_RDONLY))
    finally:
        for descriptor in opened:
            os.close(descriptor)
