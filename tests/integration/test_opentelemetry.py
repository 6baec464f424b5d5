"""A trace goes on in routines: their spans are children of what was current for the caller."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from opentelemetry import baggage, context

import wool
from integration import tracing
from integration.tracing import branch, finished, leaf, plain_steps, span, stepping, total
from support.waiting import until

pytestmark = pytest.mark.asyncio

Spans = dict[str, dict[str, Any]]


@pytest_asyncio.fixture(params=["memory", "unix"])
async def pool(request: pytest.FixtureRequest) -> AsyncIterator[wool.WorkerPool]:
    tracing.collect()
    async with wool.WorkerPool(size=2, transport=request.param) as pool:
        yield pool


async def gathered(pool: wool.WorkerPool) -> Spans:
    """All spans, of this process and of all workers, by their names."""
    found = {each["name"]: each for each in tracing.collect()}
    quiet: set[str] = set()

    async def complete() -> bool:
        told = await asyncio.gather(*(finished() for _ in range(8)))
        more = {each["name"]: each for _, batch in told for each in batch}
        found.update(more)
        if more:
            quiet.clear()
        else:
            quiet.update(worker for worker, _ in told)
        return quiet >= {worker.id for worker in pool.workers}

    await until(complete, within=30, what="all workers to have no more spans")
    return found


def tree(spans: Spans, root: str) -> dict[str, str | None]:
    """The name of each span's parent, of those in the trace of `root`."""
    names = {each["id"]: name for name, each in spans.items()}
    trace = spans[root]["trace"]
    assert all(each["trace"] == trace for each in spans.values()), spans
    return {name: names.get(each["parent"]) for name, each in spans.items()}


async def test_calls_and_streams(pool: wool.WorkerPool) -> None:
    """One after another, at once, and nested; a stream that travels is read by its consumer."""
    with span("root"):
        with span("first"):
            await leaf("a")
        with span("second"):
            async with asyncio.TaskGroup() as group:
                for name in "bc":
                    group.create_task(leaf(name))
        await branch("branch", 2)
        async for i in plain_steps("s", 2):
            await leaf(f"between.{i}")
        assert [i async for i in stepping("t", 2)] == [0, 1]
        assert await total("total", plain_steps("u", 2)) == 1
    assert tree(await gathered(pool), "root") == {
        "root": None,
        **dict.fromkeys(["first", "second", "branch", "t.around", "total"], "root"),
        "a": "first",
        **dict.fromkeys("bc", "second"),
        **dict.fromkeys(["branch.0", "branch.1"], "branch"),
        **dict.fromkeys(["s.0", "s.1", "between.0", "between.1"], "root"),
        **dict.fromkeys(["t.0", "t.1"], "t.around"),
        **dict.fromkeys(["u.0", "u.1"], "total"),
    }


async def test_each_step_belongs_to_what_is_current_then(pool: wool.WorkerPool) -> None:
    stream = plain_steps("s", 3)
    with span("root"):
        with span("one"):
            await anext(stream)
        with span("two"):
            await anext(stream)
        await anext(stream)
        await stream.aclose()
    assert tree(await gathered(pool), "root") == {
        "root": None,
        "one": "root",
        "two": "root",
        "s.0": "one",
        "s.1": "two",
        "s.2": "root",
    }


async def test_baggage(pool: wool.WorkerPool) -> None:
    token = context.attach(baggage.set_baggage("tenant", "acme"))
    try:
        assert await leaf("x") == "acme"
    finally:
        context.detach(token)
    assert await leaf("y") is None


async def test_no_trace(pool: wool.WorkerPool) -> None:
    assert not await tracing.parent_of_nothing()
    stream = plain_steps("s", 2)
    with span("one"):
        await anext(stream)
    await anext(stream)
    await stream.aclose()
    spans = await gathered(pool)
    assert spans["s.0"]["parent"] == spans["one"]["id"]
    assert spans["s.1"]["parent"] is None


@pytest.mark.parametrize("options", [{"context": "off"}, {"exclude": ["opentelemetry"]}])
async def test_switched_off(options: dict[str, Any]) -> None:
    async with wool.WorkerPool(size=1, transport="memory", **options):
        with span("root"):
            assert not await tracing.parent_of_nothing()
    async with wool.WorkerPool(size=1, transport="memory"):
        with span("root"):
            assert await tracing.parent_of_nothing()


async def test_workers_that_trace_nothing_import_nothing() -> None:
    @wool.routine
    async def imported() -> bool:
        import sys

        return any(name.startswith("opentelemetry.") for name in sys.modules)

    async with wool.WorkerPool(size=1):
        assert not await imported()
