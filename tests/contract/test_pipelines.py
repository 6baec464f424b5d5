"""Calls that have not begun, as arguments, results, and values of streams."""

from __future__ import annotations

import asyncio
import gc
import inspect
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

import pytest

import wool
from contract.pipelines import (
    Shop,
    add_up,
    drain,
    failing_source,
    ignore,
    make_numbers,
    make_streams,
    merging,
    numbers,
    once,
    pass_on,
    resolve,
    resolve_all,
    squares,
    staged,
    stalling_source,
)
from support.parity import Journal, Place
from support.waiting import caught, ended

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("place")]


@pytest.fixture(autouse=True)
def nothing_forgotten() -> Iterator[None]:
    """No call is reported as never awaited; here that would come from a finalizer."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        yield
        gc.collect()
    assert not [str(w.message) for w in seen if "never awaited" in str(w.message)]


# Streams


async def test_a_stream_as_an_argument() -> None:
    assert await add_up(numbers(10)) == 45


async def test_stages() -> None:
    source = numbers(5)
    for _ in range(3):
        source = squares(source)
    assert await drain(source) == [i**8 for i in range(5)]


async def test_methods() -> None:
    shop = Shop(4)
    assert await drain(shop.items(3)) == [0, 3, 6, 9]
    assert await resolve(Shop.name("a")) == "shop-a"
    assert await resolve(shop.price(7)) == 70


async def test_closures() -> None:
    factor = 3

    @wool.routine
    async def scaled(source: AsyncIterator[int]) -> AsyncIterator[int]:
        async for value in source:
            yield value * factor

    @wool.routine
    async def threes() -> AsyncIterator[int]:
        for i in range(3):
            yield i * factor

    for _ in range(2):
        assert await add_up(scaled(threes())) == 27
        assert await drain(scaled(numbers(3))) == [0, 3, 6]


async def test_tags_and_signature_stay() -> None:
    @wool.routine(tags=["nowhere"])
    async def elsewhere(a: int) -> int:
        return a

    call = await pass_on(elsewhere(1))
    assert inspect.iscoroutine(call)
    assert call.__qualname__.endswith("elsewhere")
    call.close()


async def test_a_stream_that_fails() -> None:
    with pytest.raises(LookupError, match="no more"):
        await add_up(squares(failing_source()))


# Coroutines


async def test_a_coroutine_as_an_argument(journal: Journal) -> None:
    assert await resolve(once(journal, 7)) == 7
    assert journal.lines() == ["once"]


async def test_nested_in_containers(journal: Journal) -> None:
    values = {"a": [once(journal, 1), once(journal, 2)], "b": [once(journal, 3)], "c": []}
    assert await resolve_all(values) == {"a": [1, 2], "b": [3], "c": []}
    assert journal.count("once") == 3


async def test_the_same_call_twice_in_one_argument(journal: Journal) -> None:
    @wool.routine
    async def both(pair: Any) -> Any:
        assert pair[0] is pair[1]
        return await pair[0]

    call = once(journal)
    assert await both((call, call)) == 1
    assert journal.count("once") == 1


async def test_an_exception_of_a_coroutine() -> None:
    @wool.routine
    async def fail() -> None:
        raise LookupError("here")

    with pytest.raises(LookupError, match="here"):
        await resolve(fail())


# As results and values of streams


async def test_a_result(journal: Journal) -> None:
    stream = await make_numbers(4)
    assert inspect.isasyncgen(stream)
    assert [value async for value in stream] == [0, 1, 2, 3]
    call = await pass_on(once(journal, 5))
    assert journal.lines() == []
    assert await call == 5


async def test_values_of_a_stream() -> None:
    found = [await drain(stream) async for stream in make_streams(4)]
    assert found == [[], [0], [0, 1], [0, 1, 2]]


async def rest_of(place: Place, stream: Any, local: list[int], went: str) -> None:
    """The original of a stream that travels can be consumed no more, and says where it went."""
    if place.remote:
        with pytest.raises(RuntimeError, match=rf"numbers\(\) was passed to {went}"):
            await anext(stream)
    assert [value async for value in stream] == ([] if place.remote else local)


async def test_sent_in(place: Place) -> None:
    async with aclosing(merging()) as merge:
        assert await anext(merge) == 0
        assert await merge.asend(numbers(4)) == 6
        sent = numbers(3)
        assert await merge.asend(sent) == 9
        await rest_of(place, sent, [], r"merging\(\)")


async def test_thrown_in(journal: Journal) -> None:
    @wool.routine
    async def catching() -> Any:
        try:
            yield 1
        except LookupError as error:
            yield await error.args[0]

    async with aclosing(catching()) as stream:
        assert await anext(stream) == 1
        call = once(journal, "thrown")
        assert await stream.athrow(LookupError(call)) == "thrown"
        with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
            await call


# At most once


async def test_a_second_await(place: Place, journal: Journal) -> None:
    call = once(journal)
    assert await resolve(call) == 1
    with pytest.raises(RuntimeError, match="cannot reuse already awaited coroutine"):
        await call
    error = wool.SerializationError if place.remote else RuntimeError
    with pytest.raises(error, match="awaited already|already awaited"):
        await resolve(call)
    assert journal.count("once") == 1


async def test_a_second_iteration(place: Place, journal: Journal) -> None:
    stream = numbers(3, journal=journal)
    assert await add_up(stream) == 3
    await rest_of(place, stream, [], r"add_up\(\)")
    assert await add_up(stream) == 0
    await stream.aclose()
    assert journal.count("numbers begins") == 1


async def test_closing_one_that_is_elsewhere(journal: Journal) -> None:
    """Nobody has to know that it is: closing it is silent."""
    stream = numbers(3, journal=journal)
    assert await add_up(stream) == 3
    await stream.aclose()
    assert journal.count("numbers begins") == 1


async def test_awaited_while_it_is_elsewhere(place: Place, journal: Journal) -> None:
    @wool.routine
    async def hold(journal: Journal, call: Any) -> Any:
        if isinstance(call, AsyncIterator):
            await anext(call)
        journal.write("held")
        await journal.wait("go on")
        return 1

    stream = numbers(3, journal=journal)
    task = asyncio.create_task(hold(journal, stream))
    await journal.wait("held")
    await rest_of(place, stream, [1, 2], r".*hold\(\)")
    journal.write("go on")
    assert await task == 1
    assert journal.count("numbers begins") == 1


async def test_passed_twice_at_a_time(place: Place, journal: Journal) -> None:
    if not place.remote:
        pytest.skip("nothing is passed")

    @wool.routine
    async def hold(journal: Journal, call: Any) -> None:
        journal.write("held")
        await journal.wait("go on")
        await call

    call = once(journal)
    task = asyncio.create_task(hold(journal, call))
    await journal.wait("held")
    with pytest.raises(wool.SerializationError, match="make one call for each use"):
        await resolve(call)
    journal.write("go on")
    await task


# What does not travel leaves the original as it was


async def test_an_argument_beside_it_that_cannot_be_pickled(place: Place, journal: Journal) -> None:
    if not place.remote:
        pytest.skip("nothing is pickled")
    import threading

    call, stream = once(journal), numbers(3)
    with pytest.raises(wool.SerializationError, match="lock"):
        await ignore(call, stream, threading.Lock())
    assert await resolve(call) == 1
    assert await add_up(stream) == 3


async def test_no_worker_for_it(place: Place, journal: Journal) -> None:
    if not place.remote:
        pytest.skip("it would run here")

    @wool.routine(tags=["nowhere"])
    async def nowhere(call: Any, stream: Any) -> None: ...

    call, stream = once(journal), numbers(3)
    task = asyncio.create_task(nowhere(call, stream))
    await asyncio.sleep(0)
    task.cancel()
    await ended(task)
    assert await resolve(call) == 1
    assert await add_up(stream) == 3


async def test_a_call_that_has_begun(place: Place, journal: Journal) -> None:
    if not place.remote:
        pytest.skip("nothing is pickled")

    @wool.routine
    async def patient(journal: Journal) -> int:
        journal.write("patient")
        await journal.wait("go on")
        return 3

    call = patient(journal)
    task = asyncio.create_task(call)
    await journal.wait("patient")
    with pytest.raises(wool.SerializationError, match="has begun"):
        await ignore(call)
    journal.write("go on")
    assert await task == 3


# Cancelling and closing, from either end


def stages(source: Any, journal: Journal) -> Any:
    for name in ("a", "b", "c"):
        source = staged(name, source, journal)
    return source


async def test_the_consumer_is_cancelled(journal: Journal) -> None:
    task = asyncio.create_task(drain(stages(stalling_source(journal), journal)))
    await journal.wait("stalled")
    task.cancel("enough")
    error = await caught(task)
    assert type(error) is asyncio.CancelledError
    assert sorted(journal.lines()[-4:]) == ["a ends", "b ends", "c ends", "source ends"]


async def test_the_consumer_is_closed(journal: Journal) -> None:
    stream = stages(numbers(5, journal=journal), journal)
    assert await anext(stream) == 0
    await stream.aclose()
    ends = ["numbers ends", "a ends", "b ends", "c ends"]
    assert journal.lines()[-4:] == ends  # each stage closes its source first


async def test_the_consumer_gives_up(journal: Journal) -> None:
    @wool.routine
    async def choosy(source: Any) -> int:
        async for value in source:
            if value == 2:
                raise LookupError("had enough")
        return 0

    with pytest.raises(LookupError, match="had enough"):
        await choosy(stages(numbers(5, journal=journal), journal))
    gc.collect()
    for name in ("numbers", "a", "b", "c"):
        await journal.wait(f"{name} ends")


async def test_the_source_is_cancelled(journal: Journal) -> None:
    @wool.routine
    async def suicidal() -> AsyncIterator[int]:
        yield 1
        task = asyncio.current_task()
        assert task is not None
        raise asyncio.CancelledError("from the source")

    error = await caught(drain(stages(suicidal(), journal)))
    assert type(error) is asyncio.CancelledError
    assert sorted(journal.lines()[-3:]) == ["a ends", "b ends", "c ends"]
