"""Options that several commands have, and what comes of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from wool._security.credentials import Authenticator
    from wool._settings.settings import Settings
    from wool._worker.backends import ChosenDiscovery

F = TypeVar("F", bound=Callable[..., Any])

_PATH = click.Path(exists=True, dir_okay=False, path_type=Path)


class Seconds(click.FloatRange):
    """A number of seconds, which `nan` is not although click has it in every range."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Returns the number, or says what is wrong with it."""
        seconds = super().convert(value, param, ctx)
        if math.isnan(seconds):
            self.fail(f"{value} is no number of seconds.", param, ctx)
        return seconds


def names_of(word: str) -> Callable[..., list[CompletionItem]]:
    """Returns what completes the name of a back-end: `transport`, `discovery` or `serializer`."""

    def complete(
        ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[CompletionItem]:
        from click.shell_completion import CompletionItem

        from wool._plugins import lookup

        (kind,) = (kind for kind in lookup.KINDS if kind.word == word)
        names = sorted(lookup.process().names_of(kind))
        return [CompletionItem(name) for name in names if name.startswith(incomplete)]

    return complete


def discovery_options(use: str) -> Callable[[F], F]:
    """Adds `--discovery`, `--namespace` and `--interface` to a command; `use` says what for."""
    return _together(
        click.option("--discovery", metavar="NAME", help=use, shell_complete=names_of("discovery")),
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


def discovery_of(
    settings: Settings,
    discovery: str | None,
    namespace: str | None,
    interfaces: Sequence[str],
) -> ChosenDiscovery | None:
    """Returns the discovery that options or settings choose; None if none does.

    Raises:
        UsageError: the options do not go together.
        ConfigurationError, PluginError: the discovery cannot be used, or has no such option.
    """
    from wool._worker.backends import choose_discovery

    options = {"namespace": namespace, "interfaces": tuple(interfaces) or None}
    chosen = choose_discovery(settings, discovery or settings.get("discovery").value, options)
    if chosen is None and any(options.values()):
        raise click.UsageError("--namespace and --interface are for a --discovery; name one")
    return chosen


def credential_options(command: F) -> F:
    """Adds options that name files with credentials to a command."""
    return _together(
        click.option("--token-file", type=_PATH, help="File with the token of the cluster."),
        click.option("--ca", type=_PATH, help="For mutual TLS: the authority's certificate."),
        click.option("--cert", type=_PATH, help="For mutual TLS: the own certificate."),
        click.option("--key", type=_PATH, help="For mutual TLS: the key of that certificate."),
    )(command)


def credentials_from(
    token_file: Path | None, ca: Path | None, cert: Path | None, key: Path | None
) -> Authenticator | None:
    """Returns the credentials that options name; None: those of the settings are to be used.

    Raises:
        UsageError: the options do not go together.
        ConfigurationError: a file is of no use.
    """
    from wool._security import tokens
    from wool._security.credentials import MutualTls, Token

    given = [path for path in (ca, cert, key) if path is not None]
    if token_file is not None:
        if given:
            raise click.UsageError("give --token-file, or --ca, --cert and --key, not both")
        return Token(tokens.read(token_file, "--token-file"))
    if not given:
        return None
    if len(given) < 3:
        raise click.UsageError("mutual TLS takes all of --ca, --cert and --key")
    return MutualTls(str(ca), str(cert), str(key))


def _together(*decorators: Callable[[F], F]) -> Callable[[F], F]:
    def decorate(command: F) -> F:
        for decorator in reversed(decorators):
            command = decorator(command)
        return command

    return decorate
