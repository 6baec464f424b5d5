"""The server: the I/O side of a worker. It accepts callers and carries answers back to them.

It runs on a loop and a thread of its own, so that it answers whatever user code does on the
executor's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Sequence
from itertools import count
from typing import Any

from msgspec import Struct

from wool import abc
from wool._addresses import is_socket
from wool._client.identity import hello
from wool._client.inspecting import in_time
from wool._client.peer_pool import PeerPool
from wool._code.identity import IDENTITIES
from wool._code.modules import RELAYED, Modules
from wool._code.received import ReceivedModules
from wool._peer.handshaking import accept
from wool._peer.incoming import State
from wool._plugins.observers import Observer
from wool._protocol import frames as f
from wool._protocol.frames import Buffer
from wool._security.credentials import Acceptor, Keyring
from wool._worker.callerpeer import CallerPeer, Host
from wool._worker.execution import Execution
from wool._worker.executor import Executor
from wool._worker.status import StallWatch, worker_status
from wool._worker.stream import StreamExecution
from wool._worker.transports import Transports
from wool._workerinfo import WorkerInfo
from wool.exceptions import WoolError

MAX_STRANGERS = 256
"""Connections that have not authenticated themselves; the oldest is dropped for one more."""

ARRIVING = 1.0
"""Seconds that a worker with nothing left to do waits for the end of handshakes."""


class Setup(Struct, frozen=True, kw_only=True):
    """The plan of a worker.

    Attributes:
        id: of the worker.
        tags: labels it offers.
        transport: name of the transport that brings callers.
        transports: the back-ends, for callers and for the calls its own routines make.
        keyring: who may call, and what its routines show to other workers.
        serializer, serializer_name: of all payloads.
        listen: address to listen at; None leaves it to the transport.
        observers: who is told of the calls that its routines make.
        parent: id of the pool that starts it, if one does.
    """

    id: str
    tags: Iterable[str]
    transport: str
    transports: Transports
    keyring: Keyring
    serializer: abc.Serializer
    serializer_name: str
    listen: str | None
    observers: tuple[Observer, ...] = ()
    parent: str = ""


class Server(Host):
    """Serves callers on behalf of an executor.

    Args:
        setup: the plan of the worker.
        info: what the worker says of itself.
        acceptor: what callers have to prove.
        on_retired: called when it drains because its pool can do without it; None: no pool can.
    """

    kinds = (Execution, StreamExecution)

    def __init__(
        self,
        setup: Setup,
        info: WorkerInfo,
        executor: Executor,
        acceptor: Acceptor,
        on_retired: Callable[[], object] | None = None,
    ) -> None:
        super().__init__(info, executor)
        self.handlers = {
            f.Peers: self._on_peers,
            f.Inquire: self._on_inquire,
            f.Measure: self._on_measure,
        }
        self._setup = setup
        self._acceptor = acceptor
        self._on_retired = on_retired
        self._began = self._loop.time()
        self._callers: set[CallerPeer] = set()
        self._strangers: deque[abc.Connection] = deque()
        self._numbers = count(1)
        self._pools: dict[str, PeerPool] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._stalls = StallWatch(executor, self.where)
        executor.on_idle = self._on_idle

    async def handle(self, connection: abc.Connection, acceptor: Acceptor | None = None) -> None:
        """Serves one connection until it ends.

        Args:
            acceptor: what this caller has to prove, if it is not what others have to.
        """
        acceptor, number = acceptor or self._acceptor, next(self._numbers)
        self._strangers.append(connection)
        if len(self._strangers) > MAX_STRANGERS:
            await self._strangers.popleft().aclose()
        try:
            hello, welcome = self._hello(acceptor), self._welcome(number)
            session = await accept(connection, hello, acceptor, welcome)
        except WoolError:
            return  # the peer has been told, and a stranger's mistakes are not our log's business
        finally:
            with contextlib.suppress(ValueError):
                self._strangers.remove(connection)
            self.call_ended()
        caller = CallerPeer(self, session, self._pool(session.peer), number)
        self._callers.add(caller)
        self._stalls.start()
        if self.draining:
            caller.drain()
        await session.run(caller.on_frame, caller.on_lost)

    def _hello(self, acceptor: Acceptor) -> f.Hello:
        return hello(list(self.info.serializers), security=acceptor.credentials.kind)

    def _welcome(self, caller: int) -> f.Welcome:
        info = self.info
        return f.Welcome(
            id=info.id,
            host=info.host,
            pid=info.pid,
            tags=sorted(info.tags),
            load=self.executor.load,
            age=int(self._loop.time() - self._began),
            pool=self._setup.parent,
            caller=caller,
        )

    # Reports ------------------------------------------------------------------------------------

    def _on_inquire(self, caller: CallerPeer, frame: f.Inquire, segments: Sequence[Buffer]) -> None:
        """Tells a caller what the worker is doing, and what its callers say that they are."""
        self._run(self._report(caller, frame))

    async def _report(self, caller: CallerPeer, frame: f.Inquire) -> None:
        if frame.cancel:
            self._cancel(frame.cancel)
        others = [c.ask() for c in self._callers if c is not caller] if frame.callers else []
        pools = list(self._pools.values())
        uptime = self._loop.time() - self._began
        own = await worker_status(self.info, uptime, self.executor, self._callers, pools)
        answers = await asyncio.gather(*map(in_time, others))
        processes = [own, *(process for answer in answers for process in answer)]
        caller.report(frame.token, processes)

    def _cancel(self, ident: str) -> None:
        """Cancels a call as if it had done so itself: its caller gets `CancelledError`."""
        for caller in self._callers:
            for call in list(caller.serving.values()):
                if isinstance(call, Execution) and call.info.id == ident:
                    self.executor.call(call.interrupt)

    # Pools --------------------------------------------------------------------------------------

    def _pool(self, peer: f.Hello) -> PeerPool:
        pool = self._pools.get(peer.pool)
        if pool is None:
            pool = self._pools[peer.pool] = PeerPool(
                peer.pool, f.CallOptions(), self._modules_of(peer), self.executor
            )
            pool.here = self.info.id
            setup = self._setup
            pool.follow(setup.observers)
            pool.opened(setup.transports.routes, setup.keyring, peer.serializer, setup.serializer)
            pool.pinned = frozenset([self.info.address])
            pool.set_members({self.info.address: self.info})
        return pool

    def _modules_of(self, peer: f.Hello) -> Modules:
        relayed = RELAYED.get(peer.pool)
        if relayed is not None:  # it was opened here, wherever this one of its callers is
            return relayed
        shares_modules = peer.pool == self._setup.parent or peer.process == IDENTITIES.process
        if shares_modules:
            return Modules()
        return Modules(received=ReceivedModules(self.where), arriving=True)

    def _retire(self, pool: PeerPool) -> None:
        """Closes what is open on behalf of a pool for which nobody calls, or has a call here."""
        if any(caller.pool is pool for caller in self._callers):
            return
        if self._pools.pop(pool.id, None) is not None:
            self.executor.call(pool.modules.leave)
            self._run(pool.close_clients())

    def _on_peers(self, caller: CallerPeer, peers: f.Peers, segments: Sequence[Buffer]) -> None:
        """Takes note of the workers of a pool, this one among them.

        They are known by their addresses: of some, that is all that is known at first. Their order
        is random, lest all workers prefer the same one.
        """
        pool = caller.pool
        if not pool.learn(peers):
            return
        pool.output = pool.options.output
        if pool.output == "auto":
            pool.output = "worker" if pool.id == self._setup.parent else "caller"
        if pool.output != "worker" and self.executor.capture is not None:
            self.executor.capture.install(pool.options.log_level)
        infos = [
            self.info if p.id == self.info.id else _peer(p)
            for p in peers.workers
            if p.host in ("", self.info.host) or not is_socket(p.address)
        ]
        random.shuffle(infos)
        pool.pinned = frozenset(info.address for info in infos)
        pool.set_members({info.address: info for info in infos})

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # Threads ------------------------------------------------------------------------------------

    def _on_idle(self) -> None:
        """There is nothing to begin; on the executor's thread."""
        for caller in list(self._callers):
            if caller.told < caller.seen:
                self.call(self._tell_idle)
                return

    def _tell_idle(self) -> None:
        """Tells each caller once that a call could begin, unless a reply has just said so."""
        if self.executor.idle and not self.draining:
            for caller in self._callers:
                if not caller.informed:
                    caller.told = caller.seen
                    caller.session.send(f.Idle(self.executor.load, caller.seen))

    # Ending -------------------------------------------------------------------------------------

    def forget(self, caller: CallerPeer) -> None:
        """A caller is gone."""
        self._callers.discard(caller)
        if not self._callers:
            self._stalls.stop()
        self.call_ended()
        self._retire(caller.pool)

    def _has_calls(self) -> bool:
        return self._has_executions() or any(c.lent.any for c in self._callers)

    def _has_executions(self) -> bool:
        return bool(self.executor.running) or any(c.serving for c in self._callers)

    def start_drain(self) -> None:
        """Takes no more calls, and says so to all callers, once."""
        if not self.draining:
            self.draining = True
            for caller in list(self._callers):
                caller.drain()

    def _on_measure(self, caller: CallerPeer, frame: f.Measure, segments: Sequence[Buffer]) -> None:
        """Tells a pool how much there is to do; begins to drain if that is nothing and `retire`."""
        on_retired = self._on_retired
        if frame.retire and on_retired is not None and not self.draining:
            self.draining = True  # what begins on the other thread is given back, or is seen here
            if not self._has_calls():
                for other in list(self._callers):
                    other.drain()
                on_retired()
            else:
                self.draining = False
        executor = self.executor
        wanted = [sorted(tags) for tags in caller.pool.wanted]
        usage = f.Usage(len(executor.pending), self._has_calls(), executor.ended, wanted)
        caller.session.send(usage)

    async def drain(self, grace: float) -> None:
        """Takes no more calls and lets those that have begun finish, for `grace` seconds.

        Those who are about to be callers are waited for: they may have been welcomed, and have sent
        calls, which would be lost.
        """
        self.start_drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                busy = True
                while busy:
                    await self._until(lambda: not self._is_busy())
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(ARRIVING):
                            await self._until(lambda: not self._strangers or self._is_busy())
                    busy = self._is_busy()

    def _is_busy(self) -> bool:
        return self._has_calls() or not all(c.drained for c in self._callers)

    async def cancel_all(self, grace: float) -> None:
        """Cancels all calls and waits for them to end, for `grace` seconds.

        Their callers are told, and may close streams here: they may be calls of this worker that
        are to end as well. Then what nobody has closed is closed, of which nobody is told.
        """
        self.draining = True
        self.executor.debuggers.quit()
        for caller in list(self._callers):
            caller.drain()
            caller.abandon_all(gone=False)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                await self._until(lambda: not self._is_active())
                for caller in list(self._callers):
                    caller.abandon_all(gone=True)
                await self._until(lambda: not self._has_executions())

    def _is_active(self) -> bool:
        running = list(self.executor.running)
        suspended = all(execution.state is State.SUSPENDED for execution in running)
        return not suspended or any(caller.active for caller in self._callers)

    async def _until(self, done: Callable[[], bool]) -> None:
        """Waits for what ends with a call."""
        while not done():
            self._quiet.clear()
            await self._quiet.wait()


def _peer(peer: f.Peer) -> WorkerInfo:
    return WorkerInfo(
        id=peer.id,
        address=peer.address,
        host=peer.host,
        pid=peer.pid,
        tags=frozenset(peer.tags),
    )
