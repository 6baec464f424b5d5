"""Names nobody knows, and secrets where they do not belong, found before any value is looked at."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping

from wool._settings.model import SECRETS, TABLES, Core, Setting, settings_of
from wool._settings.resolving import nearest
from wool._settings.sources import (
    CONFIG,
    PREFIX,
    TOKEN,
    TOKEN_FILE,
    Environment,
    File,
    header,
    is_from_kubernetes,
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
        is_table = isinstance(value, dict)
        if key not in _tables(names):
            raise _unknown_in_file(file, key, is_table, list(keys), names)
        if not is_table:
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
    for name, value in environment.variables.items():
        table, separator, _ = name.removeprefix(PREFIX).partition("__")
        if not name.isupper():
            is_known = False
        elif separator:
            is_known = any(word(other) == table for other in _tables(names))
        else:
            is_known = name in known
        if not is_known and not is_from_kubernetes(name, value):
            raise _unknown_variable(name, known, names)


def check_keys(
    table: str, settings: Mapping[str, Setting], file: File | None, environment: Environment
) -> None:
    """Checks the keys given for a table whose settings are known.

    Raises:
        ConfigurationError: nobody knows one of them, or it is a secret that stands in the file.
    """
    for key in () if file is None else file.given(table):
        assert file is not None
        if key not in settings:
            raise ConfigurationError(
                f"{file.path} {header(table)} has no setting {key!r}.{nearest(key, settings)} "
                f"{_listing(settings)}"
            )
        if settings[key].secret:
            raise _misplaced(file, table, key)
    for key in environment.given(table):
        name = variable(table, key)
        if key not in settings and not is_from_kubernetes(name, environment.variables[name]):
            names = [variable(table, other) for other in settings]
            near = nearest(name, names, variable(table, ""))
            raise ConfigurationError(
                f"There is no setting for the environment variable {name}.{near} "
                f"{_listing(settings)}"
            )


def _tables(names: Names) -> Iterator[str]:
    """Yields the names that tables can have; those of installed back-ends come last."""
    yield from TABLES
    yield from names()


def _misplaced(file: File, table: str, key: str) -> ConfigurationError:
    if table in ("", "tls") and key in ("token", "token_file"):
        remedy = f"set the environment variable {TOKEN}, or name a file by {TOKEN_FILE}"
    else:
        remedy = f"set the environment variable {variable(table.replace('.', '__'), key)}"
    return ConfigurationError(
        f"{file.path} {header(table)}: {key} is for a secret, which does not belong in this file: "
        f"remove it, and {remedy}"
    )


def _unknown_in_file(
    file: File, key: str, is_table: bool, keys: list[str], names: Names
) -> ConfigurationError:
    tables = sorted(set(_tables(names)))
    if not is_table:
        return ConfigurationError(
            f"{file.path} [tool.wool] has no setting {key!r}.{nearest(key, [*keys, *tables])} "
            f"{_listing(keys)}"
        )
    return ConfigurationError(
        f"{file.path} has a table {header(key)}, but there is no back-end {key!r}."
        f"{nearest(key, [*tables, *keys])} There are: {', '.join(tables)}."
    )


def _unknown_variable(name: str, known: set[str], names: Names) -> ConfigurationError:
    tables = {variable(t, key) for t, options in TABLES.items() for key in settings_of(options)}
    meant = known | tables | _with_known_table(name, names)
    near = nearest(name.upper(), meant, PREFIX)
    return ConfigurationError(
        f"There is no setting for the environment variable {name}.{near} Settings are named like "
        f"WOOL_TRANSPORT, or WOOL_GRPC__KEEPALIVE for an option of a back-end; unset it if it is "
        f"meant for something else."
    )


def _with_known_table(name: str, names: Names) -> set[str]:
    """Returns names like this one with the table that was probably meant.

    Somebody wrote one underscore instead of two, or the name of a back-end wrongly.
    """
    words = {word(table) for table in _tables(names)}
    rest = name.upper().removeprefix(PREFIX)
    _, separator, key = rest.partition("__")
    if separator:
        return {f"{PREFIX}{near}__{key}" for near in words}
    begins = [table for table in words if rest.startswith(f"{table}_")]
    return {f"{PREFIX}{table}__{rest[len(table) + 1 :]}" for table in begins}


def _listing(keys: Iterable[str]) -> str:
    names = ", ".join(keys)
    return f"Its settings are: {names}." if names else "It has no settings."
