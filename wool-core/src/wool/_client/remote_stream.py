"""A stream: an async generator that runs on a worker, one step after another."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any

from wool._client.calls import WorkerPeer
from wool._client.poolbase import PoolBase
from wool._client.remote import Observation, make_request
from wool._client.routine import Routine
from wool._peer.chaining import settle_context
from wool._peer.outgoing import (
    Cancelled,
    Failed,
    Handover,
    Outcome,
    OutgoingCall,
    Reply,
    Stage,
    decode_reply,
    load_variable,
    reply_error,
    shield,
)
from wool._peer.prefetch import PrefetchCall
from wool._peer.running import RUNNING, RunningCall
from wool._protocol import frames as f
from wool._texts import kind_of, reason_of
from wool._values.codec import Codec, Encoded
from wool._values.context import CallerContext, with_changes
from wool._values.exceptions import dump_exception
from wool.exceptions import ContextWarning, SerializationError, WoolError, WorkerStopped

_NOTHING = Encoded()

_ENDINGS = GeneratorExit, asyncio.CancelledError


class RemoteStream:
    """Drives a generator on a worker; the interface is that of `LocalStream`.

    Attributes:
        error: the exception that the generator ended with, if it ended so.
        observation: for those who observe it.
    """

    observation: Observation | None = None

    def __init__(
        self, pool: PoolBase, routine: Routine, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.error: BaseException | None = None
        self._pool = pool
        self._open = routine, args, kwargs
        self._call: OutgoingCall | None = None
        self._shared = CallerContext(
            pool.context, pool.complaints.make, crossing=routine.prefetch > 0
        )
        self._thrown: BaseException | None = None  # the last: it may still come out
        self._value: Any = None
        self._closing = False

    async def step(self, value: Any, thrown: bool) -> bool:
        """Sends or throws `value` in; returns whether the generator yielded."""
        self._closing = thrown and isinstance(value, GeneratorExit)
        if value is None and self._take_ahead():
            return True
        running = RUNNING.get()
        if running is not None:
            running.wait_begins()
        try:
            yielded = await self._step(value, thrown, running)
        except (WoolError, ContextWarning) as error:
            self._give_up()
            self.error = error.with_traceback(None)
            yielded = False
        except BaseException:  # cancelled while a value was being rebuilt
            self._give_up()
            raise
        finally:
            if running is not None:
                running.wait_ends()
        if self._closing and isinstance(self.error, WorkerStopped):
            self.error = None  # closing is silent about the end of the worker
        return yielded

    def _take_ahead(self) -> bool:
        """Takes a value that has arrived before it was asked for, if that is all there is to do."""
        call, pool = self._call, self._pool
        if not isinstance(call, PrefetchCall) or call.closing:
            return False
        reply = call.ahead
        if reply is None or pool.closed or call.loop is not asyncio.get_running_loop():
            return False
        if self._shared.changed():
            return False
        try:
            self._value = pool.codec.decode(reply.segments, None, reply.referents)
        except Exception:  # code is missing, or the error is to be explained
            return False
        if more := call.take_ahead():
            assert isinstance(call.sender, WorkerPeer)
            call.sender.resume(call, f.NEXT, more=more)
        return True

    def given_up(self, exception: BaseException) -> bool:
        """Whether a generator is being collected with nobody to close it: it has ignored
        GeneratorExit, see `LocalStream`, or its loop is closed.
        """
        call = self._call
        if call is None or not isinstance(exception, GeneratorExit):
            return False
        if call.loop.is_closed():
            return True
        if self._closing:
            self._give_up()
        return self._closing

    def _give_up(self) -> None:
        """Closes the remote generator without waiting for it."""
        call = self._call
        if call is not None and call.stage is Stage.SUSPENDED:
            assert isinstance(call.sender, WorkerPeer)
            call.sender.close_stream(call)

    def settle(self, error: BaseException, context: BaseException | None) -> None:
        """Restores the `__context__` of an error from afar, which knew nothing of ours."""
        settle_context(error, context, self._thrown)

    def take(self) -> Any:
        """Returns what was yielded, and keeps no reference to it."""
        value, self._value = self._value, None
        return value

    async def _step(self, value: Any, thrown: bool, running: RunningCall | None) -> bool:
        pool = self._pool
        call = self._call
        if call is None:
            seen = self.observation
            request = make_request(pool.codec, *self._open, running, self._shared, observation=seen)
            call = self._call = pool.client().open(request)
            if seen is not None:
                seen.call = call
        elif pool.closed and isinstance(value, _ENDINGS):
            return self._fail(Failed(pool.closed_error()), value)
        elif call.loop is not asyncio.get_running_loop():
            return self._leave(call)
        else:
            pool.check_open()
            if call.failed is not None:
                return self._fail(call.failed, value)
            if call.closing:  # all tasks of the loop have been cancelled
                return await self._close(call, None)
            self._resume(call, value, thrown)
        outcome = await self._outcome(call)
        while isinstance(outcome, Cancelled) and outcome.open:
            # The cancel crossed a value: it strikes where the generator stands now.
            if call.request.prefetch:
                return await self._close(call, outcome.error)
            value, thrown = outcome.error, True
            self._resume(call, value, thrown)
            with shield():  # the clean-up that it sets going there is not to be cancelled as well
                outcome = await self._outcome(call)
        return await self._conclude(call, outcome, value)

    async def _close(self, call: OutgoingCall, error: BaseException | None) -> bool:
        """Closes the generator where it stands, unless that is under way, and waits for its end.

        Args:
            error: the outcome of the step, unless the generator raises something else.
        """
        closing = GeneratorExit()
        if call.closing:
            self._thrown = closing
        else:
            self._resume(call, closing, True)
        with shield():
            outcome = await self._outcome(call)
        call.closing = False
        yielded = await self._conclude(call, outcome, closing)
        if not yielded and self.error in (None, closing):
            self.error = error
        return yielded

    async def _conclude(self, call: OutgoingCall, outcome: Outcome | Cancelled, value: Any) -> bool:
        """Takes what a step came to; returns whether the generator yielded."""
        pool = self._pool
        if isinstance(outcome, Reply):
            if type(outcome.frame) is f.Value:
                self._value = await decode_reply(pool.codec, call, outcome)
                return True
            if type(outcome.frame) is f.Return:
                return False
        if isinstance(outcome, Failed):
            return self._fail(outcome, value)
        self.error = await reply_error(pool.codec, call, outcome, self._thrown)
        return False

    async def _outcome(self, call: OutgoingCall) -> Outcome | Cancelled:
        outcome = await call.wait()
        if context := outcome.context:
            await self._shared.take(context, lambda s: load_variable(self._pool.codec, call, s))
        return outcome

    def _leave(self, call: OutgoingCall) -> bool:
        """It is stepped away from its loop: it is closed there."""
        with contextlib.suppress(RuntimeError):  # that loop is closed, and with it the stream
            call.loop.call_soon_threadsafe(self._give_up)
        name = self._open[0].function.__qualname__
        self.error = RuntimeError(
            f"the stream {name}() is bound to a different event loop: step it where it began"
        )
        return False

    def _fail(self, outcome: Failed, value: Any) -> bool:
        """The stream's worker is gone; ending the stream is silent about it.

        A loop that ends may cancel the task that closes a stream before it begins: that task throws
        the cancel in.
        """
        if not isinstance(value, _ENDINGS):
            self.error = outcome.fresh_error()
        elif isinstance(value, asyncio.CancelledError):
            self.error = value
        return False

    def _resume(self, call: OutgoingCall, value: Any, thrown: bool) -> None:
        codec = self._pool.codec
        peer = call.sender
        assert isinstance(peer, WorkerPeer)
        operation, encoded = f.NEXT, _NOTHING
        if thrown:
            operation, self._thrown = f.THROW, value
            encoded = dump_exception(value, codec.encode_closed)[1] or _NOTHING
        elif value is not None:
            operation = f.SEND
            encoded = _encode_sent(codec, self._open[0], value)
        encoded = with_changes(encoded, self._shared.changes())
        more = call.ask(urgent=operation != f.NEXT or bool(encoded.context))
        if not more:
            return  # there are values that have arrived
        if isinstance(value, GeneratorExit) and thrown:
            call.begin_close()
            operation = f.CLOSE if call.request.prefetch else f.THROW
        units = codec.units(encoded.code) if encoded.code else ()
        segments, exports, context = encoded.segments, encoded.exports, encoded.context
        sent = peer.resume(call, operation, units, segments, exports, context, more)
        if encoded.calls and sent:
            Handover(encoded.calls, f"{call.request.name}()").settle(taken=True)


class ObservedStream(RemoteStream):
    """A remote stream whose first step and whose end observers are told of."""

    async def step(self, value: Any, thrown: bool) -> bool:
        """As `RemoteStream.step`."""
        seen = self.observation = self.observation or Observation(self._pool, self._open[0])
        try:
            yielded = await super().step(value, thrown)
        except BaseException as failure:
            seen.end(failure)
            raise
        if not yielded:
            closed = thrown and isinstance(value, GeneratorExit) and self.error in (None, value)
            seen.end(None if closed else self.error, cancelled=closed)
        return yielded

    def given_up(self, exception: BaseException) -> bool:
        """As `RemoteStream.given_up`."""
        given_up = super().given_up(exception)
        if given_up and self.observation is not None:
            self.observation.end(None, cancelled=True)
        return given_up


def _encode_sent(codec: Codec, routine: Routine, value: Any) -> Encoded:
    try:
        return codec.encode(value)
    except Exception as error:
        raise SerializationError(
            f"the value ({kind_of(value)}) sent to {routine.function.__qualname__}() "
            f"cannot be pickled: {reason_of(error)}"
        ) from error
