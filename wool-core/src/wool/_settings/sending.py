"""Options on their way to another process. A worker needs no more of the settings."""

from __future__ import annotations

import pickle
from dataclasses import fields
from typing import Any, TypeVar

from wool.exceptions import PluginError

T = TypeVar("T")


def dump(options: Any) -> bytes:
    """Returns the values of options, for `load` in a process that this one starts.

    Raises:
        PluginError: a value cannot be sent.
    """
    try:
        return pickle.dumps({field.name: getattr(options, field.name) for field in fields(options)})
    except Exception as error:
        raise PluginError(
            f"The options of {type(options).__module__} cannot be sent to a worker: {error}. "
            "Report this to the authors of the back-end."
        ) from error


def load(options: type[T], values: bytes) -> T:
    """Makes options from what `dump` returned in the process that has started this one."""
    return options(**pickle.loads(values))
