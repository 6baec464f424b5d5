"""Routines that call routines: deep, wide, mutual, and what tasks they leave behind."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import wool
from contract import routines
from contract.routines import (
    Account,
    add,
    apply,
    count,
    descend,
    doubled,
    echo,
    echoing,
    fail_below,
    fib,
    is_even,
    leave_behind,
    leave_callback,
    process_id,
    serving,
    stream_with_task,
    total,
    tree,
)
from contract.types import KeywordOnly
from support.parity import Journal, Place
from support.waiting import caught

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("place")]


async def test_fibonacci() -> None:
    assert await fib(10) == 55


async def test_deep() -> None:
    assert await descend(50) == 50


async def test_wide() -> None:
    assert await asyncio.gather(*(add(n, 1) for n in range(200))) == list(range(1, 201))


async def test_wide_inside() -> None:
    @wool.routine
    async def spread(n: int) -> int:
        return sum(await asyncio.gather(*(add(i, 0) for i in range(n))))

    assert await spread(200) == 19900
    assert await asyncio.gather(*(spread(20) for _ in range(20))) == [190] * 20


async def test_mutual_recursion() -> None:
    assert await is_even(10) is True
    assert await is_even(7) is False


async def test_generators_inside_routines() -> None:
    assert await total(100) == 4950
    assert await asyncio.gather(*(total(n) for n in range(20))) == [
        n * (n - 1) // 2 for n in range(20)
    ]


async def test_routines_inside_generators() -> None:
    assert [i async for i in doubled(5)] == [0, 2, 4, 6, 8]
    assert len([leaf async for leaf in tree(4)]) == 16


async def test_a_generator_driven_inside_a_routine() -> None:
    @wool.routine
    async def converse(*words: str) -> list[Any]:
        stream = echoing()
        answers = [await anext(stream)]
        for word in words:
            answers.append(await stream.asend(word))
        await stream.aclose()
        return answers

    assert await converse("a", "b") == ["ready", "a", "b"]


async def test_methods_inside_methods() -> None:
    class Office:
        def __init__(self, *accounts: Account) -> None:
            self.accounts = accounts

        @wool.routine
        async def deposit_all(self, amount: int) -> list[int]:
            return await asyncio.gather(*(a.deposit(amount) for a in self.accounts))

    assert await Office(Account(1), Account(2)).deposit_all(10) == [11, 12]


async def test_a_task_group_inside() -> None:
    @wool.routine
    async def parent() -> list[int]:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(add(i, i)) for i in range(10)]
        return [task.result() for task in tasks]

    assert await parent() == list(range(0, 20, 2))


async def test_a_routine_as_an_argument_is_called_inside() -> None:
    @wool.routine
    async def twice(function: Any, value: int) -> int:
        return await function(await function(value))

    @wool.routine
    async def square(x: int) -> int:
        return x * x

    assert await twice(square, 3) == 81
    assert await twice(add, 1) == 5
    assert await apply(twice, square, 2) == 16


async def test_results_of_one_are_arguments_of_another() -> None:
    value: Any = 0
    for n in range(50):
        value = await echo([value, n])
    for n in reversed(range(50)):
        assert value[1] == n
        value = value[0]
    assert value == 0


async def test_exceptions_through_levels() -> None:
    error = await caught(fail_below(10, KeywordOnly(code=5)))
    assert isinstance(error, KeywordOnly) and error.code == 5
    assert error.__notes__ == [f"seen at {n}" for n in range(1, 11)]


async def test_an_exception_among_many() -> None:
    @wool.routine
    async def picky(n: int) -> int:
        if n == 13:
            raise KeywordOnly(code=n)
        return await add(n, 1)

    @wool.routine
    async def parent() -> list[int]:
        return await asyncio.gather(*(picky(n) for n in range(20)))

    with pytest.raises(KeywordOnly) as raised:
        await parent()
    assert raised.value.code == 13
    await serving()


async def test_map_inside() -> None:
    @wool.routine
    async def summed(n: int) -> int:
        return sum([i async for i in wool.map(add, range(n), [1] * n)])

    assert await summed(20) == 210


async def test_where_routines_run(place: Place) -> None:
    import os

    @wool.routine
    async def family() -> set[int]:
        return {os.getpid(), *await asyncio.gather(*(process_id() for _ in range(20)))}

    own = {await process_id() for _ in range(20)}
    assert (os.getpid() in own) is not place.elsewhere
    assert (os.getpid() in await family()) is not place.elsewhere


async def test_sync_work_in_threads_inside() -> None:
    import time

    @wool.routine
    async def threaded() -> list[int]:
        def work(n: int) -> int:
            time.sleep(0.001)
            return n * n

        return await asyncio.gather(*(asyncio.to_thread(work, n) for n in range(5)))

    assert await threaded() == [0, 1, 4, 9, 16]


async def test_asyncio_primitives_inside() -> None:
    @wool.routine
    async def primitives() -> Any:
        queue: asyncio.Queue[int] = asyncio.Queue(1)
        lock, event, semaphore = asyncio.Lock(), asyncio.Event(), asyncio.Semaphore(2)
        out: list[int] = []

        async def produce() -> None:
            for i in range(5):
                await queue.put(await add(i, 1))
            event.set()

        async def consume() -> None:
            while len(out) < 5:
                item = await queue.get()
                async with lock, semaphore:
                    out.append(item)

        await asyncio.gather(produce(), consume())
        await event.wait()
        return out

    assert await primitives() == [1, 2, 3, 4, 5]


async def test_a_subprocess_inside() -> None:
    import sys

    @wool.routine
    async def run() -> tuple[bytes, int | None]:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-S", "-c", "print('child')", stdout=asyncio.subprocess.PIPE
        )
        out, _ = await process.communicate()
        return out.strip(), process.returncode

    assert await run() == (b"child", 0)


async def test_the_loop_of_a_routine_is_its_own() -> None:
    """A loop of its own in a thread of its own, and a pool of processes."""

    @wool.routine
    async def independent() -> int:
        async def main() -> int:
            return 42

        return await asyncio.to_thread(asyncio.run, main())

    assert await independent() == 42


# Leftovers


async def test_a_task_goes_on_after_the_routine_returned(journal: Journal) -> None:
    assert await leave_behind(journal) == "returned"
    assert journal.lines() == []
    journal.write("go on")
    await journal.wait("result 42")


async def test_many_tasks_go_on(journal: Journal) -> None:
    await asyncio.gather(*(leave_behind(journal) for _ in range(20)))
    journal.write("go on")
    await journal.wait("result 42", 20)


async def test_a_callback_comes_after_the_routine_returned(journal: Journal) -> None:
    assert await leave_callback(journal) == "returned"
    await journal.wait("called back")


async def test_a_task_runs_between_the_steps_of_a_generator(journal: Journal) -> None:
    stream = stream_with_task(journal)
    assert await anext(stream) == "suspended"
    journal.write("go on")
    await journal.wait("meanwhile")
    assert await anext(stream) == "joined"
    await stream.aclose()


async def test_a_task_left_behind_is_not_cancelled_with_its_routine(journal: Journal) -> None:
    @wool.routine
    async def leave_and_hang() -> None:
        await leave_behind.__wrapped__(journal)
        await routines.hang(journal)

    task = asyncio.create_task(leave_and_hang())
    await journal.wait("started")
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    journal.write("go on")
    await journal.wait("result 42")


async def test_a_task_left_by_a_failing_routine_goes_on(journal: Journal) -> None:
    @wool.routine
    async def leave_and_fail() -> None:
        await leave_behind.__wrapped__(journal)
        raise KeyError("after that")

    with pytest.raises(KeyError, match="after that"):
        await leave_and_fail()
    journal.write("go on")
    await journal.wait("result 42")


async def test_counting_generators_are_independent() -> None:
    streams = [count(3, n) for n in (0, 10)]
    assert [await anext(s) for s in (*streams, *streams)] == [0, 10, 1, 11]
    for stream in streams:
        await stream.aclose()
