"""Routines that trace what they do with the SDK of OpenTelemetry, wherever they run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import cache
from typing import Any

from opentelemetry import baggage, metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import wool


@cache
def reader() -> InMemoryMetricReader:
    """The reader of this process's metrics."""
    made = InMemoryMetricReader()
    metrics.set_meter_provider(MeterProvider([made]))
    return made


def figures() -> dict[tuple[str, str], float]:
    """What has been measured here: by instrument and routine, a count or a sum."""
    data = reader().get_metrics_data()
    points = [
        (metric.name, point)
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    ]
    return {
        (name, str(point.attributes["rpc.method"])): getattr(point, "count", None) or point.value
        for name, point in points
        if point.attributes is not None
    }


@cache
def exporter() -> InMemorySpanExporter:
    """The exporter of this process, which keeps spans as they end."""
    reader()
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
            "kind": each.kind.name,
            "attributes": dict(each.attributes or {}),
            "status": each.status.status_code.name,
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
async def failing() -> None:
    raise KeyError("oh")


@wool.routine
async def measured() -> dict[tuple[str, str], float]:
    return figures()


@wool.routine
async def total(name: str, source: AsyncIterator[int]) -> int:
    with span(name):
        return sum([i async for i in source])


@wool.routine
async def parent_of_nothing() -> bool:
    return trace.get_current_span().get_span_context().is_valid
