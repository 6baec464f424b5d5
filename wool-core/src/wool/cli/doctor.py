"""`wool doctor`: what stands in the way of workers and callers on this machine."""

from __future__ import annotations

import asyncio
import datetime as dt
import os
import platform
import stat
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import click

from wool import _namesake
from wool._plugins import lookup
from wool._plugins.lookup import scheme_transport
from wool._security.credentials import Authenticator, MutualTls
from wool._settings.settings import Settings, Value
from wool._settings.sources import DEFAULT
from wool._worker.backends import ChosenDiscovery, choose_transport
from wool._worker.placement import credentials_of
from wool.cli.common import (
    Files,
    Where,
    active,
    credential_options,
    discovery_options,
    print_json,
    read_settings,
    transport_option,
)
from wool.cli.group import FAILURE
from wool.cli.plugins import installed
from wool.cli.trials import Finding, Trial, check_serving
from wool.exceptions import WoolError

COLOURS = {"ok": "green", "advice": "yellow", "problem": "red"}
WIDTH = 9
"""Of the word for how it stands."""

OPTION = "option"
"""Where a choice comes from that the command line makes."""

FILES = 1024
"""Open files that a worker with many callers may well need."""

SOON = dt.timedelta(days=14)
"""A certificate that ends within that time is worth a word."""


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
        print_json({"ok": not states["problem"], "findings": findings})
    else:
        words = [f"{states[state]} {state}" for state in COLOURS if states[state]]
        click.echo(f"\n{', '.join(words)}")
    if states["problem"]:
        ctx.exit(FAILURE)


async def _examine(told: dict[str, Any], files: Files, *, quiet: bool) -> list[Finding]:
    findings: list[Finding] = []
    async for finding in _findings(told, files):
        findings.append(finding)
        if not quiet:
            word = click.style(f"{finding.state:{WIDTH}}", fg=COLOURS[finding.state])
            click.echo(f"{word}{finding.check}: {finding.text}")
            if finding.remedy:
                click.echo(f"{'':{WIDTH}}-> {finding.remedy}")
    return findings


async def _findings(told: dict[str, Any], files: Files) -> AsyncIterator[Finding]:
    for finding in _check_installation():
        yield finding
    try:
        settings = read_settings()
    except WoolError as error:
        yield Finding("problem", "settings", str(error))
        return
    trial = Trial(settings=settings, **told)
    stuck = False
    for finding in _check_configuration(trial, files):
        stuck |= finding.state == "problem"
        yield finding
    if stuck:
        mend = "solve the problems above, and run this again"
        yield Finding("advice", "trials", "none were made", mend)
        return
    async for finding in check_serving(replace(trial, credentials=files.read())):
        yield finding


# The installation -----------------------------------------------------------------------------


def _check_installation() -> Iterator[Finding]:
    """Looks at Python, at the distributions of Wool, and at the limit of open files."""
    minor = f"{sys.version_info.major}.{sys.version_info.minor}"
    python = f"{platform.python_implementation()} {platform.python_version()}"
    yield Finding("ok", "python", f"{python}; workers and callers must all run {minor}")
    clash = _namesake.problem()
    if clash is not None:
        yield Finding("problem", "packages", clash)
    found = {str(one.metadata["Name"]).replace("_", "-"): one.version for one in distributions()}
    ours = [f"{name} {found[name]}" for name in sorted(found) if name.startswith("wool-")]
    yield Finding("ok", "packages", ", ".join(ours))
    if sys.platform != "win32":
        yield _check_files()


def _check_files() -> Finding:
    """Looks at how many files a process may have open: each connection is one."""
    import resource  # Windows has none

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= FILES:
        return Finding("ok", "open files", f"up to {'any number' if soft < 0 else soft}")
    return Finding(
        "advice",
        "open files",
        f"up to {soft} in a process, and each connection is one",
        f"ulimit -n {FILES} (the most allowed is {hard}), or LimitNOFILE= in a systemd unit",
    )


# Configuration --------------------------------------------------------------------------------


def _check_configuration(trial: Trial, files: Files) -> Iterator[Finding]:
    """Looks at what the settings and the command line say; back-ends in use are made."""
    settings = trial.settings
    variables = sorted(settings.environment.variables)
    places = [str(settings.file.path)] if settings.file is not None else []
    said = ", ".join([*places, *variables]) or "nowhere: all defaults"
    yield Finding("ok", "settings", f"from {said}")
    given = trial.where.discovery
    names = {} if given is None else {"discovery": Value(given, OPTION)}
    check = "discovery"
    try:
        chosen = trial.discover()
        check = "transport"
        names["transport"] = _transport(trial, chosen)
        networked = "network" in lookup.transport(names["transport"].value).plugin.capabilities
        yield from _check_plugins(settings, names)
        check = "credentials"
        credentials = files.read() or credentials_of(settings)
    except WoolError as error:
        yield Finding("problem", check, str(error))
        return
    yield from _check_credentials(credentials, networked)


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


def _check_plugins(settings: Settings, names: dict[str, Value]) -> Iterator[Finding]:
    for item in installed(active(settings) | names):
        if item.kind is not None and item.choice is not None:
            item.check(settings)
            if item.problem is not None:
                yield Finding("problem", item.word, str(item.problem))
            else:
                yield Finding("ok", item.word, f"{item.name} ({item.choice.origin})")


def _check_credentials(credentials: Authenticator | None, networked: bool) -> Iterator[Finding]:
    """Looks at credentials.

    Args:
        credentials: those in use.
        networked: whether workers and callers are to meet over a network.
    """
    if credentials is None and networked:
        yield Finding(
            "problem",
            "credentials",
            "there are none, and a network takes some",
            "set WOOL_TOKEN to the same token on every machine (`wool token` prints one), or "
            "name certificates in [tool.wool.tls]",
        )
    elif credentials is None:
        said = "none; on one machine, being the same user is enough"
        yield Finding("ok", "credentials", said)
    elif isinstance(credentials, MutualTls):
        files = credentials.export()[1]
        yield from _check_secrecy(files["key"])
        for path in files["cert"], files["ca"]:
            yield from _check_dates(path)
    else:
        yield Finding("ok", "credentials", credentials.kind)
        yield from _check_secrecy(os.environ.get("WOOL_TOKEN_FILE"))


def _check_dates(path: str) -> Iterator[Finding]:
    try:
        from cryptography import x509
    except ImportError:
        have = 'pip install "wool-core[tls]" to have dates checked'
        yield Finding("advice", "certificates", f"{path} can be read; no more can be told", have)
        return
    now = dt.datetime.now(dt.UTC)
    for certificate in x509.load_pem_x509_certificates(Path(path).read_bytes()):
        end = certificate.not_valid_after_utc
        state = "problem" if end < now else "advice" if end - now < SOON else "ok"
        again = "make another one (`wool certs issue`); a running worker takes it as it is replaced"
        text = f"{path} is valid until {end:%Y-%m-%d}"
        yield Finding(state, "certificates", text, "" if state == "ok" else again)


def _check_secrecy(path: str | None) -> Iterator[Finding]:
    mode = stat.S_IMODE(os.stat(path).st_mode) if path and os.name == "posix" else 0
    if mode & 0o077:
        text = f"{path} can be read by others (mode {mode:04o})"
        yield Finding("advice", "credentials", text, f"chmod 600 {path}")
