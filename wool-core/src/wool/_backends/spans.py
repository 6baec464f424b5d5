"""Spans and metrics of OpenTelemetry for each call and stream, at the caller and on the worker.

Names and attributes follow its conventions for RPC, https://opentelemetry.io/docs/specs/semconv/rpc/.
Those for which there is no convention begin with `wool`. Where spans and figures go is what the
application has set as its providers.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from opentelemetry import context, metrics, trace
from opentelemetry.trace import Span, SpanKind, StatusCode

from wool._backends.opentelemetry import CALLING, EXECUTING
from wool.plugins import CallInfo, Outcome, hookimpl

_tracer = trace.get_tracer("wool")
_meter = metrics.get_meter("wool")
_BOUNDS = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10]


def _seconds(name: str, description: str) -> metrics.Histogram:
    return _meter.create_histogram(
        name, "s", description, explicit_bucket_boundaries_advisory=_BOUNDS
    )


_calls = _seconds("rpc.client.call.duration", "Duration of outgoing calls and streams.")
_executions = _seconds("rpc.server.call.duration", "Duration of calls and streams served.")
_queued = _seconds("wool.server.queue.duration", "Time from a call's arrival to its beginning.")
_calling = _meter.create_up_down_counter("wool.client.active_calls", "{call}", "Calls not ended.")
_executing = _meter.create_up_down_counter("wool.server.active_calls", "{call}", "Calls that run.")


@hookimpl
def wool_call_started(call: CallInfo) -> None:
    CALLING.set(_begin(call, SpanKind.CLIENT))
    _calling.add(1, _labels(call))


@hookimpl
def wool_call_finished(call: CallInfo, outcome: Outcome) -> None:
    CALLING.set(None)
    _calling.add(-1, _labels(call))
    _end(call, outcome, _calls.record)


@hookimpl
def wool_execution_started(call: CallInfo) -> None:
    span = _begin(call, SpanKind.SERVER)
    EXECUTING.set(span)
    context.attach(trace.set_span_in_context(span))
    _queued.record(call.waited, _labels(call))
    _executing.add(1, _labels(call))


@hookimpl
def wool_execution_finished(call: CallInfo, outcome: Outcome) -> None:
    _executing.add(-1, _labels(call))
    _end(call, outcome, _executions.record)


def _labels(call: CallInfo) -> dict[str, Any]:
    return {"rpc.system.name": "wool", "rpc.method": call.routine}


def _begin(call: CallInfo, kind: SpanKind) -> Span:
    attributes = {**_labels(call), "wool.call.id": call.id, "wool.stream": call.stream}
    span = _tracer.start_span(call.routine, kind=kind, attributes=attributes)
    call.notes[__name__] = span
    return span


def _end(call: CallInfo, outcome: Outcome, record: Callable[..., None]) -> None:
    span: Span = call.notes[__name__]
    labels = _labels(call)
    if outcome.worker is not None:
        where = urlsplit(outcome.worker.address)
        span.set_attribute("server.address", where.hostname or where.path)
        if where.port is not None:
            span.set_attribute("server.port", where.port)
        span.set_attribute("wool.worker.id", outcome.worker.id)
    if outcome.status == "raised" and outcome.error is not None:
        kind = type(outcome.error)
        labels["error.type"] = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
        span.set_attribute("error.type", labels["error.type"])
        span.record_exception(outcome.error)
        span.set_status(StatusCode.ERROR, str(outcome.error))
    span.set_attribute("wool.outcome", outcome.status)
    span.end()
    record(outcome.seconds, labels, trace.set_span_in_context(span))
