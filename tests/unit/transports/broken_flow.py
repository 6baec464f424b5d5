"""Transports that lose messages to cancelling or closing, or that wait for the wrong things."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, NoReturn

from unit.transports.broken import Broken
from unit.transports.tcp import TcpConnection
from wool.abc import ConnectionLost, Segments, Take

Messages = Sequence[Segments]
Received = Sequence[bytes | memoryview]


class TestHasNoBackPressure(Broken):
    caught_by = ("test_back_pressure", "test_a_peer_that_is_stopped")

    class Connection(TcpConnection):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.writer.transport.set_write_buffer_limits(high=1 << 30)


class TestClogsBothDirections(Broken):
    caught_by = ("test_a_clogged_direction_does_not_clog_the_other",)

    class Connection(TcpConnection):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            self.lock = asyncio.Lock()

        async def send(self, messages: Messages) -> None:
            async with self.lock:
                await super().send(messages)

        async def receive(self) -> Received:
            async with self.lock:
                pass
            return await super().receive()


class TestClogsOtherConnections(Broken):
    caught_by = ("test_a_clogged_connection_does_not_clog_others",)

    class Connection(TcpConnection):
        lock = asyncio.Lock()

        async def send(self, messages: Messages) -> None:
            async with self.lock:
                await super().send(messages)


class TestLosesWhatACancelledReceiveHas(Broken):
    caught_by = ("test_a_cancelled_receive",)

    class Connection(TcpConnection):
        async def receive(self) -> Received:
            got = await super().receive()
            await asyncio.sleep(0)
            return got


class TestSwallowsCancelsOfReceive(Broken):
    caught_by = ("test_a_cancelled_receive_when_nothing_comes", "test_random_use")

    class Connection(TcpConnection):
        async def receive(self) -> Received:
            while True:
                try:
                    return await super().receive()
                except asyncio.CancelledError:
                    pass


class TestSendsHalfAMessageWhenCancelled(Broken):
    caught_by = ("test_a_cancelled_send_of_a_batch",)

    class Connection(TcpConnection):
        async def send(self, messages: Messages) -> None:
            for segments in messages:
                message = b"".join(segments)
                self.writer.write(len(message).to_bytes(4, "big") + message[:5])
                try:
                    await asyncio.sleep(0)
                except asyncio.CancelledError:
                    self.writer.write(bytes(len(message) - 5))
                    raise
                self.writer.write(message[5:])
                await self.writer.drain()


class TestShieldsSend(Broken):
    caught_by = ("test_a_cancelled_send",)

    class Connection(TcpConnection):
        async def send(self, messages: Messages) -> None:
            sending = asyncio.ensure_future(super().send(messages))
            while not sending.done():
                try:
                    await asyncio.wait([sending])
                except asyncio.CancelledError:
                    pass
            sending.result()


class TestDropsWhatIsQueuedAtClosing(Broken):
    caught_by = ("test_what_is_queued_at_closing",)

    class Connection(TcpConnection):
        async def aclose(self) -> None:
            self.writer.transport.abort()
            await super().aclose()


class TestDropsTheLastMessageAtClosing(Broken):
    caught_by = ("test_what_was_sent_before_closing", "test_a_handler_that_returns")

    class Connection(TcpConnection):
        last: bytes | None = None

        async def send(self, messages: Messages) -> None:
            if messages:
                messages, last = messages[:-1], messages[-1]
                self.last = b"".join(last)
                asyncio.get_running_loop().call_soon(self.flush)
            await super().send(messages)

        def flush(self) -> None:
            if self.last is not None and not self.writer.is_closing():
                self.writer.write(len(self.last).to_bytes(4, "big") + self.last)
                self.last = None


class TestFlushesWithoutEnd(Broken):
    caught_by = ("test_closing_while_the_peer_takes_nothing", "test_a_cancelled_close")

    class Connection(TcpConnection):
        async def aclose(self) -> None:
            self.close()
            await self.writer.wait_closed()


class TestHangsAtTheEnd(Broken):
    caught_by = ("test_what_was_sent_before_closing", "test_a_peer_that_is_killed")

    class Connection(TcpConnection):
        async def receive(self) -> Received:
            try:
                return await super().receive()
            except ConnectionLost:
                await asyncio.get_running_loop().create_future()
                raise


class TestReturnsNothingAtTheEnd(Broken):
    caught_by = ("test_what_was_sent_before_closing", "test_closing_again")

    class Connection(TcpConnection):
        async def receive(self) -> Received:
            try:
                return await super().receive()
            except ConnectionLost:
                return []


class TestClosesOnce(Broken):
    caught_by = ("test_closing_again", "test_closing_what_the_peer_has_closed")

    class Connection(TcpConnection):
        closed = False

        async def aclose(self) -> None:
            if self.closed:
                raise RuntimeError("closed already")
            self.closed = True
            await super().aclose()


class TestForgetsWhoWaits(Broken):
    caught_by = ("test_closing_ends_what_waits",)

    class Connection(TcpConnection):
        async def receive(self) -> Received:
            try:
                return await super().receive()
            except ConnectionLost:
                if not self.reader._eof or self.closing is not None:
                    await asyncio.get_running_loop().create_future()
                raise


class TestKnowsTooMuch(Broken):
    caught_by = ("test_what_is_known",)

    class Connection(TcpConnection):
        def extra(self, attribute: str, default: Any = None) -> Any:
            return {"peer": ("127.0.0.1", 80)}.get(attribute, default)


class TestSendsNowOutOfOrder(Broken):
    caught_by = ("test_sending_now",)

    class Connection(TcpConnection):
        def can_send_now(self) -> bool:
            return not self.writer.is_closing()

        def send_now(self, messages: Messages) -> None:
            whole = [b"".join(segments) for segments in messages]
            data = b"".join(len(message).to_bytes(4, "big") + message for message in whole)
            loop = self.writer.transport._loop  # type: ignore[attr-defined]
            loop.call_soon_threadsafe(loop.call_later, 0.01, self.writer.write, data)


class TestAlwaysSendsNow(Broken):
    caught_by = ("test_sending_now_to_a_peer_that_does_not_receive",)

    class Connection(TcpConnection):
        def can_send_now(self) -> bool:
            return True

        def send_now(self, messages: Messages) -> None:
            whole = [b"".join(segments) for segments in messages]
            data = b"".join(len(message).to_bytes(4, "big") + message for message in whole)
            loop = self.writer.transport._loop  # type: ignore[attr-defined]
            loop.call_soon_threadsafe(self.writer.write, data)


class TestSendsNowToTheLivingOnly(Broken):
    caught_by = ("test_sending_now_to_a_peer_that_is_gone",)

    class Connection(TcpConnection):
        def can_send_now(self) -> bool:
            return True

        def send_now(self, messages: Messages) -> None:
            if self.writer.is_closing() or self.reader._eof:
                raise ConnectionLost("the peer closed the connection")


# What is given as it arrives -------------------------------------------------------------------


class TestForgetsWhatArrivedBeforePumping(Broken):
    caught_by = ("test_pumping", "test_pumping_after_a_flood")

    class Connection(TcpConnection):
        async def pump(self, take: Take) -> NoReturn:
            await asyncio.sleep(0.01)
            self.reader._buffer.clear()  # type: ignore[attr-defined]
            await super().pump(take)


class TestLosesWhatACancelledPumpHas(Broken):
    caught_by = ("test_a_cancelled_pump",)

    class Connection(TcpConnection):
        async def pump(self, take: Take) -> NoReturn:
            while True:
                got = await self.receive()
                await asyncio.sleep(0)
                take(got)


class TestSwallowsWhatTakingRaises(Broken):
    caught_by = ("test_what_taking_raises",)

    class Connection(TcpConnection):
        async def pump(self, take: Take) -> NoReturn:
            while True:
                got = await self.receive()
                try:
                    take(got)
                except LookupError:
                    pass


class TestPumpsWithoutEnd(Broken):
    caught_by = ("test_pumping", "test_closing_ends_a_pump")

    class Connection(TcpConnection):
        async def pump(self, take: Take) -> NoReturn:
            try:
                await super().pump(take)
            except ConnectionLost:
                await asyncio.get_running_loop().create_future()
            raise AssertionError
