"""`Settings`: what this process has been told, from arguments down to defaults."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from msgspec import Struct

from wool._settings.model import TABLES, Core, Setting, settings_of
from wool._settings.names import Names, check_environment, check_file, check_keys
from wool._settings.sources import (
    ARGUMENT,
    DEFAULT,
    Environment,
    File,
    Given,
    Givens,
    find_file,
    header,
    variable,
)
from wool._settings.values import convert
from wool.exceptions import ConfigurationError, PluginError, WoolError

T = TypeVar("T")


class Value(Struct, frozen=True):
    """The value of a setting, and in words where it is from."""

    value: Any
    origin: str


class Settings(Struct, frozen=True):
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
        settings = cls._unchecked(variables, folder)
        if settings.file is not None:
            check_file(settings.file, names)
        check_environment(settings.environment, names)
        for table, options in {"": Core, **TABLES}.items():
            settings.options(table, options)
        return settings

    @classmethod
    def peek(cls, key: str) -> Any:
        """Returns the value of one key of `[tool.wool]`; the others are not checked.

        Raises:
            ConfigurationError: the value is of no use, or the file cannot be read.
        """
        return cls._unchecked().get(key).value

    @classmethod
    def _unchecked(
        cls, variables: Mapping[str, str] | None = None, folder: Path | None = None
    ) -> Settings:
        variables = os.environ if variables is None else variables
        folder = _working_directory() if folder is None else folder
        return cls(Environment.of(variables, folder), find_file(variables, folder))

    def get(self, key: str, argument: Any = None) -> Value:
        """Returns the value of a key of `[tool.wool]`.

        Args:
            argument: what a caller says; None if nothing.

        Raises:
            ConfigurationError: a value is of no use.
        """
        return _resolve("", settings_of(Core)[key], self._sources("", {key: argument}))

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
        settings = settings_of(options)
        sources = self._sources(table, arguments or {})
        if table:
            check_keys(table, settings, self.file, self.environment)
        for key in sources[0]:
            if key not in settings:
                raise ConfigurationError(f"{table or 'Wool'} has no option {key!r}")
        values = {name: _resolve(table, one, sources) for name, one in settings.items()}
        try:
            made = options(**{name: value.value for name, value in values.items()})
        except (WoolError, KeyboardInterrupt):
            raise
        except BaseException as error:  # of the author's own checks
            secrets = [values[name].value for name, one in settings.items() if one.secret]
            # The error itself may quote a secret, and would be shown as the cause.
            raise _refused(table, secrets, values, error) from (None if secrets else error)
        return made, {name: value.origin for name, value in values.items()}

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


def _resolve(table: str, setting: Setting, sources: Sequence[Givens]) -> Value:
    """Returns what the first source says that says something, else the default.

    The other sources are looked at too, so a mistake is found whether or not it counts.
    """
    given = [source[setting.name] for source in sources if setting.name in source]
    values = [Value(convert(setting, one), one.origin) for one in given]
    if values:
        return values[0]
    if not setting.required:
        return Value(setting.default, DEFAULT)
    place = "" if setting.secret else f"{setting.name} in {header(table)}, or "
    raise ConfigurationError(
        f"{table} needs a value for {setting.name!r}: set {place}the environment variable "
        f"{variable(table, setting.name)}"
    )


def _refused(
    table: str, secrets: Sequence[Any], values: Mapping[str, Value], error: BaseException
) -> WoolError:
    """The options object did not like its values. It does not say which, so all are named."""
    text = str(error) or type(error).__name__
    for secret in secrets:
        if secret:
            text = text.replace(str(secret), "…")
    if not isinstance(error, TypeError | ValueError):
        return PluginError(
            f"The options of {table} cannot be made: {type(error).__name__}: {text}. Report this "
            f"to the authors of the back-end."
        )
    chosen = [f"{k} from {v.origin}" for k, v in values.items() if v.origin != DEFAULT]
    where = f" ({', '.join(chosen)})" if chosen else ""
    return ConfigurationError(f"The settings of {table} cannot be used: {text}{where}")
