"""Where settings are written down: environment variables and one TOML file."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from wool.exceptions import ConfigurationError

PREFIX = "WOOL_"
CONFIG, TOKEN, TOKEN_FILE = "WOOL_CONFIG", "WOOL_TOKEN", "WOOL_TOKEN_FILE"

ARGUMENT = "argument"
DEFAULT = "default"

_KUBERNETES = re.compile(
    r"WOOL_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)"
)
_KUBERNETES_PORT = re.compile(r"WOOL_(\w+_)?PORT")
_KUBERNETES_ADDRESS = re.compile(r"(tcp|udp|sctp)://")


@dataclass(frozen=True, slots=True)
class Given:
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


@dataclass(frozen=True, slots=True)
class Environment:
    """The environment variables that begin with `WOOL_` and are not empty.

    `WOOL_KEY` is a key of Wool, `WOOL_TABLE__KEY` one of a table.
    """

    variables: Mapping[str, str]
    folder: Path

    @classmethod
    def of(cls, variables: Mapping[str, str], folder: Path) -> Environment:
        ours = {k: v for k, v in variables.items() if k.startswith(PREFIX) and v}
        return cls(ours, folder)

    def given(self, table: str) -> dict[str, Given]:
        """Returns what is set of a table, by key; of `[tool.wool]` itself if `table` is empty."""
        prefix = variable(table, "")
        return {
            name.removeprefix(prefix).lower(): self._given(name, value)
            for name, value in self.variables.items()
            if name.startswith(prefix) and name.isupper() and (table or "__" not in name)
        }

    def _given(self, name: str, value: str) -> Given:
        return Given(value, f"environment variable {name}", True, self.folder)


def variable(table: str, key: str) -> str:
    """Returns the name of the environment variable for a key."""
    return f"{PREFIX}{word(table)}__{word(key)}" if table else f"{PREFIX}{word(key)}"


def word(name: str) -> str:
    """Spells a name as in environment variables."""
    return re.sub(r"\W", "_", name).upper()


def is_from_kubernetes(name: str, value: str) -> bool:
    """Whether Kubernetes sets this variable, for a service whose name is or begins with `wool`."""
    if _KUBERNETES.fullmatch(name):
        return True
    return bool(_KUBERNETES_PORT.fullmatch(name) and _KUBERNETES_ADDRESS.match(value))


@dataclass(frozen=True, slots=True)
class File:
    """A TOML file and its `[tool.wool]`."""

    path: Path
    content: Mapping[str, Any]

    def given(self, table: str) -> dict[str, Given]:
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
        path = folder / os.path.expanduser(named)
        return _read(path, f"{CONFIG}={named}: ", required=True)
    for place in (folder, *folder.parents):
        path = place / "pyproject.toml"
        if os.path.isfile(path):
            return _read(path, "", required=False)
    return None


def _read(path: Path, why: str, *, required: bool) -> File:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ConfigurationError(f"{why}{path} cannot be read: {error.strerror}") from error
    table = _table(path, why, data) if b"wool" in data or b"\0" in data else None
    if table is None and required and data.strip():
        raise ConfigurationError(f"{why}{path} has no table [tool.wool]")
    return File(path, table or {})


def _table(path: Path, why: str, data: bytes) -> Mapping[str, Any] | None:
    """Returns `[tool.wool]`; None if there is none."""
    import tomllib  # takes 20 ms, which most programs need not spend

    try:
        content = tomllib.loads(data.decode())
    except ValueError as error:  # of TOML, or of UTF-8
        raise ConfigurationError(f"{why}{path} is not valid TOML: {error}") from None
    tool = content.get("tool")
    table: object = cast("dict[str, Any]", tool).get("wool") if isinstance(tool, dict) else None
    if table is None or isinstance(table, dict):
        return cast("dict[str, Any] | None", table)
    raise ConfigurationError(f"{why}{path}: wool must be a table of its own, [tool.wool]")


def walk(content: Mapping[str, Any], table: str = "") -> Iterator[tuple[str, str]]:
    """Yields table and key of everything in a `[tool.wool]`, however deep."""
    for key, value in content.items():
        yield table, key
        if isinstance(value, dict):
            inner = f"{table}.{key}" if table else key
            yield from walk(cast("dict[str, Any]", value), inner)
