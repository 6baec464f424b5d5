"""`wool.abc.watching`: what an async generator yields, as `Discovery.watch` has to give it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

import pytest

from wool import _watching
from wool.abc import Changed, Event, Joined, Left, Snapshot, WorkerInfo, watching


def worker(number: int, load: int = 0) -> WorkerInfo:
    return WorkerInfo(id=str(number), address=f"x://{number}", load=load)


class Source:
    """Yields what it is told, and notes that it was closed."""

    def __init__(self) -> None:
        self.queue: asyncio.Queue[Event | Exception] = asyncio.Queue()
        self.closed = 0

    def put(self, *events: Event | Exception) -> None:
        for event in events:
            self.queue.put_nowait(event)

    async def events(self) -> AsyncGenerator[Event]:
        try:
            while True:
                event = await self.queue.get()
                if isinstance(event, Exception):
                    raise event
                yield event
        finally:
            await asyncio.sleep(0)
            self.closed += 1


async def test_events_arrive_in_order() -> None:
    source = Source()
    sent = [Snapshot([]), Joined(worker(1)), Changed(worker(1, 2)), Left(worker(1, 2))]
    async with watching(source.events()) as events:
        source.put(*sent)
        assert [await anext(events) for _ in sent] == sent
    assert source.closed == 1


async def test_what_has_not_been_read_is_dropped() -> None:
    source = Source()
    async with watching(source.events()) as events:
        source.put(Snapshot([]), Joined(worker(1)))
        await anext(events)
    with pytest.raises(StopAsyncIteration):
        await anext(events)


async def test_an_error_comes_after_what_was_before_it() -> None:
    source = Source()
    async with watching(source.events()) as events:
        source.put(Snapshot([]), OSError("no server"))
        assert await anext(events) == Snapshot([])
        for _ in range(2):
            with pytest.raises(OSError, match="no server"):
                await anext(events)
    assert source.closed == 1


async def test_a_generator_that_ends() -> None:
    async def some() -> AsyncGenerator[Event]:
        yield Snapshot([])

    async with watching(some()) as events:
        assert [event async for event in events] == [Snapshot([])]


async def test_one_that_does_not_keep_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Gets what it amounts to."""
    monkeypatch.setattr(_watching, "MOST", 3)
    source = Source()
    async with watching(source.events()) as events:
        source.put(Snapshot([worker(1), worker(2)]), Joined(worker(3)), Left(worker(1)))
        source.put(Changed(worker(2, 5)), Joined(WorkerInfo(address="x://none")))
        while source.queue.qsize():
            await asyncio.sleep(0)
        assert await anext(events) == Snapshot([worker(3), worker(2, 5)])
        assert await anext(events) == Joined(WorkerInfo(address="x://none"))


async def test_a_snapshot_replaces_what_was_before() -> None:
    source = Source()
    async with watching(source.events()) as events:
        source.put(Snapshot([]), Joined(worker(1)), Snapshot([worker(2)]), Joined(worker(3)))
        while source.queue.qsize():
            await asyncio.sleep(0)
        assert await anext(events) == Snapshot([worker(2)])
        assert await anext(events) == Joined(worker(3))


async def test_cancelled_while_it_is_left() -> None:
    """The generator is closed all the same."""
    source = Source()

    async def use() -> None:
        async with watching(source.events()) as events:
            await anext(events)

    using = asyncio.ensure_future(use())
    for _ in range(5):
        await asyncio.sleep(0)
    using.cancel()
    await asyncio.sleep(0)
    using.cancel()
    await asyncio.wait([using])
    assert using.cancelled()
    while not source.closed:
        await asyncio.sleep(0)
