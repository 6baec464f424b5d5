"""Workers as keys that expire, and keyspace notifications for those who watch them."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from wool import abc
from wool.abc import Event, WorkerInfo
from wool_redis import Options

NOTIFICATIONS = "Kg$xe"  # of keys that are set, deleted, expired and evicted
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(WorkerInfo).decode  # skips fields that a later Wool may have


class RedisDiscovery(abc.Discovery):
    """Finds workers that are announced in the same namespace of the same server."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self._prefix = f"{options.namespace}:worker:"
        self._pattern = re.sub(r"([*?\[\]\\])", r"\\\1", self._prefix) + "*"

    def _client(self) -> Redis:
        return Redis.from_url(self._options.url, password=self._options.password)

    @asynccontextmanager
    async def announce(self, worker: WorkerInfo) -> AsyncGenerator[abc.Announcement]:
        """Keeps a key; the server has to be there at first, and may come and go later."""
        async with self._client() as redis:
            key = Key(redis, self._prefix + worker.id, worker, self._options.ttl)
            withdrawn = asyncio.get_running_loop().create_future()
            keeping = asyncio.create_task(key.keep(withdrawn))
            try:
                await whole(key.write())
                yield key
            finally:
                withdrawn.set_result(None)
                await asyncio.wait([keeping])

    @asynccontextmanager
    async def watch(self) -> AsyncGenerator[AsyncIterator[Event]]:
        """Watches all keys; the server has to be there at first as well."""
        async with self._client() as redis, abc.watching(self._events(redis)) as events:
            yield events

    async def _events(self, redis: Redis) -> AsyncGenerator[Event]:
        known: dict[str, WorkerInfo] = {}
        is_first, is_stale, task = True, True, asyncio.current_task()
        channel = f"__keyspace@{redis.connection_pool.connection_kwargs.get('db', 0)}__:"
        async with redis.pubsub() as notes:
            await notes.psubscribe(channel + self._pattern)
            while not (task and task.cancelling()):  # it may have been swallowed, see `whole`
                event: Event | None = None
                try:
                    note = await notes.get_message(timeout=self._options.ttl)
                    if note is not None and note["type"] == "psubscribe":
                        is_stale = True  # for it may be again, after the connection was lost
                        await self._subscribed(redis, again=not is_first)
                    if is_stale or note is None:  # notifications may have been lost
                        found = await self._read(redis)
                        if found != known or is_first:
                            event = abc.Snapshot(list(found.values()))
                        known, is_first, is_stale = found, False, False
                    elif note["data"] != b"expire":  # which only says when
                        key = note["channel"].decode().removeprefix(channel)
                        event = _news(known, key, _parse(await redis.get(key)))
                except (RedisError, OSError):
                    if is_first:
                        raise
                    is_stale = True
                    await asyncio.sleep(1)  # the workers that are known can still be called
                if event is not None:
                    yield event

    async def _subscribed(self, redis: Redis, *, again: bool) -> None:
        name = "notify-keyspace-events"
        with contextlib.suppress(ResponseError):  # forbidden; then reading all has to do
            wanted = {*(await redis.config_get(name))[name], *NOTIFICATIONS}
            await redis.config_set(name, "".join(wanted))
        if again:  # the server may have lost all keys: let workers write theirs
            await asyncio.sleep(self._options.ttl / 2)

    async def _read(self, redis: Redis) -> dict[str, WorkerInfo]:
        keys = sorted([key async for key in redis.scan_iter(self._pattern, count=1000)])
        found = zip(keys, await redis.mget(keys) if keys else (), strict=True)
        workers = {key.decode(): _parse(text) for key, text in found}
        return {key: worker for key, worker in workers.items() if worker is not None}


class Key(abc.Announcement):
    """The key of a worker."""

    def __init__(self, redis: Redis, name: str, worker: WorkerInfo, ttl: float) -> None:
        self._name = name
        self._redis = redis
        self._worker = worker
        self._ttl = ttl
        self._writing = asyncio.Lock()

    async def update(self, worker: WorkerInfo) -> None:
        """Replaces what is announced, or will be once the server is back."""
        self._worker = worker
        with contextlib.suppress(RedisError):
            await whole(self.write())

    async def write(self) -> None:
        async with self._writing:  # the last one to write has the latest
            await self._redis.set(self._name, _encode(self._worker), px=round(self._ttl * 1000))

    async def keep(self, withdrawn: asyncio.Future[None]) -> None:
        """Renews the key, or writes it again if it is gone."""
        while not (await asyncio.wait([withdrawn], timeout=self._ttl / 3))[0]:
            with contextlib.suppress(RedisError):
                if not await self._redis.pexpire(self._name, round(self._ttl * 1000)):
                    await self.write()
        with contextlib.suppress(RedisError):  # it will expire
            await self._redis.delete(self._name)


async def whole(work: Coroutine[Any, Any, None]) -> None:
    """Awaits all of it, even if cancelled: redis-py swallows a cancel while it connects."""
    task = asyncio.create_task(work)
    try:
        await asyncio.shield(task)
    finally:
        await asyncio.wait([task])


def _parse(text: Any) -> WorkerInfo | None:
    try:
        return None if text is None else _decode(text)
    except msgspec.MsgspecError:  # not written by us
        return None


def _news(known: dict[str, WorkerInfo], key: str, worker: WorkerInfo | None) -> Event | None:
    """Notes what a key holds now, and returns what is new about it."""
    before = known.pop(key, None)
    if worker is None:
        return None if before is None else abc.Left(before)
    known[key] = worker
    if before is None:
        return abc.Joined(worker)
    return None if before == worker else abc.Changed(worker)
