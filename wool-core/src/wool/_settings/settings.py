"""`Settings`: what this process has been told, from arguments down to defaults."""

from __future__ import annotations

import contextlib
import difflib
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from wool._settings.model import SECRETS, TABLES, Core, Setting, settings_of
from wool._settings.sources import (
    ARGUMENT,
    CONFIG,
    DEFAULT,
    PREFIX,
    TOKEN,
    TOKEN_FILE,
    Environment,
    File,
    Given,
    find_file,
    header,
    is_from_kubernetes,
    variable,
    walk,
    word,
)
from wool._settings.values import convert
from wool.exceptions import ConfigurationError, PluginError, WoolError

Names = Callable[[], Iterable[str]]
"""Returns the names of the back-ends there are, those first that take no time to tell."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings in environment and file. An argument precedes both, a default comes last.

    It is read anew for each pool, and does not change afterwards.

    Attributes:
        environment: the variables that begin with `WOOL_`.
        file: the file that was read, if there is one.
    """

    environment: Environment
    file: File | None

    @classmethod
    def read(
        cls,
        names: Names,
        *,
        variables: Mapping[str, str] | None = None,
        folder: Path | None = None,
    ) -> Settings:
        """Reads and checks what is set. Options of back-ends are checked when they are asked for.

        Args:
            names: the names of the back-ends there are; asked only about an unknown table.
            variables: the environment, by default that of this process.
            folder: where the search for a file begins, by default the working directory.

        Raises:
            ConfigurationError: a name or value is wrong, or the file cannot be read.
        """
        variables = os.environ if variables is None else variables
        folder = _working_directory() if folder is None else folder
        settings = cls(Environment.of(variables, folder), find_file(variables, folder))
        if settings.file is not None:
            check_file(settings.file, names)
        check_environment(settings.environment, names)
        settings.core()
        for table, options in TABLES.items():
            settings.options(table, options)
        return settings

    @classmethod
    def peek(cls, key: str) -> Any:
        """Returns the value of one key of `[tool.wool]`; the others are not checked.

        Raises:
            ConfigurationError: the value is of no use, or the file cannot be read.
        """
        folder = _working_directory()
        settings = cls(Environment.of(os.environ, folder), find_file(os.environ, folder))
        return settings.get(key).value

    def get(self, key: str, argument: Any = None) -> Value:
        """Returns the value of a key of `[tool.wool]`.

        Args:
            argument: what a caller says; None if nothing.

        Raises:
            ConfigurationError: a value is of no use.
        """
        arguments = {} if argument is None else {key: argument}
        value = resolve(settings_of(Core)[key], self._sources("", arguments))
        assert value is not None  # all of them have defaults
        return value

    def core(self, **arguments: Any) -> tuple[Core, dict[str, str]]:
        """Returns all keys of `[tool.wool]`, and the origin of each value.

        Args:
            arguments: what a caller says; those that are None say nothing.

        Raises:
            ConfigurationError: a value is of no use.
        """
        return self.options("", Core, arguments)

    def options(
        self, table: str, options: type[T], arguments: Mapping[str, Any] | None = None
    ) -> tuple[T, dict[str, str]]:
        """Returns the options of a back-end, or of a table of Wool's, and each value's origin.

        Args:
            table: the name of the back-end.
            options: the dataclass of its options.
            arguments: what a caller says; those that are None say nothing.

        Raises:
            ConfigurationError: a key or value is of no use, or a value is missing.
            PluginError: the dataclass is of no use.
        """
        sources = self._sources(table, arguments or {})
        if table:
            check_keys(table, settings_of(options), self.file, self.environment)
        unknown = sorted(set(sources[0]) - set(settings_of(options)))
        if unknown:
            raise ConfigurationError(f"{table or 'Wool'} has no option {unknown[0]!r}")
        return instance(table, options, sources)

    def _sources(self, table: str, arguments: Mapping[str, Any]) -> list[Givens]:
        """Returns what is given for a table, what counts most first."""
        said: Givens = {
            key: Given(value, ARGUMENT, False, self.environment.folder)
            for key, value in arguments.items()
            if value is not None
        }
        file: Givens = {} if self.file is None else self.file.given(table)
        return [said, self.environment.given(table), file]


def _working_directory() -> Path:
    try:
        return Path.cwd()
    except OSError:  # it has been removed
        return Path(os.sep)


@contextlib.contextmanager
def blaming(origin: str) -> Generator[None]:
    """Has errors about the name of a back-end begin with the file or the variable that has it."""
    try:
        yield
    except (ConfigurationError, PluginError) as error:
        if origin in (ARGUMENT, DEFAULT):
            raise
        raise type(error)(f"{origin}: {error}") from error.__cause__


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
