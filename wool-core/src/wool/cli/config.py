"""`wool config`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click

from wool._plugins import lookup
from wool._settings.model import TABLES, Core, settings_of
from wool._settings.settings import Settings, Value, blaming
from wool._settings.sources import DEFAULT, TOKEN, TOKEN_FILE
from wool._settings.values import plain
from wool.cli.common import active, print_json, print_table, read_settings
from wool.exceptions import WoolError

MASK = "********"


@click.command("config")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def config(as_json: bool) -> None:
    """Show every setting, and where its value comes from.

    Settings are read from environment variables (WOOL_…), then from [tool.wool] in the nearest
    pyproject.toml, or in the file that WOOL_CONFIG names. Arguments in a program precede both. The
    options of the back-ends in use are shown as NAME.OPTION. Secrets are not shown.
    """
    settings = read_settings()
    values = dict(_own(settings))
    problems: list[WoolError] = []
    for word, choice in active(settings).items():
        try:
            values |= _options(settings, word, choice)
        except WoolError as error:
            problems.append(error)
    if as_json:
        file = None if settings.file is None else settings.file.path
        print_json({"file": file, "settings": values, "problems": list(map(str, problems))})
    else:
        if settings.file is not None:
            click.echo(f"File: {settings.file.path}\n")
        rows = [(key, _text(value.value), value.origin) for key, value in values.items()]
        print_table(("setting", "value", "origin"), rows)
    if problems:
        raise problems[0]


def _own(settings: Settings) -> Iterator[tuple[str, Value]]:
    """Yields Wool's own settings."""
    chosen = active(settings)
    for key in settings_of(Core):
        yield key, chosen.get(key) or settings.get(key)
    for table, options in TABLES.items():
        yield from _table(settings, table, options).items()
    for name, secret in ((TOKEN, True), (TOKEN_FILE, False)):
        value = settings.environment.variables.get(name)
        origin = f"environment variable {name}" if value else DEFAULT
        shown = MASK if value and secret else value
        yield name.removeprefix("WOOL_").lower(), Value(shown, origin)


def _options(settings: Settings, word: str, choice: Value) -> dict[str, Value]:
    """Returns the options of a back-end; imports its module to know them."""
    (kind,) = (kind for kind in lookup.KINDS if kind.word == word)
    with blaming(choice.origin):
        plugin = lookup.process().find(kind, choice.value).plugin
    return _table(settings, choice.value, plugin.options)


def _table(settings: Settings, table: str, options: type[Any]) -> dict[str, Value]:
    made, origins = settings.options(table, options)
    shown: dict[str, Value] = {}
    for name, setting in settings_of(options).items():
        value = plain(getattr(made, name))
        masked = MASK if setting.secret and value is not None else value
        shown[f"{table}.{name}"] = Value(masked, origins[name])
    return shown


def _text(value: Any) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value)) or "-"  # pyright: ignore[reportUnknownArgumentType]
    return str(value) or "-"
