"""Context variables: what the caller has set is seen, what the routine sets comes back."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from contextvars import ContextVar
from typing import Any

import pytest

import wool
from contract import variables as v
from contract.types import Permission
from support.parity import AND_SERVED, Journal, Place, started
from support.waiting import caught

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.usefixtures("place"),
    pytest.mark.parametrize("place", AND_SERVED, indirect=True, scope="module"),
]


# Calls


async def test_what_the_caller_has_set_is_seen() -> None:
    assert await v.get() == {"plain": v.UNSET, "defaulted": "default", "attribute": v.UNSET}
    v.plain.set(1)
    v.defaulted.set(None)
    v.Holder.attribute.set("of a class")
    v.Holder.Inner.deep.set(b"of a class in a class")
    assert await v.get() == {"plain": 1, "defaulted": None, "attribute": "of a class"}
    assert await v.get("deep") == {"deep": b"of a class in a class"}
    v.plain.set(2)
    assert (await v.get())["plain"] == 2


async def test_what_the_routine_sets_comes_back() -> None:
    v.plain.set("before")
    await v.put(plain="after", attribute=(1, 2), deep=frozenset("ab"), defaulted={"a": [1]})
    assert v.snapshot() == {"plain": "after", "defaulted": {"a": [1]}, "attribute": (1, 2)}
    assert v.Holder.Inner.deep.get() == frozenset("ab")
    assert await v.get() == v.snapshot()


@pytest.mark.parametrize("error", [KeyError("k"), SystemExit(3), KeyboardInterrupt()])
async def test_what_is_set_before_an_exception(error: BaseException) -> None:
    raised = await caught(v.put_and_raise(error, plain="before it", other=1))
    assert type(raised) is type(error)
    assert v.snapshot("plain", "other") == {"plain": "before it", "other": 1}


async def test_what_is_set_while_being_cancelled(journal: Journal) -> None:
    async def caller() -> Any:
        task = asyncio.current_task()
        assert task is not None
        try:
            await v.put_when_cancelled(journal, "in finally")
        except asyncio.CancelledError:
            task.uncancel()
        return v.plain.get()

    v.plain.set("before")
    task = await started(caller(), journal)
    task.cancel()
    assert await task == "in finally"
    assert v.plain.get() == "before"


async def test_what_is_set_though_a_cancel_crosses_the_result(
    place: Place, journal: Journal
) -> None:
    async def caller() -> Any:
        with contextlib.suppress(asyncio.CancelledError):
            await v.put_when_told(journal, "done")
        return v.plain.get()

    v.plain.set("before")
    task = await started(caller(), journal)
    journal.write("told")
    if place.remote:
        journal.block("done")
    await journal.wait("done")
    task.cancel()
    assert await task == "done"


async def test_isolation_between_tasks() -> None:
    async def one(n: int) -> tuple[Any, Any]:
        v.plain.set(n)
        seen = await v.get("plain")
        await v.put(plain=10 * n)
        return seen["plain"], v.plain.get()

    v.plain.set("outside")
    assert await asyncio.gather(*map(one, range(20))) == [(n, 10 * n) for n in range(20)]
    assert v.plain.get() == "outside"
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(n)) for n in range(3)]
    assert [task.result() for task in tasks] == [(n, 10 * n) for n in range(3)]
    assert v.plain.get() == "outside"


async def test_a_call_made_into_a_task_sets_nothing_here() -> None:
    v.plain.set("outside")
    await asyncio.ensure_future(v.put(plain="inside"))
    await asyncio.gather(v.put(plain="inside"), v.put(plain="inside"))
    assert v.plain.get() == "outside"


async def test_values_of_all_kinds() -> None:
    class Local:
        def __init__(self, n: int) -> None:
            self.n = n

        def __eq__(self, another: object) -> bool:
            return isinstance(another, Local) and self.n == another.n

    @wool.routine
    async def swap() -> Any:
        before = v.plain.get()
        v.plain.set(type(before)(before.n + 1))
        return before

    v.plain.set(Local(1))
    assert await swap() == Local(1)
    assert type(v.plain.get()) is Local
    assert v.plain.get() == Local(2)
    for value in (
        Permission.READ,
        [1, {2: {3}}],
        float("inf"),
        "x" * 300_000,
        bytes(2 << 20),
        len,
        int,
    ):
        v.other.set(value)
        assert (await v.get("other"))["other"] == value
        await v.put(plain=value)
        assert v.plain.get() == value


async def test_a_value_that_is_changed_in_place_is_seen_by_the_next_call() -> None:
    v.plain.set([1])
    assert (await v.get("plain"))["plain"] == [1]
    v.plain.get().append(2)
    assert (await v.get("plain"))["plain"] == [1, 2]


async def test_in_place_changes_stay_where_they_were_made(place: Place) -> None:
    mine = [1]
    v.plain.set(mine)
    assert await v.append(2) == [1, 2]
    assert v.plain.get() is mine
    assert mine == ([1] if place.remote else [1, 2])


async def test_variables_of_functions() -> None:
    """One that belongs to no module travels with the routine that uses it."""
    local: ContextVar[Any] = ContextVar("local")
    with_default: ContextVar[Any] = ContextVar("with default", default=[0])

    @wool.routine
    async def use() -> Any:
        before = local.get(v.UNSET), with_default.get()
        local.set("set there")
        return before

    assert await use() == (v.UNSET, [0])
    assert local.get() == "set there"
    local.set("set here")
    with_default.set([1])
    assert await use() == ("set here", [1])


async def test_modules_that_the_worker_has_not_imported() -> None:
    from contract import variables_late

    @wool.routine
    async def use(value: Any) -> Any:
        await asyncio.sleep(0)
        from contract.variables_late import late

        before = late.get()
        late.set(value)
        return before

    @wool.routine
    async def in_a_task(value: Any) -> Any:
        return await asyncio.create_task(use_here(value))

    async def use_here(value: Any) -> Any:
        from contract.variables_late import late

        return late.get()

    @wool.routine
    async def pass_on(value: Any) -> Any:
        """Does not import it itself."""
        return await use(value)

    variables_late.late.set("1")
    assert await pass_on("2") == "1"
    assert variables_late.late.get() == "2"
    assert await asyncio.gather(*(use(n) for n in range(5))) == ["2"] * 5
    assert variables_late.late.get() == "2"
    assert await in_a_task(3) == "2"
    assert await use("4") == "2"
    assert variables_late.late.get() == "4"


# Streams


async def test_a_token_across_a_yield() -> None:
    v.plain.set("before")
    async with contextlib.asynccontextmanager(v.borrowing)("inside") as value:
        assert value == v.plain.get() == "inside"
    assert v.plain.get() == "before"
    with pytest.raises(KeyError):
        async with contextlib.asynccontextmanager(v.borrowing)("inside"):
            raise KeyError
    assert v.plain.get() == "before"


async def test_what_a_stream_sets_while_being_closed() -> None:
    @wool.routine
    async def closing() -> Any:
        try:
            yield 1
        finally:
            v.plain.set("closed")

    async with contextlib.aclosing(closing()) as stream:
        assert await anext(stream) == 1
    assert v.plain.get() == "closed"
    stream = closing()
    v.plain.set("thrown in")
    await anext(stream)
    assert type(await caught(stream.athrow(KeyError("k")))) is KeyError
    assert v.plain.get() == "closed"


async def test_steps_made_by_different_tasks() -> None:
    stream = v.counting(10)

    async def step(value: Any) -> Any:
        if value is not None:
            v.plain.set(value)
        return await anext(stream), v.plain.get()

    v.plain.set("main")
    assert await step(None) == ({"plain": "main", "other": v.UNSET}, 0)
    inherited = asyncio.create_task(step(None))
    assert await inherited == ({"plain": 0, "other": v.UNSET}, 1)
    assert v.plain.get() == 0
    assert await asyncio.create_task(step("b")) == ({"plain": "b", "other": v.UNSET}, 2)
    assert await step(None) == ({"plain": 0, "other": v.UNSET}, 3)
    empty = asyncio.create_task(step("c"), context=contextvars.Context())
    assert await empty == ({"plain": "c", "other": v.UNSET}, 4)
    empty = asyncio.create_task(step(None), context=contextvars.Context())
    assert await empty == ({"plain": v.UNSET, "other": v.UNSET}, 5)
    await stream.aclose()


async def test_a_task_that_has_nothing_set_steps() -> None:
    """Values that the caller had set for the steps before are gone."""
    stream = v.seeing("plain", "defaulted")

    async def step() -> Any:
        return await anext(stream)

    here = contextvars.copy_context()
    set_here = here.copy()
    set_here.run(v.plain.set, 1)
    set_here.run(v.defaulted.set, 2)
    loop = asyncio.get_running_loop()
    for _ in range(2):
        assert await loop.create_task(step(), context=set_here) == {"plain": 1, "defaulted": 2}
        assert await loop.create_task(step(), context=here) == {
            "plain": v.UNSET,
            "defaulted": "default",
        }
    await stream.aclose()
