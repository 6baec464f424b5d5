"""What can be said of any exception in plain strings, however broken its class is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

from wool._serialization.tracebacks import Frames, capture
from wool._texts import clean, message_of, name_of, tried
from wool.exceptions import RemoteError

MAX_EXCEPTIONS = 10
"""So many causes and members are described, not counting the exception itself."""

CAUSE = "\nThe above exception was the direct cause of the following exception:\n\n"
CONTEXT = "\nDuring handling of the above exception, another exception occurred:\n\n"


@dataclass(frozen=True, slots=True)
class Summary:
    """Describes an exception. The strings can be encoded as UTF-8.

    Attributes:
        type_name: module and qualified name of its class.
        message: its `str()`.
        traceback: its traceback as text, with those of its causes, in Wool's own formatting.
    """

    type_name: str
    message: str
    traceback: str

    def error(self) -> RemoteError:
        """Makes the exception that stands for the one described."""
        return RemoteError(self.type_name, self.message, self.traceback)


def summarise(exc: BaseException, label: str | None = None) -> Summary:
    """Describes an exception. Never raises, and never calls `repr` of an exception."""
    text = tried(lambda: "".join(_Formatter(label).lines(exc)), "")
    return Summary(name_of(type(exc)), message_of(exc), clean(text))


class _Formatter:
    """Formats an exception with its causes; each once, and only so many."""

    def __init__(self, label: str | None) -> None:
        self._label = label
        self._seen: set[int] = set()

    def lines(self, exc: BaseException) -> Iterator[str]:
        if id(exc) in self._seen or len(self._seen) > MAX_EXCEPTIONS:
            yield f"... {name_of(type(exc))}\n"
            return
        self._seen.add(id(exc))
        if exc.__cause__ is not None:
            yield from self.lines(exc.__cause__)
            yield CAUSE
        elif exc.__context__ is not None and not exc.__suppress_context__:
            yield from self.lines(exc.__context__)
            yield CONTEXT
        yield from _frame_lines(capture(exc.__traceback__, self._label))
        yield _last_line(exc)
        if isinstance(exc, BaseExceptionGroup):
            yield from self._members(cast("BaseExceptionGroup[Any]", exc))

    def _members(self, group: BaseExceptionGroup[Any]) -> Iterator[str]:
        for number, member in enumerate(group.exceptions, 1):
            yield f"  +---------------- {number} ----------------\n"
            for text in self.lines(member):
                yield from (f"  | {line}\n" for line in text.splitlines())


def _frame_lines(frames: Frames | None) -> Iterator[str]:
    if frames is not None:
        yield "Traceback (most recent call last):\n"
        for filename, lineno, name, line, *_ in frames:
            yield f'  File "{filename}", line {lineno}, in {name}\n'
            if line is not None:
                yield f"    {line.strip()}\n"


def _last_line(exc: BaseException) -> str:
    name = name_of(type(exc)).removeprefix("builtins.")
    message = message_of(exc)
    return f"{name}: {message}\n" if message else f"{name}\n"
