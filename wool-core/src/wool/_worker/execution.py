"""One call of a routine as the worker executes it: begin, cancel, end.

Everything here runs on the executor's thread. A call runs in a task and a context of its own.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from types import FunctionType
from typing import Any

from wool._client.current import ACTIVE
from wool._code.code import CodeStore
from wool._peer.incoming import NOTHING, Leaving, State, cancel_argument
from wool._peer.running import RUNNING, CurrentCall
from wool._peer.stacks import lines_awaited, lines_running
from wool._protocol.status import CallStatus, Line
from wool._values.codec import rebuild_error
from wool._values.context import Change, RoutineContext, without_changes
from wool._worker.callerpeer import CallerPeer
from wool._worker.executor import BEGIN, Queued, leave_fork
from wool._worker.lifespan import Lifespan
from wool._worker.observing import observed
from wool._worker.output import CallOutput
from wool._worker.routines import find
from wool.exceptions import SerializationError, WorkerStopped
from wool.plugins import CallInfo

OWN = 2
"""Variables that the context of each call has from here: the call, and its pool."""

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

    peer: CallerPeer
    _info: CurrentCall | None = None
    _outstanding = 0  # Wool operations that the call waits for
    _sharing: RoutineContext | None = None  # once there are variables to share

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
        """The context that the worker has entered for all calls."""
        return self.peer.executor.lifespan

    def wait_begins(self) -> None:
        """A Wool operation of this call is outstanding; its slot is free meanwhile."""
        if not self.peer.executor.is_here:  # in a thread that has the call's context
            self.peer.executor.call(self.wait_begins)
            return
        self._outstanding += 1
        if self._outstanding == 1 and self.state is State.RUNNING:
            self.peer.executor.leave()

    def wait_ends(self) -> None:
        """That operation is over."""
        if not self.peer.executor.is_here:
            self.peer.executor.call(self.wait_ends)
            return
        self._outstanding -= 1
        if self._outstanding == 0 and self.state is State.RUNNING:
            self.peer.executor.enter()

    def remark(self, label: str, text: str) -> None:
        """The caller is told with the next answer."""
        self._share().complain(label, text)

    def output(self) -> CallOutput | None:
        """Returns what takes output to its caller; None if this process keeps it."""
        if self.state is State.ENDED or os.getpid() != self.peer.executor.process:
            return None
        return self.peer.output(self.frame.call, self.name)

    # Status -------------------------------------------------------------------------------------

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
            stack = blocked or lines_running(self.peer.executor.frame)
        if any(p.call is self for p in list(self.peer.executor.debuggers.prompts.values())):
            state = "debugged"
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
        # One cancel is enough: another would cut short what the first has set going.
        if self.leaving is not Leaving.NOBODY and not self.delivered and self._tidying:
            self.delivered += 1
        else:
            self._deliver(self.task, *cancel_argument(message))

    def abandon(self, *, gone: bool = True) -> None:
        """The caller or the worker is going: the call is cancelled."""
        if self.leaving is Leaving.CALLER or self.state is State.ENDED:
            return
        self.leaving = Leaving.CALLER if gone else Leaving.WORKER
        if self.state is State.RUNNING and self.task is not None and not self._tidying:
            self.task.cancel("the caller is gone" if gone else "the worker was told to stop")

    def interrupt(self) -> None:
        """Cancels the call if it has begun, whatever its caller wants."""
        if State.RUNNING <= self.state < State.ENDED and self.task is not None:
            self.task.cancel("a user has cancelled the call from outside")

    # Running ------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Executes the call; the body of its task, which the executor has run up to `BEGIN`."""
        try:
            try:
                await BEGIN
                if self.state is State.DISMISSED or self.leaving is not Leaving.NOBODY:
                    raise asyncio.CancelledError
                self.state = State.RUNNING
                RUNNING.set(self)
                ACTIVE.set(self.peer.pool)
                function, args, kwargs = await self._decode()
                if attendants := self.peer.pool.attendants:
                    function = observed(function, attendants, self._described(function))
            except BaseException as error:
                self._finish_unbegun(error)
                return
            await self._execute(function, args, kwargs)
        except BaseException as error:
            self._recover(error)
        finally:
            # The task's context knows the call, which must not keep the task: nothing is left for
            # the collector of garbage.
            self.task = self.context = self._sharing = None

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
            self.peer.executor.on_exhausted()
        self.peer.on_session(self.peer.session.fail, error)

    async def _execute(
        self, function: FunctionType, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        try:
            value = await function(*args, **kwargs)
        except BaseException as error:
            self._finish_raise(error)
            return
        self._finish_return(value)

    def _leave_step(self, state: State) -> None:
        executor = self.peer.executor
        if os.getpid() != executor.process:
            leave_fork()
        self.state = state
        # The clock of uvloop stands still while user code keeps the loop, and says how long to wait
        # before it is set: timers would be late by as much as that. Asking for the time sets it.
        executor.loop.time()
        if state is State.ENDED:  # before the worker hears of it
            executor.ended += 1
            executor.running.discard(self)
            if self.peer.outputs:
                self.peer.flush_output(self.frame.call, end=True)
        if self._outstanding == 0:
            executor.leave()

    # Decoding -----------------------------------------------------------------------------------

    async def _decode(self) -> tuple[FunctionType, tuple[Any, ...], dict[str, Any]]:
        """Finds the routine and rebuilds its arguments."""
        frame, codec = self.frame, self.peer.codec
        try:
            codec.modules.enter()
        except Exception as error:
            what = "a module that was loaded anew"
            raise rebuild_error(what, error, self.peer.where) from error
        (segments, referents), self._payload = self._payload, NOTHING
        arrived: Sequence[Change] = ()
        if frame.context:
            segments, arrived = without_changes(frame.context, segments)
        function = codec.store.targets.get(frame.routine)
        if function is None:
            function = await self._find(codec.store)
        self._name = function.__qualname__
        args, kwargs = await self._rebuild(
            codec.decode, segments, None, referents, explain=self._unreadable
        )
        assert self.context is not None
        if arrived or len(self.context) != OWN:  # what is set from now on is the caller's business
            sharing = self._share()
            sharing.begin()
            await sharing.take(arrived, self._load)
        return function, args, kwargs

    async def _find(self, store: CodeStore) -> FunctionType:
        frame, targets = self.frame, store.targets  # others, once there are other modules
        function = targets[frame.routine] = await find(
            store, frame.routine, self._rebuild, self.peer.where, stream=frame.stream
        )
        return function

    def _unreadable(self, error: Exception) -> SerializationError:
        return rebuild_error(f"an argument of {self._name}()", error, self.peer.where)

    # Replies ------------------------------------------------------------------------------------

    def _finish_unbegun(self, error: BaseException) -> None:
        """Ends it before user code has begun: given back, if that is because it was cancelled."""
        if not self._is_heard():
            return
        if self.state is State.DISMISSED or self.leaving is not Leaving.NOBODY:
            self._end()
            self.peer.give_back(self.frame.call)
        else:
            self._finish_raise(error)

    def _finish_raise(self, error: BaseException) -> None:
        if os.getpid() != self.peer.executor.process:
            leave_fork(error)
        cancelled = isinstance(error, asyncio.CancelledError) and not self.delivered
        if cancelled and self.leaving is Leaving.WORKER:
            # The cancel would be taken for the caller's own.
            error = WorkerStopped(
                f"{self.peer.where} was told to stop during {self._name}(), which may have run in "
                "part"
            )
        super()._finish_raise(error)

    def _share(self) -> RoutineContext:
        if self._sharing is None:
            context, ahead = self.peer.pool.context, self.frame.prefetch > 0
            self._sharing = RoutineContext(context, crossing=ahead)
        return self._sharing

    def _changes(self) -> Sequence[Change]:
        if self._sharing is None and (self.context is None or len(self.context) == OWN):
            return ()  # nothing has come, and nothing was set
        return self._share().changes()

    def _load_now(self) -> tuple[int, int]:
        # Looked up before the calls that wait are counted: one that comes in now is not seen.
        seen, executor = self.peer.seen, self.peer.executor
        waiting = len(executor.pending)
        idle = not waiting and executor.active < executor.limit
        return waiting + len(executor.running), seen if idle else 0
