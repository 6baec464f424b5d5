"""Has traces of OpenTelemetry go on in routines: `traceparent` and the like travel with calls.

Which headers those are is what the application has set as its propagators. Nothing is imported
before the application has done so itself, or a call brings something.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from importlib.util import find_spec

from wool.plugins import ContextTranslator, hookimpl


def capture() -> bytes | None:
    """Returns the headers for the current context."""
    if "opentelemetry.context" not in sys.modules:
        return None
    from opentelemetry import propagate

    headers: dict[str, str] = {}
    propagate.inject(headers)
    return json.dumps(headers).encode() if headers else None


def restore(data: bytes | None) -> None:
    """Makes the context that headers stand for the current one."""
    from opentelemetry import context, propagate

    headers: dict[str, str] = {} if data is None else json.loads(data)
    context.attach(propagate.extract(headers))


@hookimpl
def wool_context_translators() -> Iterable[ContextTranslator]:
    # Other distributions have files in the package `opentelemetry`, too.
    if find_spec("opentelemetry") and find_spec("opentelemetry.propagate"):
        yield ContextTranslator(name="opentelemetry", capture=capture, restore=restore)
