"""A call that a peer has made, as the side that executes it sees it: its cancels, and its answers.

Everything here runs on the loop of user code.
"""

from __future__ import annotations

import asyncio
import pickle
import time
from collections.abc import Callable, Sequence
from enum import IntEnum, auto
from functools import partial
from typing import Any, TypeVar

import msgspec

from wool._code.loading import NO_REFERENTS, Referents
from wool._code.units import CodeUnit, MissingCode
from wool._peer.end import End
from wool._peer.outgoing import Handover
from wool._protocol import frames as f
from wool._values.codec import Encoded, interrupted, prepend, result_error
from wool._values.context import Change, with_changes
from wool._values.exceptions import Thrown, dump_exception, load_exception
from wool.abc import Buffer

A = TypeVar("A", bound=f.Answer)

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


class Leaving(IntEnum):
    """Why a call is cancelled although its caller has not asked for it."""

    NOBODY = auto()
    WORKER = auto()
    """This process stops; its callers are answered."""
    CALLER = auto()
    """The caller is gone: nobody is to be answered any more."""


Payload = tuple[Sequence[Buffer], Referents]
"""The segments that came with a frame, and the live objects that they mention."""

NOTHING: Payload = (), NO_REFERENTS


class IncomingCall:
    """A call that has been received.

    An attribute of the class is one that most calls never change.

    Attributes:
        frame: opened it.
        since: when it was received, in `time.monotonic()`.
        state: where it stands.
        task: runs it, once it has begun. It may be cancelled by others than the peer as well.
        leaving: who is going, so that the call has to end.
        delivered: how many cancels of the peer the task got in this step.
    """

    state: State = State.PENDING
    task: asyncio.Task[Any] | None = None
    leaving: Leaving = Leaving.NOBODY
    delivered: int = 0
    _before = 0  # how often the task had been cancelled when the step began
    _name = ""  # of what is called, once it has been found
    _thrown: Thrown | None = None  # by the caller: it may come out again

    def __init__(
        self,
        peer: End,
        frame: f.Open,
        segments: Sequence[Buffer],
        referents: Referents = NO_REFERENTS,
    ) -> None:
        self.peer = peer
        self.frame = frame
        self.since = time.monotonic()
        self._payload: Payload = segments, referents

    def cancel(self, step: int, message: bytes | None) -> None:
        """Cancels the call; of a stream, one step. Ignored if that has ended."""
        raise NotImplementedError

    def abandon(self, *, gone: bool = True) -> None:
        """The peer or this process is going: the call is cancelled.

        Args:
            gone: whether it is the peer, of whom nobody is left to answer. A worker that goes does
                answer: a routine that has to end as well may wait for that.
        """
        raise NotImplementedError

    # Counting cancels ---------------------------------------------------------------------------

    def _begin_step(self, task: asyncio.Task[Any], early: int = 0) -> None:
        """The task runs, or makes its next step.

        Args:
            early: how many cancels were delivered before that.
        """
        self.delivered = early
        self._before = task.cancelling() - early

    def _deliver(self, task: asyncio.Task[Any], *argument: Any) -> None:
        """Cancels the task on behalf of the peer."""
        self.delivered += 1
        task.cancel(*argument)

    def _pending(self, task: asyncio.Task[Any]) -> int:
        """Returns how many cancels, whoever they are from, have not been uncancelled."""
        return task.cancelling() - self._before

    def _uncancelled(self) -> int:
        """Returns how many of those delivered have been."""
        if self.task is None:
            return 0
        return max(0, self.delivered - self._pending(self.task))

    @property
    def _tidying(self) -> bool:
        """Whether it has been made to end already: a cancel would cut short its clean-up."""
        return self.task is not None and self._pending(self.task) > 0

    # Rebuilding what was sent -------------------------------------------------------------------

    def give_up(self) -> None:
        """It will never begin: lets go of what came with it."""
        self._payload = NOTHING

    async def _rebuild(
        self, make: Callable[..., Any], *args: Any, explain: Explain | None = None
    ) -> Any:
        """Makes something of what has arrived, fetching from the peer what code is missing.

        Args:
            make: makes it from `args`.
            explain: makes the error to raise of one that `make` raises; None raises that one. An
                error of fetching needs no explanation.
        """
        while True:
            try:
                return make(*args)
            except MissingCode as missing:
                await self.peer.fetch([missing.key])
            except KeyboardInterrupt as error:  # of the user's own making: SIGINT is ignored here
                raise interrupted(error) from error
            except Exception as error:
                if explain is None:
                    raise
                raise explain(error) from error

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
        summary = f.Summary("wool.RemoteError", "an exception that could not be rebuilt here")
        decode = partial(self.peer.codec.decode, referents=referents)
        thrown = await self._rebuild(load_exception, summary, segments, decode)
        self._thrown = Thrown(thrown)
        return thrown

    # Answers ------------------------------------------------------------------------------------

    def _encode(self, value: Any) -> Encoded | None:
        """Encodes a value for the peer; None if it cannot be sent, which ends the call."""
        try:
            encoded = self.peer.codec.encode(value)
            if encoded.code:
                self._lacking(encoded)
        except BaseException as error:  # pickling runs the user's code
            failure = result_error(self._name, value, error)
            failure.__cause__ = error
            self._finish_raise(failure)
            return None
        return self._complete(encoded)

    def _lacking(self, encoded: Encoded) -> Sequence[CodeUnit]:
        """Returns the code that the peer lacks.

        Raises:
            SerializationError: some of it cannot be sent.
        """
        return self.peer.codec.units(self.peer.session.lacking(encoded.code))

    def _complete(self, encoded: Encoded) -> Encoded:
        """Adds to an answer what else the peer has to know."""
        if changes := self._changes():
            encoded = with_changes(encoded, changes)
        if not encoded.code:
            return encoded
        codes, segments = prepend(self._lacking(encoded), encoded.segments)
        return msgspec.structs.replace(encoded, codes=codes, segments=segments)

    def _changes(self) -> Sequence[Change]:
        """Returns what the peer has to know of context variables, once."""
        return ()

    def _is_heard(self) -> bool:
        """Whether there is somebody to answer; if not, the call is over."""
        if self.state is State.ENDED:
            return False  # the rest concerns nobody
        if self.leaving is Leaving.CALLER:
            self._end()
            return False
        return True

    def _leave_step(self, state: State) -> None:
        """User code runs no more, for now or for good."""
        self.state = state

    def _end(self) -> None:
        """The call is over."""
        if self.state is State.ENDED:
            return
        self._leave_step(State.ENDED)
        self._thrown = None
        if self.leaving is Leaving.CALLER:
            self.peer.drop(self.frame.call)

    def _load_now(self) -> tuple[int, int]:
        """Returns `load` and `idle_as_of` for an answer."""
        return 0, 0

    def _last_step(self) -> int:
        """Returns the last step that a stream has taken."""
        return 0

    def _finish_return(self, value: Any) -> None:
        if self._is_heard():
            encoded = self._encode(value)
            if encoded is not None:
                self._answer(f.Return, encoded)

    def _finish_raise(self, error: BaseException) -> None:
        if self._is_heard():
            echo = self._thrown is not None and error is self._thrown.exception
            summary, encoded = self._encode_error(error)
            step = self._last_step()
            self._answer(f.Raise, encoded, echo=echo, summary=summary, step=step)

    def _answer(self, kind: type[A], encoded: Encoded, *, others: bool = False, **more: Any) -> A:
        """Sends what a step has come to, and returns the frame.

        Args:
            others: whether others follow at once: then they go together.
            more: what answers of this kind have besides.
        """
        if kind is not f.Value:
            self._end()
        peer = self.peer
        load, idle = self._load_now()
        frame = kind(
            call=self.frame.call,
            delivered=self.delivered,
            uncancelled=self._uncancelled() if self.delivered else 0,
            load=load,
            idle_as_of=idle,
            sizes=list(map(len, encoded.segments)),
            codes=encoded.codes,
            references=peer.lent.lend(encoded.exports) if encoded.exports else (),
            context=encoded.context,
            **more,
        )
        if encoded.calls:  # they are the peer's from now on
            Handover(encoded.calls, "the caller of the routine").settle(taken=True)
        peer.answer(frame, encoded.segments, more=others)
        return frame

    def _encode_error(self, error: BaseException) -> tuple[f.Summary, Encoded]:
        """Returns a description of an exception, and as much of it as can be sent. Never raises."""
        thrown, label = self._thrown, self.peer.label
        closing = isinstance(error, GeneratorExit)
        if closing and thrown is not None and thrown.exception is error and not thrown.changes():
            return f.Summary(), self._complete(Encoded())

        def dumps(value: Any, mend: bool) -> Encoded:
            encoded = self.peer.codec.encode(value, label, thrown, mend)
            self._lacking(encoded)
            return encoded

        summary, encoded = dump_exception(error, dumps, label)
        return summary, self._complete(encoded or Encoded())


def cancel_argument(message: bytes | None) -> tuple[Any, ...]:
    """Returns the arguments for `task.cancel(…)` that a cancel came with."""
    if message is None:
        return ()
    try:
        return (pickle.loads(message),)
    except Exception:
        return ("cancelled by the caller",)
