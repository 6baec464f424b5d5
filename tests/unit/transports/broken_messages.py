"""Transports whose messages do not arrive as they were sent."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from unit.transports.broken import Broken
from unit.transports.tcp import TcpConnection
from wool.abc import Segments

Messages = Sequence[Segments]
Received = Sequence[bytes | memoryview]


class TestReorders(Broken):
    caught_by = ("test_order", "test_random_use")

    class Connection(TcpConnection):
        async def send(self, messages: Messages) -> None:
            await super().send(messages[::-1])


class TestMerges(Broken):
    caught_by = ("test_order", "test_segments")

    class Connection(TcpConnection):
        async def send(self, messages: Messages) -> None:
            await super().send([[part for segments in messages for part in segments]])


class TestSplits(Broken):
    caught_by = ("test_sizes",)

    class Connection(TcpConnection):
        async def send(self, messages: Messages) -> None:
            whole = b"".join(messages[0]) if len(messages) == 1 else b""
            if len(whole) > 65536:
                messages = [[whole[:65536]], [whole[65536:]]]
            await super().send(messages)


class TestTakesAnEmptyBatchForAMessage(Broken):
    caught_by = ("test_an_empty_batch",)

    class Connection(TcpConnection):
        async def send(self, messages: Messages) -> None:
            await super().send(messages or [[]])


class TestHasNoUpperLimit(Broken):
    caught_by = ("test_a_message_that_is_too_large", "test_random_use")

    class Connection(TcpConnection):
        async def send(self, messages: Messages) -> None:
            for segments in messages:
                message = b"".join(segments)
                self.writer.write(len(message).to_bytes(4, "big") + message)
            await self.writer.drain()


class TestTakesTooLittle(Broken):
    caught_by = ("test_the_largest_message",)

    class Connection(TcpConnection):
        max_message_size = 500_000


class TestUsesItsBufferAgain(Broken):
    caught_by = ("test_what_is_received_is_not_touched_again",)

    class Connection(TcpConnection):
        buffer = bytearray()

        async def receive(self) -> Received:
            (message,) = await super().receive()
            if len(message) > len(self.buffer):
                self.buffer = bytearray(len(message))
            self.buffer[: len(message)] = message
            return [memoryview(self.buffer)[: len(message)]]


class TestSendsLater(Broken):
    """What was sent might have changed by then."""

    caught_by = ("test_what_was_sent_is_not_kept",)

    class Connection(TcpConnection):
        queue: asyncio.Queue[Messages] | None = None

        async def send(self, messages: Messages) -> None:
            if self.queue is None:
                self.queue = asyncio.Queue()
                self.pump = asyncio.ensure_future(self.run())
            self.queue.put_nowait(messages)

        async def run(self) -> None:
            assert self.queue is not None
            while True:
                await super().send(await self.queue.get())

        async def aclose(self) -> None:
            if self.queue is not None:
                self.pump.cancel()
            await super().aclose()


class TestIgnoresTheLimit(Broken):
    caught_by = ("test_what_a_stranger_may_send", "test_a_limit_that_is_raised")

    class Connection(TcpConnection):
        async def receive(self) -> Received:
            self.receive_limit = self.max_message_size
            return await super().receive()
