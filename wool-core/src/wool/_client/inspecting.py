"""The state of a pool's calls: asked of its workers, and put together.

A worker is asked over the connection that there is; one that is known only because a call of
another worker is there, over one that is made for that.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from time import monotonic

from wool._client.calls import WorkerPeer
from wool._client.client import Client
from wool._client.identity import PROGRAM, PYTHON, VERSION
from wool._code.identity import IDENTITIES
from wool._peer.outgoing import OutgoingCall
from wool._peer.stacks import awaited_frames, lines_awaited
from wool._protocol.status import MOST_CALLS, CallStatus, Line, ProcessStatus
from wool.exceptions import WoolError

PATIENCE = 1.0
"""Seconds that a worker gets to answer."""

Ask = Callable[[str], Awaitable[Sequence[ProcessStatus]]]
"""Asks the worker at an address."""


def own_status(clients: Iterable[Client]) -> ProcessStatus:
    """Returns what this process says of the calls that it has made with a pool."""
    waiters = _waiters()
    made = [call for client in clients for call in client.calls()]
    return ProcessStatus(
        key=IDENTITIES.process,
        pid=os.getpid(),
        host=socket.gethostname(),
        program=PROGRAM,
        python=PYTHON,
        version=VERSION,
        makes=tuple(_made(call, waiters) for call in made[:MOST_CALLS]),
        omitted=max(0, len(made) - MOST_CALLS),
    )


def _waiters() -> Mapping[OutgoingCall, tuple[Line, ...]]:
    """Returns which calls the tasks of the running loop wait for, and at which lines."""
    waiters: dict[OutgoingCall, tuple[Line, ...]] = {}
    for task in asyncio.all_tasks():
        awaited = task.get_coro()
        for frame in awaited_frames(awaited):
            if frame.f_code is OutgoingCall.wait.__code__:
                waiters[frame.f_locals["self"]] = lines_awaited(awaited)
    return waiters


def _made(call: OutgoingCall, waiters: Mapping[OutgoingCall, tuple[Line, ...]]) -> CallStatus:
    request, peer = call.request, call.sender
    sent = peer.prefix if isinstance(peer, WorkerPeer) and call.number else ""
    return CallStatus(
        id=f"{sent}-{call.number}" if sent else f"unsent-{id(call):x}",
        parent=request.parent,
        routine=request.name,
        state="sent" if sent else "unsent",
        age=monotonic() - call.sent if sent else 0.0,
        steps=call.step + 1 if request.stream else 0,
        worker="" if call.holder is None else call.holder.info.id,
        stack=waiters.get(call, ()),
    )


async def inspect(client: Client, ask: Ask) -> list[ProcessStatus]:
    """Asks this process, the workers it is connected to, and those that their calls wait for.

    Args:
        ask: asks a worker that `client` is not connected to.

    Returns:
        One for each process that has answered within a second, this one first.
    """
    found = {IDENTITIES.process: client.pool.status()}
    addresses = {info.id: info.address for info in client.pool.members.values()}
    asked: set[str] = set()
    wanted: set[str] = {link.info.id for link in client.links.values() if link.peer is not None}
    while wanted:
        asked |= wanted
        connected = {k.info.id: k.peer for k in client.links.values() if k.peer is not None}
        questions = [
            connected[ident].ask() if ident in connected else ask(addresses[ident])
            for ident in wanted
        ]
        answers = await asyncio.gather(*(in_time(question) for question in questions))
        wanted = set()
        for process in (process for answer in answers for process in answer):
            found.setdefault(process.key, process)
            wanted |= {call.worker for call in process.makes}
        wanted = (wanted & addresses.keys()) - asked
    return list(found.values())


async def in_time(question: Awaitable[Sequence[ProcessStatus]]) -> Sequence[ProcessStatus]:
    """Waits a second for an answer; returns nothing if there is none."""
    try:
        async with asyncio.timeout(PATIENCE):
            return await question
    except (TimeoutError, WoolError):
        return ()
