"""`Settings`: what this process has been told, from arguments down to defaults."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from wool._settings.checking import Names, check_environment, check_file, check_keys
from wool._settings.model import TABLES, Core, settings_of
from wool._settings.resolving import Givens, Value, instance, resolve
from wool._settings.sources import ARGUMENT, Environment, File, Given, find_file
from wool.exceptions import ConfigurationError

T = TypeVar("T")


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
