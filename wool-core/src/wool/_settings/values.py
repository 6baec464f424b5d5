"""From what was written to a value of the right type, or to words that say what would be one."""

from __future__ import annotations

import collections.abc
import os
import types
import typing
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from wool._settings.model import Setting
from wool._settings.sources import ARGUMENT, Given
from wool.exceptions import ConfigurationError, PluginError

MOST_CHARACTERS = 80
"""Of a wrong value, so many characters are shown."""

_REPORT = "Report this to the authors of the back-end."

T = TypeVar("T")

_LISTS = (list, tuple, set, frozenset, collections.abc.Sequence, collections.abc.Set)


def convert(setting: Setting, given: Given) -> Any:
    """Returns the value that was given for a setting.

    Raises:
        ConfigurationError: it is none that the setting can have.
        PluginError: Wool cannot read values of the setting's type.
    """
    value = given.value
    if given.text:
        value = _items(value) if _is_list(setting.type, value) else value.strip()
    try:
        return msgspec.convert(
            value,
            setting.type,
            strict=not given.text,
            dec_hook=lambda cls, raw: _custom(cls, raw, given.folder),
        )
    except msgspec.ValidationError:
        raise _bad(setting, given) from None
    except TypeError as error:
        raise PluginError(
            f"The option {setting.name!r} has a type that Wool cannot read from settings: "
            f"{error}. {_REPORT}"
        ) from error


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _is_list(annotation: Any, text: str) -> bool:
    """Whether a variable has a list: one with a comma, where the type allows other things too."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _is_list(inner[0], text)
    if origin in (typing.Union, types.UnionType):
        kinds = [_is_list(one, text) for one in inner if one is not types.NoneType]
        return any(kinds) if "," in text else all(kinds)
    return (origin or annotation) in _LISTS


def _custom(cls: type, value: object, folder: Path) -> object:
    """Takes values of types that msgspec does not know."""
    if isinstance(value, cls):
        return value
    if not issubclass(cls, PurePath):
        raise PluginError(f"Wool cannot make a {cls.__qualname__} from a setting. {_REPORT}")
    if isinstance(value, str) and value:
        return cls(folder / os.path.expanduser(value))
    raise ValueError(value)


def _bad(setting: Setting, given: Given) -> ConfigurationError:
    where = "" if given.origin == ARGUMENT else f"{given.origin}: "
    text = repr(given.value)
    shown = text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}…"
    but = "" if setting.secret else f", not {shown}"
    return ConfigurationError(f"{where}{setting.name} must be {describe(setting.type)}{but}")


# For people and programs that look ----------------------------------------------------------


def plain(value: Any) -> Any:
    """Returns a value as plain types have it: enumerations by their values, paths as texts."""
    return msgspec.to_builtins(value, enc_hook=str)


def as_json(value: Any, indent: int) -> str:
    """Returns a value as JSON; infinity, which that does not have, is null."""
    return msgspec.json.format(msgspec.json.encode(value, enc_hook=str), indent=indent).decode()


# Words for types -----------------------------------------------------------------------------

_WORDS: Mapping[type, str] = {
    inspect.BoolType: "true or false",
    inspect.IntType: "a whole number",
    inspect.FloatType: "a number",
    inspect.StrType: "a string",
    inspect.DictType: "a table, which only the file can have",
    inspect.CustomType: "a path",
}

_BOUNDS: Mapping[str, str] = {
    "ge": "of at least",
    "gt": "greater than",
    "le": "of at most",
    "lt": "less than",
    "multiple_of": "that is a multiple of",
    "min_length": "of a length of at least",
    "max_length": "of a length of at most",
    "pattern": "that matches",
}


def describe(annotation: Any) -> str:
    """Says in words what a value of a type looks like."""
    return _describe(inspect.type_info(annotation))


def _describe(info: Any) -> str:
    match info:
        case inspect.Metadata(type=inner):
            return _describe(inner)
        case inspect.UnionType(types=alternatives):
            real = [one for one in alternatives if not isinstance(one, inspect.NoneType)]
            return " or ".join(map(_describe, real))
        case inspect.LiteralType(values=values):
            return "one of " + ", ".join(map(repr, values))
        case inspect.EnumType(cls=cls):
            return "one of " + ", ".join(repr(member.value) for member in cls)
        case _ if hasattr(info, "item_type"):
            words = f"a list, each item {_describe(info.item_type)}"
        case _:
            words = _WORDS.get(info.__class__, f"a value for {info.__class__.__name__}")
    found = [(word, getattr(info, name, None)) for name, word in _BOUNDS.items()]
    bounds = [f"{word} {bound}" for word, bound in found if bound is not None]
    return " ".join([words, " and ".join(bounds)]).rstrip()
