"""What a command that runs for long says on standard error: one line for each event."""

from __future__ import annotations

import logging
import time

import click


def tell(event: str) -> None:
    """Says what has happened, and when."""
    click.echo(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} wool: {event}", err=True)


class _Lines(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        tell(f"{record.levelname.lower()}: {' '.join(record.getMessage().split())}")


def tell_warnings() -> None:
    """Says what Wool warns of in the same way."""
    logging.getLogger("wool").addHandler(_Lines(logging.WARNING))
