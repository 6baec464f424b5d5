"""Pools that find workers: joined, changed, gone and back, shared by several pools."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import wool
from support.discoveries import Told, at
from support.jobs import fib
from support.serving import TOKEN
from support.waiting import until
from wool import abc
from wool._client.peer_pool import PeerPool
from wool._pool.pool import OwnedPool
from wool.exceptions import ConfigurationError, NoWorkersAvailable

pytestmark = pytest.mark.usefixtures("token")


@wool.routine
async def where() -> int:
    return os.getpid()


@wool.routine
async def far(depth: int) -> set[int]:
    """Where a tree of calls runs."""
    if not depth:
        await asyncio.sleep(0.01)
        return {os.getpid()}
    found = await asyncio.gather(far(depth - 1), far(depth - 1), far(depth - 1))
    return {os.getpid()}.union(*found)


async def spread(pids: set[int], depth: int | None = None) -> None:
    """Waits until calls run on all of these, and on no others: one may take long to answer.

    Args:
        depth: of a tree of calls; None: they are not nested.
    """

    async def reached() -> bool:
        if depth is None:
            ran = set(await asyncio.gather(*(where() for _ in range(40))))
        else:
            ran = await far(depth)
        assert ran <= pids
        return ran == pids

    await until(reached, within=30, what=f"calls to run on {pids}")


async def test_a_list_of_addresses(serving: Any) -> None:
    workers = [serving() for _ in range(2)]
    async with wool.WorkerPool(discovery=[address for _, address in workers], quorum=2) as pool:
        pids = {script.process.pid for script, _ in workers}
        assert {worker.pid for worker in pool.workers} == pids
        assert {await where() for _ in range(20)} <= pids
        await spread(pids)
        assert await fib(8) == 21
        await spread(pids, depth=4)


async def test_two_transports_at_once(serving: Any) -> None:
    workers = [serving(f"{scheme}://127.0.0.1:0") for scheme in ("grpc", "ws")] + [serving()]
    async with wool.WorkerPool(discovery=[address for _, address in workers], quorum=3):
        await spread({script.process.pid for script, _ in workers}, depth=4)


async def test_workers_come_and_go(serving: Any) -> None:
    told = Told()
    (first, one), (second, other) = serving(), serving()
    told.events.put_nowait(abc.Snapshot([at(one)]))
    async with wool.WorkerPool(discovery=told) as pool:
        assert await where() == first.process.pid
        told.events.put_nowait(abc.Joined(at(other)))
        await pool.wait(2, timeout=30)
        told.events.put_nowait(abc.Left(at(one)))
        await until(lambda: len(pool.workers) == 1)
        assert {await where() for _ in range(10)} == {second.process.pid}
        told.events.put_nowait(abc.Snapshot([at(one)]))
        await until(lambda: [worker.address for worker in pool.workers] == [one])
        assert {await where() for _ in range(10)} == {first.process.pid}


async def test_a_dead_worker_is_taken_back_when_it_returns(serving: Any) -> None:
    (first, one), (second, other) = serving(), serving()
    async with wool.WorkerPool(discovery=[one, other], quorum=2) as pool:
        first.process.kill()
        first.process.wait()
        await until(lambda: pool._pool.ready == 1)
        assert {await where() for _ in range(10)} == {second.process.pid}
        Path(one.removeprefix("unix://")).unlink()
        again, _ = serving(one)
        await pool.wait(2, timeout=30)
        await spread({again.process.pid, second.process.pid})


async def test_quorum_says_what_was_found(serving: Any) -> None:
    _, good = serving()
    stranger = f"unix://{Path(good.removeprefix('unix://')).parent}/nobody"
    for patience in (1, 20):  # the second for a machine that stalls
        with pytest.raises(NoWorkersAvailable) as caught:
            async with wool.WorkerPool(
                discovery=[good, stranger], quorum=2, quorum_timeout=patience
            ):
                pass
        if "1 of 2 workers" in str(caught.value):
            break
    assert "1 of 2 workers" in str(caught.value) and stranger in str(caught.value)


async def test_own_workers_are_announced_and_used_by_others() -> None:
    told, other = Told(), Told()
    async with wool.WorkerPool(size=2, discovery=told) as hybrid:
        await until(lambda: len(told.announced) == 2)
        assert {info.id for info in told.announced.values()} == {w.id for w in hybrid.workers}
        other.events.put_nowait(abc.Snapshot(list(told.announced.values())))
        async with wool.WorkerPool(discovery=other, quorum=2) as guest:
            with guest.use():
                await spread({worker.pid for worker in hybrid.workers}, depth=3)
        with hybrid.use():
            await spread({worker.pid for worker in hybrid.workers}, depth=3)
    assert not told.announced


class Shy(Told):
    """A discovery that fails to announce at first, and to withdraw at last."""

    def __init__(self) -> None:
        super().__init__()
        self.attempts = 0

    @asynccontextmanager
    async def announce(self, worker: wool.WorkerInfo) -> AsyncGenerator[abc.Announcement]:
        self.attempts += 1
        if self.attempts < 3:
            raise OSError("no server")
        try:
            async with super().announce(worker) as announcement:
                yield announcement
        finally:
            raise OSError("no good-bye")


async def test_a_discovery_that_fails_to_announce(caplog: pytest.LogCaptureFixture) -> None:
    """The pool can use its workers, and others will be told of them."""
    shy = Shy()
    async with wool.WorkerPool(size=1, discovery=shy) as pool:
        assert {await where() for _ in range(5)} == {pool.workers[0].pid}
        await until(lambda: len(shy.announced) == 1)
    assert not shy.announced
    told = [record.getMessage() for record in caplog.records if record.name == "wool.discovery"]
    for text, verb in zip(told, ("announced", "withdrawn"), strict=True):
        assert f"cannot be {verb}, as the discovery Shy fails" in text
    assert [text.rpartition(": ")[2] for text in told] == ["no server", "no good-bye"]


async def test_idle_connections_are_closed_and_opened_again(
    serving: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OwnedPool, "idle_timeout", 0.1)
    script, address = serving()
    async with wool.WorkerPool(discovery=[address]) as pool:
        client = pool._pool.client()
        for _ in range(3):
            assert await where() == script.process.pid
            await until(lambda: all(k.session is None for k in client.links.values()))
            assert pool._pool.ready == 1
            await pool.wait(1, timeout=0)
        stream = far(0)
        assert await stream == {script.process.pid}


async def test_own_and_found_workers_together(serving: Any) -> None:
    script, address = serving()
    async with wool.WorkerPool(size=1, discovery=[address], quorum=2) as pool:
        assert len(pool.workers) == 2
        await spread({worker.pid for worker in pool.workers}, depth=4)
        assert script.process.pid in {worker.pid for worker in pool.workers}


@pytest.mark.parametrize("transport", ["unix", "memory"])
async def test_own_workers_are_not_announced_where_others_could_not_reach_them(
    transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WOOL_TOKEN", TOKEN)
    with pytest.raises(ConfigurationError, match=f"not reach over the transport '{transport}'"):
        async with wool.WorkerPool(size=1, transport=transport, discovery="zeroconf"):
            pass


async def test_a_discovery_that_fails_is_asked_again(serving: Any) -> None:
    told = Told()
    script, address = serving()
    for event in (OSError("no network"), OSError("still none"), abc.Snapshot([at(address)])):
        told.events.put_nowait(event)
    async with wool.WorkerPool(discovery=told):
        told.events.put_nowait(OSError("gone again"))
        assert {await where() for _ in range(5)} == {script.process.pid}


async def test_workers_forget_pools_that_are_gone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one whose routines have called their own worker."""
    monkeypatch.setattr(PeerPool, "idle_timeout", 0.1)
    (folder / "s").mkdir(0o700)
    worker = wool.Worker(address=f"unix://{folder}/s/w")
    async with worker:
        for _ in range(5):
            async with wool.WorkerPool(discovery=[worker.info.address]):
                assert await fib(3) == 2
        server = worker._service._server
        await until(lambda: not server._pools)
