"""One call of a routine as the worker executes it: begin, cancel, end.

Everything here runs on the executor's thread. A call runs in a task and a context of its own.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from enum import IntEnum, auto
from types import FunctionType
from typing import Any, Protocol

from wool._client.current import ACTIVE
from wool._client.pool import Pool
from wool._code.loading import NO_REFERENTS, Referents
from wool._peer.end import End
from wool._peer.incoming import State, cancel_argument
from wool._peer.packing import Packed, pack_context, unpack_context
from wool._peer.running import RUNNING, CurrentCall
from wool._peer.stacks import lines_awaited, lines_running
from wool._protocol import frames as f
from wool._protocol.frames import Buffer
from wool._protocol.status import CallStatus, Line
from wool._values.codec import rebuild_error
from wool._values.context import Change, RoutineContext
from wool._worker.executor import Executor, Queued, leave_fork
from wool._worker.lifespan import Lifespan
from wool._worker.observing import observed
from wool._worker.routines import find
from wool._workerinfo import WorkerInfo
from wool.exceptions import SerializationError, WorkerStopped
from wool.plugins import CallInfo


class CallerEnd(End, Protocol):
    """The connection to a caller, as its calls see it.

    Attributes:
        number: unique among the callers of this worker.
        seen: the number of its last call.
    """

    number: int
    seen: int

    @property
    def pool(self) -> Pool:
        """The pool for calls that this caller's routines make."""
        ...

    @property
    def worker(self) -> WorkerInfo:
        """The executor that runs the calls."""
        ...

    @property
    def name(self) -> str:
        """Names the caller."""
        ...

    def give_back(self, call: int) -> None:
        """Says that a call has not begun and never will; on the executor's thread."""

    def join(self, frame: f.Value, segments: list[Buffer], value: Buffer) -> bool:
        """Adds a value to those of a frame; False if that is being sent."""
        ...

    def flush(self) -> None:
        """Sends what has been answered, as far as that is possible at once."""

    def on_suspended(self) -> None:
        """A stream waits for its next step, while the worker waits for its calls to end."""


class Leaving(IntEnum):
    """Why a call is cancelled although its caller has not asked for it."""

    NOBODY = auto()
    WORKER = auto()
    """The worker stops; its callers are answered."""
    CALLER = auto()
    """The caller is gone: nobody is to be answered any more."""


_STATES = {
    State.PENDING: "pending",
    State.DISMISSED: "pending",
    State.RUNNING: "running",
    State.SUSPENDED: "suspended",
    State.ENDED: "running",
}
"""The words for states; a call that has ended is about to say so."""


class Execution(Queued):
    """A call of a routine that has been received."""

    __slots__ = ("_executor", "_info", "_leaving", "_outstanding", "_shared")

    peer: CallerEnd

    def __init__(
        self,
        executor: Executor,
        caller: CallerEnd,
        frame: f.Open,
        segments: Sequence[Buffer],
        referents: Referents = NO_REFERENTS,
    ) -> None:
        super().__init__(caller, frame, segments, referents)
        self.context = None
        self._executor = executor
        self._info: CurrentCall | None = None
        self._leaving = Leaving.NOBODY
        self._outstanding = 0  # Wool operations that the call waits for
        self._shared = RoutineContext(crossing=frame.prefetch > 0)

    # RunningCall: what calls made from this one need to know ------------------------------------

    @property
    def info(self) -> CurrentCall:
        """Says which call this is."""
        if self._info is None:
            caller, frame = self.peer, self.frame
            ident = f"{caller.worker.id}-{caller.number}-{frame.call}"
            self._info = CurrentCall(ident, frame.parent or None, caller.worker, caller.name)
        return self._info

    @property
    def lifespan(self) -> Lifespan:
        """What the worker has entered for all calls."""
        return self._executor.lifespan

    def wait_begins(self) -> None:
        """A Wool operation of this call is outstanding; its slot is free meanwhile."""
        if not self._executor.is_here:  # in a thread that has the call's context
            self._executor.call(self.wait_begins)
            return
        self._outstanding += 1
        if self._outstanding == 1 and self.state is State.RUNNING:
            self._executor.leave()

    def wait_ends(self) -> None:
        """That operation is over."""
        if not self._executor.is_here:
            self._executor.call(self.wait_ends)
            return
        self._outstanding -= 1
        if self._outstanding == 0 and self.state is State.RUNNING:
            self._executor.enter()

    def remark(self, label: str, text: str) -> None:
        """The caller is told with the next answer."""
        self._shared.complain(label, text)

    # What it is doing ---------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """Names the routine."""
        return self._name or self.frame.routine

    @property
    def stands(self) -> bool:
        """Whether it is this call's own code that runs now, and keeps the loop from turning."""
        task = self.task
        return task is not None and getattr(task.get_coro(), "cr_running", False)

    def status(self, *, blocked: tuple[Line, ...]) -> CallStatus:
        """Says where the call stands; on any thread.

        Args:
            blocked: where the executor's thread stands if its loop does not turn.
        """
        state, task, frame = _STATES[self.state], self.task, self.frame
        coroutine = None if task is None else task.get_coro()
        stack: tuple[Line, ...] = ()
        if state == "running" and self._outstanding:
            state = "waiting"
        elif state == "running" and self.stands:  # it does not say what it awaits
            state = "blocked" if blocked else "running"
            stack = blocked or lines_running(sys._current_frames().get(self._executor.thread))
        return CallStatus(
            id=self.info.id,
            parent=frame.parent,
            routine=self.name,
            state=state,
            age=time.monotonic() - self.since,
            steps=self._last_step() + 1 if frame.stream else 0,
            worker=self.peer.worker.id,
            caller=self.peer.name,
            stack=stack or lines_awaited(coroutine),
        )

    # From the caller ----------------------------------------------------------------------------

    def cancel(self, step: int, message: bytes | None) -> None:
        """Cancels the call; of a stream, one step. Ignored if that has ended."""
        if self.state < State.RUNNING:
            self.state = State.DISMISSED
        if self.state is not State.RUNNING or self.task is None:
            return
        cancels = self._cancels
        # One cancel is enough: another would cut short what the first has set going.
        leaving = self._leaving is not Leaving.NOBODY
        if leaving and not cancels.delivered and cancels.pending(self.task) > 0:
            cancels.delivered += 1
        else:
            cancels.deliver(self.task, *cancel_argument(message))

    def abandon(self, *, gone: bool = True) -> None:
        """The caller or the worker is going: the call is cancelled."""
        if self._orphaned or self.state is State.ENDED:
            return
        self._leaving = Leaving.CALLER if gone else Leaving.WORKER
        if self.state is State.RUNNING and self.task is not None and not self._tidying:
            self.task.cancel("the caller is gone" if gone else "the worker was told to stop")

    def interrupt(self) -> None:
        """Cancels the call if it has begun, whatever its caller wants."""
        if State.RUNNING <= self.state < State.ENDED and self.task is not None:
            self.task.cancel("a user has cancelled the call from outside")

    @property
    def _orphaned(self) -> bool:
        return self._leaving is Leaving.CALLER

    # Running ------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Executes the call; the body of its task."""
        RUNNING.set(self)
        ACTIVE.set(self.peer.pool)
        unwanted = self.state is State.DISMISSED or self._leaving is not Leaving.NOBODY
        self.state = State.RUNNING
        try:
            try:
                if unwanted:
                    raise asyncio.CancelledError
                self._enter()
                function, args, kwargs = await self._decode()
                if attendants := self.peer.pool.attendants:
                    function = observed(function, attendants, self._described(function))
            except BaseException as error:
                self._finish_unbegun(error, dismissed=unwanted)
                return
            await self._execute(function, args, kwargs)
        except BaseException as error:
            self._recover(error)
        finally:
            # The task's context knows the call, which must not keep the task: nothing is left for
            # the collector of garbage.
            self.task = self.context = None
            self._shared.end()

    def _described(self, function: FunctionType) -> CallInfo:
        return CallInfo(
            id=self.info.id,
            parent=self.info.parent,
            routine=f"{function.__module__}:{function.__qualname__}",
            stream=self.frame.stream,
            waited=time.monotonic() - self.since,
        )

    def _recover(self, error: BaseException) -> None:
        """Answering went wrong: tries again with the error, else lets the caller lose the call."""
        try:
            if self.state is not State.ENDED:
                self._finish_raise(error)
                return
        except BaseException as failure:
            error = failure
        if isinstance(error, MemoryError):
            self._executor.on_exhausted()
        self.peer.on_session(self.peer.session.fail, error)

    def miss(self) -> None:
        """Its task was cancelled, by somebody here, before its first step: that is how it ends."""
        assert self.task is not None
        dismissed = self.state is State.DISMISSED
        self.state = State.RUNNING
        self.give_up()
        try:
            self.task.result()
        except asyncio.CancelledError as error:
            self._finish_unbegun(error, dismissed=dismissed)
        finally:
            self.task = self.context = None

    def _enter(self) -> None:
        try:
            self.peer.codec.modules.enter()
        except Exception as error:
            what = "a module that was loaded anew"
            raise rebuild_error(what, error, self.peer.where) from error

    async def _execute(
        self, function: FunctionType, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        try:
            value = await function(*args, **kwargs)
        except BaseException as error:
            self._finish_raise(error)
            return
        if self._is_heard():
            packed = self._encode(value)
            if packed is not None:
                self._finish_return(packed)

    def _leave_step(self, state: State) -> None:
        self.state = state
        # The clock of uvloop stands still while user code keeps the loop, and says how long to wait
        # before it is set: timers would be late by as much as that. Asking for the time sets it.
        self._executor.loop.time()
        if self._outstanding == 0:
            self._executor.leave()

    # Decoding -----------------------------------------------------------------------------------

    async def _decode(self) -> tuple[FunctionType, tuple[Any, ...], dict[str, Any]]:
        """Finds the routine and rebuilds its arguments."""
        segments, referents = self._take_payload()
        frame = self.frame
        arrived: Sequence[Change] = ()
        if frame.context:
            segments, arrived = unpack_context(frame.context, segments)
        function = self._executor.targets.get(frame.routine)
        if function is None:
            function = await self._find()
        self._name = function.__qualname__
        args, kwargs = await self._load(segments, referents, self._unreadable)
        self._shared.begin(self.peer.pool.context)
        if arrived:
            await self._shared.take(arrived, self._load)
        return function, args, kwargs

    async def _find(self) -> FunctionType:
        target, peer = self.frame.routine, self.peer
        function = await find(
            peer.codec.store, target, self._rebuild, peer.where, stream=self.frame.stream
        )
        if not target.startswith(("#", "=")):  # those belong to one pool
            self._executor.targets[target] = function
        return function

    def _unreadable(self, error: Exception) -> SerializationError:
        return rebuild_error(f"an argument of {self._name}()", error, self.peer.where)

    # Replies ------------------------------------------------------------------------------------

    def _finish_unbegun(self, error: BaseException, *, dismissed: bool) -> None:
        """Ends it before user code has begun: given back, if that is because it was cancelled."""
        if self._executor.forked:
            leave_fork(error)
        if not self._is_heard():
            return
        if dismissed or self._leaving is not Leaving.NOBODY:
            self._end()
            self.peer.give_back(self.frame.call)
        else:
            self._finish_raise(error)

    def _finish_raise(self, error: BaseException) -> None:
        if self._executor.forked:
            leave_fork(error)
        cancelled = isinstance(error, asyncio.CancelledError) and not self._cancels.delivered
        if cancelled and self._leaving is Leaving.WORKER:
            # The cancel would be taken for the caller's own.
            error = WorkerStopped(
                f"{self.peer.where} was told to stop during {self._name}(), which may have run in "
                "part"
            )
        super()._finish_raise(error)

    def _complete(self, packed: Packed) -> Packed:
        changes = self._shared.changes()
        if not changes:
            return packed
        return pack_context(self.peer.codec, self.peer.session, packed, changes)

    def _idle_as_of(self) -> int:
        """Returns the last call seen of the caller if another could begin at once, else 0."""
        seen = self.peer.seen  # first: a call that comes in now is not seen
        return seen if self._executor.idle else 0

    def _end(self) -> tuple[int, int]:
        executor = self._executor
        if self.state is not State.ENDED:
            executor.ended += 1
            executor.running.discard(self)  # before the worker hears that a call has ended
            self._leave_step(State.ENDED)
            super()._end()
        return executor.load, self._idle_as_of()
