"""The command `wool`."""

from wool.cli.group import main

__all__ = ["main"]
