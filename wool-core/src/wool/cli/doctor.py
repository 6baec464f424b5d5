"""`wool doctor`: what stands in the way of workers and callers on this machine."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, replace
from typing import Any

import click

from wool._plugins import lookup
from wool._plugins.lookup import scheme_transport
from wool._settings.settings import Value
from wool._settings.sources import DEFAULT
from wool._worker.backends import ChosenDiscovery, choose_transport
from wool._worker.placement import credentials_of
from wool.cli.checks import (
    Finding,
    State,
    advice,
    check_credentials,
    check_installation,
    check_plugins,
    check_settings,
    problem,
)
from wool.cli.common import (
    Files,
    Where,
    credential_options,
    discovery_options,
    read_settings,
    transport_option,
)
from wool.cli.group import FAILURE
from wool.cli.trials import Trial, check_serving
from wool.exceptions import WoolError

WIDTH = 9
"""Of the word for how it stands."""

OPTION = "option"
"""Where a choice comes from that the command line makes."""


@click.command("doctor")
@click.option("--address", metavar="ADDRESS", help="Where a worker is to listen.")
@click.option("--advertise", metavar="ADDRESS", help="What others are to dial instead.")
@transport_option
@discovery_options("How workers are to be found; by default as the settings say.")
@credential_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.pass_context
def doctor(
    ctx: click.Context,
    address: str | None,
    advertise: str | None,
    transport: str | None,
    where: Where,
    files: Files,
    as_json: bool,
) -> None:
    """Check this machine, and say what to change.

    Looks at packages, settings, credentials and certificates, and the limit of open files. Then it
    tries: a pool of one process, a worker that listens and is dialled, the discovery, and the
    workers there are. Give it the options that `wool worker` is to have. It changes nothing, and
    what it starts takes no calls of others.

    The exit code is 0 if there is no problem, else 1.
    """
    told = {"address": address, "advertise": advertise, "transport": transport, "where": where}
    findings = asyncio.run(_examine(told, files, quiet=as_json))
    states = Counter(finding.state for finding in findings)
    if as_json:
        document = {"ok": not states[State.PROBLEM], "findings": [asdict(f) for f in findings]}
        click.echo(json.dumps(document, indent=2))
    else:
        words = [f"{states[state]} {state}" for state in State if states[state]]
        click.echo(f"\n{', '.join(words)}")
    if states[State.PROBLEM]:
        ctx.exit(FAILURE)


async def _examine(told: dict[str, Any], files: Files, *, quiet: bool) -> list[Finding]:
    findings: list[Finding] = []
    async for finding in _findings(told, files):
        findings.append(finding)
        if not quiet:
            _show(finding)
    return findings


async def _findings(told: dict[str, Any], files: Files) -> AsyncIterator[Finding]:
    for finding in check_installation():
        yield finding
    try:
        settings = read_settings()
    except WoolError as error:
        yield problem("settings", str(error))
        return
    yield check_settings(settings)
    trial = Trial(settings=settings, **told)
    stuck = False
    for finding in _configured(trial, files):
        stuck |= finding.state is State.PROBLEM
        yield finding
    if stuck:
        yield advice("trials", "none were made", "solve the problems above, and run this again")
        return
    async for finding in check_serving(replace(trial, credentials=files.read())):
        yield finding


def _configured(trial: Trial, files: Files) -> Iterator[Finding]:
    """Looks at what the settings and the command line say."""
    given = trial.where.discovery
    names = {} if given is None else {"discovery": Value(given, OPTION)}
    check = "discovery"
    try:
        chosen = trial.discover()
        check = "transport"
        names["transport"] = _transport(trial, chosen)
        networked = "network" in lookup.transport(names["transport"].value).plugin.capabilities
        yield from check_plugins(trial.settings, names)
        check = "credentials"
        credentials = files.read() or credentials_of(trial.settings)
    except WoolError as error:
        yield problem(check, str(error))
        return
    yield from check_credentials(credentials, networked)


def _transport(trial: Trial, chosen: ChosenDiscovery | None) -> Value:
    """Returns which transport a worker would listen with, and why."""
    if trial.address is not None:
        return Value(scheme_transport(trial.address), OPTION)
    if trial.transport is not None:
        return Value(trial.transport, OPTION)
    given = trial.settings.get("transport")
    if given.value is not None:
        return given
    reaches_out = chosen is not None and chosen.reaches_out
    origin = f"because of {chosen}" if reaches_out else DEFAULT
    return Value(choose_transport(None, chosen), origin)


def _show(finding: Finding) -> None:
    """Prints a finding: what was looked at, how it stands, and what to change."""
    colour = {State.OK: "green", State.ADVICE: "yellow", State.PROBLEM: "red"}[finding.state]
    word = click.style(f"{finding.state:{WIDTH}}", fg=colour)
    click.echo(f"{word}{finding.check}: {finding.text}")
    if finding.remedy:
        click.echo(f"{'':{WIDTH}}-> {finding.remedy}")
