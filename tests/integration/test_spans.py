"""Spans and metrics that Wool makes where `observers` says `opentelemetry`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

import wool
from integration import tracing
from integration.tracing import branch, failing, finished, leaf, measured, span, stepping
from support.waiting import until

pytestmark = pytest.mark.asyncio

Span = dict[str, Any]


@pytest_asyncio.fixture
async def pool(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[wool.WorkerPool]:
    monkeypatch.setenv("WOOL_OBSERVERS", "opentelemetry")
    tracing.collect()
    async with wool.WorkerPool(size=1) as pool:
        await finished()  # it has the provider set on the worker
        tracing.collect()
        yield pool


async def gathered(expected: int) -> list[Span]:
    """All spans but those of `finished`, when there are as many as expected."""
    found: list[Span] = []

    async def complete() -> bool:
        found.extend((await finished())[1] + tracing.collect())
        found[:] = [each for each in found if not each["name"].endswith(":finished")]
        return len(found) >= expected

    await until(complete, within=30, what=f"{expected} spans")
    assert len(found) == expected
    return found


def edges(spans: list[Span]) -> set[tuple[str, str]]:
    """Parent and child of each span, as kind and name; INTERNAL spans are the test's own."""
    labels = {each["id"]: f"{each['kind']} {each['name'].split(':')[-1]}" for each in spans}
    assert len({each["trace"] for each in spans}) == 1
    return {(labels.get(each["parent"], ""), labels[each["id"]]) for each in spans}


async def test_a_call_has_a_span_at_both_ends(pool: wool.WorkerPool) -> None:
    with span("root"):
        await leaf("x")
    spans = await gathered(4)
    assert edges(spans) == {
        ("", "INTERNAL root"),
        ("INTERNAL root", "CLIENT leaf"),
        ("CLIENT leaf", "SERVER leaf"),
        ("SERVER leaf", "INTERNAL x"),
    }
    client = next(each for each in spans if each["kind"] == "CLIENT")
    method = "integration.tracing:leaf"
    assert client["name"] == method
    assert client["attributes"]["rpc.system.name"] == "wool"
    assert client["attributes"]["rpc.method"] == method
    assert client["attributes"]["wool.worker.id"] == pool.workers[0].id
    assert client["attributes"]["server.address"].startswith("/")
    assert client["attributes"]["wool.outcome"] == "returned"


async def test_nested_calls_and_their_callers(pool: wool.WorkerPool) -> None:
    await branch("b", 1)
    assert edges(await gathered(6)) == {
        ("", "CLIENT branch"),
        ("CLIENT branch", "SERVER branch"),
        ("SERVER branch", "INTERNAL b"),
        ("INTERNAL b", "CLIENT leaf"),
        ("CLIENT leaf", "SERVER leaf"),
        ("SERVER leaf", "INTERNAL b.0"),
    }


async def test_a_stream_has_one_span_for_all_its_steps(
    pool: wool.WorkerPool,
) -> None:
    stream = tracing.plain_steps("s", 2)
    with span("root"):
        await anext(stream)
        with span("other"):
            await leaf("x")  # with which another call has been made since the first step
            await anext(stream)
            assert await anext(stream, None) is None
    assert edges(await gathered(9)) == {
        ("", "INTERNAL root"),
        ("INTERNAL root", "INTERNAL other"),
        ("INTERNAL other", "CLIENT leaf"),
        ("CLIENT leaf", "SERVER leaf"),
        ("SERVER leaf", "INTERNAL x"),
        ("INTERNAL root", "CLIENT plain_steps"),
        ("CLIENT plain_steps", "SERVER plain_steps"),
        ("SERVER plain_steps", "INTERNAL s.0"),
        ("SERVER plain_steps", "INTERNAL s.1"),
    }


async def test_how_calls_end(pool: wool.WorkerPool) -> None:
    with pytest.raises(KeyError) as caught:
        await failing()
    assert "observing.py" not in str([entry.path for entry in caught.traceback])
    for each in await gathered(2):
        assert each["status"] == "ERROR"
        assert each["attributes"]["error.type"] == "KeyError"
        assert each["attributes"]["wool.outcome"] == "raised"
    stream = stepping("s", 2)
    await anext(stream)
    await stream.aclose()
    ends = [each for each in await gathered(4) if each["kind"] != "INTERNAL"]
    assert [(each["status"], each["attributes"]["wool.outcome"]) for each in ends] == [
        ("UNSET", "cancelled")
    ] * 2


async def test_metrics(pool: wool.WorkerPool) -> None:
    method = "integration.tracing:leaf"
    before = tracing.figures().get(("rpc.client.call.duration", method), 0)
    await asyncio.gather(*(leaf(str(n)) for n in range(3)))
    assert tracing.figures()["rpc.client.call.duration", method] == before + 3
    assert tracing.figures()["wool.client.active_calls", method] == 0
    there = await measured()
    assert there["rpc.server.call.duration", method] == 3
    assert there["wool.server.queue.duration", method] == 3
    assert there["wool.server.active_calls", method] == 0
    assert there["wool.server.active_calls", "integration.tracing:measured"] == 1


async def test_nobody_who_has_not_asked_for_spans_has_any() -> None:
    tracing.collect()
    async with wool.WorkerPool(size=1):
        with span("root"):
            await leaf("x")
        assert {each["name"] for each in await gathered(2)} == {"root", "x"}
