"""`wool workers`: who there is, and whether they can be used."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import click

from wool._client.probing import Seen
from wool._pool.looking import Look
from wool._security.credentials import Insecure
from wool._worker.backends import choose_discovery
from wool.cli.common import (
    Files,
    Where,
    credential_options,
    discovery_options,
    print_json,
    print_table,
    read_settings,
    seconds_option,
    timeout_option,
)
from wool.cli.group import FAILURE

PAUSE = 0.3
"""Seconds until workers are looked at again that are waited for."""


@click.command("workers")
@click.argument("addresses", nargs=-1, metavar="[ADDRESS]...")
@discovery_options("Where to look, if no address is given; by default that of the settings.")
@credential_options
@click.option("--insecure", is_flag=True, help="Workers that authenticate nobody, on this machine.")
@seconds_option("--wait", "Go on looking for that long before the table.", default=0.0)
@click.option(
    "--quorum",
    type=click.IntRange(min=1),
    metavar="NUMBER",
    help="Fail unless so many can be used; with --wait, look again until there are.",
)
@timeout_option("For each worker to answer.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, in one line.")
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
    if insecure and files:
        raise click.UsageError("give --insecure or credentials, not both")
    chosen = (
        choose_discovery(settings, "static", {"addresses": addresses})
        if addresses
        else where.choose(settings)
    )
    if chosen is None:
        raise click.UsageError(
            "say where to look: --discovery NAME, WOOL_DISCOVERY, or addresses of workers"
        )
    look = Look(settings, chosen, Insecure() if insecure else files.read(), timeout)
    seen = asyncio.run(_look(look, wait, quorum))
    if as_json:
        print_json([_document(one) for one in seen], indent=0)
    elif seen:
        _print(seen)
    else:
        click.echo(f"{chosen} has found no workers")
    if _usable(seen) < (quorum or 1):
        ctx.exit(FAILURE)


async def _look(look: Look, wait: float, quorum: int | None) -> Sequence[Seen]:
    """Looks at all workers; with a quorum, again until there is one or the time is up."""
    deadline = asyncio.get_running_loop().time() + wait
    async with look.watching(wait if quorum is None else 0):
        while True:
            seen = await look.at_all()
            is_over = asyncio.get_running_loop().time() >= deadline
            if quorum is None or _usable(seen) >= quorum or is_over:
                return seen
            await asyncio.sleep(PAUSE)


def _usable(seen: Sequence[Seen]) -> int:
    return sum(one.problem is None for one in seen)


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


COLUMNS = {
    "address": "address",
    "tags": "tags",
    "load": "load",
    "host": "host",
    "pid": "pid",
    "python": "python",
    "version": "wool",
    "age": "age",
    "usable": "usable",
}
"""The parts of a document that are shown, and their titles."""


def _print(seen: Sequence[Seen]) -> None:
    rows: list[list[str]] = []
    problems: dict[str, list[str]] = {}
    for one in seen:
        shown = _document(one) | {
            "tags": ",".join(sorted(one.info.tags)) or None,
            "age": None if one.age is None else str(timedelta(seconds=one.age)),
            "usable": "no" if one.problem else "yes",
        }
        rows.append(["-" if shown[key] is None else str(shown[key]) for key in COLUMNS])
        if one.problem is not None:
            problems.setdefault(one.problem, []).append(one.info.address)
    print_table(list(COLUMNS.values()), rows)
    for problem, places in problems.items():
        click.echo(f"\n{', '.join(places)}:\n    {problem}")
