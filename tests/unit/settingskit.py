"""Helpers that the tests of settings share."""

from __future__ import annotations

import enum
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import pytest

from wool._settings.settings import Settings
from wool.exceptions import ConfigurationError

OWN = ("unix", "memory", "grpc", "ws")
SECRET = "ghp-do-not-print-me"


def names() -> Iterator[str]:
    """Yields back-ends; one of them is a third party's, with a name that is no identifier."""
    yield from OWN
    yield "carrier-pigeon"


def only_own() -> Iterator[str]:
    """Fails the test if anybody asks for more than Wool's own."""
    yield from OWN
    pytest.fail("the names of installed back-ends were asked for")


def write(folder: Path, text: str) -> Path:
    """Writes a pyproject.toml."""
    path = folder / "pyproject.toml"
    path.write_text(textwrap.dedent(text), encoding="utf-8")
    return path


def read(folder: Path = Path("/"), **variables: str) -> Settings:
    return Settings.read(names, variables=variables, folder=folder)


def refused(folder: Path = Path("/"), **variables: str) -> str:
    """Returns why settings cannot be read."""
    with pytest.raises(ConfigurationError) as caught:
        read(folder, **variables)
    return str(caught.value)


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True, slots=True)
class Options:
    """Options as a back-end may have them."""

    keepalive: float = 10.0
    retries: Annotated[int, msgspec.Meta(ge=0, lt=10)] = 3
    compress: bool = False
    mode: Literal["fast", "safe"] = "fast"
    colour: Colour = Colour.RED
    hosts: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    labels: frozenset[str] = frozenset()
    where: Path | None = None
    url: str = field(default="", repr=False)

    def __post_init__(self) -> None:
        if self.retries and self.keepalive < 1:
            raise ValueError(f"a keepalive of {self.keepalive} with retries, at {self.url}")


def option(key: str, folder: Path = Path("/"), **variables: str) -> Any:
    options, _ = read(folder, **variables).options("grpc", Options)
    return getattr(options, key)


def option_refused(folder: Path = Path("/"), **variables: str) -> str:
    """Returns why the options of `grpc` cannot be had."""
    settings = read(folder, **variables)
    with pytest.raises(ConfigurationError) as caught:
        settings.options("grpc", Options)
    return str(caught.value)
