"""`wool plugins`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import click

from wool._plugins import catalogue, lookup
from wool._plugins.catalogue import Check, Item
from wool._settings.settings import Settings, Value
from wool.cli.active import active, read_settings
from wool.cli.group import FAILURE
from wool.cli.tables import print_table


@click.command("plugins")
@click.option("--check", is_flag=True, help="Import each plug-in, and say what is wrong with it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.pass_context
def command(ctx: click.Context, check: bool, as_json: bool) -> None:
    """List the plug-ins that are installed.

    For each: what it is, the distribution and the module it comes from, whether it is in use, and
    which setting says so. Nothing is imported without --check. With it, the exit code is 1 if one
    of them cannot be used, unless it only lacks an extra of wool-core that nobody has asked for.
    """
    settings = read_settings()
    chosen = active(settings)
    names = {word: choice.value for word, choice in chosen.items()}
    items = list(catalogue.items(lookup.process(), names))
    checks = _checks(settings, items, chosen) if check else [None] * len(items)
    rows = [
        _row(item, _choice(item, chosen), done) for item, done in zip(items, checks, strict=True)
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        _print(rows, check)
    if any(done is not None and done.problem and not done.optional for done in checks):
        ctx.exit(FAILURE)


def _choice(item: Item, chosen: Mapping[str, Value]) -> Value | None:
    """Returns why a plug-in is in use, None if it is not."""
    if item.kind is None:
        return Value(item.name, "installed")
    choice = chosen.get(item.word)
    return choice if choice is not None and choice.value == item.name else None


def _checks(settings: Settings, items: list[Item], chosen: Mapping[str, Value]) -> list[Check]:
    def options(plugin: Any) -> Any:
        return settings.options(plugin.name, plugin.options)[0]

    here = lookup.process()
    return [
        catalogue.check(here, item, _choice(item, chosen) is not None, options) for item in items
    ]


def _row(item: Item, choice: Value | None, check: Check | None) -> dict[str, Any]:
    problem = item.problem if check is None else check.problem
    return {
        "kind": item.word,
        "name": item.name,
        "distribution": item.entry.distribution if item.entry else None,
        "version": item.entry.version if item.entry else None,
        "module": item.entry.value if item.entry else None,
        "active": choice is not None,
        "origin": None if choice is None else choice.origin,
        "usable": None if check is None and problem is None else problem is None,
        "milliseconds": None if check is None else round(check.milliseconds, 1),
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
