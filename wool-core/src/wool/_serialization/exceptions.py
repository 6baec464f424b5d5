"""How an exception crosses a process boundary: as itself, or as much of it as can be.

`reduce_exception` is what a pickler calls for every exception it meets, wherever it is in a
value. `dump_exception` and `load_exception` are for the exception that ends a call, which has to
arrive whatever is wrong with it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from wool._serialization.standins import StandIns
from wool._serialization.summaries import Summary, summarise

P = TypeVar("P")
"""A serialized value."""


def dump_exception(
    exc: BaseException, dumps: Callable[[Any], P], label: str | None = None
) -> tuple[Summary, P | None]:
    """Serializes an exception, whatever it is, without changing it. Never raises.

    Parts that cannot be pickled are left out or replaced by text, a class that cannot travel by
    `RemoteError`.

    Args:
        dumps: a serializer whose reducer calls `reduce_exception` with the same label. It has to
            raise if a class in the value cannot travel.
        label: says where the exception was raised, as `process_label()` does.

    Returns:
        A description for the case that the other side cannot load the exception, and the
        exception; None if nothing of it can be serialized.
    """
    summary = summarise(exc, label)
    attempts: tuple[Callable[[], Any], ...] = (
        lambda: exc,
        lambda: StandIns(dumps, label).make(exc),
        summary.error,
    )
    for attempt in attempts:
        try:
            return summary, dumps(attempt())
        except BaseException:  # reducing runs the user's code, which may even raise SystemExit
            continue
    return summary, None


def load_exception(
    summary: Summary,
    payload: P | None,
    loads: Callable[[P], Any],
    passing: tuple[type[BaseException], ...] = (),
) -> BaseException:
    """Rebuilds an exception, or returns a `RemoteError` with the reason as its cause.

    Args:
        passing: errors of `loads` that are the caller's business, and are raised.
    """
    if payload is None:
        return summary.error()
    try:
        loaded = loads(payload)
    except passing:
        raise
    except BaseException as error:  # rebuilding runs the user's code too
        return _unloadable(summary, error)
    if isinstance(loaded, BaseException):
        return loaded
    reason = TypeError(f"rebuilding it made an object of type {type(loaded).__qualname__}")
    return _unloadable(summary, reason)


def _unloadable(summary: Summary, reason: BaseException) -> BaseException:
    error = summary.error()
    error.__cause__ = reason
    return error
