"""The client: what one event loop needs to call the workers of a pool.

It keeps a link to each worker, decides who gets a call, takes back calls that wait at one worker
when another has nothing to do, and holds calls for which there is no worker yet.
"""

from __future__ import annotations

import asyncio
import copy
import random
import secrets
from collections.abc import Callable, Coroutine, Sequence
from contextvars import copy_context
from dataclasses import replace
from time import monotonic
from typing import Any, TypeVar, cast

from wool._client.balancing import Subset, least_loaded
from wool._client.calls import WorkerPeer
from wool._client.calltree import CallTree
from wool._client.link import Link
from wool._client.poolbase import PoolBase
from wool._peer import background
from wool._peer.outgoing import (
    Failed,
    Handover,
    NotStarted,
    Outcome,
    OutgoingCall,
    Request,
)
from wool._peer.prefetch import PrefetchCall
from wool._peer.session import Session
from wool._workerinfo import WorkerInfo
from wool.exceptions import (
    NoWorkersAvailable,
    TransportError,
    WoolError,
    WorkerLost,
    WorkerStopped,
)
from wool.plugins import CallInfo

T = TypeVar("T")

Balancer = Callable[[CallInfo, Sequence[WorkerInfo]], WorkerInfo]
"""`(call, workers) -> worker`; see `WorkerPool`."""

PATIENCE = 0.001
"""Seconds a call may be out before it is taken back for a worker that is idle."""


class Client:
    """Calls the workers of a pool from one event loop. Not thread-safe; see `Pool.client`."""

    def __init__(self, pool: PoolBase, balancer: Balancer | None = None) -> None:
        self.pool: PoolBase = pool
        self._balancer = balancer
        self.loop: asyncio.AbstractEventLoop = asyncio.get_running_loop()
        self.closed: bool = False
        self._subset = Subset(secrets.token_bytes(8))
        self.links: dict[str, Link] = {}
        self._waiting: dict[OutgoingCall, asyncio.TimerHandle] = {}
        self._retired: set[Link] = set()
        self._rebalancing = False
        self._tasks: set[asyncio.Task[Any]] = set()
        self._looking: asyncio.Task[CallTree] | None = None
        self._sweep = self.loop.call_later(pool.idle_timeout / 2, self._close_idle)

    @property
    def cancel_grace(self) -> float:
        """For how many seconds a cancelled call is waited for."""
        return self.pool.options.cancel_grace

    def open(self, request: Request) -> OutgoingCall:
        """Begins a call."""
        call = PrefetchCall(self, request) if request.prefetch else OutgoingCall(self, request)
        if request.calls:
            call.handover = Handover(request.calls, f"{request.name}()")
        if self.pool.options.output != "worker":
            call.context = copy_context()
        self.submit(call)
        return call

    # Choosing a worker ------------------------------------------------------------------------

    def submit(self, call: OutgoingCall, timer: asyncio.TimerHandle | None = None) -> None:
        """Gives a call to a worker, keeps it until there is one, or ends it if that is in vain.

        Args:
            timer: has been running since the call began to wait, if it has.
        """
        request = call.request
        tags = request.tags
        if self.closed:
            call.end(Failed(self.pool.closed_error()))
            return
        if request.worker is not None:
            self._place_at(call, request.worker)
            return
        if tags and self._subset.ask(tags):
            self._take_members()
        try:
            link = self._choose(request)
            if link is not None and not link.idle and self._widen(tags):
                link = self._choose(request)
        except Exception as error:
            failure = WoolError(f"the pool's balancer failed to choose a worker: {error!r}")
            failure.__cause__ = error
            call.end(Failed(failure))
            return
        if link is not None:
            link.open(call)
        elif failure := self.pool.failure or self._refusal(tags) or self._hopeless(request):
            call.end(Failed(failure))
        else:
            for link in self.links.values():
                if not link.info.id and link.untried:
                    link.connect()  # to know whether it offers the tags
            call.holder = None
            patience = self.pool.options.quorum_timeout
            self._waiting[call] = timer or self.loop.call_later(patience, self._give_up, call)

    def _place_at(self, call: OutgoingCall, worker: WorkerInfo) -> None:
        """Gives a call to the one worker it is for, or ends it if that cannot have it any more."""
        names = {worker.id, worker.address} - {""}  # of some, only an address is known
        link = next((k for k in self._all_links() if names & {k.info.id, k.info.address}), None)
        if link is None:
            link = Link(self, worker, pinned=False)
            self._retired.add(link)  # until it is not needed
        if link.usable or link.trying:
            link.open(call)
        else:
            call.end(Failed(_left(link, call.request.name)))

    def _choose(self, request: Request) -> Link | None:
        if self._balancer is None or request.info is None:
            return least_loaded(self.links.values(), request.tags)
        links = [k for k in self.links.values() if k.usable and request.tags <= k.info.tags]
        if not links:
            return None
        infos = [loaded(link.info, link.load) for link in links]
        chosen = cast(object, self._balancer(request.info, infos))
        for link, info in zip(links, infos, strict=True):
            # The load that it has may be older, if it is one of `pool.workers`.
            if isinstance(chosen, WorkerInfo) and loaded(chosen, info.load) == info:
                return link
        raise ValueError(f"it returned {chosen!r}, which is none of the workers it was given")

    def _widen(self, tags: frozenset[str]) -> bool:
        """Looks for more workers if all of those that are linked have enough to do."""
        if len(self.links) >= len(self.pool.members) or not self._subset.can_widen:
            return False
        if any(k.idle and k.usable and tags <= k.info.tags for k in self.links.values()):
            return False
        self._subset.widen()
        self._take_members()
        return True

    def _refusal(self, tags: frozenset[str]) -> WoolError | None:
        """Returns why no worker that fits can be used, if waiting would not change it."""
        # Of some workers only an address is known: they may offer the tags.
        fitting = [k for k in self.links.values() if not k.info.id or tags <= k.info.tags]
        return fitting[0].failure if fitting and all(link.refused for link in fitting) else None

    def _hopeless(self, request: Request) -> WoolError | None:
        """Returns an error if there will never be a worker with the tags of a call."""
        offered = self.pool.options.offered
        if offered is None or any(request.tags.issubset(tags) for tags in offered):
            return None
        lacking = request.tags.difference(*offered) or request.tags  # no worker has all of them
        return NoWorkersAvailable(
            f"{request.name}() asks for the tags {', '.join(sorted(lacking))}, which no worker of "
            "this pool will ever offer: give them to its workers with WorkerPool(tags=…), or find "
            "others with a discovery"
        )

    def _give_up(self, call: OutgoingCall) -> None:
        if self._waiting.pop(call, None) is None:
            return
        tags = call.request.tags
        wanted = f" with the tags {sorted(tags)}" if tags else ""
        error = NoWorkersAvailable(
            f"no worker{wanted} could be reached within {self.pool.options.quorum_timeout:g} s for "
            f"{call.request.name}(){self.pool.unready(tags)}"
        )
        call.end(Failed(error))

    def wanted(self) -> list[frozenset[str]]:
        """Returns the tags of each call that waits for a worker; on any thread."""
        return [call.request.tags for call in list(self._waiting)]

    def flush(self) -> None:
        """Tries again to place the calls that wait for a worker."""
        waiting, self._waiting = self._waiting, {}
        for call, timer in waiting.items():
            self.submit(call, timer)
            if call not in self._waiting:
                timer.cancel()

    def rebalance(self) -> None:
        """Looks, in a moment, whether an idle worker could relieve another one.

        Not at once: those whose results have just arrived are about to make their next calls, and
        a call that was sent a moment ago has most likely begun.
        """
        if not self._rebalancing and len(self.links) > 1:
            self._rebalancing = True
            self.loop.call_later(PATIENCE, self._rebalance)

    def _rebalance(self) -> None:
        self._rebalancing = False
        idle = sum(link.idle and link.usable for link in self.links.values())
        if not idle:
            return
        busy = [k.peer for k in self.links.values() if k.peer is not None and not k.idle]
        donors = [peer for peer in busy if peer.unbegun and not peer.recalling]
        before = monotonic() - PATIENCE
        slow = [peer for peer in donors if peer.oldest <= before]
        slow.sort(key=lambda peer: -peer.unbegun)
        for peer in slow[:idle]:
            peer.recall()
        if len(slow) < len(donors):
            self.rebalance()

    # Reports of links -------------------------------------------------------------------------

    def cancel(self, call: OutgoingCall, message: bytes | None) -> None:
        """Cancels a call wherever it is."""
        timer = self._waiting.pop(call, None)
        if timer is not None:
            timer.cancel()
            call.end(NotStarted())
        elif call.holder is not None:
            call.holder.cancel(call, message)

    def lost(
        self, worker: WorkerInfo, calls: list[OutgoingCall], error: Exception, *, stopped: bool
    ) -> None:
        """A session has ended with calls under way: they end once it is known why."""
        self._spawn(self._explain_loss(worker, calls, error, stopped=stopped))

    async def _explain_loss(
        self, info: WorkerInfo, calls: list[OutgoingCall], error: Exception, *, stopped: bool
    ) -> None:
        lost = WorkerLost(f"the worker {info.address} was lost", host=info.host, pid=info.pid)
        try:
            lost = await self.pool.explain_loss(info, error)
        finally:
            stopped = stopped and lost.signal is None and not lost.exitcode
            for call in calls:
                call.end(Failed(_loss(call, info, lost, stopped=stopped)))

    def _spawn(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = background.start(self.loop, work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # Membership -------------------------------------------------------------------------------

    def update(self) -> None:
        """Takes note of the pool's workers."""
        self._take_members()
        self.flush()
        self.reach()
        self.rebalance()

    def _take_members(self) -> None:
        """Makes the links those to the few workers that are chosen."""
        failing = sum(link.failure is not None for link in self.links.values())
        members = self._subset.choose(self.pool.members, self.pool.pinned, failing)
        for ident in [k for k in self.links if k not in members]:
            link = self.links.pop(ident)
            link.usable = False
            self._retire(link)
        for ident, info in members.items():
            if ident not in self.links:
                self.links[ident] = Link(self, info, pinned=ident in self.pool.pinned)
            else:
                self.links[ident].learn(info)

    def _all_links(self) -> list[Link]:
        """Returns also those to workers that leave and have calls still; on any thread."""
        return [*list(self.links.values()), *list(self._retired)]

    def sessions(self) -> list[Session]:
        """Returns those with the workers, also with ones that leave and have calls still."""
        return [link.session for link in self._all_links() if link.session is not None]

    def reach(self) -> None:
        """Dials as many workers as somebody waits for; calls have others dialled."""
        missing = self.pool.awaited - self.pool.ready
        if missing > 0 and not self.closed:
            missing -= sum(link.dialling for link in self.links.values())
            idle = [link for link in self.links.values() if link.untried]
            for link in random.sample(idle, max(0, min(missing, len(idle)))):
                link.connect()

    def failed(self) -> None:
        """A worker cannot be reached, or does not answer soon: others may have to stand in."""
        if len(self.links) < len(self.pool.members):
            self._take_members()
        self.reach()
        self.pool.on_failed()

    def address_of(self, ident: str) -> str | None:
        """Returns the address at which it is connected to a worker, None if it is not."""
        infos = (link.info for link in self.links.values() if link.session is not None)
        return next((info.address for info in infos if info.id == ident), None)

    def _close_idle(self) -> None:
        """Closes connections that have not been used for long; the next call opens them again."""
        idle = self.pool.idle_timeout
        before = monotonic() - idle
        for key, link in list(self.links.items()):
            closes = not link.pinned or not self.pool.keeps
            if closes and link.session is not None and not link.needed and link.used < before:
                self.links[key] = Link(self, link.info, pinned=link.pinned, met=True)
                self._retire(link)
        for link in [link for link in self._retired if not link.needed]:
            self._retire(link)
        if self._subset.narrow(sum(len(link.calls) for link in self.links.values())):
            self._take_members()
        self._sweep = self.loop.call_later(idle / 2, self._close_idle)

    def died(self, ident: str) -> None:
        """A worker's process has ended."""
        for link in self._all_links():
            if link.info.id == ident:
                self._spawn(link.died())

    def _retire(self, link: Link) -> None:
        self._retired.add(link)
        self._spawn(self._close_when_done(link))

    async def _close_when_done(self, link: Link) -> None:
        """Closes the link to a worker that has left, unless it is needed; then a sweep does."""
        if not link.needed:
            await link.aclose()
            self._retired.discard(link)

    def calls(self) -> list[OutgoingCall]:
        """Returns the calls that have not ended; on any thread."""
        return [*list(self._waiting), *(call for call in self._out() if call.holder is not None)]

    def _out(self) -> list[OutgoingCall]:
        """Returns the calls, and uses of workers' objects, that links have."""
        return [call for link in self._all_links() for call in link.calls]

    async def locate(self, call: OutgoingCall) -> tuple[str, bool]:
        """Says for the user where a call stands, and whether a debugger has stopped it.

        Those who ask at a time share an answer.
        """
        if not isinstance(call.sender, WorkerPeer) or not call.number:
            return "no worker has it", False
        if self._looking is None or self._looking.done():
            self._looking = self._spawn(self._look())
        tree = await asyncio.shield(self._looking)
        return tree.locate(f"{call.sender.prefix}-{call.number}")

    async def _look(self) -> CallTree:
        return CallTree(await self.pool.inspect())

    async def wait_quiet(self) -> None:
        """Waits until no call is out and no stream in a step."""
        while steps := [c.ending for c in (*self._waiting, *self._out()) if not c.ending.done()]:
            await asyncio.wait(steps)

    async def aclose(self, error: WoolError) -> None:
        """Ends all calls with `error`, and closes all links."""
        self.closed = True
        self._sweep.cancel()
        outcome: Outcome = Failed(error)
        links = self._all_links()
        for call, timer in self._waiting.items():
            timer.cancel()
            call.end(outcome)
        for link in links:
            link.fail_all(outcome)
        self._waiting.clear()
        self.links.clear()
        self._retired.clear()
        await asyncio.gather(*(link.aclose() for link in links))
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def loaded(info: WorkerInfo, load: int) -> WorkerInfo:
    """Returns what is known of a worker, with its load."""
    return info if info.load == load else replace(info, load=load)


def _left(link: Link, name: str) -> WoolError:
    """Returns the error for a call that was for a worker which has left, or refuses."""
    who = f"worker {link.info.pid} on {link.info.host}" if link.info.host else link.info.address
    if link.draining:
        return WorkerStopped(f"{who} was told to stop before {name}() could begin there")
    if link.failure is not None and not isinstance(link.failure, TransportError):
        return link.failure
    return WorkerLost(
        f"{who} was gone before {name}() could begin there",
        outcome="not started",
        host=link.info.host,
        pid=link.info.pid,
    )


def _loss(call: OutgoingCall, info: WorkerInfo, lost: WorkerLost, *, stopped: bool) -> WoolError:
    """Returns the error for a call that was at a worker when it was lost."""
    what = f"{lost} during {call.request.name}(), which may have run in part"
    if stopped:
        return WorkerStopped(f"worker {info.pid} on {info.host} was told to stop: {what}")
    error = copy.copy(lost)
    error.args = (what,)
    return error
