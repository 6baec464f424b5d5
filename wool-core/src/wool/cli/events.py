"""Events of a command that runs for long: one line for each."""

from __future__ import annotations

import contextlib
import json
import logging
import time
import warnings
from typing import Any

import click


class Events:
    """Tells of events: in words on standard error, or as JSON objects on standard output.

    Args:
        as_json: whether programs are to understand it.
    """

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json

    def tell(self, event: str, text: str, **facts: Any) -> None:
        """Says what has happened, and when.

        Args:
            event: a word for it.
            text: the same for people.
            facts: what programs may want to know of it.
        """
        when = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        with contextlib.suppress(OSError):  # the terminal is closed, or who has read is gone
            if self._as_json:
                click.echo(json.dumps({"time": when, "event": event, "message": text, **facts}))
            else:
                click.echo(f"{when} wool: {text}", err=True)

    def tell_warnings(self) -> None:
        """Says what is warned of in the same way: in the log of Wool, or by Python's `warnings`."""
        logging.getLogger("wool").addHandler(_Lines(self))

        def show(message: Warning | str, *_: Any, **__: Any) -> None:
            self.tell("warning", f"warning: {' '.join(str(message).split())}")

        warnings.showwarning = show


class _Lines(logging.Handler):
    def __init__(self, events: Events) -> None:
        super().__init__(logging.WARNING)
        self._events = events

    def emit(self, record: logging.LogRecord) -> None:
        level, words = record.levelname.lower(), " ".join(record.getMessage().split())
        self._events.tell(level, f"{level}: {words}")
