"""From what was written to a value of the right type, or to words that say what would be one."""

from __future__ import annotations

import collections.abc
import enum
import os
import types
import typing
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any, TypeVar

import msgspec
from msgspec import inspect

from wool._settings.model import Setting, settings_of
from wool._settings.sources import ARGUMENT, Given
from wool.exceptions import ConfigurationError, PluginError

MOST_CHARACTERS = 80
"""Of a wrong value, so many characters are shown."""

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
        value = _items(value) if _is_list(setting.type) else value.strip()
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
            f"{error}. Report this to the authors of its back-end."
        ) from error


def _items(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _custom(cls: type, value: object, folder: Path) -> object:
    """Takes values of types that msgspec does not know."""
    if isinstance(value, cls):
        return value
    if not issubclass(cls, PurePath):
        raise PluginError(
            f"Wool cannot make a {cls.__qualname__} from a setting. Report this to the authors "
            f"of the back-end."
        )
    if isinstance(value, str) and value:
        return cls(folder / os.path.expanduser(value))
    raise ValueError(value)


def _bad(setting: Setting, given: Given) -> ConfigurationError:
    where = "" if given.origin == ARGUMENT else f"{given.origin}: "
    but = "" if setting.secret else f", not {_brief(given.value)}"
    return ConfigurationError(f"{where}{setting.name} must be {describe(setting.type)}{but}")


def _brief(value: object) -> str:
    text = repr(value)
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}…"


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


# Words for types -----------------------------------------------------------------------------


def _alternatives(annotation: Any) -> list[Any]:
    """Returns the types of a union without None, and those of a type that is none."""
    inner = typing.get_args(annotation) if _is_union(annotation) else (annotation,)
    return [_bare(one) for one in inner if one is not types.NoneType]


def _is_union(annotation: Any) -> bool:
    return typing.get_origin(annotation) in (typing.Union, types.UnionType)


def _bare(annotation: Any) -> Any:
    if typing.get_origin(annotation) is typing.Annotated:
        return typing.get_args(annotation)[0]
    return annotation


def _is_list(annotation: Any) -> bool:
    return any(
        (typing.get_origin(one) or one) in _LISTS for one in _alternatives(_bare(annotation))
    )


def describe(annotation: Any) -> str:
    """Says in words what a value of a type looks like."""
    return _describe(inspect.type_info(annotation))


def _describe(info: Any) -> str:
    match info:
        case inspect.Metadata(type=inner):
            return _describe(inner)
        case inspect.UnionType(types=alternatives):
            real = [one for one in alternatives if not isinstance(one, inspect.NoneType)]
            words = [_describe(one) for one in real]
            return " or ".join(words)
        case inspect.LiteralType(values=values):
            return "one of " + ", ".join(repr(value) for value in values)
        case inspect.EnumType(cls=cls):
            return "one of " + ", ".join(repr(member.value) for member in cls)
        case inspect.BoolType():
            return "true or false"
        case inspect.IntType() | inspect.FloatType():
            word = "a whole number" if isinstance(info, inspect.IntType) else "a number"
            return word + _bounds(info)
        case inspect.StrType():
            return "a string" + _lengths(info, "characters") + _pattern(info)
        case (
            inspect.ListType(item_type=item)
            | inspect.VarTupleType(item_type=item)
            | inspect.SetType(item_type=item)
            | inspect.FrozenSetType(item_type=item)
            | inspect.CollectionType(item_type=item)
        ):
            return f"a list{_lengths(info, 'items')}, each item {_describe(item)}"
        case inspect.DictType():
            return f"a table{_lengths(info, 'keys')}, which only the file can have"
        case inspect.CustomType(cls=cls) if issubclass(cls, PurePath):
            return "a path"
        case _:
            return f"a value for {type(info).__name__.removesuffix('Type')}"


def _bounds(info: Any) -> str:
    bounds = [
        (info.ge, "of at least"),
        (info.gt, "greater than"),
        (info.le, "of at most"),
        (info.lt, "less than"),
        (info.multiple_of, "that is a multiple of"),
    ]
    words = [f"{word} {_number(bound)}" for bound, word in bounds if bound is not None]
    return f" {' and '.join(words)}" if words else ""


def _number(bound: float) -> str:
    return str(bound) if isinstance(bound, int) else f"{bound:g}"


def _lengths(info: Any, unit: str) -> str:
    bounds = [(info.min_length, "at least"), (info.max_length, "at most")]
    words = [f"{word} {bound}" for bound, word in bounds if bound is not None]
    return f" of {' and '.join(words)} {unit}" if words else ""


def _pattern(info: Any) -> str:
    return "" if info.pattern is None else f" that matches {info.pattern!r}"
