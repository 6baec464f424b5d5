"""A call made from here: waiting for a step of it to end, cancelling it, and its outcome.

A call asks a peer to run a routine, or to do something with an object that lives there. A step ends
with a frame of the peer, or with an error that stands for the peer's silence. The rules for what a
cancel means are those of "Cancelling" in docs/protocol.md: a cancel is sent, and the wait goes on
until the peer says what came of it, within the pool's `cancel_grace`.

Where a call stands:

    WAITING ──sent──▶ SENT ──value──▶ SUSPENDED ──resume──▶ BEGUN ──value──▶ SUSPENDED …
       ▲               │
       └──given back───┘      (anything but WAITING) ──connection lost──▶ LOST

A call may be given to another peer only while it is `WAITING`: then it has provably not begun.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import pickle
import sys
from collections import deque
from collections.abc import Awaitable, Iterable, Sequence
from contextvars import Context
from enum import IntEnum, auto
from functools import partial
from types import CoroutineType
from typing import Any, ClassVar, Protocol

import msgspec

from wool._code.calls import (
    Call,
    close_call,
    frame_of,
    hand_over,
    take_back,
    unstarted,
)
from wool._code.loading import NO_REFERENTS, Referents
from wool._code.units import CodeUnit, MissingCode, rebuild
from wool._peer import background
from wool._peer.end import End
from wool._protocol import frames as f
from wool._values.codec import Codec, rebuild_error
from wool._values.context import Change
from wool._values.exceptions import load_exception
from wool._values.references import Export
from wool._workerinfo import WorkerInfo
from wool.abc import Buffer
from wool.exceptions import SerializationError, WoolError, WorkerStopped
from wool.plugins import CallInfo

MAX_MESSAGE = 64 << 10
"""Largest argument of `task.cancel(…)` in bytes that travels as itself."""


class Request(msgspec.Struct, frozen=True):
    """All that is needed to open a call, at any peer.

    Attributes:
        target: names the routine, or a live object and an operation; see `frames.Open.routine`.
        name: for messages.
        units: the code that target and arguments need.
        segments: the arguments, then the values of context variables.
        calls: unstarted calls among the arguments.
        exports: live objects among them.
        context: names those variables.
        prefetch: how many values of a stream may be sent before they are asked for.
        info: what a balancer is told of it; None if there is none.
        worker: the one that it is for; None: any that fits.
        opens: the answer after which something is left open that has to be closed.
        iterates: whether the answer is the next value of an iterator, or its end.
    """

    target: str
    name: str
    stream: bool = False
    tags: frozenset[str] = frozenset()
    parent: str = ""
    units: Sequence[CodeUnit] = ()
    segments: Sequence[Buffer] = ()
    calls: Sequence[Call] = ()
    exports: Sequence[Export] = ()
    context: tuple[f.Variable, ...] = ()
    prefetch: int = 0
    info: CallInfo | None = None
    worker: WorkerInfo | None = None
    opens: type[f.Frame] | None = f.Value
    iterates: bool = False


class Reply(msgspec.Struct, frozen=True):
    """How a step ended: with a frame of the peer.

    Attributes:
        segments: its payload.
        referents: the live objects that came with it.
        context: what has become of context variables.
    """

    frame: f.Value | f.Return | f.Raise
    segments: Sequence[Buffer]
    referents: Referents = NO_REFERENTS
    context: Sequence[Change] = ()


class NotStarted(msgspec.Struct, frozen=True):
    """A cancel won the race: the call never began."""

    context: ClassVar[Sequence[Change]] = ()


class Failed(msgspec.Struct, frozen=True):
    """The call cannot end properly: the peer is gone or has refused it."""

    error: WoolError
    context: ClassVar[Sequence[Change]] = ()

    def fresh_error(self) -> WoolError:
        """Returns the error for one call: many may fail together, and each raises its own."""
        error = copy.copy(self.error)
        error.__cause__ = self.error.__cause__
        return error


class Cancelled(msgspec.Struct, frozen=True):
    """The caller's own cancellation is what the step comes to.

    `open` is true if a stream still is: the cancel crossed a value that is dropped. Changes that
    the step made to context variables count even so.
    """

    error: asyncio.CancelledError
    open: bool = False
    context: Sequence[Change] = ()


Outcome = Reply | NotStarted | Failed


class Stage(IntEnum):
    """Where a call stands; see the top of this module."""

    WAITING = auto()
    """No peer has it."""
    SENT = auto()
    """A peer has it, and may have begun."""
    BEGUN = auto()
    """It is known to have begun."""
    SUSPENDED = auto()
    """A stream that has yielded and not been asked for more; one that runs ahead stays so."""
    LOST = auto()
    """The connection has ended, and the reason is being looked for."""


class Carrier(Protocol):
    """The way that a call takes."""

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """Where its caller waits."""
        ...

    @property
    def cancel_grace(self) -> float:
        """For how many seconds what has been cancelled is waited for."""
        ...

    def cancel(self, call: Any, message: bytes | None) -> None:
        """Has a call cancelled, wherever it is."""

    async def locate(self, call: Any) -> tuple[str, bool]:
        """Says for the user where a call stands, and whether a debugger has stopped it."""
        ...


class Holder(Protocol):
    """The holder of a call, which sends it when there is a connection."""

    info: WorkerInfo

    def cancel(self, call: Any, message: bytes | None) -> None:
        """Cancels a call, whether it has been sent or not."""


class OutgoingCall:
    """The state of one call.

    Attributes:
        number: its id on its connection; 0 while it provably has not begun.
        stage: where it stands.
        holder: the worker it was given to; None while it waits for one.
        sender: the connection it was sent over; None while it waits for one.
        sent: when it was sent there, in `monotonic` time.
        step: of a stream, the step that is running or was last to run.
        closing: of a stream, whether it is being closed although its consumer has not said so.
        abandoned: whether its caller has stopped waiting for it.
        cancelled: whether its caller has cancelled it, or the step that is running.
        cancellation: the caller's own `CancelledError`, once it has been cancelled.
        handover: unstarted calls among its arguments, until it is known whether it began.
        context: the one that it was made in, if what it prints is shown there.
        unheard: the weight of what has been shown, and its worker does not know it yet.
    """

    # An attribute of the class is one that most calls never change.
    number: int = 0
    stage: Stage = Stage.WAITING
    holder: Holder | None = None
    sender: End | None = None
    sent: float = 0.0
    step: int = 0
    closing: bool = False
    abandoned: bool = False
    cancelled: bool = False
    cancellation: asyncio.CancelledError | None = None
    handover: Handover | None = None
    context: Context | None = None
    unheard: int = 0

    def __init__(self, carrier: Carrier, request: Request) -> None:
        self.request: Request = request
        self._carrier = carrier
        self._end: asyncio.Future[None] = asyncio.Future(loop=carrier.loop)
        self._arrived: deque[Outcome] = deque()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """Where it belongs: a stream is stepped there alone."""
        return self._carrier.loop

    @property
    def ending(self) -> asyncio.Future[None]:
        """Done when the step has ended, whether it is waited for or not, or patience has."""
        return self._end

    @property
    def awaited(self) -> int:
        """The step that a cancel is for."""
        return self.step

    async def fetch(self, keys: Sequence[bytes]) -> None:
        """Asks the peer for code that its reply mentions.

        Raises:
            SerializationError: it has it no more, or is gone.
        """
        if self.sender is None:
            raise SerializationError("a reply mentions code that came from no worker")
        await self.sender.fetch(keys)

    # Steps of a stream --------------------------------------------------------------------------

    def ask(self, *, urgent: bool) -> int:
        """Asks for the next value; returns for how many to ask the peer now."""
        return 1

    def begin_close(self) -> bool:
        """Notes that the next step closes the stream; False if that has been done."""
        return True

    def next_step(self) -> None:
        """Prepares for the end of another step."""
        self.step += 1
        if self.stage is not Stage.LOST:
            self.stage = Stage.BEGUN
        self._end = self.loop.create_future()

    # The end of a step --------------------------------------------------------------------------

    def end(self, outcome: Outcome) -> None:
        """Ends it, or the step that is running."""
        if self.handover is not None:
            self.settle_handover(outcome)
        self._arrived.append(outcome)
        if not self._end.done():
            self._end.set_result(None)

    @property
    def failed(self) -> Failed | None:
        """The reason why a stream can make no further step, which came between two."""
        outcome = self._arrived[0] if self._arrived and not self.closing else None
        return outcome if isinstance(outcome, Failed) else None

    def settle_handover(self, outcome: Outcome) -> None:
        """Settles what becomes of the unstarted calls among the arguments."""
        if self.handover is not None:
            self.handover.settle(taken=self.number != 0 and not isinstance(outcome, NotStarted))
            self.handover = None

    async def wait(self) -> Outcome | Cancelled:
        """Waits until the step ends."""
        self.cancelled = False
        self.cancellation = None
        try:
            if self._arrived and self.failed:  # a new attempt lets others run first
                await asyncio.sleep(0)
            while not self._arrived:
                if self._end.done():
                    self._end = self.loop.create_future()
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
        return self._arrived.popleft()

    def _abandon(self) -> None:
        """Cancels the step, of which nobody wants to know any more what it comes to."""
        if not self._arrived:
            self.abandoned = True
            self._cancel(None)

    def _cancel(self, message: bytes | None) -> None:
        self.cancelled = True
        self._carrier.cancel(self, message)

    async def _wait_cancelled(self, error: asyncio.CancelledError) -> Outcome | Cancelled:
        """Sends this cancel, and any that follow, until the step ends or patience does.

        Cancelling the wait cancels only its future; a reply that comes in the same turn of the loop
        has arrived all the same.
        """
        sent, timers = 1, list[asyncio.TimerHandle]()
        stands = ["its worker has not said where it stands"]
        self._give_grace(timers, stands)
        try:
            while not self._arrived:
                self._end = self.loop.create_future()
                self._cancel(_message(error))
                try:
                    await self._end
                    break
                except asyncio.CancelledError as again:
                    error = again
                    sent += 1
        finally:
            while timers:
                timers.pop().cancel()
        self.abandoned = not self._arrived
        if self.abandoned:
            grace = self._carrier.cancel_grace
            error.add_note(
                f"{self.request.name}() was cancelled {grace:g} s ago and has not ended: "
                f"{stands[-1]}"
            )
        return self._judge(None if self.abandoned else self._arrived.popleft(), error, sent)

    def _give_grace(self, timers: list[asyncio.TimerHandle], stands: list[str]) -> None:
        """Has patience end after the grace, which begins anew while a debugger has the step."""
        while timers:
            timers.pop().cancel()
        grace = self._carrier.cancel_grace
        timers.append(self.loop.call_later(grace, self._wake))
        timers.append(self.loop.call_later(grace / 2, self._ask, timers, stands))

    def _ask(self, timers: list[asyncio.TimerHandle], stands: list[str]) -> None:
        background.start(self.loop, self._locate(timers, stands))

    async def _locate(self, timers: list[asyncio.TimerHandle], stands: list[str]) -> None:
        with contextlib.suppress(WoolError):  # the pool has been closed meanwhile
            where, debugged = await self._carrier.locate(self)
            stands.append(where)
            if debugged and timers:  # it is waited for still
                self._give_grace(timers, stands)

    def _wake(self) -> None:
        background.settle(self._end)

    def _judge(
        self, outcome: Outcome | None, error: asyncio.CancelledError, sent: int
    ) -> Outcome | Cancelled:
        """Says what a step comes to that was cancelled `sent` times."""
        self.cancellation = error
        if not isinstance(outcome, Reply):
            return Cancelled(error)
        frame, request = outcome.frame, self.request
        task = asyncio.current_task()
        for _ in range(frame.uncancelled if task is not None else 0):
            task.uncancel()  # type: ignore[union-attr]
        if isinstance(frame, f.Raise) and not (request.iterates and is_end(frame)):
            return outcome
        if frame.delivered < sent:
            return Cancelled(error, type(frame) is request.opens, outcome.context)
        return outcome


class Handover:
    """Calls that have not begun and travel, until it is known what came of it.

    Once the call that took them along may have begun, they begin elsewhere, if at all; their
    originals must not begin here as well. If it provably never will, they can be used again.

    Args:
        taker: says in messages where they went.
    """

    def __init__(self, calls: Iterable[Call], taker: str) -> None:
        self._calls = [call for call in calls if frame_of(call) is not None]
        for call in self._calls:
            hand_over(call, taker)

    def settle(self, *, taken: bool) -> None:
        """Ends it: closes the coroutines that were taken, and gives back what was not.

        A stream that was taken is not closed: a step of it says where it went.
        """
        calls, self._calls = self._calls, []
        for call in calls:
            if not taken:
                take_back(call)
            elif isinstance(call, CoroutineType) and frame_of(call) and unstarted(call):
                close_call(call)


# From a reply to a value or an exception ----------------------------------------------------------


async def decode_reply(codec: Codec, call: OutgoingCall, reply: Reply) -> Any:
    """Rebuilds a result.

    Raises:
        SerializationError: it cannot be rebuilt here.
    """
    while True:
        try:
            return codec.decode(reply.segments, None, reply.referents)
        except MissingCode as missing:
            await call.fetch([missing.key])
        except Exception as error:
            name = call.request.name.removesuffix("()")  # of an object it may be a description
            raise rebuild_error(f"a result of {name}()", error, "this side") from error


def load_variable(codec: Codec, call: OutgoingCall, segments: Sequence[Buffer]) -> Awaitable[Any]:
    """Rebuilds the value of a context variable."""
    return rebuild(codec.decode, segments, fetch=call.fetch)


async def reply_error(
    codec: Codec, call: OutgoingCall, outcome: Outcome | Cancelled, thrown: BaseException | None
) -> BaseException:
    """Returns the exception that an outcome amounts to."""
    if isinstance(outcome, Failed):
        return outcome.fresh_error()
    if isinstance(outcome, Cancelled):
        return outcome.error
    assert isinstance(outcome, Reply)
    assert isinstance(outcome.frame, f.Raise)
    own = call.cancellation
    if outcome.frame.echo and thrown is not None:
        if outcome.segments:  # changes that were made to it
            await _load_exception(codec, call, outcome, thrown)
        if own is not None and not outcome.frame.delivered and isinstance(thrown, GeneratorExit):
            return own  # a generator that is closed ends so, as others return
        return thrown
    error = await _load_exception(codec, call, outcome, thrown)
    if own is not None and not outcome.frame.delivered and isinstance(error, WorkerStopped):
        return own  # the worker was told to stop as well, and that had cancelled the call already
    if own is None or type(error) is not asyncio.CancelledError:  # a subclass is the routine's own
        return error
    # The caller's own, with what became of it there; the lines where it struck, above all.
    own.__dict__.update(error.__dict__)
    own.__cause__, own.__context__ = error.__cause__, error.__context__
    own.__suppress_context__ = error.__suppress_context__
    return own.with_traceback(error.__traceback__)


async def _load_exception(
    codec: Codec, call: OutgoingCall, reply: Reply, thrown: BaseException | None
) -> BaseException:
    assert isinstance(reply.frame, f.Raise)
    loads = partial(codec.decode, thrown=thrown, referents=reply.referents)
    summary = reply.frame.summary
    try:
        return await rebuild(load_exception, summary, reply.segments, loads, fetch=call.fetch)
    except SerializationError:  # nobody has the code that it takes
        return summary.error()


def is_end(frame: f.Raise) -> bool:
    """Whether an exception says that an iterator has no more values."""
    return frame.summary.type_name == "builtins.StopAsyncIteration"


def _message(error: asyncio.CancelledError) -> bytes | None:
    """Returns the argument of `task.cancel(…)`, pickled; its text if it cannot be."""
    if not error.args:
        return None
    try:
        message = pickle.dumps(error.args[0])
    except Exception:
        message = b""
    return message if 0 < len(message) <= MAX_MESSAGE else pickle.dumps(repr(error.args[0])[:1000])


def shield() -> contextlib.AbstractContextManager[Any]:
    """Returns a shield against a cancelled anyio scope, which cancels anew on every loop turn."""
    anyio = sys.modules.get("anyio")
    if anyio is not None and anyio.current_effective_deadline() == float("-inf"):
        return anyio.CancelScope(shield=True)
    return contextlib.nullcontext()
