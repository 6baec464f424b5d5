"""What users get: pools, workers on their own, and nothing on a network."""

from __future__ import annotations

import asyncio
import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import wool
from wool.abc import ConnectFailed, ConnectionLost
from wool.exceptions import ConfigurationError
from wool.testing import throwaway_tls
from wool_zmq._transport import ZmqTransport


@pytest.fixture
def folder() -> Iterator[Path]:
    """The path of a socket must be short."""
    with tempfile.TemporaryDirectory(prefix="z") as name:
        yield Path(name)


@wool.routine
async def where(data: bytes = b"") -> tuple[int, int]:
    return os.getpid(), len(data)


@wool.routine
async def count(until: int):
    for number in range(until):
        yield number


async def test_a_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WOOL_TRANSPORT", "zmq")
    async with wool.WorkerPool(size=2) as pool:
        await pool.wait(2, timeout=30)
        assert {worker.address.partition(":")[0] for worker in pool.workers} == {"zmq+unix"}
        answers = await asyncio.gather(*(where(bytes(9 << 20)) for _ in range(8)))
        assert {size for _, size in answers} == {9 << 20}
        assert {pid for pid, _ in answers} == {worker.pid for worker in pool.workers}
        streams = [[number async for number in count(50)] for _ in range(3)]
        assert streams == [list(range(50))] * 3
        lost = pool.workers[0].pid
        os.kill(lost, signal.SIGKILL)
        async with asyncio.timeout(30):
            while lost in {worker.pid for worker in pool.workers} or len(pool.workers) < 2:
                await asyncio.sleep(0.05)
        assert (await where())[0] != lost


async def test_a_worker_on_its_own(folder: Path) -> None:
    """The kernel says who calls."""
    async with (
        wool.Worker(address=f"zmq+unix://{folder}/s/w") as worker,
        wool.WorkerPool(discovery=[worker.info.address]) as pool,
    ):
        assert await where(b"1") == (os.getpid(), 1)
        assert pool.workers[0].id == worker.info.id
    assert not (folder / "s" / "w").exists()


@pytest.mark.parametrize("address", ["zmq://0.0.0.0:7000", "zmq://127.0.0.1:0", "zmq:///tmp/w"])
def test_no_network(address: str) -> None:
    with pytest.raises(ConfigurationError, match="never leaves this machine"):
        wool.Worker(address=address, insecure=True)


async def test_no_credentials(folder: Path) -> None:
    """Rather no connection than one that is not secured."""
    address = f"zmq+unix://{folder}/w"
    with pytest.raises(ConnectFailed, match="no TLS"):
        await ZmqTransport().listen(address, credentials=throwaway_tls())
    with pytest.raises(ConnectFailed, match="no TLS"):
        await ZmqTransport().connect(address, credentials=throwaway_tls(), timeout=5)


async def test_one_that_does_not_keep_to_its_credit(folder: Path) -> None:
    """Is cut off, not buffered."""
    transport, address = ZmqTransport(), f"zmq+unix://{folder}/w"
    listener = await transport.listen(address, credentials=None)
    accepted: asyncio.Queue[wool.abc.Connection] = asyncio.Queue()

    async def handle(connection: wool.abc.Connection) -> None:
        accepted.put_nowait(connection)
        await asyncio.Event().wait()

    serving = asyncio.create_task(listener.serve(handle))
    ours = await transport.connect(address, credentials=None, timeout=5)
    theirs = await accepted.get()
    theirs.receive_limit = theirs.max_message_size
    for _ in range(9):
        ours._room = 1 << 30  # type: ignore[attr-defined]
        await ours.send([[bytes(1 << 20)]])
    with pytest.raises(ConnectionLost):
        await ours.receive()
    assert len(await theirs.receive()) < 5
    with pytest.raises(ConnectionLost, match="more than it may"):
        await theirs.receive()
    serving.cancel()
    await asyncio.wait([serving])
    await ours.aclose()
    await listener.aclose()
