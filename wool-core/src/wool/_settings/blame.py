"""Says of a choice that turns out wrong where it was made."""

from __future__ import annotations

import contextlib
from collections.abc import Generator

from wool._settings.sources import ARGUMENT, DEFAULT
from wool.exceptions import ConfigurationError, PluginError


@contextlib.contextmanager
def blaming(origin: str) -> Generator[None]:
    """Has errors about the name of a back-end begin with the file or the variable that has it."""
    try:
        yield
    except (ConfigurationError, PluginError) as error:
        if origin in (ARGUMENT, DEFAULT):
            raise
        raise type(error)(f"{origin}: {error}") from error.__cause__
