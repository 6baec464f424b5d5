"""The checks of `wool doctor`: what there is, what is configured, and how credentials stand."""

from __future__ import annotations

import datetime as dt
import os
import platform
import socket
import stat
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wool import _namesake
from wool._security.credentials import Authenticator, MutualTls, Token
from wool._settings.settings import Settings, Value
from wool.cli.common import active
from wool.cli.plugins import check, installed

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

FILES = 1024
"""Open files that a worker with many callers may well need."""

SOON = dt.timedelta(days=14)
"""A certificate that ends within that time is worth a word."""


class State(StrEnum):
    """How it stands with what was looked at."""

    OK = "ok"
    ADVICE = "advice"
    """It works, but may disappoint."""
    PROBLEM = "problem"
    """It does not work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of a check.

    Attributes:
        check: names what was looked at.
        text: what is the case.
        remedy: what to change; empty if nothing has to be, or the text says it.
    """

    check: str
    state: State
    text: str
    remedy: str = ""


def ok(check: str, text: str) -> Finding:
    """It is as it should be."""
    return Finding(check, State.OK, text)


def advice(check: str, text: str, remedy: str) -> Finding:
    """It works, but may disappoint."""
    return Finding(check, State.ADVICE, text, remedy)


def problem(check: str, text: str, remedy: str = "") -> Finding:
    """It does not work."""
    return Finding(check, State.PROBLEM, text, remedy)


# The installation, and what is configured -----------------------------------------------------


def check_installation() -> Iterator[Finding]:
    """Looks at Python, at the distributions of Wool, and at the limit of open files."""
    minor = f"{sys.version_info.major}.{sys.version_info.minor}"
    yield ok(
        "python",
        f"{platform.python_implementation()} {platform.python_version()}; workers and callers "
        f"must all run {minor}",
    )
    clash = _namesake.problem()
    if clash is not None:
        yield problem("packages", clash)
    found = {str(one.metadata["Name"]).replace("_", "-"): one.version for one in distributions()}
    ours = [f"{name} {found[name]}" for name in sorted(found) if name.startswith("wool-")]
    yield ok("packages", ", ".join(ours))
    yield from _check_files()


def _check_files() -> Iterator[Finding]:
    """Looks at how many files a process may have open: each connection is one."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= FILES:
        yield ok("open files", f"up to {'any number' if soft < 0 else soft} in a process")
    else:
        yield advice(
            "open files",
            f"up to {soft} in a process, and each connection is one",
            f"ulimit -n {FILES} (the most allowed is {hard}), or LimitNOFILE= in a systemd unit",
        )


def check_settings(settings: Settings) -> Finding:
    """Says where settings come from; that they have no mistakes is known by now."""
    variables = sorted(settings.environment.variables)
    places = [str(settings.file.path)] if settings.file is not None else []
    return ok("settings", f"from {', '.join([*places, *variables]) or 'nowhere: all defaults'}")


def check_plugins(settings: Settings, names: dict[str, Value]) -> Iterator[Finding]:
    """Makes the back-ends that are in use.

    Args:
        names: what is chosen otherwise than by the settings, by the word for the kind.
    """
    for item in installed(active(settings) | names):
        if item.kind is None or item.choice is None:
            continue
        failure = check(item, settings).problem
        if failure is not None:
            yield problem(item.word, str(failure))
        else:
            yield ok(item.word, f"{item.name} ({item.choice.origin})")


# Credentials ----------------------------------------------------------------------------------


def check_credentials(credentials: Authenticator | None, networked: bool) -> Iterator[Finding]:
    """Looks at credentials.

    Args:
        credentials: those in use.
        networked: whether workers and callers are to meet over a network.
    """
    if credentials is None:
        if networked:
            yield problem(
                "credentials",
                "there are none, and a network takes some",
                "set WOOL_TOKEN to the same token on every machine (`wool token` prints one), or "
                "name certificates in [tool.wool.tls]",
            )
        else:
            yield ok("credentials", "none; on one machine, being the same user is enough")
    elif isinstance(credentials, Token):
        yield from _check_token(credentials)
    elif isinstance(credentials, MutualTls):
        yield from _check_tls(credentials.export())


def _check_token(token: Token) -> Iterator[Finding]:
    yield ok("credentials", token.kind)
    path = os.environ.get("WOOL_TOKEN_FILE")
    if path:
        yield from _check_secrecy(path)


def _check_tls(files: dict[str, Any]) -> Iterator[Finding]:
    yield from _check_secrecy(files["key"])
    try:
        from cryptography import x509
    except ImportError:
        yield advice(
            "certificates",
            f"{files['cert']} and its key belong together; more cannot be told",
            'pip install "wool-core[tls]" to have dates and names checked',
        )
        return
    own = x509.load_pem_x509_certificates(Path(files["cert"]).read_bytes())
    authorities = x509.load_pem_x509_certificates(Path(files["ca"]).read_bytes())
    now = _now()
    for path, certificates in ((files["cert"], own), (files["ca"], authorities)):
        for certificate in certificates:
            yield _check_dates(path, certificate, now)
    if not any(_has_signed(authority, own[-1]) for authority in authorities):
        yield problem(
            "certificates",
            f"{files['cert']} was not signed by the authority in {files['ca']}",
            "use the ca.pem that `wool certs issue` was run with, on every machine",
        )
    if files["name"] is None:
        yield _check_names(files["cert"], own[0])


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _check_dates(path: str, certificate: Certificate, now: dt.datetime) -> Finding:
    begin, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    again = "make another one (`wool certs issue`); a running worker takes it as it is replaced"
    if now < begin:
        return problem(
            "certificates",
            f"{path} is valid only from {begin:%Y-%m-%d %H:%M} UTC, and this machine's clock "
            f"says {now:%Y-%m-%d %H:%M} UTC",
            "set the clock, or wait",
        )
    if now > end:
        return problem("certificates", f"{path} has expired on {end:%Y-%m-%d}", again)
    if end - now < SOON:
        return advice("certificates", f"{path} expires on {end:%Y-%m-%d}", again)
    return ok("certificates", f"{path} is valid until {end:%Y-%m-%d}")


def _has_signed(authority: Certificate, certificate: Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(authority)
    except Exception:  # whatever it is: this one has not
        return False
    return True


def _check_names(path: str, certificate: Certificate) -> Finding:
    from cryptography import x509

    known: list[str] = []
    with suppress(x509.ExtensionNotFound):
        found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        known += [str(name) for name in found.get_values_for_type(x509.DNSName)]
        known += [str(number) for number in found.get_values_for_type(x509.IPAddress)]
    host = socket.gethostname()
    outward = [name for name in known if name not in ("localhost", "127.0.0.1", "::1")]
    if not outward:
        return advice(
            "certificates",
            f"{path} names no host but this one's loopback interface ({', '.join(known)})",
            f"for a worker, issue one with the names and addresses that others dial, such as "
            f"`wool certs issue NAME {host}`",
        )
    return ok("certificates", f"{path} is good for workers at {', '.join(known)}")


def _check_secrecy(path: str) -> Iterator[Finding]:
    mode = stat.S_IMODE(os.stat(path).st_mode)
    if os.name == "posix" and mode & 0o077:
        yield advice(
            "credentials", f"{path} can be read by others (mode {mode:04o})", f"chmod 600 {path}"
        )
