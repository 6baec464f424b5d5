"""A summary of any exception, for when it cannot be rebuilt."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from wool._protocol.frames import Summary
from wool._texts import clean, message_of, name_of, tried
from wool._values.tracebacks import capture

MAX_EXCEPTIONS = 10
"""So many causes and members are described, not counting the exception itself."""


def summarise(exc: BaseException, label: str | None = None) -> Summary:
    """Describes an exception. Never raises, and never calls `repr` of an exception."""
    text = tried(lambda: "".join(_lines(exc, label, set())), "")
    return Summary(name_of(type(exc)), message_of(exc), clean(text))


def _lines(exc: BaseException, label: str | None, seen: set[int]) -> Iterator[str]:
    """Yields the text of an exception with its causes; each once, and only so many."""
    name = name_of(type(exc)).removeprefix("builtins.")
    if id(exc) in seen or len(seen) > MAX_EXCEPTIONS:
        yield f"... {name}\n"
        return
    seen.add(id(exc))
    if exc.__cause__ is not None:
        yield from _lines(exc.__cause__, label, seen)
        yield "\nThe above exception was the direct cause of the following exception:\n\n"
    elif exc.__context__ is not None and not exc.__suppress_context__:
        yield from _lines(exc.__context__, label, seen)
        yield "\nDuring handling of the above exception, another exception occurred:\n\n"
    frames = capture(exc.__traceback__, label)
    if frames is not None:
        yield "Traceback (most recent call last):\n"
        for filename, lineno, function, line, *_ in frames:
            yield f'  File "{filename}", line {lineno}, in {function}\n'
            if line is not None:
                yield f"    {line.strip()}\n"
    message = message_of(exc)
    yield f"{name}: {message}\n" if message else f"{name}\n"
    if isinstance(exc, BaseExceptionGroup):
        members = cast("BaseExceptionGroup[Any]", exc).exceptions
        for number, member in enumerate(members, 1):
            yield f"  +---------------- {number} ----------------\n"
            for text in _lines(member, label, seen):
                yield from (f"  | {line}\n" for line in text.splitlines())
