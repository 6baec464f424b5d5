"""Whether workers of this machine can be started, reached and found: by trying all of it."""

from __future__ import annotations

import asyncio
import os
import secrets
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Literal, cast

import wool
from wool import abc
from wool._addresses import host_of, is_loopback
from wool._backends.static import Listed
from wool._client.probing import Seen
from wool._plugins import lookup
from wool._plugins.lookup import scheme_transport
from wool._pool.looking import Look
from wool._security import sockets
from wool._security.credentials import Authenticator
from wool._settings.model import settings_of
from wool._settings.settings import Settings
from wool._worker.backends import ChosenDiscovery, choose_discovery, words
from wool.cli.common import Where
from wool.exceptions import WoolError

PATIENCE = 5.0
"""Seconds for anything to answer here."""

LISTENING = 1.0
"""Seconds in which workers of others are looked for."""

_REMEDIES = {
    "zeroconf": "have the firewall let UDP port 5353 in and out, or choose the network with "
    "--interface; where multicast does not get through, as in most containers, workers are found "
    "by `--discovery dns`, or `static` with their addresses",
    "shm": "have /dev/shm mounted with mode 1777 and enough room (`docker run --shm-size`), or "
    "name another place in WOOL_SHM__DIRECTORY",
}
"""The remedy where a discovery does not work, by its name."""


State = Literal["ok", "advice", "problem"]
"""How it stands with what was looked at: as it should, it may disappoint, it does not work."""


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of a check.

    Attributes:
        check: names what was looked at.
        text: what is the case.
        remedy: what to change; empty if nothing has to be, or the text says it.
    """

    state: State
    check: str
    text: str
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """The trial to make: what a worker would be told by options, and the settings.

    Attributes:
        where: the discovery, whose options precede those of the settings.
    """

    settings: Settings
    where: Where
    address: str | None = None
    advertise: str | None = None
    transport: str | None = None
    credentials: Authenticator | None = None

    @property
    def discovery(self) -> str | None:
        """The name of the discovery; None: there is none."""
        return self.where.discovery or self.settings.get("discovery").value

    def discover(self, **options: Any) -> ChosenDiscovery | None:
        """Makes the discovery, perhaps with other options."""
        return choose_discovery(self.settings, self.discovery, {**self.where.options, **options})


async def check_serving(trial: Trial) -> AsyncIterator[Finding]:
    """Starts what would be started, talks to it, and ends it."""
    if sockets.SUPPORTED:
        yield await _check_pool()
    chosen = trial.discover()
    yield await _check_worker(trial, chosen)
    if chosen is not None:
        yield await _check_announcing(trial, chosen)
        yield await _check_others(trial, chosen)


# A pool ---------------------------------------------------------------------------------------


class Quiet(Listed):
    """Finds nobody and tells nobody.

    Args:
        like: another one; workers listen where they would for that one.
    """

    def __init__(self, like: abc.Discovery | None = None) -> None:
        if like is not None:
            self.host: str = like.host
            self.port: int = like.port

    def watch(self) -> AbstractAsyncContextManager[AsyncIterator[abc.Event]]:
        """Says that there is nobody."""
        return abc.watching(_nobody())


async def _nobody() -> AsyncGenerator[abc.Event]:
    yield abc.Snapshot(())
    await asyncio.get_running_loop().create_future()


@wool.routine
async def process() -> int:
    """Returns in which process it runs."""
    return os.getpid()


async def _check_pool() -> Finding:
    began = time.perf_counter()
    try:
        pool = wool.WorkerPool(1, discovery=Quiet(), transport="unix", quorum_timeout=20.0)
        async with pool:
            ran = await process()
    except WoolError as error:
        return Finding("problem", "pool", f"one of a single worker process cannot be used: {error}")
    if ran == os.getpid():
        return Finding("problem", "pool", "calls run in the calling process")
    return Finding("ok", "pool", f"starts a process, calls it and ends it: {_since(began)}")


# A worker -------------------------------------------------------------------------------------


async def _check_worker(trial: Trial, chosen: ChosenDiscovery | None) -> Finding:
    """Has a worker listen, and dials the address that others would be told."""
    try:
        quiet = None if chosen is None else ChosenDiscovery(Quiet(chosen.backend), chosen.plugin)
        worker = wool.Worker(
            address=trial.address,
            advertise=trial.advertise,
            transport=trial.transport,
            discovery=cast(Any, quiet),  # more than users may give
            credentials=trial.credentials,
        )
        async with worker:
            worker.drain()  # it is no worker for anybody's calls
            info = worker.info
            began = time.perf_counter()
            (seen,) = await _look(trial, info.address)
    except WoolError as error:
        taken = "choose another port, or end the program that has it: `ss -ltnp` names it"
        remedy = taken if "in use" in str(error) else ""
        return Finding("problem", "worker", f"one cannot listen: {error}", remedy)
    name, problem, remedy = scheme_transport(info.address), "", ""
    if "in-process" in lookup.transport(name).plugin.capabilities:
        problem = f"the transport {name!r} is not reached from other processes"
        remedy = "choose another transport for workers; this one is for tests"
    elif not _is_chosen(trial, chosen) and await _is_here(info.address):
        problem = f"others are told {info.address}, which only this machine reaches"
        remedy = "give it an --advertise by which others reach it, or an address in this network"
    elif seen.problem is not None:
        problem = f"at {info.address}, it cannot be called: {seen.problem}"
    elif seen.info.id != info.id:
        who = f"process {seen.info.pid} on {seen.info.host}"
        problem = f"at {info.address}, another one answers: {who}"
        remedy = "give an --advertise by which others reach this one"
    if problem:
        return Finding("problem", "worker", problem, remedy)
    text = f"listens, and can be called at {info.address}: {_since(began)}"
    return Finding("ok", "worker", text)


def _is_chosen(trial: Trial, chosen: ChosenDiscovery | None) -> bool:
    """Whether somebody has said where the worker listens, which may be here alone."""
    given = trial.address or trial.advertise
    return bool(given) or (chosen is not None and is_loopback(f"any://{chosen.backend.host}"))


async def _is_here(address: str) -> bool:
    """Whether the host in the address of a worker for others is this machine's loopback."""
    host = host_of(address)
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, None) if host else []
    except OSError:
        return False
    return bool(found) and all(ip_address(at[4][0]).is_loopback for at in found)


async def _look(trial: Trial, *addresses: str) -> list[Seen]:
    static = choose_discovery(trial.settings, "static", {"addresses": addresses})
    assert static is not None
    look = Look(trial.settings, static, trial.credentials, PATIENCE)
    async with look.watching(0):
        return await look.at_all()


# A discovery ----------------------------------------------------------------------------------


async def _check_announcing(trial: Trial, chosen: ChosenDiscovery) -> Finding:
    """Announces a worker that does not exist where nobody else looks, and looks there."""
    plugin = chosen.plugin
    assert plugin is not None
    check = f"discovery {plugin.name}"
    if "namespace" not in settings_of(plugin.options):
        return Finding("ok", check, "is configured; it knows workers without being told")
    namespace = f"wool-doctor-{secrets.token_hex(8)}"
    info = abc.WorkerInfo(id=secrets.token_hex(8), address=f"grpc://{socket.gethostname()}:9")
    remedy = _REMEDIES.get(plugin.name, "")
    began = time.perf_counter()
    try:
        one, other = (trial.discover(namespace=namespace) for _ in range(2))
        assert one is not None
        assert other is not None
        async with (
            asyncio.timeout(PATIENCE),
            other.backend.watch() as events,
            one.backend.announce(info),
        ):
            while not _tells(await anext(events), info):
                pass
    except TimeoutError:
        text = f"what is announced is not heard within {PATIENCE:g} s, even on this machine"
        return Finding("problem", check, text, remedy)
    except Exception as error:  # a discovery may raise anything
        return Finding("problem", check, words(error), remedy)
    return Finding("ok", check, f"what is announced is heard on this machine: {_since(began)}")


def _tells(event: Any, info: abc.WorkerInfo) -> bool:
    workers = event.workers if isinstance(event, abc.Snapshot) else [event.worker]
    return any(worker.id == info.id for worker in workers)


async def _check_others(trial: Trial, chosen: ChosenDiscovery) -> Finding:
    """Looks at the workers there are."""
    try:
        look = Look(trial.settings, chosen, trial.credentials, PATIENCE)
        async with look.watching(LISTENING):
            seen = await look.at_all()
    except WoolError as error:
        return Finding("problem", "workers", str(error))
    lost = [one for one in seen if one.problem is not None]
    told = f"{chosen} has found {len(seen)}, of which {len(seen) - len(lost)} can be used"
    if not seen:
        remedy = "start one with `wool worker`, with the same discovery, namespace and token"
        return Finding("advice", "workers", f"{chosen} has found none", remedy)
    if not lost:
        return Finding("ok", "workers", told)
    state = "advice" if len(lost) < len(seen) else "problem"
    first = f"{lost[0].info.address}: {lost[0].problem}"
    return Finding(state, "workers", f"{told}; {first}", "`wool workers` says more of each")


def _since(began: float) -> str:
    return f"{(time.perf_counter() - began) * 1000:.0f} ms"
