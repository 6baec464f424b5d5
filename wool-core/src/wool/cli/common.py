"""The common part of commands: options that several have, the settings, and tables."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from wool._plugins import lookup
from wool._settings.settings import Settings, Value
from wool._settings.values import as_json

if TYPE_CHECKING:
    from wool._security.credentials import Authenticator
    from wool._worker.backends import ChosenDiscovery

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def read_settings() -> Settings:
    """Returns what is set for a program that is started here."""
    return Settings.read(lookup.names)


def active(settings: Settings) -> dict[str, Value]:
    """Returns the name of each back-end in use, and why it is, by the word for its kind."""
    chosen = {kind.word: settings.get(kind.word) for kind in lookup.KINDS}
    if chosen["transport"].value is None and chosen["discovery"].value is None:
        chosen["transport"] = Value("unix", chosen["transport"].origin)
    return {word: value for word, value in chosen.items() if value.value is not None}


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Prints rows under a header, each column as wide as its widest cell."""
    lines = [[title.upper() for title in header], *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (cell.ljust(width) for cell, width in zip(line, widths, strict=True))
        click.echo("  ".join(cells).rstrip())


def print_json(value: Any, *, indent: int = 2) -> None:
    """Prints what a program is to read; in one line without an indent."""
    click.echo(as_json(value, indent))


def name_option(word: str, use: str) -> Decorator:
    """Adds an option that names a back-end: a `transport`, `discovery` or `serializer`."""
    return click.option(f"--{word}", metavar="NAME", help=use)


def seconds_option(name: str, use: str, *, least: float = 0, **more: Any) -> Decorator:
    """Adds an option that takes a number of seconds."""
    return click.option(name, type=click.FloatRange(least), metavar="SECONDS", help=use, **more)


def timeout_option(use: str) -> Decorator:
    """Adds `--timeout`, in seconds."""
    return seconds_option("--timeout", use, least=0.001, default=3.0, show_default=True)


transport_option: Decorator = name_option("transport", "Transport, if there is no address.")


@dataclass(frozen=True, slots=True)
class Where:
    """The discovery that options name."""

    discovery: str | None
    namespace: str | None
    interfaces: tuple[str, ...]

    def __bool__(self) -> bool:
        return bool(self.discovery or self.namespace or self.interfaces)

    @property
    def options(self) -> dict[str, Any]:
        """The options of the discovery."""
        return {"namespace": self.namespace, "interfaces": self.interfaces or None}

    def choose(self, settings: Settings) -> ChosenDiscovery | None:
        """Returns the discovery that options or settings choose; None if none does.

        Raises:
            UsageError: the options do not go together.
            ConfigurationError, PluginError: the discovery cannot be used, or has no such option.
        """
        from wool._worker.backends import choose_discovery

        name = self.discovery or settings.get("discovery").value
        chosen = choose_discovery(settings, name, self.options)
        if chosen is None and self:
            raise click.UsageError("--namespace and --interface are for a --discovery; name one")
        return chosen


@dataclass(frozen=True, slots=True)
class Files:
    """The files with credentials that options name."""

    token_file: Path | None
    ca: Path | None
    cert: Path | None
    key: Path | None

    def __bool__(self) -> bool:
        return any((self.token_file, self.ca, self.cert, self.key))

    def read(self) -> Authenticator | None:
        """Returns the credentials; None: those of the settings are to be used.

        Raises:
            UsageError: the options do not go together.
            ConfigurationError: a file is of no use.
        """
        from wool._security import tokens
        from wool._security.credentials import MutualTls, Token

        given = [str(path) for path in (self.ca, self.cert, self.key) if path is not None]
        if self.token_file is not None:
            if given:
                raise click.UsageError("give --token-file, or --ca, --cert and --key, not both")
            return Token(tokens.read(str(self.token_file), "--token-file"))
        if not given:
            return None
        if len(given) < 3:
            raise click.UsageError("mutual TLS takes all of --ca, --cert and --key")
        return MutualTls(*given)


def discovery_options(use: str) -> Decorator:
    """Adds `--discovery`, `--namespace` and `--interface`; the command gets a `where`."""
    return _grouped(
        "where",
        Where,
        name_option("discovery", use),
        click.option(
            "--namespace", metavar="NAME", help="Of the discovery: only those in it meet."
        ),
        click.option(
            "--interface",
            "interfaces",
            multiple=True,
            metavar="NAME",
            help="Of the discovery: network interface, or its address; repeatable. By default all.",
        ),
    )


def credential_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds options that name files with credentials; the command gets `files`."""
    path = click.Path(exists=True, dir_okay=False, path_type=Path)
    return _grouped(
        "files",
        Files,
        click.option("--token-file", type=path, help="File with the token of the cluster."),
        click.option("--ca", type=path, help="For mutual TLS: the authority's certificate."),
        click.option("--cert", type=path, help="For mutual TLS: the own certificate."),
        click.option("--key", type=path, help="For mutual TLS: the key of that certificate."),
    )(command)


def _grouped(name: str, kind: type[Any], *options: Decorator) -> Decorator:
    """Adds options to a command, which gets their values as one object."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def called(**given: Any) -> Any:
            values = [given.pop(field.name) for field in dataclasses.fields(kind)]
            return command(**given, **{name: kind(*values)})

        grouped: Callable[..., Any] = called
        for option in reversed(options):
            grouped = option(grouped)
        return grouped

    return decorate
