"""Routines that trace what they do with the SDK of OpenTelemetry, wherever they run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import cache
from typing import Any

from opentelemetry import baggage, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import wool


@cache
def exporter() -> InMemorySpanExporter:
    """The exporter of this process, which keeps spans as they end."""
    made = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(made))
    trace.set_tracer_provider(provider)
    return made


def span(name: str) -> Any:
    """Begins a span."""
    exporter()
    return trace.get_tracer("test").start_as_current_span(name)


@wool.routine
async def finished() -> tuple[str, list[dict[str, Any]]]:
    """The worker that this is, and the spans that have ended in its process; forgets those."""
    call = wool.current_call()
    assert call is not None
    return call.worker.id, collect()


def collect() -> list[dict[str, Any]]:
    spans = exporter().get_finished_spans()
    exporter().clear()
    return [
        {
            "name": each.name,
            "trace": each.context.trace_id,
            "id": each.context.span_id,
            "parent": each.parent.span_id if each.parent else None,
        }
        for each in spans
    ]


@wool.routine
async def leaf(name: str) -> str | None:
    with span(name):
        return baggage.get_baggage("tenant")  # type: ignore[return-value]


@wool.routine
async def branch(name: str, leaves: int) -> None:
    with span(name):
        for n in range(leaves):
            await leaf(f"{name}.{n}")


@wool.routine
async def stepping(name: str, n: int) -> AsyncIterator[int]:
    """A span for each step, and one around two of them."""
    with span(f"{name}.around"):
        for i in range(n):
            with span(f"{name}.{i}"):
                pass
            yield i


@wool.routine
async def plain_steps(name: str, n: int) -> AsyncIterator[int]:
    for i in range(n):
        with span(f"{name}.{i}"):
            pass
        yield i


@wool.routine
async def total(name: str, source: AsyncIterator[int]) -> int:
    with span(name):
        return sum([i async for i in source])


@wool.routine
async def parent_of_nothing() -> bool:
    return trace.get_current_span().get_span_context().is_valid
