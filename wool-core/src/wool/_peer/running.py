"""Which call is running here; a fact of the current context."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

from wool._workerinfo import WorkerInfo


@dataclass(frozen=True, slots=True)
class CurrentCall:
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


class RunningCall(Protocol):
    """A call that this process is executing, as far as calls made from it are concerned."""

    @property
    def info(self) -> CurrentCall: ...

    def wait_begins(self) -> None:
        """A Wool operation made from the call is outstanding; its slot is free meanwhile."""

    def wait_ends(self) -> None:
        """That operation is over."""

    def remark(self, label: str, text: str) -> None:
        """Has its caller told that something does not travel."""


RUNNING: ContextVar[RunningCall | None] = ContextVar("wool_call", default=None)
