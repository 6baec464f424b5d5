"""Objects that live on a worker, and are used from anywhere."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import pytest
import pytest_asyncio

import wool
from support.waiting import until

pytestmark = pytest.mark.asyncio


class Counter:
    limit = 3

    def __init__(self, start: int) -> None:
        if start < 0:
            raise ValueError("less than nothing")
        self.value = start
        self.ended = 0

    async def add(self, n: int = 1) -> int:
        if self.value + n > self.limit:
            raise OverflowError(self.value)
        self.value += n
        return self.value

    async def whence(self) -> tuple[int, str | None]:
        call = wool.current_call()
        return os.getpid(), None if call is None else call.parent

    async def endings(self) -> int:
        return self.ended

    async def stay(self) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.value = -1

    async def count(self, step: int) -> AsyncGenerator[int, int | None]:
        at = self.value
        try:
            while True:
                at += (yield at) or step
        except KeyError:
            yield -at
        finally:
            self.ended += 1

    async def __call__(self, text: str) -> str:
        return text * self.value

    def peek(self) -> int:
        return self.value


@wool.routine
async def use(counter: Counter) -> tuple[str, int, tuple[int, str | None]]:
    """Uses it from a worker: says who called it, as it sees that itself."""
    call = wool.current_call()
    assert call is not None
    return call.id, await counter.add(), await counter.whence()


@wool.routine
async def drive(counter: Counter) -> list[int]:
    """Drives its generator from a worker."""
    stream = counter.count(step=1)
    return [
        await anext(stream),
        await stream.asend(5),
        await anext(stream),
        await stream.athrow(KeyError()),
        await anext(stream, 0),
    ]


@wool.routine
async def make() -> int:
    async with wool.remote(Counter, 1) as counter:
        return await counter.add()


@pytest_asyncio.fixture(params=["unix", "memory", "ws"])
async def pool(request: pytest.FixtureRequest) -> AsyncIterator[wool.WorkerPool]:
    async with wool.WorkerPool(size=2, transport=request.param) as pool:
        await until(lambda: len(pool.workers) == 2)
        yield pool


async def test_one_object_whoever_uses_it(pool: wool.WorkerPool) -> None:
    async with wool.remote(Counter, start=0) as counter:
        assert await counter.add() == 1
        home, _ = await counter.whence()
        answers = [answer async for _, answer in pool.broadcast(use, counter)]
        assert sorted(answer[1] for answer in answers if isinstance(answer, tuple)) == [2, 3]
        for answer in answers:
            # The routine itself has called the method: nobody has passed its call on.
            assert isinstance(answer, tuple)
            assert answer[2] == (home, answer[0])
        with pytest.raises(OverflowError, match="3"):
            await counter.add()


async def test_in_a_function_that_is_called_for_each_worker(pool: wool.WorkerPool) -> None:
    async with wool.remote(Counter, 0) as counter:
        home, _ = await counter.whence()

        async def ask() -> int:
            return (await counter.whence())[0]

        assert [answer async for _, answer in pool.broadcast(ask)] == [home, home]


async def test_made_inside_a_routine(pool: wool.WorkerPool) -> None:
    assert await make() == 2


async def test_a_method_is_cancelled(pool: wool.WorkerPool) -> None:
    async with wool.remote(Counter, 0) as counter:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await counter.stay()
        assert await counter.add() == 0


async def test_its_generator(pool: wool.WorkerPool) -> None:
    async with wool.remote(Counter, 1) as counter:
        answers = [answer async for _, answer in pool.broadcast(drive, counter)]
        assert answers == [[1, 6, 7, -7, 0]] * 2
        async with aclosing(counter.count(2)) as stream:
            assert [await anext(stream), await anext(stream)] == [1, 3]
        assert await counter.endings() == 3


async def test_it_is_called_itself(pool: wool.WorkerPool) -> None:
    async with wool.remote(Counter, 2) as counter:
        assert await counter("ha") == "haha"


async def test_after_its_scope(pool: wool.WorkerPool) -> None:
    async with wool.remote(Counter, 0) as counter:
        pass
    with pytest.raises(ReferenceError, match=r"add\(\) of the Counter is called after"):
        await counter.add()


async def test_what_goes_wrong_as_it_is_made(pool: wool.WorkerPool) -> None:
    with pytest.raises(ValueError, match="less than nothing"):
        async with wool.remote(Counter, -1):
            pytest.fail("there is no such object")
    with pytest.raises(TypeError, match="the int has no async methods"):
        async with wool.remote(int, 3):
            pytest.fail("an int cannot be used from afar")


async def test_what_a_handle_has(pool: wool.WorkerPool) -> None:
    async with wool.remote(Counter, 0) as counter:
        assert repr(counter).startswith("<handle of the Counter on worker ")
        with pytest.raises(AttributeError, match="which are .*add, count, "):
            counter.peek()
        with pytest.raises(TypeError, match="missing 1 required positional argument"):
            await wool.routine(_without)(counter)


async def _without(counter: Any) -> None:
    async with wool.remote(Counter) as _:  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
        pass


async def test_its_worker_dies() -> None:
    async with wool.WorkerPool(size=2) as pool:
        await until(lambda: len(pool.workers) == 2)
        async with wool.remote(Counter, 0) as counter:
            home, _ = await counter.whence()
            staying = asyncio.create_task(counter.stay())
            await until(lambda: _stays(pool))
            os.kill(home, signal.SIGKILL)
            with pytest.raises(wool.WorkerLost):
                await staying
            with pytest.raises(wool.WorkerLost, match="was gone before"):
                await counter.add()


async def _stays(pool: wool.WorkerPool) -> bool:
    return [call.state for call in await pool.calls()].count("running") == 1


async def test_without_a_pool() -> None:
    async with wool.remote(Counter, 0) as counter:
        assert await counter.add() == 1
        assert counter.peek() == 1
