"""The connections that `Faults` makes: as good as others while nothing is wrong with them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import wool.testing
from wool import abc
from wool._transports import memory, unix
from wool.testing import Faults, TransportSuite
from wool.testing._pools import opened
from wool.testing.faults import FaultyTransport


class TestFaultless(TransportSuite):
    """Without a fault nothing changes that a transport promises."""

    def transport(self) -> abc.Transport:
        return FaultyTransport(unix.UnixTransport(unix.Options()), Faults())

    def address(self, tmp_path: Path) -> str:
        return f"unix://{tmp_path}/socket"


Ends = tuple[abc.Connection, abc.Connection, str]


@asynccontextmanager
async def linked(faults: Faults) -> AsyncIterator[Ends]:
    """Yields the end that dialled, the end that was dialled, and its address."""
    transport = FaultyTransport(memory.MemoryTransport(), faults)
    listener = await transport.listen(None, credentials=None)
    accepted: asyncio.Queue[abc.Connection] = asyncio.Queue()

    async def handler(connection: abc.Connection) -> None:
        accepted.put_nowait(connection)
        await asyncio.get_running_loop().create_future()

    serving = asyncio.ensure_future(listener.serve(handler))
    mine = await transport.connect(listener.address, credentials=None, timeout=5)
    theirs = await accepted.get()
    yield mine, theirs, listener.address
    await mine.aclose()
    await theirs.aclose()
    serving.cancel()
    await listener.aclose()


async def stays(waiting: asyncio.Future[Any]) -> None:
    for _ in range(20):
        await asyncio.sleep(0)
    assert not waiting.done()


def later(awaitable: Any) -> asyncio.Task[Any]:
    return asyncio.ensure_future(awaitable)


async def test_clogging_loses_nothing() -> None:
    faults = Faults()
    async with asyncio.timeout(10), linked(faults) as (mine, theirs, address):
        early = later(mine.receive())
        await stays(early)
        for place in (None, address):
            with faults.clog(place):
                sending = later(mine.send([[b"there"]]))
                await theirs.send([[b"back"]])
                await stays(early)
                await stays(sending)
                early.cancel()
                await asyncio.wait([early])
                early = later(mine.receive())
                await stays(early)
            await sending
            assert await theirs.receive() == [b"there"]
            assert await early == [b"back"]
            early = later(mine.receive())
            await asyncio.sleep(0)
        early.cancel()


async def test_whoever_dials() -> None:
    faults = Faults()
    transport = FaultyTransport(memory.MemoryTransport(), faults)
    listener = await transport.listen(None, credentials=None)

    def dial(timeout: float) -> Any:
        return transport.connect(listener.address, credentials=None, timeout=timeout)

    with faults.refuse(), pytest.raises(abc.ConnectFailed) as caught:
        await dial(5)
    assert caught.value.reason == "refused"
    with faults.drop(), pytest.raises(abc.ConnectFailed) as caught:
        await dial(0.05)
    assert caught.value.reason == "timeout"
    serving = asyncio.ensure_future(listener.serve(lambda connection: asyncio.sleep(60)))
    with faults.clog():
        dialling = later(dial(20))
        await stays(dialling)
    await (await dialling).aclose()
    serving.cancel()
    await listener.aclose()


def test_options_of_no_use_leave_no_thread() -> None:
    before = set(threading.enumerate())
    with pytest.raises(wool.ConfigurationError), opened({"size": -1}):
        pass
    assert set(threading.enumerate()) <= before
