"""The call that is running here, a fact of the current context, and remarks to its user."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any, Protocol

from msgspec import Struct

from wool._protocol.frames import Piece
from wool._workerinfo import WorkerInfo
from wool.exceptions import ContextWarning


class CurrentCall(Struct, frozen=True):
    """The call that is running, as `wool.current_call()` returns it.

    Attributes:
        id: unique among the calls of a pool.
        parent: id of the call this one was made from, or None.
        worker: who runs it.
        caller: where it came from, as the transport tells: `host:port`, or `unix socket`.
    """

    id: str
    parent: str | None
    worker: WorkerInfo
    caller: str


class CurrentWorker(Struct, frozen=True):
    """The worker that runs this code, as `wool.current_worker()` returns it.

    Attributes:
        info: what is known of it.
        state: what its lifespan has yielded; None if it has none.
    """

    info: WorkerInfo
    state: Any


class Lifespan(Protocol):
    """The set-up that a worker has entered before it took calls; see `_worker.lifespan`."""

    state: Any

    async def enter(self, function: Any) -> None: ...


class Relay(Protocol):
    """The way to the caller of a call."""

    def relay(self, pieces: Sequence[Piece]) -> None:
        """Takes output of calls that it has made."""


class RunningCall(Protocol):
    """A call that this process is executing, as far as calls made from it are concerned."""

    @property
    def info(self) -> CurrentCall: ...

    @property
    def lifespan(self) -> Lifespan: ...

    def wait_begins(self) -> None:
        """A Wool operation made from the call is outstanding; its slot is free meanwhile."""

    def wait_ends(self) -> None:
        """That operation is over."""

    def remark(self, label: str, text: str) -> None:
        """Has its caller told that something does not travel."""

    def output(self) -> Relay | None:
        """Returns what takes output to its caller; None if this process keeps it."""


RUNNING: ContextVar[RunningCall | None] = ContextVar("wool_call", default=None)


class Complaints:
    """Remarks to the user of a pool on variables that do not travel; one for each variable."""

    def __init__(self) -> None:
        self._made: set[str] = set()

    def make(self, label: str, text: str) -> None:
        """Warns the user; a call that runs on behalf of another process has that one warn."""
        running = RUNNING.get()
        if running is not None:
            running.remark(label, text)
        elif label not in self._made:
            self._made.add(label)
            warnings.warn(text, ContextWarning, stacklevel=_depth())


def _depth() -> int:
    """Returns how far up the stack there is code that is not Wool's."""
    depth, frame = 1, sys._getframe(1)
    while frame.f_back is not None and (
        frame.f_globals.get("__name__", "").startswith("wool.") or "__routine__" in frame.f_globals
    ):
        depth, frame = depth + 1, frame.f_back
    return depth
