"""Calls and streams that run on a worker.

Nothing here raises into user code: outcomes are returned, and the wrapper of the routine raises
them, so that no frame of Wool's stands in a traceback.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from wool._client.exchange import CallExchange
from wool._client.requests import encode_sent, make_request, with_context
from wool._client.routine import Routine
from wool._client.sharing import Sharing
from wool._exchange.chaining import settle_context
from wool._exchange.exchange import Cancelled, Failed, Outcome, Reply, shield
from wool._exchange.handover import Handover
from wool._exchange.packing import variables_of
from wool._exchange.replies import decode_reply, load_variable, reply_error
from wool._exchange.running import RUNNING, RunningCall
from wool._protocol import frames as f
from wool._serialization.encoded import Encoded
from wool._serialization.exceptions import dump_exception
from wool.exceptions import ContextWarning, WoolError, WorkerStopped

if TYPE_CHECKING:
    from wool._client.pool import Pool
    from wool.plugins import CallInfo


_NOTHING = Encoded([], {})

_ENDINGS = GeneratorExit, asyncio.CancelledError

TELLING = 1.0
"""Seconds in which all workers of a pool that is left are told so, by far."""


class Trace:
    """What became of a call, for those who observe it.

    Attributes:
        info: what they have been told of it.
        exchange: the call, once it has been opened.
    """

    def __init__(self, info: CallInfo) -> None:
        self.info = info
        self.exchange: CallExchange | None = None


async def call(
    pool: Pool,
    routine: Routine,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    trace: Trace | None = None,
) -> tuple[Any, BaseException | None]:
    """Calls a routine on a worker; returns its result and None, or None and its exception."""
    running = RUNNING.get()
    if running is not None:
        running.wait_begins()
    try:
        codec = pool.codec
        sharing, info = Sharing(codec, pool.complaints), None if trace is None else trace.info
        request = make_request(codec, routine, args, kwargs, running, sharing, info)
        exchange = pool.client().open(request)
        if trace is not None:
            trace.exchange = exchange
        outcome = await exchange.wait()
        if context := outcome.context:
            await sharing.take(context, lambda segments: load_variable(codec, exchange, segments))
        if isinstance(outcome, Reply) and type(outcome.frame) is f.Return:
            return await decode_reply(codec, exchange, outcome), None
        error = await reply_error(codec, exchange, outcome, None)
        return None, await _unless_told(pool, error, exchange, running)
    except (WoolError, ContextWarning) as error:
        return None, error.with_traceback(None)
    finally:
        if running is not None:
            running.wait_ends()


async def _unless_told(
    pool: Pool,
    error: BaseException,
    exchange: CallExchange | None,
    running: RunningCall | None,
) -> BaseException:
    """Returns what a call or a step comes to that has failed with `error`.

    Workers of a pool that is left are told all at once, and yet one may see that another has ended
    before it is told itself. Then its call would clean up for that reason, and be cancelled in the
    midst of it. So it waits a moment for the cancel.
    """
    if not isinstance(error, WorkerStopped) or running is None or running.must_end:
        return error
    if not pool.here:  # one that the call has opened itself
        return error
    if exchange is None or exchange.link is None or not exchange.link.draining:
        return error
    try:
        await asyncio.sleep(TELLING)
    except asyncio.CancelledError as cancel:
        return cancel.with_traceback(None)
    return error


class RemoteStream:
    """Drives a generator on a worker; the interface is that of `LocalStream`.

    Attributes:
        error: what the generator raised, if that is how it ended.
        trace: for those who observe it.
    """

    trace: Trace | None = None

    def __init__(
        self, pool: Pool, routine: Routine, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        self.error: BaseException | None = None
        self._pool = pool
        self._open = routine, args, kwargs
        self._exchange: CallExchange | None = None
        self._sharing = Sharing(pool.codec, pool.complaints, crossing=routine.prefetch > 0)
        self._thrown: BaseException | None = None  # the last: it may still come out
        self._value: Any = None
        self._closing = False

    async def step(self, value: Any, thrown: bool) -> bool:
        """Sends or throws `value` in; returns whether the generator yielded."""
        self._closing = thrown and isinstance(value, GeneratorExit)
        running = RUNNING.get()
        if running is not None:
            running.wait_begins()
        try:
            yielded = await self._try_step(value, thrown, running)
            if isinstance(self.error, WorkerStopped):
                if self._closing:
                    await self._ignore_end_of_pool()
                else:
                    error, exchange = self.error, self._exchange
                    self.error = await _unless_told(self._pool, error, exchange, running)
            return yielded
        finally:
            if running is not None:
                running.wait_ends()

    async def _try_step(self, value: Any, thrown: bool, running: RunningCall | None) -> bool:
        try:
            return await self._step(value, thrown, running)
        except (WoolError, ContextWarning) as error:
            self._give_up()
            self.error = error.with_traceback(None)
            return False
        except BaseException:  # cancelled while a value was being rebuilt
            self._give_up()
            raise

    async def _ignore_end_of_pool(self) -> None:
        """Closing is silent about the end of the pool, whose other workers may be gone first."""
        if await self._pool.is_ending():
            self.error = None

    def given_up(self, exception: BaseException) -> bool:
        """Whether a generator is being collected with nobody to close it: it has ignored
        GeneratorExit, see `LocalStream`, or its loop is closed.
        """
        exchange = self._exchange
        if exchange is None or not isinstance(exception, GeneratorExit):
            return False
        if exchange.loop.is_closed():
            return True
        if self._closing:
            self._give_up()
        return self._closing

    def _give_up(self) -> None:
        """Closes the remote generator without waiting for it."""
        exchange = self._exchange
        if exchange is not None and exchange.table is not None and exchange.suspended:
            exchange.table.close_stream(exchange)

    def settle(self, error: BaseException, context: BaseException | None) -> None:
        """Restores the `__context__` of an error from afar, which knew nothing of ours."""
        settle_context(error, context, self._thrown)

    def take(self) -> Any:
        """Returns what was yielded, and keeps no reference to it."""
        value, self._value = self._value, None
        return value

    async def _step(self, value: Any, thrown: bool, running: RunningCall | None) -> bool:
        pool = self._pool
        exchange = self._exchange
        if exchange is None:
            info = None if self.trace is None else self.trace.info
            request = make_request(pool.codec, *self._open, running, self._sharing, info)
            exchange = self._exchange = pool.client().open(request)
            if self.trace is not None:
                self.trace.exchange = exchange
        elif pool.closed and isinstance(value, _ENDINGS):
            return self._fail(Failed(pool.closed_error()), value)
        elif exchange.loop is not asyncio.get_running_loop():
            return self._leave(exchange)
        else:
            pool.check_open()
            if exchange.failed is not None:
                return self._fail(exchange.failed, value)
            if exchange.closing:  # all tasks of the loop have been cancelled
                return await self._close(exchange, None)
            self._resume(exchange, value, thrown)
        outcome = await self._outcome(exchange)
        while isinstance(outcome, Cancelled) and outcome.open:
            # The cancel crossed a value: it strikes where the generator stands now.
            if exchange.request.prefetch:
                return await self._close(exchange, outcome.error)
            value, thrown = outcome.error, True
            self._resume(exchange, value, thrown)
            with shield():  # what the cancel sets going there is not to be cancelled as well
                outcome = await self._outcome(exchange)
        return await self._conclude(exchange, outcome, value)

    async def _close(self, exchange: CallExchange, error: BaseException | None) -> bool:
        """Closes the generator where it stands, unless that is under way, and waits for its end.

        Args:
            error: what the step comes to, unless the generator raises something else.
        """
        closing = GeneratorExit()
        if exchange.closing:
            self._thrown = closing
        else:
            self._resume(exchange, closing, True)
        with shield():
            outcome = await self._outcome(exchange)
        exchange.closing = False
        yielded = await self._conclude(exchange, outcome, closing)
        if not yielded and self.error in (None, closing):
            self.error = error
        return yielded

    async def _conclude(
        self, exchange: CallExchange, outcome: Outcome | Cancelled, value: Any
    ) -> bool:
        """Takes what a step came to; returns whether the generator yielded."""
        pool = self._pool
        if isinstance(outcome, Reply):
            if type(outcome.frame) is f.Value:
                self._value = await decode_reply(pool.codec, exchange, outcome)
                return True
            if type(outcome.frame) is f.Return:
                return False
        if isinstance(outcome, Failed):
            return self._fail(outcome, value)
        self.error = await reply_error(pool.codec, exchange, outcome, self._thrown)
        return False

    async def _outcome(self, exchange: CallExchange) -> Outcome | Cancelled:
        outcome = await exchange.wait()
        if context := outcome.context:
            await self._sharing.take(
                context, lambda s: load_variable(self._pool.codec, exchange, s)
            )
        return outcome

    def _leave(self, exchange: CallExchange) -> bool:
        """It is stepped away from its loop: it is closed there."""
        with contextlib.suppress(RuntimeError):  # that loop is closed, and with it the stream
            exchange.loop.call_soon_threadsafe(self._give_up)
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

    def _resume(self, exchange: CallExchange, value: Any, thrown: bool) -> None:
        codec = self._pool.codec
        table = exchange.table
        assert table is not None
        operation, encoded = f.NEXT, _NOTHING
        if thrown:
            operation, self._thrown = f.THROW, value
            encoded = dump_exception(value, codec.encode_closed)[1] or _NOTHING
        elif value is not None:
            operation = f.SEND
            encoded = encode_sent(codec, self._open[0], value)
        context: Sequence[f.Variable] = ()
        if changes := self._sharing.changes():
            encoded = with_context(encoded, changes)
            context = variables_of(changes)
        more = exchange.ask(urgent=operation != f.NEXT or bool(context))
        if not more:
            return  # there are values that have arrived
        if isinstance(value, GeneratorExit) and thrown:
            exchange.begin_close()
            operation = f.CLOSE if exchange.request.prefetch else f.THROW
        units = codec.units(encoded.code) if encoded.code else ()
        exchange.next_step()
        segments, exports = encoded.segments, encoded.exports
        sent = table.resume(exchange, operation, units, segments, exports, context, more)
        if encoded.calls and sent:
            Handover(encoded.calls).settle(taken=True)
