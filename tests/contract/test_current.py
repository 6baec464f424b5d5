"""`current_pool` and `current_call`: what surrounds the code that asks."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import pytest

import wool
from contract.routines import echo
from support.parity import Place

pytestmark = pytest.mark.asyncio(loop_scope="module")


@wool.routine
async def surroundings() -> tuple[bool, bool]:
    return wool.current_pool() is not None, wool.current_call() is not None


@wool.routine
async def call_id() -> Any:
    call = wool.current_call()
    return None if call is None else call.id


async def test_the_current_pool(place: Place) -> None:
    assert wool.current_pool() is place.pool
    assert await asyncio.create_task(asyncio.to_thread(wool.current_pool)) is place.pool


async def test_a_pool_used_explicitly(place: Place) -> None:
    async with wool.WorkerPool(size=1, transport="memory") as inner:
        assert wool.current_pool() is inner
        with inner.use():
            assert wool.current_pool() is inner
        if place.pool is not None:
            with place.pool.use():
                assert wool.current_pool() is place.pool
                assert await surroundings() == (True, True)
        assert wool.current_pool() is inner


async def test_no_call_outside_of_a_routine(place: Place) -> None:
    assert wool.current_call() is None
    await surroundings()
    assert wool.current_call() is None


async def test_inside_a_routine(place: Place) -> None:
    pool, call = await surroundings()
    assert pool is place.remote
    assert call or not place.remote


async def test_every_call_has_an_id(place: Place) -> None:
    @wool.routine
    async def own_and_nested() -> list[Any]:
        call = wool.current_call()
        first = None if call is None else call.id
        return [first, await call_id(), first if call is None else wool.current_call().id]

    if not place.remote:
        return
    ids = await asyncio.gather(*(call_id() for _ in range(20)))
    assert None not in ids and len(set(ids)) == 20
    first, nested, still = await own_and_nested()
    assert first == still != nested
    assert None not in (first, nested)


async def test_inside_a_generator(place: Place) -> None:
    @wool.routine
    async def ids() -> Any:
        for _ in range(3):
            yield this_call()

    def this_call() -> Any:
        call = wool.current_call()
        return None if call is None else call.id

    seen = [value async for value in ids()]
    if place.remote:
        assert None not in seen and len(set(seen)) == 1
    assert wool.current_call() is None


async def test_a_pool_within(place: Place) -> None:
    """The innermost pool is the current one, and no longer when it is left."""
    async with wool.WorkerPool(size=1, transport="memory") as pool:
        assert wool.current_pool() is pool
        assert await asyncio.create_task(asyncio.to_thread(wool.current_pool)) is pool
        assert await echo(1) == 1
    assert wool.current_pool() is place.pool
    assert (await surroundings())[0] is place.remote


async def test_what_pools_say_of_themselves() -> None:
    class Own(wool.WorkerPool):
        pass

    @wool.routine
    async def as_seen_by_routines() -> str:
        return repr(wool.current_pool())

    pool = Own(size=2, quorum=2, transport="memory")
    assert repr(pool) == "<Own: not open>"
    async with pool:
        assert repr(pool) == "<Own: 2 workers>"
        assert re.fullmatch(r"<PoolView: \d workers?>", await as_seen_by_routines())
    assert repr(pool) == "<Own: not open>"
    assert repr(wool.WorkerPool.__new__(wool.WorkerPool)) == "<WorkerPool: not open>"


async def test_pools_are_not_sent() -> None:
    @wool.routine
    async def take(pool: Any) -> None:
        raise AssertionError

    @wool.routine
    async def give() -> Any:
        return wool.current_pool()

    async with wool.WorkerPool(size=1, transport="memory") as pool:
        for call in (take(pool), take([pool.wait]), give()):
            with pytest.raises(wool.SerializationError, match=r"wool\.current_pool\(\)"):
                await call
