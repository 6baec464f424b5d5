"""Where settings are written down: environment variables and one TOML file."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

from msgspec import Struct

from wool.exceptions import ConfigurationError

PREFIX = "WOOL_"
CONFIG, TOKEN, TOKEN_FILE = "WOOL_CONFIG", "WOOL_TOKEN", "WOOL_TOKEN_FILE"

ARGUMENT = "argument"
DEFAULT = "default"

_KUBERNETES = re.compile(
    r"WOOL_(\w+_)?(SERVICE_(HOST|PORT(_\w+)?)=.*"
    r"|PORT_\d+_(TCP|UDP|SCTP)(_\w+)?=.*"
    r"|PORT=(tcp|udp|sctp)://.*)",
    re.DOTALL,
)


class Given(Struct, frozen=True):
    """A value that somebody has given for a setting.

    Attributes:
        value: as it was given.
        origin: where it was given, in words.
        text: whether it is text that stands for a value, as in an environment variable.
        folder: what a relative path starts from.
    """

    value: Any
    origin: str
    text: bool
    folder: Path


Givens = Mapping[str, Given]
"""The values of one source, by key."""


class Environment(Struct, frozen=True):
    """The environment variables that begin with `WOOL_` and are not empty.

    `WOOL_KEY` is a key of Wool, `WOOL_TABLE__KEY` one of a table. Those that Kubernetes sets for a
    service whose name is or begins with `wool` are left out.
    """

    variables: Mapping[str, str]
    folder: Path

    @classmethod
    def of(cls, variables: Mapping[str, str], folder: Path) -> Environment:
        ours = {
            name: value
            for name, value in variables.items()
            if name.startswith(PREFIX) and value and not _KUBERNETES.fullmatch(f"{name}={value}")
        }
        return cls(ours, folder)

    def given(self, table: str) -> Givens:
        """Returns what is set of a table, by key; of `[tool.wool]` itself if `table` is empty."""
        prefix = variable(table, "")
        return {
            name.removeprefix(prefix).lower(): Given(
                value, f"environment variable {name}", True, self.folder
            )
            for name, value in self.variables.items()
            if name.startswith(prefix) and name.isupper() and (table or "__" not in name)
        }


def variable(table: str, key: str) -> str:
    """Returns the name of the environment variable for a key."""
    return f"{PREFIX}{word(table)}__{word(key)}" if table else f"{PREFIX}{word(key)}"


def word(name: str) -> str:
    """Spells a name as in environment variables."""
    return re.sub(r"\W", "_", name).upper()


class File(Struct, frozen=True):
    """A TOML file and its `[tool.wool]`."""

    path: Path
    content: Mapping[str, Any]

    def given(self, table: str) -> Givens:
        """Returns what is set of a table, by key; of `[tool.wool]` itself if `table` is empty."""
        content = self.content.get(table, {}) if table else self.content
        origin = f"{self.path} {header(table)}"
        return {k: Given(v, origin, False, self.path.parent) for k, v in content.items()}


def header(table: str) -> str:
    """Returns the header of a table in the file."""
    if not table:
        return "[tool.wool]"
    bare = re.fullmatch(r"[A-Za-z0-9_-]+", table)
    return f"[tool.wool.{table}]" if bare else f'[tool.wool."{table}"]'


def find_file(variables: Mapping[str, str], folder: Path) -> File | None:
    """Reads the file that `WOOL_CONFIG` names, else the nearest pyproject.toml above `folder`.

    Raises:
        ConfigurationError: it cannot be read, or is not as it should be.
    """
    named = variables.get(CONFIG)
    if named:
        return _read(folder / os.path.expanduser(named), f"{CONFIG}={named}: ", required=True)
    for place in (folder, *folder.parents):
        path = place / "pyproject.toml"
        if os.path.isfile(path):
            return _read(path, "", required=False)
    return None


def _read(path: Path, why: str, *, required: bool) -> File:
    try:
        data = path.read_bytes()
        tool = _parsed(data).get("tool")
    except OSError as error:
        raise ConfigurationError(f"{why}{path} cannot be read: {error.strerror}") from error
    except ValueError as error:  # of TOML, or of UTF-8
        raise ConfigurationError(f"{why}{path} is not valid TOML: {error}") from None
    table: Any = cast("dict[str, Any]", tool).get("wool") if isinstance(tool, dict) else None
    if table is None and required and data.strip():
        raise ConfigurationError(f"{why}{path} has no table [tool.wool]")
    if not isinstance(table, dict | None):
        raise ConfigurationError(f"{why}{path}: wool must be a table of its own, [tool.wool]")
    return File(path, cast("dict[str, Any] | None", table) or {})


def _parsed(data: bytes) -> dict[str, Any]:
    """Parses a file, unless it is sure to say nothing of Wool."""
    if b"wool" not in data:
        return {}
    import tomllib  # takes 20 ms, which most programs need not spend

    return tomllib.loads(data.decode())


def walk(content: Mapping[str, Any], table: str = "") -> Iterator[tuple[str, str]]:
    """Yields table and key of everything in a `[tool.wool]`, however deep."""
    for key, value in content.items():
        yield table, key
        if isinstance(value, dict):
            inner = f"{table}.{key}" if table else key
            yield from walk(cast("dict[str, Any]", value), inner)
