"""Large payloads between processes of one machine go through shared memory."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import socket
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from msgspec.structs import replace

import wool
from support.waiting import until
from wool._peer.sharing import MOST_BYTES, MOST_SEGMENTS, Sharing
from wool._protocol import frames as f
from wool.exceptions import ProtocolError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Linux shares memory so")

SIZE = 1 << 20


@wool.routine
async def echo(value: Any) -> Any:
    return value


@wool.routine
async def pid() -> int:
    return os.getpid()


@wool.routine
async def arrays(count: int):
    for number in range(count):
        yield np.full(SIZE // 8, float(number))


def mapped() -> int:
    """How many segments this process has mapped."""
    gc.collect()
    return Path("/proc/self/maps").read_text().count("/memfd:wool")


def is_shared(array: np.ndarray[Any, Any]) -> bool:
    address = array.ctypes.data
    for line in Path("/proc/self/maps").read_text().splitlines():
        low, high = (int(end, 16) for end in line.split()[0].split("-"))
        if low <= address < high:
            return "/memfd:wool" in line
    return False


@pytest_asyncio.fixture(params=["unix", "ws", "grpc"])
async def pool(request: pytest.FixtureRequest) -> AsyncIterator[wool.WorkerPool]:
    async with wool.WorkerPool(size=1, transport=request.param) as pool:
        await echo(np.zeros(SIZE))  # by chunks, as the sides have not met
        yield pool


@pytest.mark.usefixtures("pool")
class TestThroughAPool:
    async def test_what_arrives_is_writable_and_its_own(self) -> None:
        sent = np.zeros(SIZE)
        first, second = await echo(sent), await echo(sent)
        assert is_shared(first) and is_shared(second)
        assert first.flags.writeable and first.ctypes.data % 64 == 0
        first += 1
        sent += 2
        third = await echo(sent)
        assert (first[0], second[0], third[-1]) == (1, 0, 2)

    async def test_what_is_kept_never_changes(self) -> None:
        """More than all segments, so that some go through the socket."""
        kept = [await echo(np.full(SIZE // 8, float(n))) for n in range(MOST_SEGMENTS + 9)]
        assert all((array == n).all() for n, array in enumerate(kept))
        assert sum(map(is_shared, kept)) <= MOST_SEGMENTS

    async def test_many_calls_hold_little_memory(self) -> None:
        for _ in range(300):
            await asyncio.gather(*(echo(np.zeros(SIZE // 8)) for _ in range(4)))
        assert mapped() <= 2 * MOST_SEGMENTS

    async def test_streams_bytes_and_more_than_may_be_shared(self) -> None:
        assert [array[-1] async for array in arrays(80)] == list(range(80))
        data = os.urandom(3 * SIZE)
        assert await echo(data) == data
        assert len(await echo(bytes(MOST_BYTES + 1))) == MOST_BYTES + 1

    async def test_a_cancelled_call_gives_back(self) -> None:
        for _ in range(2 * MOST_SEGMENTS):
            task = asyncio.create_task(echo(np.zeros(SIZE)))
            await asyncio.sleep(0)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        kept = [await echo(np.zeros(SIZE)) for _ in range(2)]
        assert all(map(is_shared, kept))

    async def test_nothing_is_left_by_a_kill(self) -> None:
        kept = await echo(np.full(SIZE, 7.0))
        assert is_shared(kept)
        worker = await pid()
        os.kill(worker, signal.SIGKILL)
        assert (kept == 7).all()
        del kept
        await until(lambda: mapped() <= MOST_SEGMENTS)
        while True:  # a call may still be sent to the worker that is gone
            try:
                assert await pid() != worker
                break
            except wool.exceptions.WorkerLost:
                pass
        assert (await echo(np.ones(SIZE)))[0] == 1


@pytest.mark.parametrize("address", ["ws://127.0.0.1:0", "grpc://127.0.0.1:0"])
async def test_over_a_network_address_of_this_machine(address: str) -> None:
    token = wool.Credentials.token(wool.Credentials.new_token())
    async with wool.Worker(address=address, credentials=token) as worker:
        async with wool.WorkerPool(discovery=[worker.info.address], credentials=token):
            await echo(np.zeros(SIZE))
            assert is_shared(await echo(np.zeros(SIZE)))


async def test_what_was_kept_outlives_the_pool() -> None:
    async with wool.WorkerPool(size=1):
        await echo(np.zeros(SIZE))
        kept = await echo(np.full(SIZE, 7.0))
    assert (kept == 7).all()
    del kept
    await until(lambda: mapped() == 0)


# A peer that means harm -------------------------------------------------------------------------


def met() -> tuple[Sharing, Sharing, list[f.Frame]]:
    """Returns two sides that have met, and what the first says."""
    said: list[f.Frame] = []
    heard: list[f.Frame] = []
    one = Sharing(threading.Lock(), said.append, said.append)
    other = Sharing(threading.Lock(), heard.append, heard.append)
    assert one.room(1) is None
    other.take(said[0])  # type: ignore[arg-type]
    one.take(heard[0])  # type: ignore[arg-type]
    return one, other, said


def of_size(size: int, *, sealed: bool) -> int:
    import fcntl

    made = os.memfd_create("wool", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(made, size)
    if sealed:
        fcntl.fcntl(made, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    return made


@pytest.mark.parametrize(
    ("make", "size"),
    [
        (lambda: of_size(SIZE, sealed=False), SIZE),
        (lambda: of_size(SIZE - 1, sealed=True), SIZE),
        (lambda: os.open("/dev/null", os.O_RDWR), SIZE),
        (lambda: of_size(MOST_BYTES + 1, sealed=True), MOST_BYTES + 1),
    ],
    ids=["unsealed", "short", "no memory", "too large"],
)
async def test_what_could_fail_is_not_mapped(make: Callable[[], int], size: int) -> None:
    one, other, _ = met()
    before, made = mapped(), make()
    assert other._socket is not None
    socket.send_fds(other._socket, [other._theirs + (1).to_bytes(8, "little")], [made])
    os.close(made)
    with pytest.raises(ProtocolError, match="share"):
        one.map(1, size)
    assert mapped() == before
    one.close()
    other.close()


async def test_descriptors_of_strangers_are_closed() -> None:
    said: list[f.Frame] = []
    one = Sharing(threading.Lock(), said.append, said.append)
    one.room(1)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
        stranger.connect(said[0].address)  # type: ignore[attr-defined]
        made = of_size(SIZE, sealed=True)
        socket.send_fds(stranger, [bytes(24)], [made])
        os.close(made)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(ProtocolError, match="not sent"):
        one.map(1, SIZE)
    assert len(os.listdir("/proc/self/fd")) == before
    with pytest.raises(ProtocolError, match="file"):
        one.take(f.Share(b"here", b"/run/socket", bytes(16)))
    one.close()


async def test_names_of_another_machine_are_not_looked_up() -> None:
    said: list[f.Frame] = []
    one = Sharing(threading.Lock(), said.append, said.append)
    *others, offered = met()
    assert isinstance(offered[0], f.Share)
    one.take(replace(offered[0], machine=b"elsewhere"))
    assert isinstance(said[0], f.Share)  # it is told all the same
    assert one.room(SIZE) is None
    for side in (one, *others):
        side.close()


async def test_a_fork_keeps_a_segment_from_being_written_again() -> None:
    one, other, said = met()
    for forks, clean in ((False, True), (True, False)):
        room = other.room(SIZE)
        assert room is not None
        room.write(0, memoryview(b"data"))
        view = one.map(room.hand_over(), SIZE)
        assert bytes(view[:4]) == b"data"
        if forks:
            child = os.fork()
            if not child:
                os._exit(0)
            os.waitpid(child, 0)
        del view
        await until(lambda: isinstance(said[-1], f.Reuse))
        reuse = said.pop()
        assert isinstance(reuse, f.Reuse) and reuse.clean is clean
        other.take(reuse)
        assert len(other._segments) == clean
    one.close()
    other.close()
