"""Transports whose messages do not arrive as they were sent."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from unit.transports.broken import Broken
from unit.transports.tcp import TcpConnection
from wool.abc import ConnectionLost, MessageTooLarge, Segments

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


class TestDuplicates(Broken):
    caught_by = ("test_order",)

    class Connection(TcpConnection):
        async def send(self, messages: Messages) -> None:
            await super().send([*messages, messages[-1]] if len(messages) == 30 else messages)


class TestOmitsEmptyMessages(Broken):
    caught_by = ("test_sizes", "test_segments")

    class Connection(TcpConnection):
        async def send(self, messages: Messages) -> None:
            await super().send([segments for segments in messages if any(map(len, segments))])


class TestSendsOnlyTheFirstSegment(Broken):
    caught_by = ("test_segments",)

    class Connection(TcpConnection):
        async def send(self, messages: Messages) -> None:
            await super().send([segments[:1] for segments in messages])


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


class TestSendsTheFirstOfABatchThatIsTooLarge(Broken):
    caught_by = ("test_a_message_that_is_too_large", "test_random_use")

    class Connection(TcpConnection):
        async def send(self, messages: Messages) -> None:
            for segments in messages:
                await super().send([segments])


class TestClosesOnAMessageThatIsTooLarge(Broken):
    caught_by = ("test_a_message_that_is_too_large",)

    class Connection(TcpConnection):
        async def send(self, messages: Messages) -> None:
            try:
                await super().send(messages)
            except MessageTooLarge:
                await self.aclose()
                raise


class TestTakesTooLittle(Broken):
    caught_by = ("test_the_largest_message",)

    class Connection(TcpConnection):
        max_message_size = 500_000


class TestPromisesTooMuch(Broken):
    caught_by = ("test_the_largest_message",)

    class Connection(TcpConnection):
        async def send(self, messages: Messages) -> None:
            if any(sum(map(len, segments)) > self.max_message_size - 4 for segments in messages):
                self.writer.transport.abort()  # as a limit does that includes a header
            await super().send(messages)


class TestReturnsByteArrays(Broken):
    caught_by = ("test_sizes",)

    class Connection(TcpConnection):
        async def receive(self) -> Received:
            return [bytearray(message) for message in await super().receive()]  # type: ignore[misc]


class TestReturnsViewsOfOtherItems(Broken):
    caught_by = ("test_sizes",)

    class Connection(TcpConnection):
        async def receive(self) -> Received:
            (message,) = await super().receive()
            if len(message) % 4 == 0:
                return [memoryview(message).cast("B").cast("I")]
            return [message]


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


class TestUsesItsListAgain(Broken):
    caught_by = ("test_what_is_received_is_not_touched_again",)

    class Connection(TcpConnection):
        async def receive(self) -> Received:
            self.list: list[bytes | memoryview] = getattr(self, "list", [])
            self.list[:] = await super().receive()
            return self.list


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


class TestHasAHigherLimit(Broken):
    caught_by = ("test_what_a_stranger_may_send",)

    class Connection(TcpConnection):
        receive_limit = 8192


class TestCountsTheLimitFromOne(Broken):
    caught_by = ("test_what_a_stranger_may_send", "test_a_limit_that_is_raised")

    class Connection(TcpConnection):
        async def receive(self) -> Received:
            got = await super().receive()
            if len(got[0]) >= self.receive_limit:
                raise ConnectionLost("too large")
            return got


class TestAppliesTheLimitToBatches(Broken):
    caught_by = ("test_what_a_stranger_may_send",)

    class Connection(TcpConnection):
        async def send(self, messages: Messages) -> None:
            if (
                sum(len(part) for segments in messages for part in segments) > 5000
                and len(messages) == 10
            ):
                self.writer.transport.abort()
            await super().send(messages)


class TestHasOneLimitForAll(Broken):
    caught_by = ("test_a_limit_that_is_raised",)

    class Connection(TcpConnection):
        def __setattr__(self, name: str, value: object) -> None:
            if name == "receive_limit":
                type(self).receive_limit = value  # type: ignore[assignment]
            else:
                super().__setattr__(name, value)


class TestDropsTheMessageButNotThePeer(Broken):
    caught_by = ("test_what_a_stranger_may_send",)

    class Connection(TcpConnection):
        async def receive(self) -> Received:
            limit, self.receive_limit = self.receive_limit, self.max_message_size
            try:
                while len(got := (await super().receive())[0]) > limit:
                    pass
            finally:
                self.receive_limit = limit
            return [got]
