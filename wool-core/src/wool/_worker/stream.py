"""A stream as the worker executes it: its steps, all in one task and one context."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Sequence
from enum import Enum, auto
from types import FunctionType
from typing import Any

from wool._code.loading import NO_REFERENTS, Referents
from wool._peer.incoming import Leaving, State, cancel_argument
from wool._peer.prefetch import PrefetchWindow
from wool._protocol import frames as f
from wool._protocol.frames import Buffer
from wool._values.codec import Encoded, rebuild_error
from wool._values.context import without_changes
from wool._worker.callerpeer import CallerPeer
from wool._worker.execution import Execution

TURN = 250e-6
"""Seconds that a stream runs ahead before it sends what it has, and lets other calls run."""

BATCH = 32 << 10
"""Bytes of values that go together: more gain nothing, and others have to wait for them."""


class Phase(Enum):
    """The way in which a stream is going on."""

    STEPPING = auto()
    CANCELLED = auto()
    """In the midst of a step, because its consumer closes it."""
    CLOSING = auto()
    """By the step that runs: GeneratorExit is thrown in."""
    ABANDONED = auto()
    """In the same way, for want of a caller."""


class StreamExecution(Execution):
    """The call of an async generator."""

    def __init__(
        self,
        caller: CallerPeer,
        frame: f.Open,
        segments: Sequence[Buffer],
        referents: Referents = NO_REFERENTS,
    ) -> None:
        super().__init__(caller, frame, segments, referents)
        self._window = PrefetchWindow(frame.prefetch) if frame.prefetch else None
        self._until = 0.0  # then it lets others run
        self._batch: tuple[f.Value, list[Buffer], int] | None = None  # sent last, and its bytes
        self._step = 0
        self._counted = 0  # how many cancels the task had when the step began
        self._requests: deque[tuple[f.Resume, Sequence[Buffer], Referents]] = deque()
        self._requested: asyncio.Future[None] | None = None  # while it is suspended
        self._kept: asyncio.CancelledError | None = None  # a cancel that came between two steps
        self._struck = False  # whether the caller has sent it, who means the next step
        self._phase = Phase.STEPPING
        self._closing = 0  # the step by which its consumer closes it, if that is in another one

    # From the caller ----------------------------------------------------------------------------

    def cancel(self, step: int, message: bytes | None) -> None:
        """Cancels one step; ignored if that has ended."""
        if self._window is None:
            current = step == self._step
        else:  # a cancel from before it was closed has come before that
            current = step == self._window.sent or self._phase is not Phase.STEPPING
        if not current:
            return
        if self.state <= State.RUNNING:
            super().cancel(step, message)
        elif self._asked:
            # The step has been asked for and is about to begin: it begins with the cancel.
            self._kept = asyncio.CancelledError(*cancel_argument(message))
            self._struck = True

    def resume(
        self, frame: f.Resume, segments: Sequence[Buffer], referents: Referents = NO_REFERENTS
    ) -> None:
        """Asks for the next step."""
        if self._window is None:
            self._step = frame.step
        else:
            self._window.ask(frame.more)
            if frame.operation == f.CLOSE and self.state is State.RUNNING and self.task:
                # It is past the `yield` that its consumer is at, and need not come to another.
                self._phase, self._closing = Phase.CANCELLED, frame.step
                self.task.cancel("the stream is being closed")
        if self._window is None or frame.operation != f.NEXT or frame.context:
            self._requests.append((frame, segments, referents))
        self._wake()

    def abandon(self, *, gone: bool = True) -> None:
        """The caller or the worker is going: a step is cancelled.

        A suspended stream is closed if it is the caller; else that is left to its consumer.
        """
        super().abandon(gone=gone)
        self._wake()
        self._tell_suspended()

    @property
    def _tidying(self) -> bool:
        return self._phase in (Phase.CLOSING, Phase.ABANDONED) or super()._tidying

    def _tell_suspended(self) -> None:
        if self.leaving is not Leaving.NOBODY and self.state is State.SUSPENDED:
            self.peer.on_suspended()

    def _wake(self) -> None:
        if self._requested is not None and not self._requested.done():
            self._requested.set_result(None)

    @property
    def _asked(self) -> bool:
        """Whether there is a next step to make."""
        return bool(self._requests) or (self._window is not None and self._window.may_go)

    # Running ------------------------------------------------------------------------------------

    async def _execute(
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
                self._finish_empty()
                return
            except BaseException as error:
                # Its traceback has this frame, which must not have it: what the generator held
                # is to be closed now, not when garbage is collected.
                del argument
                if self._is_closed_with(error):
                    self._finish_empty()
                else:
                    self._finish_raise(error)
                return
            if self._phase is Phase.ABANDONED:
                self._end()  # it has ignored GeneratorExit, and nobody is there to tell
                return
            if not self._post_value(value):
                operation, argument = self._abandon()
                continue
            del value, argument
            operation, argument = await self._suspend()

    def _is_closed_with(self, error: BaseException) -> bool:
        """Whether this is the cancel that closes it, and not one of its consumer, who does that."""
        cancelled = isinstance(error, asyncio.CancelledError) and not self.delivered
        return self._phase is Phase.CANCELLED and cancelled

    def _abandon(self) -> tuple[int, GeneratorExit]:
        """Has the next step close it, of which nobody is told."""
        self._phase = Phase.ABANDONED
        return f.THROW, GeneratorExit()

    async def _advance(
        self, generator: AsyncGenerator[Any, Any], operation: int, argument: Any
    ) -> Any:
        """Makes one step."""
        kept, self._kept = self._kept, None
        exiting = operation == f.THROW and isinstance(argument, GeneratorExit)
        if self._phase is Phase.CLOSING or (exiting and self._phase is Phase.STEPPING):
            self._phase = Phase.CLOSING if exiting else Phase.STEPPING
        try:
            if operation == f.THROW:
                if kept is not None and not exiting:
                    assert self.task is not None
                    self.task.uncancel()
                    self.task.cancel(*kept.args)
                return await generator.athrow(argument)
            if kept is not None:
                return await generator.athrow(kept)
            return await generator.asend(argument)
        finally:
            del argument, kept  # as in `_execute`

    async def _suspend(self) -> tuple[int, Any]:
        """Waits for the next step. A cancel of the task meanwhile is kept for it."""
        assert self.task is not None
        if self._window is not None and self._runs_on(self._window, self.task):
            return f.NEXT, None
        # Those of the caller were for the step, and it is its own task that goes on counting them.
        mine = self.task.cancelling() - self._counted
        for _ in range(min(mine, self.delivered - self._uncancelled())):
            self.task.uncancel()
        self._leave_step(State.SUSPENDED)
        self._tell_suspended()
        if self._window is not None and not self._window.may_go:
            self.peer.answers.flush()
        while not (self._asked or self.leaving is Leaving.CALLER):
            self._requested = self.peer.executor.loop.create_future()
            try:
                await self._requested
            except asyncio.CancelledError as error:
                self._kept = error
        self._requested = None
        self._enter_step()
        if self._window is not None and time.monotonic() > self._until:
            self.peer.answers.flush()
            await self._let_others()
            self._until = time.monotonic() + TURN
        if self.leaving is Leaving.CALLER:
            return self._abandon()
        if self._phase is Phase.CANCELLED:
            self._stop_cancelling()
        if not self._requests or (self._window is not None and self._kept is not None):
            return f.NEXT, None  # it runs ahead, or is cancelled before it is sent something
        return await self._take_request()

    def _runs_on(self, window: PrefetchWindow, task: asyncio.Task[Any]) -> bool:
        """Whether the next step can be made at once, as nothing has changed since the last one."""
        return (
            window.may_go
            and self._phase is Phase.STEPPING
            and not (self._requests or self.delivered or self._kept)
            and self.leaving is Leaving.NOBODY
            and task.cancelling() == self._counted
            and time.monotonic() < self._until
        )

    async def _take_request(self) -> tuple[int, Any]:
        """Rebuilds what was sent or thrown in."""
        frame, segments, referents = self._requests.popleft()
        self._step = frame.step
        try:
            if frame.context:
                segments, arrived = without_changes(frame.context, segments)
                await self._share().take(arrived, self._load)
            if frame.operation == f.NEXT:
                return f.NEXT, None
            if frame.operation == f.SEND:
                return f.SEND, await self._load(segments, referents)
            return f.THROW, await self._load_thrown(segments, referents)
        except asyncio.CancelledError as error:  # while code was being fetched
            return f.THROW, error
        except Exception as error:
            return f.THROW, rebuild_error("the value sent", error, self.peer.where)

    def _stop_cancelling(self) -> None:
        """It has come to a `yield` although it was cancelled to be closed: it is closed there."""
        assert self.task is not None
        self._phase, self._closing, self._kept = Phase.STEPPING, 0, None
        self.task.uncancel()

    async def _let_others(self) -> None:
        """Lets the loop turn, and those be heard who want the stream to stop."""
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError as error:
            self._kept = error

    def _enter_step(self) -> None:
        assert self.task is not None
        self.state = State.RUNNING
        self._counted = self.task.cancelling()
        self._begin_step(self.task, early=int(self._struck))
        self._struck = False
        if self._outstanding == 0:
            self.peer.executor.enter()

    # Replies ------------------------------------------------------------------------------------

    def _last_step(self) -> int:
        return self._closing or self._step

    def _finish_empty(self) -> None:
        """The generator has returned."""
        if self._is_heard():
            self._answer(f.Return, self._complete(Encoded()))

    def _post_value(self, value: Any) -> bool:
        """Reports a value; False if it cannot be sent, which ends the stream."""
        if self.leaving is Leaving.CALLER:
            return True
        encoded = self._encode(value)
        if encoded is None:
            return False
        window, segments = self._window, encoded.segments
        size = f.total(segments)
        if window is not None:
            window.note(size)
        if self.peer.outputs:
            self.peer.flush_output(self.frame.call)
        # Nothing goes along with it, so it may go along with others.
        apart = (
            window is not None
            and len(segments) == 1
            and not (encoded.codes or encoded.exports or encoded.calls or encoded.context)
            and not self.delivered
        )
        if apart and self._join(segments[0]):
            return True
        others = window is not None and window.may_go
        frame = self._answer(f.Value, encoded, others=others, step=self._step, apart=apart)
        self._batch = (frame, segments, size) if apart else None
        return True

    def _join(self, value: Buffer) -> bool:
        """Sends a value together with those before it, if they have not left yet."""
        if self._batch is None:
            return False
        frame, segments, size = self._batch
        size += len(value)
        if size > BATCH or frame.step != self._step:
            return False
        self._batch = frame, segments, size
        return self.peer.answers.join(frame, segments, value)
