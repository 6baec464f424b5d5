"""The connection to a caller, as the worker has it: its calls are executed here.

Frames arrive on the I/O thread. User code is passed to the executor; accepting calls,
giving them back and cancelling those that have not begun is done here, whatever user code does.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from wool._client.peer_pool import PeerPool
from wool._code.loading import NO_REFERENTS
from wool._peer.incoming import IncomingCall, State
from wool._peer.outgoing import Failed
from wool._peer.peer import Peer
from wool._peer.session import Session
from wool._protocol import frames as f
from wool._protocol.frames import Buffer, Frame
from wool._values.tracebacks import process_label
from wool._worker.answers import Answers
from wool._worker.delegating import DelegationPolicy
from wool._worker.executor import Executor, Queued, leave_fork
from wool._worker.output import CallOutput
from wool._workerinfo import WorkerInfo
from wool.exceptions import WoolError, WorkerLost

SMALL = 8 << 10
"""Largest payload in bytes of a frame that is better read where it is used, past the I/O thread."""

Handler = Callable[["CallerPeer", Any, Sequence[Buffer]], None]


class Host:
    """A worker as its callers know it; see `server.Server`.

    Attributes:
        info: what the worker says of itself.
        where: names it in messages.
        executor: runs the calls of all callers.
        answers: those to all callers.
        kinds: the classes of calls that are no streams, and of streams.
        handlers: take the frames of a caller that are for the worker as a whole.
        draining: whether it takes no more calls.
    """

    kinds: tuple[type[Queued], type[Queued]]

    def __init__(self, info: WorkerInfo, executor: Executor) -> None:
        self.info = info
        self.where = f"worker {info.pid} on {info.host}"
        self.executor = executor
        self.answers = Answers(executor.process)
        self.handlers: dict[type[Frame], Handler] = {}
        self.draining = False
        self._loop = asyncio.get_running_loop()
        self._quiet = asyncio.Event()

    def call(self, callback: Callable[..., object], *args: Any) -> None:
        """Calls back on the I/O thread, from any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: the worker is stopping
            self._loop.call_soon_threadsafe(callback, *args)

    def call_ended(self) -> None:
        """A call has ended, or a caller is done; perhaps it was the last one. On any thread."""
        if self.draining:
            self.call(self._quiet.set)

    def forget(self, caller: CallerPeer) -> None:
        """A caller is gone."""
        raise NotImplementedError


class CallerPeer(Peer):
    """Somebody who calls this worker.

    Attributes:
        executor: runs the calls.
        answers: those to all callers.
        pool: the pool for calls that this caller's routines make.
        number: unique among the callers of this worker.
        drained: whether it has said that it sends no more calls.
        seen: the number of its last call.
        told: the last call of its that it knows to have been seen by an idle worker.
        outputs: what its calls have printed, by their numbers.
    """

    def __init__(self, host: Host, session: Session, pool: PeerPool, number: int) -> None:
        self._host = host
        label, loop = process_label(), host.executor.loop
        super().__init__(session, pool.codec, label=label, where=host.where, loop=loop)
        self.executor = host.executor
        self.answers = host.answers
        self.pool = pool
        self.number = number
        self.drained: bool = False
        self.seen: int = 1
        self.told: int = 1
        self.outputs: dict[int, CallOutput] = {}
        self._lost = False
        self._kinds = host.kinds
        self._delegation = DelegationPolicy()

    def _more_handlers(self) -> dict[type[Frame], Callable[[Any, Sequence[Buffer]], None]]:
        return {
            f.Resume: self._on_resume,
            f.Recall: self._on_recall,
            f.Heard: self._on_heard,
            f.Drain: self._on_drain,
            **{kind: partial(take, self) for kind, take in self._host.handlers.items()},
        }

    @property
    def worker(self) -> WorkerInfo:
        """This worker."""
        return self._host.info

    @property
    def name(self) -> str:
        """Names the caller."""
        return str(self.session.connection.extra("peer", "unknown"))

    @property
    def cancel_grace(self) -> float:
        """As for the calls that its routines make."""
        return self.pool.options.cancel_grace

    # Threads ------------------------------------------------------------------------------------

    def on_user(self, callback: Callable[..., object], *args: Any) -> None:
        """Calls back on the executor's thread."""
        self.executor.call(callback, *args)

    def on_session(self, callback: Callable[..., object], *args: Any) -> None:
        """Calls back on the I/O thread."""
        self._host.call(callback, *args)

    # Calls that arrive; on the I/O thread -------------------------------------------------------

    def _on_open(self, frame: f.Open, segments: Sequence[Buffer]) -> None:
        if frame.routine.startswith("@"):
            super()._on_open(frame, segments)
            return
        if frame.codes:
            segments = self._learn(frame.codes, segments)
        self._consider_delegating(frame)
        self._begin(frame, segments)

    def _on_resume(self, frame: f.Resume, segments: Sequence[Buffer]) -> None:
        if frame.codes:
            segments = self._learn(frame.codes, segments)
        self._consider_delegating(frame)
        execution = self.serving.get(frame.call)
        if isinstance(execution, Queued):
            self.on_user(execution.resume, frame, segments, self.referents(frame))

    def _on_cancel(self, frame: f.Cancel, segments: Sequence[Buffer]) -> None:
        execution = self.serving.get(frame.call)
        if execution is not None and self.executor.claim(execution):
            self._send_back([frame.call], len(self.executor.waiting(self)))
        else:
            super()._on_cancel(frame, segments)

    def _on_recall(self, frame: f.Recall, segments: Sequence[Buffer]) -> None:
        waiting = self.executor.waiting(self)
        # The newest: the oldest are about to begin here.
        self._give_back(waiting[max(0, len(waiting) - frame.count) :], recalled=True)

    def _give_back(self, executions: Sequence[IncomingCall], *, recalled: bool) -> None:
        """Gives back those of the calls that have not begun."""
        numbers = [e.frame.call for e in executions if self.executor.claim(e)]
        self._send_back(numbers, len(self.executor.waiting(self)), recalled)

    def _send_back(self, numbers: list[int], waiting: int = 0, recalled: bool = False) -> None:
        for number in numbers:
            self.serving.pop(number, None)
        self.session.send(f.GiveBack(numbers, waiting, recalled))
        self._note_ended()

    def _on_drain(self, frame: f.Drain, segments: Sequence[Buffer]) -> None:
        self.drained = True
        self._host.call_ended()

    def _on_release(self, frame: f.Release, segments: Sequence[Buffer]) -> None:
        super()._on_release(frame, segments)
        self._host.call_ended()

    def _consider_delegating(self, frame: f.Open | f.Resume) -> None:
        """Has frames read on the executor's thread if that would wait for them anyway."""
        alone = self.executor.idle and self._suits(frame) and sum(frame.sizes) <= SMALL
        if self._delegation.should_delegate(alone=alone):
            self.session.delegate(self.loop, self._suits, self._on_frame_there)

    # On either thread, never on both at once ----------------------------------------------------

    def _is_foreign(self, frame: f.Open) -> bool:
        """Whether a call comes too late for a worker that drains.

        Calls that run here may go on calling: they could not finish otherwise if there is nobody
        else.
        """
        return not frame.parent.startswith(f"{self.worker.id}-")

    def _begin(self, frame: f.Open, segments: Sequence[Buffer]) -> None:
        referents = self.referents(frame) if frame.references else NO_REFERENTS
        kind = self._kinds[frame.stream]
        execution = self.serving[frame.call] = kind(self, frame, segments, referents)
        self.seen = frame.call
        # Not before: a drain that begins now sees the call, or is seen here.
        if self._host.draining and self._is_foreign(frame):
            self.give_back(frame.call)
        else:
            self.executor.submit(execution)

    def _suits(self, frame: Frame) -> bool:
        """Whether a frame can be taken on the executor's thread: it begins or resumes a call."""
        if type(frame) is f.Open:
            if frame.routine[:1] == "@" or (self._host.draining and self._is_foreign(frame)):
                return False
        elif type(frame) is not f.Resume:
            return False
        return not (frame.codes or frame.references)

    # On the executor's thread -------------------------------------------------------------------

    def _on_frame_there(self, frame: Frame, segments: Sequence[Buffer]) -> None:
        """Takes what has been read on this thread, while nothing is on the other."""
        self._delegation.taken += 1
        if type(frame) is f.Open:
            self._begin(frame, segments)
        elif type(frame) is f.Resume:
            execution = self.serving.get(frame.call)
            if isinstance(execution, Queued):
                execution.resume(frame, segments)

    def answer(self, frame: f.Answer, segments: Sequence[Buffer], *, more: bool = False) -> None:
        """Has what a step has come to sent.

        The last answer for now is sent from here: the caller waits for it, and nothing else would
        be gained by a detour. Otherwise the I/O thread sends several at a time.
        """
        executor, answers = self.executor, self.answers
        if os.getpid() != executor.process:
            leave_fork()
        others = more or answers.woken or answers.waiting or executor.pending
        if others or self._host.draining or not self.send_now(frame, segments):
            answers.put(self, frame, segments)

    def give_back(self, call: int) -> None:
        """Says that a call has not begun and never will."""
        self.on_session(self._send_back, [call])

    def on_suspended(self) -> None:
        """A stream waits for its next step, while the worker waits for its calls to end."""
        self._host.call_ended()

    # Output -------------------------------------------------------------------------------------

    def output(self, call: int, routine: str) -> CallOutput | None:
        """Returns what takes output of a call here; None if this process keeps it."""
        output, mode = self.outputs.get(call), self.pool.output
        if output is None and mode != "worker" and not self._lost:
            made = CallOutput(self, call, routine, muted=mode == "off")
            output = self.outputs.setdefault(call, made)  # another thread may have been first
        return output

    def flush_output(self, call: int, *, end: bool = False) -> None:
        """Sends the output of a call before its answer."""
        output = self.outputs.pop(call, None) if end else self.outputs.get(call)
        if output is not None:
            output.flush(end=end)

    def _on_heard(self, frame: f.Heard, segments: Sequence[Buffer]) -> None:
        output = self.outputs.get(frame.call)
        if output is not None:
            output.heard(frame.amount)

    def drop(self, number: int) -> None:
        """A call has ended without an answer."""
        self.on_session(self._drop, number)

    # Answers ------------------------------------------------------------------------------------

    def _note_sent(self, frame: f.Answer) -> None:
        super()._note_sent(frame)
        if frame.idle_as_of > self.told:
            self.told = frame.idle_as_of
        if self._host.draining or self._lost:
            self._note_ended()

    def _drop(self, number: int) -> None:
        self.serving.pop(number, None)
        self._note_ended()

    def _note_ended(self) -> None:
        self._host.call_ended()
        if self._lost and not self.serving:
            self.on_session(self._host.forget, self)

    @property
    def informed(self) -> bool:
        """Whether it has been told, since its last call, that a call could begin at once."""
        return self._lost or self.told >= self.seen

    # The end ------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Tells the caller to send no more, and gives back what has not begun."""
        self.session.send(f.Drain())
        waiting = self.executor.waiting(self)
        if waiting:
            self._give_back(waiting, recalled=False)

    @property
    def active(self) -> bool:
        """Whether it has a call here that does something."""
        return any(call.state is not State.SUSPENDED for call in list(self.serving.values()))

    def abandon_all(self, *, gone: bool) -> None:
        """Cancels what still runs.

        Args:
            gone: nothing more is said to the caller, and what is suspended or lent ends as well.
        """
        for call in list(self.serving.values()):
            if isinstance(call, Queued):
                self.on_user(partial(call.abandon, gone=gone))
        if gone:
            self.on_user(self.end_uses)

    def on_lost(self, error: Exception) -> None:
        """The caller is gone: its calls are cancelled."""
        self._lost = self.drained = True
        for number, call in list(self.serving.items()):
            if self.executor.claim(call):
                del self.serving[number]
            elif isinstance(call, Queued):
                self.on_user(call.abandon)
        for call in self.lose(self._losing):
            self.on_user(call.end, Failed(self._losing(call.request.name)))
        self._note_ended()

    def _losing(self, name: str) -> WoolError:
        """Returns the error for using an object that the caller had."""
        return WorkerLost(f"the process that had {name}, the caller {self.name}, is gone")
