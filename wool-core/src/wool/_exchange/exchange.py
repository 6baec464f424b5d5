"""One remote call as its caller sees it: waiting for a step to end, and cancelling it.

A step ends with a frame of the worker, or with an error that stands for the worker's silence. The
rules for what a cancel means are those of "Cancelling" in docs/protocol.md: a cancel is sent,
and the wait goes on until the worker says what came of it, within the pool's `cancel_grace`.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import pickle
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import msgspec

from wool._exchange.handover import Handover
from wool._protocol import frames as f
from wool._serialization.calls import Call
from wool._serialization.classes import NO_REFERENTS, Referents
from wool._serialization.context import Arrived
from wool._serialization.references import Export
from wool._serialization.units import CodeUnit
from wool.abc import Buffer
from wool.exceptions import WoolError
from wool.plugins import CallInfo

MAX_MESSAGE = 64 << 10
"""Largest argument of `task.cancel(…)` in bytes that travels as itself."""


class Request(msgspec.Struct, frozen=True):
    """What it takes to open a call, on whichever worker.

    Attributes:
        target: names the routine, see `frames.Open.routine`.
        name: for messages.
        units: the code that target and arguments need.
        segments: the arguments, then the values of context variables.
        calls: unstarted calls among the arguments.
        exports: live objects among them.
        context: names those variables.
        prefetch: how many values of a stream may be sent before they are asked for.
        info: what a balancer is told of it; None if there is none.
    """

    target: str
    name: str
    stream: bool
    tags: frozenset[str]
    parent: str
    units: Sequence[CodeUnit]
    segments: Sequence[Buffer]
    calls: Sequence[Call] = ()
    exports: Sequence[Export] = ()
    context: Sequence[f.Variable] = ()
    prefetch: int = 0
    info: CallInfo | None = None


class Reply(msgspec.Struct, frozen=True):
    """How a step ended: with a frame of the worker.

    Attributes:
        segments: its payload.
        referents: the live objects that came with it.
        context: what has become of context variables.
    """

    frame: f.Value | f.Return | f.Raise
    segments: Sequence[Buffer]
    referents: Referents = NO_REFERENTS
    context: Sequence[Arrived] = ()


@dataclass(frozen=True, slots=True)
class NotStarted:
    """A cancel won the race: the call never began."""

    context: ClassVar[Sequence[Arrived]] = ()


@dataclass(frozen=True, slots=True)
class Failed:
    """The call cannot end properly: the worker is gone or has refused it."""

    error: WoolError
    context: ClassVar[Sequence[Arrived]] = ()

    def fresh_error(self) -> WoolError:
        """Returns the error for one call: many may fail together, and each raises its own."""
        error = copy.copy(self.error)
        error.__cause__ = self.error.__cause__
        return error


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The caller's own cancellation is what the step comes to.

    `open` is true if a stream still is: the cancel crossed a value that is dropped. What the step
    did to context variables counts even so.
    """

    error: asyncio.CancelledError
    open: bool = False
    context: Sequence[Arrived] = ()


Outcome = Reply | NotStarted | Failed


class Carrier(Protocol):
    """Where an exchange takes place."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop: ...

    @property
    def cancel_grace(self) -> float:
        """For how many seconds what has been cancelled is waited for."""
        ...


class Exchange(ABC):
    """Something that another process is asked to do, and what comes of it.

    Attributes:
        number: its id on its connection; 0 while it provably has not begun.
        handover: unstarted calls among its arguments, until it is known whether it began.
        abandoned: whether its caller has stopped waiting for it.
        losing: whether the other process is lost and the reason being looked for.
        cancellation: the caller's own `CancelledError`, once it has been cancelled.
        cancelled: whether its caller has cancelled it, or the step that is running.
    """

    __slots__ = (
        "_carrier",
        "_end",
        "_outcome",
        "abandoned",
        "cancellation",
        "cancelled",
        "handover",
        "losing",
        "number",
        "request",
    )

    def __init__(self, carrier: Carrier, request: Request) -> None:
        self.request: Request = request
        self.number: int = 0
        self.cancelled: bool = False
        self.cancellation: asyncio.CancelledError | None = None
        self.abandoned: bool = False
        self.losing: bool = False
        self.handover: Handover | None = None
        self._carrier = carrier
        self._outcome: Outcome | None = None
        self._end: asyncio.Future[None] = carrier.loop.create_future()

    @abstractmethod
    def cancel(self, message: bytes | None) -> None:
        """Has it cancelled, wherever it is."""

    @abstractmethod
    async def fetch(self, keys: Sequence[bytes]) -> None:
        """Asks for code that a reply mentions.

        Raises:
            SerializationError: nobody has it any more.
        """

    def end(self, outcome: Outcome) -> None:
        """Ends it, or the step that is running."""
        self.settle_handover(outcome)
        if self._outcome is None:
            self._outcome = outcome
            self._wake()

    def settle_handover(self, outcome: Outcome) -> None:
        """Settles what becomes of the unstarted calls among the arguments."""
        if self.handover is not None:
            self.handover.settle(taken=self.number != 0 and not isinstance(outcome, NotStarted))
            self.handover = None

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """Where it belongs: a stream is stepped there alone."""
        return self._carrier.loop

    @property
    def ending(self) -> asyncio.Future[None]:
        """Done when the step has ended, or its caller has stopped waiting for it."""
        return self._end

    async def wait(self) -> Outcome | Cancelled:
        """Waits until the step ends."""
        try:
            if self._end.done():  # it could not be sent: who tries again has to let others run
                await asyncio.sleep(0)
            await self._end
        except asyncio.CancelledError as error:
            with shield():
                outcome = await self._wait_cancelled(error)
            if self.cancellation is not None:
                # Raised anew by the routine's wrapper: our frames need not be in its traceback.
                self.cancellation.__traceback__ = None
            return outcome
        except GeneratorExit:  # the coroutine is closed by hand, or with its loop
            with contextlib.suppress(RuntimeError):
                self.loop.call_soon_threadsafe(self._abandon)
            raise
        assert self._outcome is not None
        return self._outcome

    def _abandon(self) -> None:
        """Cancels the step, of which nobody wants to know any more what it comes to."""
        if self._outcome is None:
            self.abandoned = True
            self.cancel(None)

    async def _wait_cancelled(self, error: asyncio.CancelledError) -> Outcome | Cancelled:
        """Sends this cancel, and any that follow, until the step ends or patience does.

        Cancelling the wait cancels only its future; a reply that comes in the same turn of the loop
        is in `_outcome` all the same.
        """
        sent = 1
        expiry = self._carrier.loop.call_later(self._carrier.cancel_grace, self._wake)
        try:
            while self._outcome is None:
                self._end = self._carrier.loop.create_future()
                self.cancel(_message(error))
                try:
                    await self._end
                    break
                except asyncio.CancelledError as again:
                    error = again
                    sent += 1
        finally:
            expiry.cancel()
        self.abandoned = self._outcome is None
        return self._judge(self._outcome, error, sent)

    def _wake(self) -> None:
        if not self._end.done():
            self._end.set_result(None)

    def _judge(
        self, outcome: Outcome | None, error: asyncio.CancelledError, sent: int
    ) -> Outcome | Cancelled:
        """Says what a step comes to that was cancelled `sent` times."""
        self.cancellation = error
        if not isinstance(outcome, Reply):
            return Cancelled(error)
        frame = outcome.frame
        task = asyncio.current_task()
        for _ in range(frame.uncancelled if task is not None else 0):
            task.uncancel()  # type: ignore[union-attr]
        if isinstance(frame, f.Raise) and not self._is_end(frame):
            return outcome
        if frame.delivered < sent:
            return Cancelled(error, self._is_open(frame), outcome.context)
        return outcome

    def _is_end(self, frame: f.Raise) -> bool:
        """Whether this exception says that an iterator has no more values."""
        return False

    def _is_open(self, frame: f.Value | f.Return | f.Raise) -> bool:
        """Whether a generator stands at a `yield` after this."""
        return isinstance(frame, f.Value)


def _message(error: asyncio.CancelledError) -> bytes | None:
    """Returns the argument of `task.cancel(…)`, pickled; its text if it cannot be."""
    if not error.args:
        return None
    try:
        message = pickle.dumps(error.args[0])
    except Exception:
        message = b""
    return message if 0 < len(message) <= MAX_MESSAGE else pickle.dumps(repr(error.args[0])[:1000])


def cancel_argument(message: bytes | None) -> tuple[Any, ...]:
    """Returns the arguments for `task.cancel(…)` that a cancel came with."""
    if message is None:
        return ()
    try:
        return (pickle.loads(message),)
    except Exception:
        return ("cancelled by the caller",)


def shield() -> contextlib.AbstractContextManager[Any]:
    """Returns a shield against a cancelled anyio scope, which cancels anew on every loop turn."""
    anyio = sys.modules.get("anyio")
    if anyio is not None and anyio.current_effective_deadline() == float("-inf"):
        return anyio.CancelScope(shield=True)
    return contextlib.nullcontext()
