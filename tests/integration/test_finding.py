"""Workers that a pool finds: whom it connects to, when, and whom it cannot use."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

import wool
from support.discoveries import Told, at
from support.waiting import until
from wool import abc
from wool._client import link
from wool._client.identity import PYTHON
from wool._client.peer_pool import PeerPool
from wool._pool.pool import OwnedPool
from wool._protocol.frames import CallOptions, Peers
from wool.exceptions import NoWorkersAvailable

pytestmark = pytest.mark.usefixtures("token")


@pytest.fixture
async def workers(folder: Path) -> AsyncIterator[Any]:
    """Starts workers within this process; gives what is known of each."""
    async with AsyncExitStack() as stack:

        async def start(count: int, *tags: str, **options: Any) -> list[wool.WorkerInfo]:
            started = []
            for _ in range(count):
                place = folder / os.urandom(4).hex()
                place.mkdir(0o700)
                given = {"address": f"unix://{place}/w", **options}
                worker = await stack.enter_async_context(wool.Worker(tags=tags, **given))
                started.append(worker.info)
            return started

        yield start


@wool.routine
async def here() -> str:
    call = wool.current_call()
    assert call is not None
    return call.worker.id


@wool.routine(tags=["gpu"])
async def on_gpu() -> str:
    call = wool.current_call()
    assert call is not None
    return call.worker.id


@wool.routine
async def wait_here(seconds: float) -> str:
    await asyncio.sleep(seconds)
    call = wool.current_call()
    assert call is not None
    return call.worker.id


@wool.routine
async def meet(book: Path, count: int) -> str:
    """Signs the book, and ends when so many have: they all run at once, however slowly."""
    with book.open("a") as file:
        file.write("x")
    await until(lambda: book.stat().st_size >= count, within=60, what=f"{count} to meet")
    call = wool.current_call()
    assert call is not None
    return call.worker.id


@wool.routine(tags=["b"])
async def at_b() -> tuple[str, CallOptions]:
    pool = wool.current_pool()
    assert pool is not None
    return await at_c(), pool._pool.options


@wool.routine(tags=["c"])
async def at_c() -> str:
    return await here()


@wool.routine(tags=["a"])
async def at_a() -> tuple[str, CallOptions]:
    return await at_b()


def found(*infos: wool.WorkerInfo) -> Told:
    return Told(abc.Snapshot(infos))


def connected(pool: wool.WorkerPool) -> int:
    return sum(link.session is not None for link in pool._pool.client().links.values())


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has calls wait for the connection to their worker, however slow the machine is."""
    monkeypatch.setattr("wool._client.link._PATIENCE", 60)
    monkeypatch.setattr("wool._client.client.PATIENCE", 60)  # nor are they taken back for another


# Lazily


@pytest.mark.usefixtures("patient")
async def test_connections_are_opened_when_calls_need_them(workers: Any, folder: Path) -> None:
    infos = await workers(6)
    async with wool.WorkerPool(discovery=found(*infos)) as pool:
        assert len(pool.workers) == 6
        assert connected(pool) == 1
        assert len({await here() for _ in range(20)}) == 1
        assert connected(pool) == 1
        ran = await asyncio.gather(*(meet(folder / "few", 3) for _ in range(3)))
        assert len(set(ran)) == connected(pool) == 3
        await asyncio.gather(*(meet(folder / "many", 12) for _ in range(12)))
        assert connected(pool) == 6


@pytest.mark.usefixtures("patient")
async def test_as_many_are_connected_as_are_waited_for(workers: Any) -> None:
    infos = await workers(5)
    async with wool.WorkerPool(discovery=[info.address for info in infos], quorum=2) as pool:
        assert connected(pool) == 2
        await pool.wait(4, timeout=30)
        assert connected(pool) == 4


async def test_a_call_does_not_wait_for_a_worker_that_does_not_answer(
    workers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody accepts at that address, so it would take a minute to know."""
    monkeypatch.setattr(link, "dial", partial(link.dial, timeout=60))
    (info,) = await workers(1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent_one = f"ws://127.0.0.1:{silent.getsockname()[1]}"
        async with wool.WorkerPool(discovery=found(info, at(silent_one))) as pool:
            async with asyncio.timeout(20):
                ran = await asyncio.gather(*(wait_here(0.1) for _ in range(4)))
            assert set(ran) == {info.id}
            assert pool._pool.client().links[silent_one].session is None


async def test_nested_calls_far_from_the_caller(
    workers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The caller is connected to the first worker only, and what it told goes further than that."""
    monkeypatch.setenv("WOOL_CANCEL_GRACE", "0.25")
    infos = [info for tag in "abc" for info in await workers(1, tag)]
    async with wool.WorkerPool(discovery=found(*infos), quorum_timeout=20) as pool:
        await pool.wait(1)
        where, options = await at_a()
        assert where in {info.id for info in infos}
        assert (options.quorum_timeout, options.cancel_grace) == (20, 0.25)


async def test_two_addresses_of_one_worker(workers: Any, folder: Path) -> None:
    info, other = await workers(2)
    again = folder / "again"
    again.mkdir(0o700)
    (again / "w").symlink_to(info.address.removeprefix("unix://"))
    twin = f"unix://{again}/w"
    async with wool.WorkerPool(discovery=[info.address, twin, other.address], quorum=2) as pool:
        await asyncio.gather(*(wait_here(0.1) for _ in range(6)))
        await until(
            lambda: any(
                link.failure is not None and "again" in str(link.failure)
                for link in pool._pool.client().links.values()
            )
        )
        assert pool._pool.ready == 2
        assert await asyncio.gather(*(here() for _ in range(20)))


# Leaving


async def test_a_worker_that_leaves_finishes_what_it_has(
    workers: Any, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And then its connection is closed, though nobody said that it is gone."""
    monkeypatch.setattr(OwnedPool, "idle_timeout", 0.2)
    (info,) = await workers(1)
    told = found(info)
    async with wool.WorkerPool(discovery=told) as pool:
        book = folder / "book"
        running = asyncio.create_task(meet(book, 2))
        await until(book.exists)
        told.events.put_nowait(abc.Left(info))
        await until(lambda: not pool.workers)
        client = pool._pool.client()
        assert len(client._retired) == 1
        book.write_text("xx")
        assert await running == info.id
        await until(lambda: not client._retired)


async def test_a_worker_changes_its_tags(workers: Any) -> None:
    info, other = await workers(2, "gpu")
    told = found(replace(info, tags=frozenset()), other)
    async with wool.WorkerPool(discovery=told, quorum=2) as pool:
        assert {await on_gpu() for _ in range(5)} == {other.id}
        told.events.put_nowait(abc.Changed(info))
        told.events.put_nowait(abc.Changed(replace(other, tags=frozenset({"cpu"}))))
        await until(lambda: {w.id for w in pool.workers if "gpu" in w.tags} == {info.id})
        assert {await on_gpu() for _ in range(5)} == {info.id}


def test_workers_heed_their_pool_and_newer_editions_of_its_news() -> None:
    pool = PeerPool("a pool", CallOptions())

    def heeds(edition: int, *, relayed: bool) -> bool:
        return pool.learn(Peers([], relayed=relayed, edition=edition))

    assert heeds(3, relayed=True)
    assert not heeds(2, relayed=True)
    assert not heeds(3, relayed=True), "who passes it on may have left some out"
    assert heeds(3, relayed=False)
    assert heeds(4, relayed=True)
    assert heeds(5, relayed=False)
    assert not heeds(4, relayed=False), "another thread of the pool's process sent it later"


# Few of many


def fakes(count: int, *tags: str) -> list[wool.WorkerInfo]:
    """Workers that are announced, and not there."""
    return [
        wool.WorkerInfo(
            id=os.urandom(8).hex(),
            address=f"unix:///nowhere/{os.urandom(4).hex()}",
            tags=frozenset(tags),
        )
        for _ in range(count)
    ]


async def test_workers_with_rare_tags_are_found_among_many(workers: Any) -> None:
    (info,) = await workers(1, "gpu")
    told = found(info, *fakes(2000))
    async with wool.WorkerPool(size=1, discovery=told, quorum_timeout=20) as pool:
        assert await on_gpu() == info.id
        await until(lambda: len(pool.workers) == 2002)  # its own one, too


# Not usable


async def refused(
    discovery: Any,
    *words: str,
    kind: type[wool.WoolError] = NoWorkersAvailable,
    patience: float = 0.5,
    **options: Any,
) -> str:
    """Returns what is said of workers that a pool cannot use; it comes to all of the words.

    It may not, at first, if the machine stalls.
    """
    for seconds in (patience, 20):
        with pytest.raises(wool.WoolError) as caught:
            async with wool.WorkerPool(discovery=discovery, quorum_timeout=seconds, **options):
                pass
        text = str(caught.value)
        if type(caught.value) is kind and all(word in text for word in words):
            break
    assert type(caught.value) is kind
    assert [word for word in words if word not in text] == [], text
    return text


async def test_nothing_is_found() -> None:
    assert await refused(found()) == (
        "0 of 1 workers were ready after 0.5 s; the discovery Told has found none"
    )
    await refused(Told(), "the discovery Told has said nothing")


async def test_the_discovery_fails(caplog: pytest.LogCaptureFixture) -> None:
    told = Told()
    for _ in range(10):
        told.events.put_nowait(OSError("no network"))
    await refused(told, "the discovery Told fails: OSError: no network")
    assert [record.getMessage() for record in caplog.records] == [
        "the discovery Told fails, and is asked again: OSError: no network"
    ]


async def test_why_those_that_were_found_are_of_no_use(workers: Any) -> None:
    (info,) = await workers(1)
    message = await refused(
        found(
            *fakes(2),
            replace(info, id="other", python="3.8"),
            replace(info, id="far", host="elsewhere"),
            replace(info, id="dill", serializers=("dill",)),
        ),
        "the discovery Told has found 5",
        ": No such file or directory",
        f"runs Python 3.8, this side {PYTHON}",
        "listens on a Unix socket of another machine (elsewhere)",
        "has no serializer 'cloudpickle', only dill",
    )
    assert message.count("No such file or directory") == 1, "two have the same trouble"


@pytest.mark.parametrize("known", [True, False], ids=["announced", "by address"])
async def test_workers_without_the_tags_of_the_pool(known: bool, workers: Any) -> None:
    plain, tagged = *(await workers(1, "cpu")), *(await workers(1, "cpu", "gpu"))
    infos = [plain, tagged] if known else [at(plain.address), at(tagged.address)]
    words = ["1 of 2 workers", plain.address, "the tags", "gpu"]
    message = await refused(found(*infos), *words, tags=["gpu"], quorum=2)
    assert message.startswith("1 of 2 workers")
    assert tagged.address not in message
    async with wool.WorkerPool(discovery=found(*infos), tags=["gpu"]):
        ran = await asyncio.gather(*(wait_here(0.05) for _ in range(8)))
        assert set(ran) == {tagged.id}


def hurry(pool: wool.WorkerPool) -> None:
    """Has calls wait half a second for a worker that fits; those that do had more time."""
    pool._pool.options = msgspec.structs.replace(pool._pool.options, quorum_timeout=0.5)


async def test_a_call_for_tags_that_nobody_offers(workers: Any) -> None:
    infos = await workers(2, "cpu")
    async with wool.WorkerPool(discovery=found(*infos)) as pool:
        hurry(pool)
        with pytest.raises(NoWorkersAvailable) as caught:
            await on_gpu()
    text = str(caught.value)
    assert "with the tags ['gpu']" in text and text.endswith(": does not offer the tags gpu")
    assert all(info.address in text for info in infos)  # whether there is a connection or not


async def test_news_of_others_while_a_call_waits(workers: Any) -> None:
    """They do not give it more time."""
    (info,) = await workers(1, "cpu")
    told = found(info)

    async def news() -> None:
        while True:
            told.events.put_nowait(abc.Snapshot([info, *fakes(1)]))
            await asyncio.sleep(0.1)

    async with wool.WorkerPool(discovery=told) as pool:
        hurry(pool)
        telling = asyncio.create_task(news())
        async with asyncio.timeout(30):
            with pytest.raises(NoWorkersAvailable, match="within 0.5 s"):
                await on_gpu()
        telling.cancel()


async def test_somebody_who_takes_connections_and_says_nothing(token: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"ws://127.0.0.1:{silent.getsockname()[1]}"
        message = await refused([address], f"{address}: has not answered yet")
        assert message.endswith("has not answered yet")


async def test_other_credentials(workers: Any) -> None:
    token = wool.Credentials.token(wool.Credentials.new_token())
    (info,) = await workers(1, address="ws://127.0.0.1:0", credentials=token)
    await refused(found(info), info.address, "secret", kind=wool.AuthenticationError)


async def test_addresses_of_no_use() -> None:
    await refused(
        ["pigeon://x", "ws://127.0.0.1:1", "unix:///nowhere/x"],
        "There is no transport 'pigeon'",
        "ws://127.0.0.1:1",
        "unix:///nowhere/x",
    )
