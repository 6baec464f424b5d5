"""A caller as the worker sees it: one session, the calls it has here, and the way to answer.

Frames arrive on the I/O thread. Whatever runs user code is passed to the executor; accepting calls,
giving them back and cancelling those that have not begun is done here, whatever user code does.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from wool._client.peer_pool import PeerPool
from wool._exchange.exchange import Failed
from wool._exchange.handover import Handover
from wool._exchange.packing import Packed, keep_code, mark_known, supply
from wool._exchange.references import References
from wool._protocol import frames as f
from wool._protocol.frames import Buffer, Frame
from wool._serialization.codec import Codec
from wool._serialization.tracebacks import process_label
from wool._session.session import Session
from wool._worker.execution import Execution
from wool._worker.streak import Streak
from wool._worker.stream import StreamExecution
from wool._workerinfo import WorkerInfo
from wool.exceptions import SerializationError, WoolError, WorkerLost

if TYPE_CHECKING:
    from wool._worker.server import Server

SMALL = 8 << 10
"""Largest payload in bytes of a frame that is better read where it is used, past the I/O thread."""

Answer = tuple["Caller", Frame, Sequence[Buffer]]


class Caller:
    """Somebody who calls this worker.

    Attributes:
        pool: what calls made by this caller's routines go to.
        codec: of that pool.
        drained: whether it has said that it sends no more calls.
        seen: the number of its last call.
    """

    def __init__(self, server: Server, session: Session, pool: PeerPool, number: int) -> None:
        self.session = session
        self.pool = pool
        self.codec: Codec = pool.codec
        self.number = number
        self._told = 1
        self.drained = False
        self.seen = 1
        self._server = server
        self._executor = server.executor
        self._calls: dict[int, Execution] = {}
        self._fetches: dict[int, concurrent.futures.Future[None]] = {}
        self._references = References(self, session)
        self._streak = Streak()
        self.label: str = process_label()

    @property
    def worker(self) -> WorkerInfo:
        """Who runs the calls."""
        return self._server.info

    @property
    def where(self) -> str:
        """Names the worker in messages."""
        return self._server.where

    @property
    def name(self) -> str:
        """Names the caller."""
        return str(self.session.connection.extra("peer", "unknown"))

    @property
    def calls(self) -> int:
        """How many calls it has here."""
        return len(self._calls)

    # On the I/O thread --------------------------------------------------------------------------

    def on_frame(self, frame: Frame, segments: Sequence[Buffer]) -> None:
        """Takes what the caller sends."""
        if isinstance(frame, (f.Open, f.Resume)):
            if frame.codes:
                segments = self._learn(frame.codes, segments)
            self._consider_delegating(frame)
            if isinstance(frame, f.Open):
                self._open(frame, segments)
            else:
                self._resume(frame, segments)
        elif isinstance(frame, f.Cancel):
            self._cancel(frame)
        elif isinstance(frame, (f.Return, f.Raise)):
            segments = self._learn(frame.codes, segments)
            self._references.imports.on_reply(frame, segments, self._references.arrive(frame))
        elif isinstance(frame, f.Recall):
            self._recall(frame.count)
        elif isinstance(frame, f.Peers):
            self._server.set_peers(self.pool, frame)
        elif isinstance(frame, f.Drain):
            self.drained = True
            self._server.call_ended()
        elif isinstance(frame, f.Need):
            self._executor.call(self._supply, frame)
        elif isinstance(frame, f.Supply):
            self._learn(frame.codes, segments)
            self._fetched(frame.call)
        elif isinstance(frame, f.Release):
            self._references.on_release(frame)
            self._server.call_ended()
        elif isinstance(frame, f.GiveBack):
            self._references.imports.on_give_back(frame)
        elif isinstance(frame, f.Reject):
            self._references.imports.on_reject(frame)

    def on_lost(self, error: Exception) -> None:
        """The caller is gone: its calls are cancelled."""
        calls, self._calls = self._calls, {}
        for execution in calls.values():
            if not self._executor.claim(execution):
                self._executor.call(execution.abandon)
        for number in list(self._fetches):
            self._fetched(number)
        for use in self._references.lost(self._losing):
            self.on_user(use.end, Failed(self._losing(use.request.name)))
        self._server.forget(self)

    def _losing(self, name: str) -> WoolError:
        """Returns the error for using an object that the caller had."""
        return WorkerLost(f"the process that had {name}, the caller {self.name}, is gone")

    def send(self, frame: Frame, segments: Sequence[Buffer]) -> None:
        """Sends an answer."""
        self._note(frame)
        self.session.send(frame, segments)

    def send_now(self, frame: Frame, segments: Sequence[Buffer]) -> bool:
        """Sends an answer past the I/O thread, if that is possible now."""
        if isinstance(frame, f.GiveBack) or not self.session.send_now(frame, segments):
            return False
        self._note(frame)
        return True

    def _note(self, frame: Frame) -> None:
        """Takes note of what an answer means."""
        if isinstance(frame, (f.Return, f.Raise)):
            self._calls.pop(frame.call, None)
            self.inform(frame.idle_as_of)
            self._server.call_ended()
        elif isinstance(frame, f.Value):
            self.inform(frame.idle_as_of)
        elif isinstance(frame, f.GiveBack):
            for number in frame.calls:
                self._calls.pop(number, None)
            self._server.call_ended()
        if codes := getattr(frame, "codes", ()):
            mark_known(self.session, codes)

    @property
    def informed(self) -> bool:
        """Whether it has been told, since its last call, that a call could begin at once."""
        return self._told >= self.seen

    def inform(self, idle_as_of: int) -> None:
        """Notes that the caller is told of an idle worker that had seen its call `idle_as_of`."""
        self._told = max(self._told, idle_as_of)

    def give_back(self, executions: Sequence[Execution], *, recalled: bool) -> None:
        """Gives back those of the calls that have not begun."""
        numbers = [e.number for e in executions if self._executor.claim(e)]
        waiting = len(self._executor.waiting(self))
        self.send(f.GiveBack(numbers, waiting, recalled), ())

    def drain(self) -> None:
        """Tells the caller to send no more, and gives back what has not begun."""
        self.session.send(f.Drain())
        waiting = self._executor.waiting(self)
        if waiting:
            self.give_back(waiting, recalled=False)

    @property
    def active(self) -> bool:
        """Whether it has a call here that does something."""
        return any(not execution.suspended for execution in list(self._calls.values()))

    def abandon_all(self, *, gone: bool) -> None:
        """Cancels what still runs.

        Args:
            gone: nothing more is said to the caller, and what is suspended or lent ends as well.
        """
        for execution in list(self._calls.values()):
            self._executor.call(partial(execution.abandon, gone=gone))
        if gone:
            self._executor.call(self._references.exports.lost)

    def _open(self, frame: f.Open, segments: Sequence[Buffer]) -> None:
        if frame.routine.startswith("@"):
            self._references.on_open(frame, segments)
            return
        if self._is_refused(frame):
            self._references.arrive(frame)
            self.send(f.GiveBack([frame.call], 0), ())
            return
        self._begin(frame, segments)

    def _consider_delegating(self, frame: f.Open | f.Resume) -> None:
        """Has frames read on the executor's thread if that would wait for them anyway."""
        alone = self._executor.hungry and self._suits(frame) and sum(frame.sizes) <= SMALL
        if self._streak.note(alone=alone) and self._server.may_delegate(self):
            self.session.delegate(self._executor.loop, self._suits, self._on_frame_there)

    def _cancel(self, frame: f.Cancel) -> None:
        execution = self._calls.get(frame.call)
        if execution is None:
            self._references.on_cancel(frame)
            return
        if self._executor.claim(execution):
            self.send(f.GiveBack([frame.call], len(self._executor.waiting(self))), ())
        else:
            self._executor.call(execution.cancel, frame.step, frame.message)

    def _recall(self, count: int) -> None:
        waiting = self._executor.waiting(self)
        # The newest: the oldest are about to begin here.
        self.give_back(waiting[max(0, len(waiting) - count) :], recalled=True)

    def _learn(self, codes: Sequence[f.Code], segments: Sequence[Buffer]) -> Sequence[Buffer]:
        """Keeps the code that came with a payload; returns the segments of the payload."""
        return keep_code(self.codec.store, self.session, codes, segments)

    def _drop(self, number: int) -> None:
        self._calls.pop(number, None)
        self._server.call_ended()

    def _fetched(self, number: int) -> None:
        future = self._fetches.pop(number, None)
        # The call that asked may have been cancelled meanwhile.
        if future is not None and future.set_running_or_notify_cancel():
            future.set_result(None)

    def _need(self, keys: Sequence[bytes], done: concurrent.futures.Future[None]) -> None:
        number = self.session.machine.next_id()
        self._fetches[number] = done
        if not self.session.send(f.Need(number, list(keys))):
            self._fetched(number)

    # End: what references need to know ----------------------------------------------------------

    @property
    def cancel_grace(self) -> float:
        """As for the calls that its routines make."""
        return self.pool.options.cancel_grace

    @property
    def user_loop(self) -> asyncio.AbstractEventLoop:
        """The loop of user code."""
        return self._executor.loop

    @property
    def borrows(self) -> bool:
        """Whether it uses an object that lives here."""
        return self._references.exports.any

    def on_user(self, callback: Callable[..., object], *args: Any) -> None:
        """Calls back on the executor's thread."""
        self._executor.call(callback, *args)

    def on_session(self, callback: Callable[..., object], *args: Any) -> None:
        """Calls back on the I/O thread."""
        self._server.call(callback, *args)

    def lend(self, packed: Packed) -> list[bytes]:
        """Notes that the next frame mentions objects; returns their keys, for the frame."""
        return self._references.exports.lend(packed.exports) if packed.exports else []

    # On either thread, never on both at once ----------------------------------------------------

    def _is_refused(self, frame: f.Open) -> bool:
        """Whether a call comes too late.

        What runs here may go on calling: it could not finish otherwise if there is nobody else.
        """
        return self._server.draining and not frame.parent.startswith(f"{self.worker.id}-")

    def _begin(self, frame: f.Open, segments: Sequence[Buffer]) -> Execution:
        kind = StreamExecution if frame.stream else Execution
        execution = kind(self._executor, self, frame, segments, self._references.arrive(frame))
        self._calls[frame.call] = execution
        self.seen = frame.call
        self._executor.submit(execution)
        return execution

    def _resume(self, frame: f.Resume, segments: Sequence[Buffer]) -> None:
        execution = self._calls.get(frame.call)
        if isinstance(execution, StreamExecution):
            referents = self._references.arrive(frame)
            self._executor.call(execution.resume, frame, segments, referents)

    def _suits(self, frame: Frame) -> bool:
        """Whether a frame can be taken on the executor's thread: it begins or resumes a call."""
        if isinstance(frame, f.Open):
            if frame.routine.startswith("@") or self._is_refused(frame):
                return False
        elif not isinstance(frame, f.Resume):
            return False
        return not (frame.codes or frame.references)

    # On the executor's thread -------------------------------------------------------------------

    def _on_frame_there(self, frame: Frame, segments: Sequence[Buffer]) -> None:
        """Takes what has been read on this thread, while nothing is on the other."""
        self._streak.taken += 1
        if isinstance(frame, f.Open):
            execution = self._begin(frame, segments)
            # The drain may have begun since `_suits` looked, and have missed it.
            if self._is_refused(frame) and self._executor.claim(execution):
                self.on_session(self.send, f.GiveBack([frame.call], 0), ())
        elif isinstance(frame, f.Resume):
            execution = self._calls.get(frame.call)
            if isinstance(execution, StreamExecution):
                execution.resume(frame, segments)

    def answer(self, frame: Frame, packed: Packed, *, more: bool = False) -> None:
        """Sends an answer; unstarted calls in it are the caller's from now on.

        Args:
            more: whether others follow at once: then they go together.
        """
        if packed.calls:
            Handover(packed.calls).settle(taken=True)
        self._server.post((self, frame, packed.segments), more=more)

    def use_begins(self) -> None:
        """The caller uses an object that lives here."""
        self._server.uses += 1

    def use_ends(self) -> None:
        """Such a use is over."""
        self._server.uses -= 1
        self._server.call_ended()

    def post(self, frame: Frame, segments: Sequence[Buffer]) -> None:
        """Has an answer sent by the I/O thread."""
        self._server.post((self, frame, segments))

    def on_suspended(self) -> None:
        """A stream waits for its next step, while the worker waits for its calls to end."""
        self._server.call_ended()

    def drop(self, number: int) -> None:
        """A call has ended without an answer."""
        self._server.call(self._drop, number)

    async def fetch(self, keys: Sequence[bytes]) -> None:
        """Asks the caller for code.

        Raises:
            SerializationError: it has it no more.
        """
        done: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._server.call(self._need, keys, done)
        await asyncio.wrap_future(done)
        if self.codec.store.missing(keys):
            raise SerializationError("the caller no longer has code that its call mentions")

    def _supply(self, frame: f.Need) -> None:
        """Answers a need of the caller for classes defined here."""
        units = self.codec.store.find(frame.keys) + self.codec.book.find(frame.keys)
        self.post(*supply(frame.call, units))
