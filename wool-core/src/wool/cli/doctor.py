"""`wool doctor`: what stands in the way of workers and callers on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import click

from wool._plugins import lookup
from wool._plugins.lookup import DISCOVERY, scheme_transport
from wool._security.credentials import MutualTls
from wool._settings.settings import Settings, Value
from wool._settings.sources import DEFAULT
from wool._worker.backends import ChosenDiscovery, choose_discovery, choose_transport
from wool._worker.placement import credentials_of
from wool.cli.active import read_settings
from wool.cli.checks import machine, multicast
from wool.cli.checks.configuration import check_plugins, check_settings
from wool.cli.checks.credentials import check_credentials
from wool.cli.checks.finding import Finding, State, advice, problem
from wool.cli.checks.installation import check_installation
from wool.cli.checks.serving import Trial, check_serving
from wool.cli.group import FAILURE
from wool.cli.options import (
    credential_options,
    credentials_from,
    discovery_options,
    names_of,
)
from wool.exceptions import WoolError

WIDTH = 9
"""Of the word for how it stands."""

OPTION = "option"
"""Where a choice comes from that the command line makes."""

PORT = 7000
"""Where workers listen in our examples, and where the discovery `dns` expects them."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The options of the command line."""

    address: str | None
    advertise: str | None
    transport: str | None
    discovery: str | None
    namespace: str | None
    interfaces: Sequence[str]
    files: tuple[Path | None, Path | None, Path | None, Path | None]

    @property
    def options(self) -> dict[str, Any]:
        """Of the discovery."""
        return {"namespace": self.namespace, "interfaces": tuple(self.interfaces) or None}


@click.command("doctor")
@click.option("--address", metavar="ADDRESS", help="Where a worker is to listen.")
@click.option("--advertise", metavar="ADDRESS", help="What others are to dial instead.")
@click.option(
    "--transport",
    metavar="NAME",
    help="Transport, if there is no address.",
    shell_complete=names_of("transport"),
)
@discovery_options("How workers are to be found; by default as the settings say.")
@credential_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.pass_context
def command(
    ctx: click.Context,
    address: str | None,
    advertise: str | None,
    transport: str | None,
    discovery: str | None,
    namespace: str | None,
    interfaces: tuple[str, ...],
    token_file: Path | None,
    ca: Path | None,
    cert: Path | None,
    key: Path | None,
    as_json: bool,
) -> None:
    """Check this machine, and say what to change.

    Looks at versions and packages, settings, credentials and certificates, the clock, limits,
    shared memory and multicast, as far as they matter with what is configured. Then it tries: a
    pool of one process, a worker that listens and is dialled, the discovery, and the workers there
    are. Give it the options that `wool worker` is to have. It changes nothing, and what it starts
    takes no calls of others.

    The exit code is 0 if there is no problem, else 1.
    """
    files = (token_file, ca, cert, key)
    asked = Asked(address, advertise, transport, discovery, namespace, interfaces, files)
    findings = asyncio.run(_examine(asked, None if as_json else _show))
    states = Counter(finding.state for finding in findings)
    if as_json:
        document = {"ok": not states[State.PROBLEM], "findings": [asdict(f) for f in findings]}
        click.echo(json.dumps(document, indent=2))
    else:
        words = [f"{states[state]} {state}" for state in State if states[state]]
        click.echo(f"\n{', '.join(words)}")
    if states[State.PROBLEM]:
        ctx.exit(FAILURE)


async def _examine(asked: Asked, show: Callable[[Finding], None] | None) -> list[Finding]:
    findings: list[Finding] = []
    async for finding in _findings(asked):
        findings.append(finding)
        if show is not None:
            show(finding)
    return findings


async def _findings(asked: Asked) -> AsyncIterator[Finding]:
    for finding in check_installation():
        yield finding
    try:
        settings = read_settings()
    except WoolError as error:
        yield problem("settings", str(error))
        return
    yield check_settings(settings)
    stuck = False
    discovery = asked.discovery or settings.get("discovery").value
    for finding in [*_configured(asked, settings, discovery), *_limits(asked, settings, discovery)]:
        stuck |= finding.state is State.PROBLEM
        yield finding
    if stuck:
        yield advice("trials", "none were made", "solve the problems above, and run this again")
        return
    trial = Trial(
        settings=settings,
        address=asked.address,
        advertise=asked.advertise,
        transport=asked.transport,
        discovery=discovery,
        options=asked.options,
        credentials=credentials_from(*asked.files),
    )
    async for finding in check_serving(trial):
        yield finding


def _configured(asked: Asked, settings: Settings, discovery: str | None) -> Iterator[Finding]:
    """Looks at what the settings and the command line say."""
    names = {} if asked.discovery is None else {"discovery": Value(asked.discovery, OPTION)}
    try:
        chosen = choose_discovery(settings, discovery, asked.options)
    except WoolError as error:
        yield problem("discovery", str(error))
        return
    try:
        names["transport"] = _transport(asked, settings, chosen)
        networked = "network" in lookup.transport(names["transport"].value).plugin.capabilities
    except WoolError as error:
        yield problem("transport", str(error))
        return
    yield from check_plugins(settings, names)
    try:
        credentials = credentials_from(*asked.files) or credentials_of(settings)
    except WoolError as error:
        yield problem("credentials", str(error))
        return
    yield from check_credentials(credentials, networked)
    yield machine.check_clock(needed=isinstance(credentials, MutualTls))


def _transport(asked: Asked, settings: Settings, chosen: ChosenDiscovery | None) -> Value:
    """Returns which transport a worker would listen with, and why."""
    if asked.address is not None:
        return Value(scheme_transport(asked.address), OPTION)
    if asked.transport is not None:
        return Value(asked.transport, OPTION)
    given = settings.get("transport")
    if given.value is not None:
        return given
    origin = DEFAULT
    if chosen is not None and chosen.reaches_out:
        origin = f"because of {chosen}"
    return Value(choose_transport(None, chosen), origin)


def _limits(asked: Asked, settings: Settings, discovery: str | None) -> Iterator[Finding]:
    """Looks at the machine, and at what discoveries need of it.

    Without a discovery, nothing that one would need is a problem.
    """
    yield from machine.check_machine()
    installed = lookup.process().names_of(DISCOVERY)
    if discovery == "shm":
        yield from machine.check_shared_memory(_meeting_place(settings))
    elif discovery == "zeroconf":
        yield from multicast.check_multicast(asked.interfaces)
    elif discovery is None:
        if asked.address is None:
            yield machine.check_port(PORT)
        optional = list[Finding]()
        if "shm" in installed:
            optional += machine.check_shared_memory(_meeting_place(settings))
        optional += [*multicast.check_multicast()] if "zeroconf" in installed else []
        for finding in optional:
            state = State.ADVICE if finding.state is State.PROBLEM else finding.state
            yield replace(finding, state=state)


def _meeting_place(settings: Settings) -> Path | None:
    """Returns where the settings have processes meet by the discovery `shm`, if they say."""
    with contextlib.suppress(WoolError):
        options, _ = settings.options("shm", lookup.discovery("shm").plugin.options)
        return options.directory
    return None


def _show(finding: Finding) -> None:
    """Prints a finding: what was looked at, how it stands, and what to change."""
    colour = {State.OK: "green", State.ADVICE: "yellow", State.PROBLEM: "red"}[finding.state]
    word = click.style(f"{finding.state:{WIDTH}}", fg=colour)
    click.echo(f"{word}{finding.check}: {finding.text}")
    if finding.remedy:
        click.echo(f"{'':{WIDTH}}-> {finding.remedy}")
