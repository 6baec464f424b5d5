"""A call that a peer has made, as the side that executes it sees it: its cancels, and its answers.

Everything here runs on the loop of user code.
"""

from __future__ import annotations

import asyncio
import pickle
import time
from collections.abc import Callable, Sequence
from enum import IntEnum, auto
from typing import Any

from wool._code.loading import NO_REFERENTS, Referents
from wool._code.units import MissingCode, rebuild
from wool._peer.end import End
from wool._peer.packing import Packed, pack
from wool._protocol import frames as f
from wool._values.codec import interrupted, result_error
from wool._values.exceptions import Summary, Thrown, dump_exception, load_exception
from wool.abc import Buffer

Explain = Callable[[Exception], Exception]


class State(IntEnum):
    """Where a call stands, in this order; a stream goes back and forth between two of them."""

    PENDING = auto()
    """It has been received and not begun."""
    DISMISSED = auto()
    """It was cancelled before it began: no user code runs."""
    RUNNING = auto()
    """User code may be running: cancels are for it."""
    SUSPENDED = auto()
    """A stream between two steps."""
    ENDED = auto()


class Cancels:
    """Counts the cancels that a task gets on behalf of a peer, and those that it has uncancelled.

    The task may be cancelled by others as well, and before. It is passed in each time: whoever
    counts need not keep it.

    Attributes:
        delivered: how many there were, in this step.
    """

    __slots__ = ("_before", "delivered")

    def __init__(self) -> None:
        self.delivered = 0
        self._before = 0  # how often the task had been cancelled

    def begin(self, task: asyncio.Task[Any], early: int = 0) -> None:
        """Begins to count: the task runs, or makes its next step.

        Args:
            early: how many were delivered before that.
        """
        self.delivered = early
        self._before = task.cancelling() - early

    def deliver(self, task: asyncio.Task[Any], *argument: Any) -> None:
        """Cancels the task."""
        self.delivered += 1
        task.cancel(*argument)

    def pending(self, task: asyncio.Task[Any]) -> int:
        """Returns how many cancels, whoever they are from, have not been uncancelled."""
        return task.cancelling() - self._before

    def uncancelled(self, task: asyncio.Task[Any] | None) -> int:
        """Returns how many of those delivered have been."""
        if not self.delivered or task is None:
            return 0
        return max(0, self.delivered - self.pending(task))


class IncomingCall:
    """A call that has been received.

    Attributes:
        frame: opened it.
        since: when it was received, in `time.monotonic()`.
        state: where it stands.
        task: runs it, once it has begun.
    """

    __slots__ = (
        "_cancels",
        "_name",
        "_referents",
        "_segments",
        "_thrown",
        "frame",
        "peer",
        "since",
        "state",
        "task",
    )

    def __init__(
        self, peer: End, frame: f.Open, segments: Sequence[Buffer], referents: Referents
    ) -> None:
        self.peer = peer
        self.frame = frame
        self.since = time.monotonic()
        self.state: State = State.PENDING
        self.task: asyncio.Task[Any] | None = None
        self._name = ""  # of what is called, once it has been found
        self._segments: Sequence[Buffer] = segments
        self._referents = referents
        self._cancels = Cancels()  # of this step
        self._thrown: Thrown | None = None  # what the caller has thrown in: it may come out

    def cancel(self, step: int, message: bytes | None) -> None:
        """Cancels the call; of a stream, one step. Ignored if that has ended."""
        raise NotImplementedError

    def abandon(self, *, gone: bool = True) -> None:
        """The peer or this process is going: the call is cancelled.

        Args:
            gone: whether it is the peer, of whom nobody is left to answer. A worker that goes does
                answer: who waits for that may be a routine that has to end as well.
        """
        raise NotImplementedError

    @property
    def _tidying(self) -> bool:
        """Whether it has been made to end already: a cancel would cut short its clean-up."""
        return self.task is not None and self._cancels.pending(self.task) > 0

    # Rebuilding what was sent -------------------------------------------------------------------

    def give_up(self) -> None:
        """It will never begin: lets go of what came with it."""
        self._segments, self._referents = (), NO_REFERENTS

    def _take_payload(self) -> tuple[Sequence[Buffer], Referents]:
        payload = self._segments, self._referents
        self.give_up()
        return payload

    async def _rebuild(
        self, make: Callable[..., Any], *args: Any, explain: Explain | None = None
    ) -> Any:
        """Rebuilds something, fetching from the peer what code is missing.

        Args:
            explain: makes the error to raise of one that `make` raises.
        """
        try:
            return await rebuild(make, *args, fetch=self.peer.fetch, explain=explain)
        except KeyboardInterrupt as error:  # of the user's own making: SIGINT is ignored here
            raise interrupted(error) from error

    async def _load(
        self,
        segments: Sequence[Buffer],
        referents: Referents = NO_REFERENTS,
        explain: Explain | None = None,
    ) -> Any:
        """Rebuilds a value.

        Raises:
            Exception: whatever rebuilding it raises.
        """
        decode = self.peer.codec.decode
        return await self._rebuild(decode, segments, None, referents, explain=explain)

    async def _load_thrown(self, segments: Sequence[Buffer], referents: Referents) -> BaseException:
        """Rebuilds an exception that is thrown in, or as much of it as can be."""
        summary = Summary("wool.RemoteError", "an exception that could not be rebuilt here", "")
        codec = self.peer.codec

        def decode(segments: Sequence[Buffer]) -> Any:
            return codec.decode(segments, None, referents)

        payload, missing = segments or None, (MissingCode,)
        thrown = await self._rebuild(load_exception, summary, payload, decode, missing)
        self._thrown = Thrown(thrown)
        return thrown

    # Answers ------------------------------------------------------------------------------------

    def _encode(self, value: Any) -> Packed | None:
        """Encodes a value for the peer; None if it cannot be sent, which ends the call."""
        codec = self.peer.codec
        try:
            return pack(codec, self.peer.session, codec.encode(value))
        except BaseException as error:  # pickling runs the user's code
            failure = result_error(self._name, value, error)
            failure.__cause__ = error
            self._finish_raise(failure)
            return None

    @property
    def _orphaned(self) -> bool:
        """Whether nobody is to be answered any more."""
        return self.peer.gone

    def _is_heard(self) -> bool:
        """Whether there is somebody to answer; if not, the call is over."""
        if self.state is State.ENDED:
            return False  # what a generator does now concerns nobody
        if self._orphaned:
            self._end()
            return False
        return True

    def _complete(self, packed: Packed) -> Packed:
        """Adds to an answer what else the peer has to know."""
        return packed

    def _end(self) -> tuple[int, int]:
        """The call is over; returns `load` and `idle_as_of` for the answer."""
        self.state = State.ENDED
        self._thrown = None
        if self._orphaned:
            self.peer.drop(self.frame.call)
        return 0, 0

    def _last_step(self) -> int:
        """Returns the last step that a stream has taken."""
        return 0

    def _finish_return(self, packed: Packed) -> None:
        if not self._is_heard():
            return
        packed = self._complete(packed)
        load, idle = self._end()
        frame = f.Return(
            call=self.frame.call,
            delivered=self._cancels.delivered,
            uncancelled=self._cancels.uncancelled(self.task),
            load=load,
            idle_as_of=idle,
            sizes=packed.sizes,
            codes=packed.codes,
            references=self.peer.lend(packed),
            context=packed.context,
        )
        self.peer.answer(frame, packed)

    def _finish_raise(self, error: BaseException) -> None:
        if not self._is_heard():
            return
        echo = self._thrown is not None and error is self._thrown.exception
        summary, packed = self._encode_error(error)
        packed = self._complete(packed)
        step = self._last_step()
        load, idle = self._end()
        frame = f.Raise(
            call=self.frame.call,
            delivered=self._cancels.delivered,
            uncancelled=self._cancels.uncancelled(self.task),
            load=load,
            idle_as_of=idle,
            echo=echo,
            summary=summary,
            sizes=packed.sizes,
            codes=packed.codes,
            references=self.peer.lend(packed),
            context=packed.context,
            step=step,
        )
        self.peer.answer(frame, packed)

    def _encode_error(self, error: BaseException) -> tuple[list[str], Packed]:
        """Returns a description of an exception, and as much of it as can be sent. Never raises."""
        thrown, label = self._thrown, self.peer.label
        codec, session = self.peer.codec, self.peer.session
        closing = isinstance(error, GeneratorExit)
        if closing and thrown is not None and thrown.exception is error and not thrown.changes():
            return [], Packed()

        def dumps(value: Any, mend: bool) -> Packed:
            return pack(codec, session, codec.encode(value, label, thrown, mend))

        summary, packed = dump_exception(error, dumps, label)
        return summary.texts, packed or Packed()


def cancel_argument(message: bytes | None) -> tuple[Any, ...]:
    """Returns the arguments for `task.cancel(…)` that a cancel came with."""
    if message is None:
        return ()
    try:
        return (pickle.loads(message),)
    except Exception:
        return ("cancelled by the caller",)
