"""What is particular to Redis: keys, notifications, and a server that comes and goes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from redis.exceptions import RedisError

from wool.abc import Joined, Left, Snapshot, WorkerInfo
from wool_redis import Options
from wool_redis._discovery import RedisDiscovery

WORKER = WorkerInfo(
    id="a1",
    address="grpc://10.0.0.1:7000",
    tags=frozenset({"gpu", "süß"}),
    host="one",
    pid=7,
    python="3.12",
    version="0.1.0",
    serializers=("cloudpickle", "dill"),
    load=3,
)


def make(server: Any, **options: Any) -> RedisDiscovery:
    return RedisDiscovery(Options(url=server.url, **{"ttl": 30.0, **options}))


@asynccontextmanager
async def watching(discovery: RedisDiscovery) -> AsyncIterator[Any]:
    """A function that returns the next event, however long it takes."""
    async with discovery.watch() as events, asyncio.timeout(30):
        yield events.__anext__


async def test_renewing_is_no_news(server: Any) -> None:
    async with watching(make(server)) as event, make(server, ttl=6.0).announce(WORKER):
        assert await event() == Snapshot([WORKER])
        while "cmdstat_pexpire:calls=" not in server.cli("info", "commandstats"):
            await asyncio.sleep(0.05)
        other = replace(WORKER, id="b2")
        async with make(server).announce(other):
            assert await event() == Joined(other)


async def test_namespaces(server: Any) -> None:
    """Are taken literally."""
    names = ["a", "a*", "a:worker", "[a]"]
    async with make(server, namespace="a").announce(WORKER):
        for name in names:
            async with watching(make(server, namespace=name)) as event:
                assert await event() == Snapshot([WORKER] if name == "a" else [])


async def test_a_server_that_forbids_notifications(stopped: Any) -> None:
    """All keys are read again, now and then."""
    stopped.start("--rename-command", "CONFIG", "")
    async with watching(make(stopped, ttl=0.3)) as event:
        assert await event() == Snapshot([])
        async with make(stopped).announce(WORKER):
            assert await event() == Snapshot([WORKER])
        assert await event() == Snapshot([])


async def test_notifications_that_were_lost(server: Any) -> None:
    """Somebody turns them off, and workers come and go."""
    async with watching(make(server, ttl=0.5)) as event:
        assert await event() == Snapshot([])
        server.cli("config", "set", "notify-keyspace-events", "")
        async with make(server).announce(WORKER):
            assert await event() == Snapshot([WORKER])


async def test_others_need_notifications_as_well(stopped: Any) -> None:
    stopped.start("--notify-keyspace-events", "El")
    async with watching(make(stopped)) as event:
        await event()
    told = stopped.cli("config", "get", "notify-keyspace-events").split()[1]
    assert set(told) >= set("ElKg$xe")


async def test_a_server_that_is_started_again(server: Any) -> None:
    """It has forgotten everything; workers that are still there do not leave for that."""
    async with watching(make(server, ttl=6.0)) as event, make(server, ttl=3.0).announce(WORKER):
        while await event() not in (Snapshot([WORKER]), Joined(WORKER)):
            pass
        server.stop()
        server.start()
        other = replace(WORKER, id="b2")
        async with make(server).announce(other):
            seen = [await event()]
            while seen[-1] not in (Snapshot([WORKER, other]), Joined(other)):
                seen.append(await event())
        assert Left(WORKER) not in seen
        assert Snapshot([]) not in seen
        assert Snapshot([other]) not in seen


async def test_what_others_have_written(server: Any) -> None:
    """Is passed over."""
    server.cli("set", "wool:worker:x", "hello")
    server.cli("set", "wool:worker:y", '{"address": 7}')
    async with watching(make(server)) as event:
        assert await event() == Snapshot([])
        server.cli("set", "wool:worker:z", "[]")
        server.cli("set", "wool:worker:new", '{"id": "new", "address": "x://y", "colour": "red"}')
        assert await event() == Joined(WorkerInfo(id="new", address="x://y"))


async def test_no_server_and_a_password(stopped: Any) -> None:
    for start in (lambda: None, lambda: stopped.start("--requirepass", "sesame")):
        start()
        with pytest.raises(RedisError):
            async with make(stopped).announce(WORKER):
                pass
        with pytest.raises(RedisError):
            async with watching(make(stopped)) as event:
                await event()
    discovery = make(stopped, password="sesame")
    async with discovery.announce(WORKER), watching(discovery) as event:
        assert await event() == Snapshot([WORKER])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"url": "http://redis"}, "must begin with redis://"),
        ({"url": "redis://:sesame@redis"}, "set WOOL_REDIS__PASSWORD instead"),
        ({"ttl": 0.0}, "ttl must be from"),
    ],
)
def test_settings_of_no_use(options: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words) as raised:
        Options(**options)
    assert "sesame" not in str(raised.value)
