"""Has traces of OpenTelemetry go on in routines: `traceparent` and the like travel with calls.

Which headers those are is what the application has set as its propagators. Nothing is imported
before the application has done so itself, or a call brings something.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from contextvars import ContextVar
from importlib.util import find_spec
from typing import TYPE_CHECKING

from wool.plugins import ContextTranslator, hookimpl

if TYPE_CHECKING:
    from opentelemetry.trace import Span

CALLING: ContextVar[Span | None] = ContextVar("wool-calling", default=None)
"""The span of the call that is about to be made, where `wool._backends.spans` makes one."""

EXECUTING: ContextVar[Span | None] = ContextVar("wool-executing", default=None)
"""The span of the call that is executed here. It stays current whatever step the caller makes."""


def capture() -> bytes | None:
    """Returns the headers for the current context."""
    if "opentelemetry.context" not in sys.modules:
        return None
    import json

    from opentelemetry import propagate
    from opentelemetry.trace import set_span_in_context

    headers: dict[str, str] = {}
    calling = CALLING.get()
    propagate.inject(headers, context=calling and set_span_in_context(calling))
    return json.dumps(headers).encode() if headers else None


def restore(data: bytes | None) -> None:
    """Makes the context that headers stand for the current one."""
    import json

    from opentelemetry import context, propagate
    from opentelemetry.trace import set_span_in_context

    headers: dict[str, str] = {} if data is None else json.loads(data)
    arrived, executing = propagate.extract(headers), EXECUTING.get()
    context.attach(arrived if executing is None else set_span_in_context(executing, arrived))


@hookimpl
def wool_context_translators() -> Iterable[ContextTranslator]:
    # Other distributions have files in the package `opentelemetry`, too.
    if find_spec("opentelemetry") and find_spec("opentelemetry.propagate"):
        yield ContextTranslator(name="opentelemetry", capture=capture, restore=restore)
