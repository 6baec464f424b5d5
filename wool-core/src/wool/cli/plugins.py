"""`wool plugins`: what is installed, and whether it works."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import click

from wool._plugins import lookup
from wool._plugins.lookup import KINDS, Entry
from wool._plugins.observers import GROUP, load_observer
from wool._plugins.records import EXTRAS, OBSERVER, Kind, describe
from wool._settings.settings import Settings, Value
from wool.cli.common import active, print_table, read_settings
from wool.cli.group import FAILURE
from wool.exceptions import ConfigurationError, PluginError, WoolError


@click.command("plugins")
@click.option("--check", "checked", is_flag=True, help="Import each, and say what is wrong.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.pass_context
def plugins(ctx: click.Context, checked: bool, as_json: bool) -> None:
    """List the plug-ins that are installed.

    For each: what it is, the distribution and the module it comes from, whether it is in use, and
    which setting says so. Nothing is imported without --check. With it, the exit code is 1 if one
    of them cannot be used, unless it only lacks an extra of wool-core that nobody has asked for.
    """
    settings = read_settings()
    items = list(installed(active(settings)))
    checks = [check(item, settings) if checked else None for item in items]
    rows = [_row(item, done) for item, done in zip(items, checks, strict=True)]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        _print(rows, checked)
    if any(done is not None and done.problem and not done.optional for done in checks):
        ctx.exit(FAILURE)


@dataclass(frozen=True, slots=True)
class Item:
    """One plug-in of one distribution.

    Attributes:
        kind: what it is; None: an observer.
        name: what it is called.
        entry: who provides it, and in which module; None if nobody does.
        choice: why it is in use; None if it is not.
        problem: why it cannot be chosen, as far as that shows without importing it.
    """

    kind: Kind[Any] | None
    name: str
    entry: Entry | None
    choice: Value | None
    problem: WoolError | None = None

    @property
    def word(self) -> str:
        """Its kind in a word."""
        return OBSERVER if self.kind is None else self.kind.word


def installed(chosen: Mapping[str, Value]) -> Iterator[Item]:
    """Yields what is installed, and what is chosen without being so. Imports nothing.

    Args:
        chosen: names of back-ends by the word for their kind.
    """
    here = lookup.process()
    for kind in KINDS:
        entries: dict[str, list[Entry | None]] = {}
        for entry in sorted(here.entries(kind.group), key=lambda e: (e.name, e.provider)):
            entries.setdefault(entry.name, []).append(entry)
        choice = chosen.get(kind.word)
        if choice is not None:
            entries.setdefault(choice.value, [None])
        for name, providers in entries.items():
            is_chosen = choice is not None and choice.value == name
            problem = None
            try:
                here.entry(kind, name)
            except WoolError as error:
                problem = error
            for entry in providers:
                yield Item(kind, name, entry, choice if is_chosen else None, problem)
    for entry in here.entries(GROUP):
        yield Item(None, entry.name, entry, Value(entry.name, "installed"))


@dataclass(frozen=True, slots=True)
class Check:
    """The outcome of using a plug-in.

    Attributes:
        milliseconds: how long it took.
        problem: why it cannot be used.
        optional: whether it only lacks an extra of wool-core that nobody has asked for.
    """

    milliseconds: float
    problem: Exception | None
    optional: bool


def check(item: Item, settings: Settings) -> Check:
    """Imports a plug-in and has it make its back-end, which connects to nothing."""
    began = time.perf_counter()
    problem: Exception | None = None
    try:
        _use(item, settings)
    except WoolError as error:
        problem = error
    except Exception as error:
        origin = item.entry.provider if item.entry else item.name
        problem = PluginError(
            f"The {item.word} {item.name!r} (from {origin}) cannot be made: {describe(error)}. "
            f"Upgrade it, or report this to its authors."
        )
    lacking = problem is not None and isinstance(problem.__cause__, ModuleNotFoundError)
    optional = lacking and item.name in EXTRAS and item.choice is None
    return Check((time.perf_counter() - began) * 1000, problem, optional)


def _use(item: Item, settings: Settings) -> None:
    if item.kind is None:
        assert item.entry is not None
        load_observer(item.name, item.entry.value, item.entry.provider).check()
        return
    found = lookup.process().find(item.kind, item.name)
    try:
        found.make(settings.options(found.plugin.name, found.plugin.options)[0])
    except ConfigurationError:  # nobody has configured what nobody uses
        if item.choice is not None:
            raise


def _row(item: Item, done: Check | None) -> dict[str, Any]:
    problem = item.problem if done is None else done.problem
    return {
        "kind": item.word,
        "name": item.name,
        "distribution": item.entry.distribution if item.entry else None,
        "version": item.entry.version if item.entry else None,
        "module": item.entry.value if item.entry else None,
        "active": item.choice is not None,
        "origin": None if item.choice is None else item.choice.origin,
        "usable": None if done is None and problem is None else problem is None,
        "milliseconds": None if done is None else round(done.milliseconds, 1),
        "problem": None if problem is None else str(problem),
    }


def _print(rows: list[dict[str, Any]], checked: bool) -> None:
    header = ["kind", "name", "distribution", "module", "in use", *(["check"] * checked)]
    lines = [
        [
            row["kind"],
            row["name"],
            f"{row['distribution']} {row['version']}" if row["distribution"] else "-",
            row["module"] or "-",
            f"yes ({row['origin']})" if row["active"] else "no",
            *([_verdict(row)] * checked),
        ]
        for row in rows
    ]
    print_table(header, lines)
    for problem in dict.fromkeys(row["problem"] for row in rows if row["problem"]):
        click.echo(f"\n{problem}")


def _verdict(row: dict[str, Any]) -> str:
    return f"ok, {row['milliseconds']:.0f} ms" if row["usable"] else "not usable"
