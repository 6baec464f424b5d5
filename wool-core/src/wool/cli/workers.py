"""`wool workers`: who there is, and whether they can be used."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import click

from wool._client.probing import Seen
from wool._pool.looking import Look
from wool._security.credentials import Insecure
from wool._worker.backends import ChosenDiscovery, choose_discovery
from wool.cli.common import (
    Files,
    Seconds,
    Where,
    credential_options,
    discovery_options,
    print_table,
    read_settings,
    timeout_option,
)
from wool.cli.group import FAILURE

PAUSE = 0.3
"""Seconds until workers are looked at again that are waited for."""

CLEAR = "\x1b[H\x1b[2J"
"""Has a terminal begin again at the top of an empty screen."""


@click.command("workers")
@click.argument("addresses", nargs=-1, metavar="[ADDRESS]...")
@discovery_options("Where to look, if no address is given; by default that of the settings.")
@credential_options
@click.option("--insecure", is_flag=True, help="Workers that authenticate nobody, on this machine.")
@click.option(
    "--wait",
    default=0.0,
    type=Seconds(min=0),
    metavar="SECONDS",
    help="Go on looking for that long before the first table.",
)
@click.option(
    "--quorum",
    type=click.IntRange(min=1),
    metavar="NUMBER",
    help="Fail unless so many can be used; with --wait, look again until there are.",
)
@timeout_option("For each worker to answer.")
@click.option("--watch", is_flag=True, help="Go on, with a new table every other second.")
@click.option(
    "--interval",
    default=2.0,
    type=Seconds(min=0.1),
    metavar="SECONDS",
    show_default=True,
    help="Between two tables of --watch.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one line for each table.")
@click.pass_context
def workers(
    ctx: click.Context,
    addresses: tuple[str, ...],
    where: Where,
    files: Files,
    insecure: bool,
    wait: float,
    quorum: int | None,
    timeout: float,
    watch: bool,
    interval: float,
    as_json: bool,
) -> None:
    """Show the workers there are, and why one is of no use.

    Each one is dialled and has to authenticate itself, as for a call. Why one cannot be used is
    said below the table: its version, credentials, or that nobody answers.

    The exit code is 0 if at least one can be used, or as many as --quorum says, else 1.
    """
    settings = read_settings()
    if addresses and where:
        raise click.UsageError("give addresses or --discovery, not both")
    if quorum is not None and watch:
        raise click.UsageError("give --quorum or --watch, not both")
    chosen = (
        choose_discovery(settings, "static", {"addresses": addresses})
        if addresses
        else where.choose(settings)
    )
    if chosen is None:
        raise click.UsageError(
            "say where to look: --discovery NAME, WOOL_DISCOVERY, or addresses of workers"
        )
    if insecure and files:
        raise click.UsageError("give --insecure or credentials, not both")
    look = Look(settings, chosen, Insecure() if insecure else files.read(), timeout)
    shown = _Table(chosen, as_json=as_json, again=watch)
    try:
        asyncio.run(_run(look, shown, wait, quorum, interval if watch else None))
    except KeyboardInterrupt:
        if not watch:
            raise
    if shown.usable < (quorum or 1):
        ctx.exit(FAILURE)


async def _run(
    look: Look, shown: _Table, wait: float, quorum: int | None, interval: float | None
) -> None:
    """Looks and shows; with a quorum, looks again until there is one or the time is up."""
    deadline = asyncio.get_running_loop().time() + wait
    async with look.watching(wait if quorum is None else 0):
        while True:
            seen = await look.at_all()
            lacking = quorum is not None and sum(one.problem is None for one in seen) < quorum
            if lacking and asyncio.get_running_loop().time() < deadline:
                await asyncio.sleep(PAUSE)
                continue
            shown.show(seen)
            if interval is None:
                return
            await asyncio.sleep(interval)


class _Table:
    """Prints what has been seen.

    Attributes:
        usable: how many workers could be used when it was last shown.
    """

    def __init__(self, chosen: ChosenDiscovery, *, as_json: bool, again: bool) -> None:
        self.usable = 0
        self._chosen = chosen
        self._as_json = as_json
        self._clears = again and not as_json and sys.stdout.isatty()

    def show(self, seen: Sequence[Seen]) -> None:
        self.usable = sum(one.problem is None for one in seen)
        if self._as_json:
            click.echo(json.dumps([_document(one) for one in seen]))
            return
        if self._clears:
            click.echo(CLEAR, nl=False)
        if not seen:
            click.echo(f"{self._chosen} has found no workers")
            return
        print_table(
            ("address", "tags", "load", "host", "pid", "python", "wool", "age", "usable"),
            [_row(one) for one in seen],
        )
        for problem, places in _problems(seen).items():
            click.echo(f"\n{', '.join(places)}:\n    {problem}")


def _row(seen: Seen) -> list[str]:
    info = seen.info
    known = seen.problem is None
    return [
        info.address,
        ",".join(sorted(info.tags)) or "-",
        str(info.load) if known else "-",
        info.host or "-",
        str(info.pid or "-"),
        info.python or "-",
        info.version or "-",
        "-" if seen.age is None else duration(seen.age),
        "yes" if known else "no",
    ]


def _problems(seen: Iterable[Seen]) -> dict[str, list[str]]:
    """Returns the addresses of workers that cannot be used, by what is wrong with them."""
    problems: dict[str, list[str]] = {}
    for one in seen:
        if one.problem is not None:
            problems.setdefault(one.problem, []).append(one.info.address)
    return problems


def _document(seen: Seen) -> dict[str, Any]:
    info = seen.info
    return {
        "id": info.id or None,
        "address": info.address,
        "tags": sorted(info.tags),
        "host": info.host or None,
        "pid": info.pid or None,
        "python": info.python or None,
        "version": info.version or None,
        "serializers": list(info.serializers),
        "load": info.load if seen.problem is None else None,
        "age": seen.age,
        "usable": seen.problem is None,
        "problem": seen.problem,
    }


def duration(seconds: int) -> str:
    """Says how long something has lasted: `4s`, `12m`, `3h05m`, `9d`."""
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if days:
        return f"{days}d"
    if hours:
        return f"{hours}h{minutes % 60:02}m"
    return f"{minutes}m" if minutes else f"{seconds}s"
