"""One call as the worker executes it: begin, step, cancel, end.

Everything here runs on the executor's thread. A call runs in a task and a context of its own, all
steps of a stream in the same one.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from contextvars import Context
from types import FunctionType
from typing import TYPE_CHECKING, Any

from wool._client.current import RUNNING, CallInfo
from wool._client.exchange import cancel_argument
from wool._client.packing import Packed, unpack_context
from wool._protocol import frames as f
from wool._protocol.frames import Buffer
from wool._serialization.classes import NO_REFERENTS, Referents
from wool._serialization.codec import rebuild_error, result_error
from wool._serialization.context import Arrived
from wool._serialization.thrown import Thrown
from wool._worker.ahead import Ahead
from wool._worker.decoding import find, load, load_thrown
from wool._worker.sharing import Sharing

if TYPE_CHECKING:
    from wool._client.pool import Pool
    from wool._worker.caller import Caller
    from wool._worker.executor import Executor


TURN = 16
"""After so many values a stream that runs ahead lets other calls run."""


class Execution:
    """A call that has been received.

    Attributes:
        caller: whom to answer.
        task: runs it, once it has been claimed.
        context: what it runs in.
    """

    __slots__ = (
        "_abandoned",
        "_ahead",
        "_base",
        "_begun",
        "_closing",
        "_delivered",
        "_ended",
        "_executor",
        "_in_step",
        "_info",
        "_kept",
        "_name",
        "_open",
        "_orphaned",
        "_outstanding",
        "_referents",
        "_requested",
        "_requests",
        "_segments",
        "_shared",
        "_step",
        "_stopped",
        "_struck",
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
        self._info: CallInfo | None = None
        self._name = ""  # of the routine, once it has been found
        self._orphaned = False  # nobody is to be answered any more
        self._abandoned = False  # the stream is being closed for want of a caller
        self._begun = False
        self._struck = False  # a cancel came before the step it is for had begun
        self._in_step = False  # user code may be running: cancels are for it
        self._closing = False  # cancelled in a step because its consumer closes it
        self._stopped = False  # cancelled or abandoned before user code began
        self._ended = False
        self._step = 0
        self._delivered = 0
        self._base = 0
        self._outstanding = 0
        self._kept: asyncio.CancelledError | None = None
        self._requests: deque[tuple[f.Resume, Sequence[Buffer], Referents]] = deque()
        self._ahead = Ahead(frame.ahead) if frame.ahead else None
        self._requested: asyncio.Future[None] | None = None
        self._thrown: Thrown | None = None
        self._shared = Sharing(caller.pool, crossing=frame.ahead > 0)

    @property
    def number(self) -> int:
        """The id of the call on its connection."""
        return self._open.call

    # RunningCall: what calls made from this one need to know ------------------------------------

    @property
    def pool(self) -> Pool:
        """The pool that calls made from this one go to."""
        return self.caller.pool

    @property
    def info(self) -> CallInfo:
        """Says which call this is."""
        if self._info is None:
            caller = self.caller
            ident = f"{caller.worker.id}-{caller.number}-{self.number}"
            self._info = CallInfo(ident, self._open.parent or None, caller.worker, caller.name)
        return self._info

    def wait_begins(self) -> None:
        """A Wool operation of this call is outstanding; its slot is free meanwhile."""
        if self._executor.is_here:
            self._outstanding += 1
            if self._outstanding == 1 and self._in_step:
                self._executor.leave()

    def wait_ends(self) -> None:
        """That operation is over."""
        if self._executor.is_here:
            self._outstanding -= 1
            if self._outstanding == 0 and self._in_step:
                self._executor.enter()

    def remark(self, label: str, text: str) -> None:
        """The caller is told with the next answer."""
        self._shared.remark(label, text)

    # From the caller ----------------------------------------------------------------------------

    def cancel(self, step: int, message: bytes | None) -> None:
        """Cancels the call, or one step of a stream; ignored if that step has ended."""
        if self._ended or step != (self._step if self._ahead is None else self._ahead.sent):
            return
        if self.task is None or not self._begun:
            self._stopped = True
            return
        if not self._in_step:
            if not self._asked:
                return  # the step it was meant for has ended
            # The step has been asked for and is about to begin: it begins with the cancel.
            self._kept = asyncio.CancelledError(*cancel_argument(message))
            self._struck = True
            return
        self._delivered += 1
        self.task.cancel(*cancel_argument(message))

    def resume(
        self, frame: f.Resume, segments: Sequence[Buffer], referents: Referents = NO_REFERENTS
    ) -> None:
        """Asks for the next step."""
        if self._ahead is None:
            self._step = frame.step
        else:
            self._ahead.ask(frame.more)
            if frame.operation == f.CLOSE and self._in_step and self.task is not None:
                # It is past the `yield` that its consumer is at, and need not come to another.
                self._closing = True
                self.task.cancel("the stream is being closed")
        if self._ahead is None or frame.operation != f.NEXT or frame.context:
            self._requests.append((frame, segments, referents))
        if self._requested is not None and not self._requested.done():
            self._requested.set_result(None)

    def abandon(self) -> None:
        """The caller or the worker is going: the call is cancelled, a suspended stream closed.

        Nothing more is said of it. The caller learns from the end of the connection that the call
        was lost; a `CancelledError` would be taken for the caller's own.
        """
        if self._orphaned or self._ended:
            return
        self._orphaned = self._stopped = True
        if self.task is None:
            return
        if self._in_step:
            # One cancel is enough: another would cut short what the first has set going.
            if self.task.cancelling() <= self._base:
                self.task.cancel("the caller is gone")
        elif self._requested is not None and not self._requested.done():
            self._requested.set_result(None)

    # Running ------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Executes the call; the body of its task."""
        RUNNING.set(self)
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
            if self._open.stream:
                await self._run_stream(function, args, kwargs)
            else:
                await self._run_call(function, args, kwargs)
        finally:
            # The task's context knows the call, which must not keep the task: nothing is left for
            # the collector of garbage.
            self.task = self.context = None
            self._shared.end()

    def give_up(self) -> None:
        """It will never begin: lets go of what came with it."""
        self._segments, self._referents = (), NO_REFERENTS

    def _enter(self) -> None:
        try:
            self.caller.pool.modules.enter()
        except Exception as error:
            what = "a module that was loaded anew"
            raise rebuild_error(what, error, self.caller.where) from error

    async def _run_call(
        self, function: FunctionType, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        try:
            value = await function(*args, **kwargs)
        except BaseException as error:
            self._finish_raise(error)
        else:
            self._finish_return(value)

    async def _run_stream(
        self, function: FunctionType, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        try:
            generator: AsyncGenerator[Any, Any] = function(*args, **kwargs)
        except BaseException as error:
            self._finish_raise(error)
            return
        operation, argument = f.NEXT, None
        while True:
            try:
                value = await self._advance(generator, operation, argument)
            except StopAsyncIteration:
                self._finish_return(None)
                return
            except BaseException as error:
                # Its traceback has this frame, which must not have it: what the generator held
                # is to be closed now, not when garbage is collected.
                del argument
                if self._closing and isinstance(error, asyncio.CancelledError):
                    self._finish_return(None)
                else:
                    self._finish_raise(error)
                return
            if self._abandoned:
                self._end()  # it has ignored GeneratorExit, and nobody is there to tell
                return
            if not self._post_value(value):
                operation, argument = f.THROW, GeneratorExit()
                self._abandoned = True
                continue
            del value, argument
            operation, argument = await self._suspend()

    async def _advance(
        self, generator: AsyncGenerator[Any, Any], operation: int, argument: Any
    ) -> Any:
        """Makes one step."""
        kept, self._kept = self._kept, None
        try:
            if operation == f.THROW:
                if kept is not None and not isinstance(argument, GeneratorExit):
                    assert self.task is not None
                    self.task.uncancel()
                    self.task.cancel(*kept.args)
                return await generator.athrow(argument)
            if kept is not None:
                return await generator.athrow(kept)
            return await generator.asend(argument)
        finally:
            del argument, kept  # as in `_run_stream`

    async def _suspend(self) -> tuple[int, Any]:
        """Waits for the next step. A cancel of the task meanwhile is kept for it."""
        self._leave_step()
        while not (self._asked or self._stopped):
            self._requested = self._executor.loop.create_future()
            try:
                await self._requested
            except asyncio.CancelledError as error:
                self._kept = error
        self._requested = None
        self._enter_step()
        if self._ahead is not None and not self._ahead.sent % TURN:
            await self._let_others()
        if self._stopped:
            self._abandoned = True
            return f.THROW, GeneratorExit()
        if self._closing:
            self._stop_cancelling()
        if not self._requests or (self._ahead is not None and self._kept is not None):
            return f.NEXT, None  # it runs ahead, or is cancelled before it is sent something
        frame, segments, referents = self._requests.popleft()
        self._step = frame.step
        try:
            if frame.context:
                segments, arrived = unpack_context(frame.context, segments)
                await self._shared.take(arrived, self._load)
            if frame.operation == f.NEXT:
                return f.NEXT, None
            if frame.operation == f.SEND:
                return f.SEND, await self._load(segments, referents)
            self._thrown = await load_thrown(self.caller, segments, referents)
            return f.THROW, self._thrown.exception
        except asyncio.CancelledError as error:  # while code was being fetched
            return f.THROW, error
        except Exception as error:
            return f.THROW, rebuild_error("the value sent", error, self.caller.where)

    def _stop_cancelling(self) -> None:
        """It has come to a `yield` although it was cancelled to be closed: it is closed there."""
        assert self.task is not None
        self._closing, self._kept = False, None
        self.task.uncancel()

    @property
    def _asked(self) -> bool:
        """Whether there is a next step to make."""
        return bool(self._requests) or (self._ahead is not None and self._ahead.may_go)

    async def _let_others(self) -> None:
        """Lets the loop turn, and those be heard who want the stream to stop."""
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError as error:
            self._kept = error

    def _enter_step(self) -> None:
        assert self.task is not None
        self._in_step = True
        self._delivered = 0
        self._base = self.task.cancelling()
        if self._struck:
            self._struck = False
            self._delivered = 1
            self._base -= 1
        if self._outstanding == 0:
            self._executor.enter()

    def _leave_step(self) -> None:
        self._in_step = False
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
            function = await find(self.caller, self._open.routine)
            if not self._open.routine.startswith(("#", "=")):  # those belong to one pool
                self._executor.targets[self._open.routine] = function
        self._name = function.__qualname__
        try:
            args, kwargs = await self._load(segments, referents)
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

    def _finish_return(self, value: Any) -> None:
        if self._ended:
            return
        if self._orphaned:
            self._end()
            return
        packed = Packed()
        if not self._open.stream:
            try:
                packed = self.caller.encode(value)
            except BaseException as error:
                failure = result_error(self._name, value, error)
                failure.__cause__ = error
                self._finish_raise(failure)
                return
        packed = self._with_context(packed)
        load, hungry = self._end()
        uncancelled = self._uncancelled()
        frame = f.Return(
            self.number,
            self._delivered,
            uncancelled,
            load,
            hungry,
            packed.sizes,
            packed.codes,
            self.caller.lend(packed),
            packed.context,
        )
        self.caller.answer(frame, packed)

    def _finish_raise(self, error: BaseException, *, decoding: bool = False) -> None:
        if self._ended:
            return  # it has been answered; what the generator does now concerns nobody
        if self._orphaned:
            self._end()
            return
        if self._stopped and decoding:
            self._end()
            self.caller.post(f.GiveBack([self.number], 0), [])
            return
        echo = self._thrown is not None and error is self._thrown.exception
        summary: list[str] = []
        packed = Packed()
        if not (echo and isinstance(error, GeneratorExit)):  # closing comes to nothing else
            summary, packed = self.caller.encode_exception(error, self._thrown)
        packed = self._with_context(packed)
        load, hungry = self._end()
        uncancelled = self._uncancelled()
        frame = f.Raise(
            self.number,
            self._delivered,
            uncancelled,
            load,
            hungry,
            echo,
            summary,
            packed.sizes,
            packed.codes,
            self.caller.lend(packed),
            packed.context,
        )
        self.caller.answer(frame, packed)

    def _with_context(self, packed: Packed) -> Packed:
        """Adds what has become of context variables to an answer."""
        changes = self._shared.changes()
        return self.caller.encode_context(packed, changes) if changes else packed

    def _post_value(self, value: Any) -> bool:
        """Reports a value; False if it cannot be sent, which ends the stream."""
        if self._orphaned:
            return True
        try:
            packed = self.caller.encode(value)
        except BaseException as error:
            failure = result_error(self._name, value, error)
            failure.__cause__ = error
            self._finish_raise(failure)
            return False
        packed = self._with_context(packed)
        if self._ahead is not None:
            self._ahead.note(f.total(packed.segments))
        executor = self._executor
        frame = f.Value(
            self.number,
            self._step,
            self._delivered,
            self._uncancelled(),
            executor.load,
            self._hungry(),
            packed.sizes,
            packed.codes,
            self.caller.lend(packed),
            packed.context,
        )
        more = self._ahead is not None and self._ahead.may_go
        self.caller.answer(frame, packed, more=more)
        return True

    def _uncancelled(self) -> int:
        """Returns how many of the cancels delivered in this step were uncancelled."""
        if not self._delivered or self.task is None:
            return 0
        return max(0, self._delivered - (self.task.cancelling() - self._base))

    def _hungry(self) -> int:
        """Returns the last call seen of the caller if another could begin at once, else 0."""
        seen = self.caller.seen  # first: a call that comes in now is not seen
        return seen if self._executor.hungry else 0

    def _end(self) -> tuple[int, int]:
        """The call is over; returns load and hunger for the reply."""
        executor = self._executor
        if not self._ended:
            self._ended = True
            self._thrown = None
            executor.running.discard(self)
            self._leave_step()
            if self._orphaned:
                self.caller.drop(self.number)
        return executor.load, self._hungry()
