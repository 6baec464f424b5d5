"""`wool plugins`: what is installed, and whether it works."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import click

from wool._plugins import lookup
from wool._plugins.lookup import KINDS, Entry
from wool._plugins.observers import GROUP, load_observer
from wool._plugins.records import EXTRAS, OBSERVER, Kind
from wool._settings.settings import Settings, Value
from wool._texts import reason_of
from wool.cli.common import active, print_json, print_table, read_settings
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
    rows = [_row(item, settings, checked) for item in items]
    if as_json:
        print_json(rows)
    else:
        _print(rows, checked)
    failed = (item for item, row in zip(items, rows, strict=True) if row["usable"] is False)
    if checked and not all(item.optional for item in failed):
        ctx.exit(FAILURE)


@dataclass(slots=True)
class Item:
    """One plug-in of one distribution.

    Attributes:
        kind: what it is; None: an observer.
        name: what it is called.
        entry: who provides it, and in which module; None if nobody does.
        choice: why it is in use; None if it is not.
        problem: why it cannot be used, as far as that is known.
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

    @property
    def optional(self) -> bool:
        """Whether it only lacks an extra of wool-core that nobody has asked for."""
        lacking = self.problem is not None and self.problem.__cause__
        is_extra = self.name in EXTRAS and self.choice is None
        return is_extra and isinstance(lacking, ModuleNotFoundError)

    def check(self, settings: Settings) -> None:
        """Imports it and has it make its back-end, which connects to nothing."""
        try:
            self._use(settings)
        except WoolError as error:
            self.problem = error
        except Exception as error:
            origin = self.entry.provider if self.entry else self.name
            self.problem = PluginError(
                f"The {self.word} {self.name!r} (from {origin}) cannot be made: "
                f"{reason_of(error)}. Upgrade it, or report this to its authors."
            )

    def _use(self, settings: Settings) -> None:
        if self.kind is None:
            assert self.entry is not None
            load_observer(self.name, self.entry.value, self.entry.provider).check()
            return
        found = lookup.process().find(self.kind, self.name)
        try:
            found.make(settings.options(found.plugin.name, found.plugin.options)[0])
        except ConfigurationError:  # nobody has configured what nobody uses
            if self.choice is not None:
                raise


def installed(chosen: Mapping[str, Value]) -> Iterator[Item]:
    """Yields what is installed, and what is chosen without being so. Imports nothing.

    Args:
        chosen: names of back-ends by the word for their kind.
    """
    here = lookup.process()
    for kind in KINDS:
        entries: list[Entry] = sorted(here.entries(kind.group), key=lambda e: (e.name, e.provider))
        pairs: list[tuple[str, Entry | None]] = [(entry.name, entry) for entry in entries]
        choice = chosen.get(kind.word)
        if choice is not None and choice.value not in dict(pairs):
            pairs.append((choice.value, None))
        for name, entry in pairs:
            is_chosen = choice is not None and choice.value == name
            item = Item(kind, name, entry, choice if is_chosen else None)
            try:
                here.entry(kind, name)
            except WoolError as error:
                item.problem = error
            yield item
    for entry in here.entries(GROUP):
        yield Item(None, entry.name, entry, Value(entry.name, "installed"))


def _row(item: Item, settings: Settings, checked: bool) -> dict[str, Any]:
    began = time.perf_counter()
    if checked:
        item.check(settings)
    milliseconds = round((time.perf_counter() - began) * 1000, 1)
    entry, problem = item.entry, item.problem
    return {
        "kind": item.word,
        "name": item.name,
        "distribution": entry.distribution if entry else None,
        "version": entry.version if entry else None,
        "module": entry.value if entry else None,
        "active": item.choice is not None,
        "origin": None if item.choice is None else item.choice.origin,
        "usable": problem is None if checked or problem else None,
        "milliseconds": milliseconds if checked else None,
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
            f"ok, {row['milliseconds'] or 0:.0f} ms" if row["usable"] else "not usable",
        ][: len(header)]
        for row in rows
    ]
    print_table(header, lines)
    for problem in dict.fromkeys(row["problem"] for row in rows if row["problem"]):
        click.echo(f"\n{problem}")
