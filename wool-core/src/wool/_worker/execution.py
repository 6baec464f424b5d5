"""One call as the worker executes it: begin, cancel, end.

Everything here runs on the executor's thread. A call runs in a task and a context of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextvars import Context
from types import FunctionType
from typing import TYPE_CHECKING, Any

from wool._client.current import ACTIVE
from wool._exchange.answers import encode_failure, encode_result, make_raise, make_return
from wool._exchange.cancels import Cancels
from wool._exchange.exchange import cancel_argument
from wool._exchange.packing import Packed, pack_context, unpack_context
from wool._exchange.running import RUNNING, CurrentCall
from wool._protocol import frames as f
from wool._protocol.frames import Buffer
from wool._serialization.classes import NO_REFERENTS, Referents
from wool._serialization.codec import rebuild_error
from wool._serialization.context import Arrived
from wool._serialization.thrown import Thrown
from wool._worker.decoding import find, load
from wool._worker.executor import leave_fork
from wool._worker.sharing import Sharing
from wool.exceptions import SerializationError, WorkerStopped

if TYPE_CHECKING:
    from wool._worker.caller import Caller
    from wool._worker.executor import Executor


class Execution:
    """A call that has been received.

    Attributes:
        caller: whom to answer.
        task: runs it, once it has been claimed.
        context: what it runs in.
    """

    __slots__ = (
        "_begun",
        "_cancels",
        "_ended",
        "_executor",
        "_in_step",
        "_info",
        "_leaving",
        "_name",
        "_open",
        "_orphaned",
        "_outstanding",
        "_referents",
        "_segments",
        "_shared",
        "_stopped",
        "_thrown",
        "caller",
        "context",
        "task",
    )

    def __init__(
        self,
        executor: Executor,
        caller: Caller,
        frame: f.Open,
        segments: Sequence[Buffer],
        referents: Referents = NO_REFERENTS,
    ) -> None:
        self.caller = caller
        self.task: asyncio.Task[None] | None = None
        self.context: Context | None = None
        self._executor = executor
        self._open = frame
        self._segments: Sequence[Buffer] = segments
        self._referents = referents
        self._info: CurrentCall | None = None
        self._name = ""  # of the routine, once it has been found
        self._leaving = False  # cancelled because the caller or the worker is going
        self._orphaned = False  # nobody is to be answered any more
        self._begun = False
        self._in_step = False  # user code may be running: cancels are for it
        self._stopped = False  # cancelled or abandoned before user code began
        self._ended = False
        self._cancels = Cancels()  # of this step
        self._outstanding = 0  # Wool operations that the call waits for
        self._thrown: Thrown | None = None  # what the caller has thrown in: it may come out
        self._shared = Sharing(caller.codec, crossing=frame.prefetch > 0)

    @property
    def number(self) -> int:
        """The id of the call on its connection."""
        return self._open.call

    @property
    def suspended(self) -> bool:
        """Whether it does nothing until its caller asks for more."""
        return False

    # RunningCall: what calls made from this one need to know ------------------------------------

    @property
    def info(self) -> CurrentCall:
        """Says which call this is."""
        if self._info is None:
            caller = self.caller
            ident = f"{caller.worker.id}-{caller.number}-{self.number}"
            self._info = CurrentCall(ident, self._open.parent or None, caller.worker, caller.name)
        return self._info

    def wait_begins(self) -> None:
        """A Wool operation of this call is outstanding; its slot is free meanwhile."""
        if not self._executor.is_here:  # in a thread that has the call's context
            self._executor.call(self.wait_begins)
            return
        self._outstanding += 1
        if self._outstanding == 1 and self._in_step:
            self._executor.leave()

    def wait_ends(self) -> None:
        """That operation is over."""
        if not self._executor.is_here:
            self._executor.call(self.wait_ends)
            return
        self._outstanding -= 1
        if self._outstanding == 0 and self._in_step:
            self._executor.enter()

    @property
    def must_end(self) -> bool:
        """Whether it has been made to end: it is not cancelled when the worker is told to stop."""
        return self._leaving or self._tidying

    def remark(self, label: str, text: str) -> None:
        """The caller is told with the next answer."""
        self._shared.remark(label, text)

    @property
    def begun(self) -> bool:
        """Whether its task has had its first step."""
        return self._begun

    # From the caller ----------------------------------------------------------------------------

    def cancel(self, step: int, message: bytes | None) -> None:
        """Cancels the call; of a stream, one step. Ignored if that has ended."""
        if self._ended:
            return
        if self.task is None or not self._begun:
            self._stopped = True
            return
        cancels = self._cancels
        # One cancel is enough: another would cut short what the first has set going.
        if self._leaving and not cancels.delivered and cancels.pending(self.task) > 0:
            cancels.delivered += 1
        else:
            cancels.deliver(self.task, *cancel_argument(message))

    def abandon(self, *, gone: bool = True) -> None:
        """The caller or the worker is going: the call is cancelled.

        Args:
            gone: whether it is the caller, of whom nobody is left to answer. A worker that goes
                does answer: who waits for that may be a routine that has to end as well.
        """
        if self._orphaned or self._ended:
            return
        self._orphaned = gone
        self._leaving = self._stopped = True
        if self.task is not None and self._in_step and not self._tidying:
            self.task.cancel("the caller is gone" if gone else "the worker was told to stop")

    @property
    def _tidying(self) -> bool:
        """Whether it has been made to end already: a cancel would cut short its clean-up."""
        return self.task is not None and self._cancels.pending(self.task) > 0

    # Running ------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Executes the call; the body of its task."""
        RUNNING.set(self)
        ACTIVE.set(self.caller.pool)
        self._begun = self._in_step = True
        try:
            try:
                if self._stopped:
                    raise asyncio.CancelledError
                self._enter()
                function, args, kwargs = await self._decode()
            except BaseException as error:
                self._finish_raise(error, decoding=True)
                return
            await self._execute(function, args, kwargs)
        except BaseException as error:
            if self._ended:
                raise
            self._finish_raise(error)  # answering went wrong: there has to be an answer
        finally:
            # The task's context knows the call, which must not keep the task: nothing is left for
            # the collector of garbage.
            self.task = self.context = None
            self._shared.end()

    def miss(self) -> None:
        """Its task was cancelled, by somebody here, before its first step: that is how it ends."""
        assert self.task is not None
        self._begun = self._in_step = True
        self.give_up()
        try:
            self.task.result()
        except asyncio.CancelledError as error:
            self._finish_raise(error, decoding=True)
        finally:
            self.task = self.context = None

    def give_up(self) -> None:
        """It will never begin: lets go of what came with it."""
        self._segments, self._referents = (), NO_REFERENTS

    def _enter(self) -> None:
        try:
            self.caller.codec.modules.enter()
        except Exception as error:
            what = "a module that was loaded anew"
            raise rebuild_error(what, error, self.caller.where) from error

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

    def _leave_step(self) -> None:
        self._in_step = False
        # The clock of uvloop stands still while user code keeps the loop, and says how long to wait
        # before it is set: timers would be late by as much as that. Asking for the time sets it.
        self._executor.loop.time()
        if self._outstanding == 0:
            self._executor.leave()

    # Decoding -----------------------------------------------------------------------------------

    async def _decode(self) -> tuple[FunctionType, tuple[Any, ...], dict[str, Any]]:
        """Finds the routine and rebuilds its arguments."""
        segments, self._segments = self._segments, ()
        referents, self._referents = self._referents, NO_REFERENTS
        arrived: Sequence[Arrived] = ()
        if self._open.context:
            segments, arrived = unpack_context(self._open.context, segments)
        function = self._executor.targets.get(self._open.routine)
        if function is None:
            function = await find(self.caller, self._open.routine, stream=self._open.stream)
            if not self._open.routine.startswith(("#", "=")):  # those belong to one pool
                self._executor.targets[self._open.routine] = function
        self._name = function.__qualname__
        try:
            args, kwargs = await load(self.caller, segments, referents)
        except Exception as error:
            what = f"an argument of {self._name}()"
            raise rebuild_error(what, error, self.caller.where) from error
        self._shared.begin()
        if arrived:
            await self._shared.take(arrived, self._load)
        return function, args, kwargs

    async def _load(self, segments: Sequence[Buffer], referents: Referents = NO_REFERENTS) -> Any:
        return await load(self.caller, segments, referents)

    # Replies ------------------------------------------------------------------------------------

    def _is_heard(self) -> bool:
        """Whether there is somebody to answer; if not, the call is over."""
        if self._ended:
            return False  # what a generator does now concerns nobody
        if self._orphaned:
            self._end()
            return False
        return True

    def _encode(self, value: Any) -> Packed | None:
        """Encodes a value for the caller; None if it cannot be sent, which ends the call."""
        caller = self.caller
        packed = encode_result(caller.codec, caller.session, value, self._name)
        if isinstance(packed, SerializationError):
            self._finish_raise(packed)
            return None
        return packed

    def _finish_return(self, packed: Packed) -> None:
        packed = self._with_context(packed)
        load, idle = self._end()
        names = self.caller.lend(packed) if packed.exports else []
        frame = make_return(
            self._open.call,
            packed,
            names,
            self._cancels,
            self.task,
            load=load,
            idle_as_of=idle,
        )
        self.caller.answer(frame, packed)

    def _finish_raise(self, error: BaseException, *, decoding: bool = False) -> None:
        if self._executor.forked:
            leave_fork(error)
        if not self._is_heard():
            return
        if self._stopped and decoding:
            self._end()
            self.caller.post(f.GiveBack([self.number], 0), [])
            return
        if (
            self._leaving
            and not self._cancels.delivered
            and isinstance(error, asyncio.CancelledError)
        ):
            error = self._stopped_error()  # the cancel would be taken for the caller's own
        caller = self.caller
        failure = encode_failure(caller.codec, caller.session, error, self._thrown, caller.label)
        packed = self._with_context(failure.packed)
        load, idle = self._end()
        names = caller.lend(packed)
        frame = make_raise(
            self.number,
            failure,
            packed,
            names,
            self._cancels,
            self.task,
            load=load,
            idle_as_of=idle,
            step=self._last_step(),
        )
        caller.answer(frame, packed)

    def _last_step(self) -> int:
        """Returns the last step that a stream has taken."""
        return 0

    def _stopped_error(self) -> WorkerStopped:
        where = self.caller.where
        return WorkerStopped(
            f"{where} was told to stop during {self._name}(), which may have run in part"
        )

    def _with_context(self, packed: Packed) -> Packed:
        """Adds what has become of context variables to an answer."""
        changes = self._shared.changes()
        if not changes:
            return packed
        return pack_context(self.caller.codec, self.caller.session, packed, changes)

    def _idle_as_of(self) -> int:
        """Returns the last call seen of the caller if another could begin at once, else 0."""
        seen = self.caller.seen  # first: a call that comes in now is not seen
        return seen if self._executor.hungry else 0

    def _end(self) -> tuple[int, int]:
        """The call is over; returns `load` and `idle_as_of` for the reply."""
        executor = self._executor
        if not self._ended:
            self._ended = True
            self._thrown = None
            executor.running.discard(self)
            self._leave_step()
            if self._orphaned:
                self.caller.drop(self.number)
        return executor.load, self._idle_as_of()
