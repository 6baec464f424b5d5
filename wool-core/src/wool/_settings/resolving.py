"""From what several sources give to one instance of a dataclass, with the origin of each value."""

from __future__ import annotations

import difflib
import enum
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any, TypeVar

import msgspec

from wool._settings.model import Setting, settings_of
from wool._settings.sources import DEFAULT, Given, header, variable
from wool._settings.values import convert
from wool.exceptions import ConfigurationError, PluginError, WoolError

T = TypeVar("T")

Givens = Mapping[str, Given]
"""The values of one source, by key."""


@dataclass(frozen=True, slots=True)
class Value:
    """The value of a setting, and in words where it is from."""

    value: Any
    origin: str


def resolve(setting: Setting, sources: Sequence[Givens]) -> Value | None:
    """Returns what the first source says that says something; None if none does.

    What the others say is looked at too, so a mistake is found whether or not it counts.
    """
    given = [source[setting.name] for source in sources if setting.name in source]
    values = [Value(convert(setting, one), one.origin) for one in given]
    if values:
        return values[0]
    return None if setting.required else Value(setting.default, DEFAULT)


def instance(table: str, options: type[T], sources: Sequence[Givens]) -> tuple[T, dict[str, str]]:
    """Makes the options of a table; returns them, and the origin of each value by key.

    Raises:
        ConfigurationError: a value is missing or of no use.
        PluginError: the dataclass itself is of no use.
    """
    settings = settings_of(options)
    values: dict[str, Value] = {}
    for setting in settings.values():
        value = resolve(setting, sources)
        if value is None:
            raise _missing(table, setting)
        values[setting.name] = value
    try:
        made = options(**{name: value.value for name, value in values.items()})
    except (WoolError, KeyboardInterrupt):
        raise
    except BaseException as error:  # of the author's own checks
        hidden = [name for name, setting in settings.items() if setting.secret]
        # The error itself may quote a secret, and would be shown as the cause.
        cause = None if hidden else error
        raise _refused(table, hidden, values, error) from cause
    return made, {name: value.origin for name, value in values.items()}


def _missing(table: str, setting: Setting) -> ConfigurationError:
    place = "" if setting.secret else f"{setting.name} in {header(table)}, or "
    return ConfigurationError(
        f"{table} needs a value for {setting.name!r}: set {place}the environment variable "
        f"{variable(table, setting.name)}"
    )


def _refused(
    table: str, hidden: Sequence[str], values: Mapping[str, Value], error: BaseException
) -> WoolError:
    """The options object did not like its values. It does not say which, so all are named."""
    text = str(error) or type(error).__name__
    for value in (values[name].value for name in hidden):
        if value:
            text = text.replace(str(value), "…")
    if not isinstance(error, TypeError | ValueError):
        return PluginError(
            f"The options of {table} cannot be made: {type(error).__name__}: {text}. Report this "
            f"to the authors of the back-end."
        )
    chosen = [f"{k} from {v.origin}" for k, v in values.items() if v.origin != DEFAULT]
    where = f" ({', '.join(chosen)})" if chosen else ""
    return ConfigurationError(f"The settings of {table} cannot be used: {text}{where}")


def nearest(name: str, names: Iterable[str], prefix: str = "") -> str:
    """Returns a question that names what was probably meant, or nothing.

    Names are compared without the prefix that all of them have.
    """
    near = difflib.get_close_matches(
        name.removeprefix(prefix), [other.removeprefix(prefix) for other in names], n=1
    )
    return f" Did you mean {prefix + near[0]!r}?" if near else ""


# To another process and back -------------------------------------------------------------------


def dump(options: Any) -> dict[str, Any]:
    """Returns the values of options as plain objects, which `marshal` takes as well."""
    return {
        name: _dumped(getattr(options, name))
        for name in settings_of(type(options))  # pyright: ignore[reportUnknownArgumentType]
    }


def _dumped(value: Any) -> Any:
    return msgspec.to_builtins(value, enc_hook=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, PurePath):
        return os.fspath(value)
    if isinstance(value, enum.Enum):
        return value.value
    raise PluginError(
        f"The option {value!r} is of the type {type(value).__qualname__}, which cannot be sent to "
        f"a worker. Report this to the authors of its back-end."
    )


def load(options: type[T], values: Mapping[str, Any]) -> T:
    """Makes options from what `dump` returned in another process."""
    settings = settings_of(options)
    return options(**{name: _loaded(settings[name], value) for name, value in values.items()})


def _loaded(setting: Setting, value: Any) -> Any:
    try:
        return convert(setting, Given(value, "the pool", False, Path(os.sep)))
    except ConfigurationError:
        if setting.required or _dumped(setting.default) != value:
            raise
        return setting.default  # nobody has checked it against its annotation before, either
