"""Any object in plain strings, however broken its class is."""

from __future__ import annotations

from collections.abc import Callable

MAX_TEXT = 10_000


def name_of(cls: type) -> str:
    """Returns module and qualified name of a class."""
    return clean(tried(lambda: f"{cls.__module__}.{cls.__qualname__}", "<unknown class>"))


def message_of(exc: BaseException) -> str:
    """Returns the message of an exception."""
    return clean(tried(lambda: str(exc), f"<unprintable {name_of(type(exc))} object>"))


def reason_of(exc: BaseException) -> str:
    """Returns class and message of an exception that is the reason of another one."""
    name, message = tried(lambda: type(exc).__name__, "<unknown class>"), message_of(exc)
    return f"{name}: {message}" if message else name


def kind_of(value: object) -> str:
    """Names the class of a value, in messages."""
    return tried(lambda: type(value).__qualname__, "<unknown class>")


def repr_of(value: object) -> str:
    """Returns a short `repr`, whatever happens."""
    text = clean(tried(lambda: repr(value), f"<unprintable {name_of(type(value))} object>"))
    return text if len(text) <= 200 else f"{text[:197]}..."


def clean(text: str) -> str:
    """Returns a plain, bounded string that can be encoded as UTF-8."""
    # `text` may be an instance of a subclass with methods of its own.
    plain = str.__getitem__(text, slice(MAX_TEXT))
    return plain.encode("utf-8", "backslashreplace").decode()


def tried(make: Callable[[], str], default: str) -> str:
    """Returns a text that code of the user's makes, or another one if it fails."""
    try:
        return make()
    except BaseException:  # the user's `__str__` may raise SystemExit, or recurse for ever
        return default
