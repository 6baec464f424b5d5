"""Whether somebody knows the names under which settings are given."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping

from wool._settings.model import SECRETS, TABLES, Core, Setting, settings_of
from wool._settings.sources import (
    CONFIG,
    PREFIX,
    TOKEN,
    TOKEN_FILE,
    Environment,
    File,
    header,
    variable,
    walk,
    word,
)
from wool.exceptions import ConfigurationError

Names = Callable[[], Iterable[str]]
"""Returns the names of the back-ends there are, those first that take no time to tell."""


def check_file(file: File, names: Names) -> None:
    """Checks the keys of `[tool.wool]` and the names of its tables.

    Raises:
        ConfigurationError: nobody knows one of them, or it is a secret.
    """
    for table, key in walk(file.content):
        if key in SECRETS:
            raise _misplaced(file, table, key)
    keys = settings_of(Core)
    for key, value in file.content.items():
        if key in keys:
            continue
        if key not in _tables(names):
            raise _unknown_in_file(file, "", key, [*keys, *sorted(set(_tables(names)))])
        if not isinstance(value, dict):
            raise ConfigurationError(
                f"{file.path} [tool.wool]: {key} has settings of its own: write a table "
                f"{header(key)}"
            )


def check_environment(environment: Environment, names: Names) -> None:
    """Checks the names of variables; those of a back-end's options only as far as its own name.

    Raises:
        ConfigurationError: nobody knows one of them.
    """
    known = {CONFIG, TOKEN, TOKEN_FILE, *(variable("", key) for key in settings_of(Core))}
    for name in environment.variables:
        table, separator, _ = name.removeprefix(PREFIX).partition("__")
        is_option = separator and any(word(other) == table for other in _tables(names))
        if not name.isupper() or not (is_option or name in known):
            raise ConfigurationError(
                f"There is no setting for the environment variable {name}."
                f"{_nearest(name.upper(), known | _with_known_table(name, names), PREFIX)} "
                f"Settings are named like WOOL_TRANSPORT, or WOOL_GRPC__KEEPALIVE for an option of "
                f"a back-end; unset it if it is meant for something else."
            )


def check_keys(
    table: str, settings: Mapping[str, Setting], file: File | None, environment: Environment
) -> None:
    """Checks the keys given for a table whose settings are known.

    Raises:
        ConfigurationError: nobody knows one of them, or it is a secret that stands in the file.
    """
    if file is not None:
        for key in file.given(table):
            if key not in settings:
                raise _unknown_in_file(file, table, key, settings)
            if settings[key].secret:
                raise _misplaced(file, table, key)
    for key in environment.given(table):
        if key not in settings:
            name, names = variable(table, key), [variable(table, other) for other in settings]
            raise ConfigurationError(
                f"There is no setting for the environment variable {name}."
                f"{_nearest(name, names, variable(table, ''))} {_listing(names)}"
            )


def _tables(names: Names) -> Iterator[str]:
    """Yields the names that tables can have; those of installed back-ends come last."""
    yield from TABLES
    yield from names()


def _unknown_in_file(file: File, table: str, key: str, known: Iterable[str]) -> ConfigurationError:
    known = list(known)
    return ConfigurationError(
        f"{file.path} {header(table)} has no setting or table {key!r}.{_nearest(key, known)} "
        f"{_listing(known)}"
    )


def _misplaced(file: File, table: str, key: str) -> ConfigurationError:
    if table in ("", "tls") and key in ("token", "token_file"):
        remedy = f"set the environment variable {TOKEN}, or name a file by {TOKEN_FILE}"
    else:
        remedy = f"set the environment variable {variable(table.replace('.', '__'), key)}"
    return ConfigurationError(
        f"{file.path} {header(table)}: {key} is for a secret, which does not belong in this file: "
        f"remove it, and {remedy}"
    )


def _with_known_table(name: str, names: Names) -> set[str]:
    """Returns names like this one with the table that was probably meant.

    Somebody wrote one underscore instead of two, or the name of a back-end wrongly.
    """
    rest = name.upper().removeprefix(PREFIX)
    _, separator, key = rest.partition("__")
    tables = {word(table) for table in _tables(names)}
    return {
        variable(table, key if separator else rest[len(table) + 1 :])
        for table in tables
        if separator or rest.startswith(f"{table}_")
    }


def _nearest(name: str, names: Iterable[str], prefix: str = "") -> str:
    """Returns a question that names what was probably meant, or nothing.

    Names are compared without the prefix that all of them have.
    """
    short = [other.removeprefix(prefix) for other in names]
    near = difflib.get_close_matches(name.removeprefix(prefix), short, n=1)
    return f" Did you mean {prefix + near[0]!r}?" if near else ""


def _listing(names: Iterable[str]) -> str:
    listed = ", ".join(names)
    return f"There are: {listed}." if listed else "There is none."
