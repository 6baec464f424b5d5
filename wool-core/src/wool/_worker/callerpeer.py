"""The connection to a caller, as the worker has it: its calls are executed here.

Frames arrive on the I/O thread. User code is passed to the executor; accepting calls,
giving them back and cancelling those that have not begun is done here, whatever user code does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from wool._client.peer_pool import PeerPool
from wool._peer.incoming import IncomingCall, State
from wool._peer.outgoing import Failed
from wool._peer.peer import Peer
from wool._peer.session import Session
from wool._protocol import frames as f
from wool._protocol.frames import Buffer, Frame
from wool._values.tracebacks import process_label
from wool._worker.delegating import DelegationPolicy
from wool._worker.execution import Execution
from wool._worker.executor import Executor
from wool._worker.stream import StreamExecution
from wool._workerinfo import WorkerInfo
from wool.exceptions import WoolError, WorkerLost

SMALL = 8 << 10
"""Largest payload in bytes of a frame that is better read where it is used, past the I/O thread."""

Answer = tuple["CallerPeer", Frame, Sequence[Buffer]]


class Host(Protocol):
    """The worker that serves callers; see `server.Server`."""

    info: WorkerInfo
    executor: Executor
    where: str
    draining: bool

    def call(self, callback: Callable[..., object], *args: Any) -> None:
        """Calls back on the I/O thread, from any thread."""

    def post(self, answer: Answer, *, more: bool = False) -> None:
        """Has an answer sent; on the executor's thread."""

    def join(self, frame: f.Value, segments: list[Buffer], value: Buffer) -> bool:
        """Adds a value to an answer that was posted; False if it is being sent."""
        ...

    def flush(self) -> None:
        """Sends what was posted, as far as possible; on the executor's thread."""

    def call_ended(self) -> None:
        """A call has ended, or a caller is done; perhaps it was the last one. On any thread."""

    def set_peers(self, pool: PeerPool, peers: f.Peers) -> None:
        """Takes note of the workers of a pool."""

    def report(self, caller: CallerPeer, frame: f.Inquire) -> None:
        """Tells a caller what the worker is doing."""

    def forget(self, caller: CallerPeer) -> None:
        """A caller is gone."""


class CallerPeer(Peer):
    """Somebody who calls this worker.

    Attributes:
        number: unique among the callers of this worker.
        drained: whether it has said that it sends no more calls.
        seen: the number of its last call.
    """

    def __init__(self, host: Host, session: Session, pool: PeerPool, number: int) -> None:
        label, loop = process_label(), host.executor.loop
        super().__init__(session, pool.codec, label=label, where=host.where, loop=loop)
        self._pool = pool
        self.number = number
        self.drained: bool = False
        self.seen: int = 1
        self._told = 1  # the last call of its that it knows to have been seen by an idle worker
        self._lost = False
        self._host = host
        self._executor = host.executor
        self._delegation = DelegationPolicy()

    def _more_handlers(self) -> dict[type[Frame], Callable[[Any, Sequence[Buffer]], None]]:
        return {
            f.Resume: self._on_resume,
            f.Recall: self._on_recall,
            f.Peers: self._on_peers,
            f.Drain: self._on_drain,
        }

    @property
    def pool(self) -> PeerPool:
        """The pool for calls that this caller's routines make."""
        return self._pool

    @property
    def worker(self) -> WorkerInfo:
        """The executor that runs the calls."""
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
        self._executor.call(callback, *args)

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
        if self._is_refused(frame):
            self.referents(frame)
            self.send(f.GiveBack([frame.call], 0))
            return
        self._begin(frame, segments)

    def _on_resume(self, frame: f.Resume, segments: Sequence[Buffer]) -> None:
        if frame.codes:
            segments = self._learn(frame.codes, segments)
        self._consider_delegating(frame)
        execution = self.serving.get(frame.call)
        if isinstance(execution, StreamExecution):
            self.on_user(execution.resume, frame, segments, self.referents(frame))

    def _on_cancel(self, frame: f.Cancel, segments: Sequence[Buffer]) -> None:
        execution = self.serving.get(frame.call)
        if execution is not None and self._executor.claim(execution):
            self.send(f.GiveBack([frame.call], len(self._executor.waiting(self))))
        else:
            super()._on_cancel(frame, segments)

    def _on_recall(self, frame: f.Recall, segments: Sequence[Buffer]) -> None:
        waiting = self._executor.waiting(self)
        # The newest: the oldest are about to begin here.
        self._give_back(waiting[max(0, len(waiting) - frame.count) :], recalled=True)

    def _give_back(self, executions: Sequence[IncomingCall], *, recalled: bool) -> None:
        """Gives back those of the calls that have not begun."""
        numbers = [e.frame.call for e in executions if self._executor.claim(e)]
        waiting = len(self._executor.waiting(self))
        self.send(f.GiveBack(numbers, waiting, recalled))

    def _on_peers(self, frame: f.Peers, segments: Sequence[Buffer]) -> None:
        self._host.set_peers(self.pool, frame)

    def _on_drain(self, frame: f.Drain, segments: Sequence[Buffer]) -> None:
        self.drained = True
        self._host.call_ended()

    def _on_release(self, frame: f.Release, segments: Sequence[Buffer]) -> None:
        super()._on_release(frame, segments)
        self._host.call_ended()

    def _on_inquire(self, frame: f.Inquire, segments: Sequence[Buffer]) -> None:
        self._host.report(self, frame)

    def _consider_delegating(self, frame: f.Open | f.Resume) -> None:
        """Has frames read on the executor's thread if that would wait for them anyway."""
        alone = self._executor.idle and self._suits(frame) and sum(frame.sizes) <= SMALL
        if self._delegation.should_delegate(alone=alone):
            self.session.delegate(self.loop, self._suits, self._on_frame_there)

    # On either thread, never on both at once ----------------------------------------------------

    def _is_refused(self, frame: f.Open) -> bool:
        """Whether a call comes too late.

        What runs here may go on calling: it could not finish otherwise if there is nobody else.
        """
        return self._host.draining and not frame.parent.startswith(f"{self.worker.id}-")

    def _begin(self, frame: f.Open, segments: Sequence[Buffer]) -> Execution:
        kind = StreamExecution if frame.stream else Execution
        execution = kind(self._executor, self, frame, segments, self.referents(frame))
        self.serving[frame.call] = execution
        self.seen = frame.call
        self._executor.submit(execution)
        return execution

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
        self._delegation.taken += 1
        if isinstance(frame, f.Open):
            execution = self._begin(frame, segments)
            # The drain may have begun since `_suits` looked, and have missed it.
            if self._is_refused(frame) and self._executor.claim(execution):
                self.on_session(self.send, f.GiveBack([frame.call], 0))
        elif isinstance(frame, f.Resume):
            execution = self.serving.get(frame.call)
            if isinstance(execution, StreamExecution):
                execution.resume(frame, segments)

    def _post(self, frame: Frame, segments: Sequence[Buffer], *, more: bool = False) -> None:
        self._host.post((self, frame, segments), more=more)

    def join(self, frame: f.Value, segments: list[Buffer], value: Buffer) -> bool:
        """Adds a value to those of a frame; False if that is being sent."""
        return self._host.join(frame, segments, value)

    def flush(self) -> None:
        """Sends what has been answered, as far as that is possible at once."""
        self._host.flush()

    def give_back(self, call: int) -> None:
        """Says that a call has not begun and never will."""
        self._post(f.GiveBack([call], 0), ())

    def on_suspended(self) -> None:
        """A stream waits for its next step, while the worker waits for its calls to end."""
        self._host.call_ended()

    def drop(self, number: int) -> None:
        """A call has ended without an answer."""
        self.on_session(self._drop, number)

    # Answers ------------------------------------------------------------------------------------

    def send_now(self, frame: Frame, segments: Sequence[Buffer] = ()) -> bool:
        """Sends an answer past the I/O thread, if that is possible now."""
        return not isinstance(frame, f.GiveBack) and super().send_now(frame, segments)

    def _note_sent(self, frame: Frame) -> None:
        super()._note_sent(frame)
        if isinstance(frame, (f.Return, f.Raise, f.Value)):
            self.inform(frame.idle_as_of)
        if isinstance(frame, f.GiveBack):
            for number in frame.calls:
                self.serving.pop(number, None)
        if not isinstance(frame, f.Value):
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
        return self._lost or self._told >= self.seen

    def inform(self, idle_as_of: int) -> None:
        """Notes that the caller is told of an idle worker that had seen its call `idle_as_of`."""
        self._told = max(self._told, idle_as_of)

    # The end ------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Tells the caller to send no more, and gives back what has not begun."""
        self.session.send(f.Drain())
        waiting = self._executor.waiting(self)
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
            if isinstance(call, Execution):
                self.on_user(partial(call.abandon, gone=gone))
        if gone:
            self.on_user(self.end_uses)

    def on_lost(self, error: Exception) -> None:
        """The caller is gone: its calls are cancelled."""
        self._lost = self.drained = True
        for number, call in list(self.serving.items()):
            if self._executor.claim(call):
                del self.serving[number]
            elif isinstance(call, Execution):
                self.on_user(call.abandon)
        for call in self.lose(self._losing):
            self.on_user(call.end, Failed(self._losing(call.request.name)))
        self._note_ended()

    def _losing(self, name: str) -> WoolError:
        """Returns the error for using an object that the caller had."""
        return WorkerLost(f"the process that had {name}, the caller {self.name}, is gone")
