"""The server: the I/O side of a worker. It accepts callers and carries answers back to them.

It runs on a loop and a thread of its own, so that it answers whatever user code does on the
executor's thread.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import threading
from collections import deque
from collections.abc import Callable, Sequence
from itertools import count
from typing import Any

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
from wool._peer.routes import Routes
from wool._plugins.observers import Observer
from wool._protocol import frames as f
from wool._protocol.frames import Buffer
from wool._security.credentials import Acceptor, Keyring
from wool._worker.callerpeer import CallerPeer
from wool._worker.execution import Execution
from wool._worker.executor import Executor, leave_fork
from wool._worker.stalls import StallWatch
from wool._worker.status import worker_status
from wool._workerinfo import WorkerInfo
from wool.exceptions import WoolError

Answer = tuple[CallerPeer, f.Answer, Sequence[Buffer]]

MAX_STRANGERS = 256
"""Connections that have not authenticated themselves; the oldest is dropped for one more."""

ARRIVING = 1.0
"""Seconds that a worker with nothing left to do waits for the end of handshakes."""


class Server:
    """Serves callers on behalf of an executor.

    Args:
        info: what the worker says of itself.
        acceptor: what callers have to prove.
        routes, keyring: how its routines reach other workers.
        serializer: of the pool it belongs to.
        observers: who is told of the calls that its routines make.
        parent: id of the pool that has started it and whose modules it has, if there is one.
        on_retired: called when it drains because its pool can do without it; None: no pool can.

    Attributes:
        draining: whether it takes no more calls.
    """

    def __init__(
        self,
        info: WorkerInfo,
        executor: Executor,
        *,
        acceptor: Acceptor,
        routes: Routes,
        keyring: Keyring,
        serializer: abc.Serializer,
        observers: tuple[Observer, ...],
        parent: str = "",
        on_retired: Callable[[], object] | None = None,
    ) -> None:
        self.info = info
        self.where = f"worker {info.pid} on {info.host}"
        self.executor = executor
        self.draining = False
        self._acceptor = acceptor
        self._routes = routes
        self._keyring = keyring
        self._serializer = serializer
        self._observers = observers
        self._parent = parent
        self._on_retired = on_retired
        self._loop = asyncio.get_running_loop()
        self._began = self._loop.time()
        self._callers: set[CallerPeer] = set()
        self._strangers: deque[abc.Connection] = deque()
        self._numbers = count(1)
        self._pools: dict[str, PeerPool] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._answers: deque[Answer] = deque()
        self._woken = False
        self._sending = threading.Lock()  # the answers, in their order
        self._idle = False
        self._quiet = asyncio.Event()
        self._stalls = StallWatch(executor, self.where)
        executor.attach(self._post_idle)

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
            pool=self._parent,
            caller=caller,
        )

    # What it is doing ---------------------------------------------------------------------------

    def report(self, caller: CallerPeer, frame: f.Inquire) -> None:
        """Tells a caller what the worker is doing, and what its callers say that they are."""
        task = self._loop.create_task(self._report(caller, frame))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

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
            pool.follow(self._observers)
            pool.opened(self._routes, self._keyring, peer.serializer, self._serializer)
            pool.pinned = frozenset([self.info.address])
            pool.set_members({self.info.address: self.info})
        return pool

    def _modules_of(self, peer: f.Hello) -> Modules:
        relayed = RELAYED.get(peer.pool)
        if relayed is not None:  # it was opened here, wherever this one of its callers is
            return relayed
        shares_modules = peer.pool == self._parent or peer.process == IDENTITIES.process
        if shares_modules:
            return Modules()
        return Modules(received=ReceivedModules(self.where), arriving=True)

    def _retire(self, pool: PeerPool) -> None:
        """Closes what is open on behalf of a pool for which nobody calls, or has a call here."""
        if any(caller.pool is pool for caller in self._callers):
            return
        if self._pools.pop(pool.id, None) is not None:
            self.executor.call(pool.modules.leave)
            task = self._loop.create_task(pool.close_clients())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def set_peers(self, pool: PeerPool, peers: f.Peers) -> None:
        """Takes note of the workers of a pool, this one among them.

        They are known by their addresses: of some, that is all that is known at first. Their order
        is random, lest all workers prefer the same one.
        """
        if not pool.learn(peers):
            return
        pool.output = pool.options.output
        if pool.output == "auto":
            pool.output = "worker" if pool.id == self._parent else "caller"
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

    # Answers ------------------------------------------------------------------------------------

    def post(
        self, caller: CallerPeer, frame: f.Answer, segments: Sequence[Buffer], *, more: bool
    ) -> None:
        """Has an answer sent; on the executor's thread.

        The last one for now is sent from there: the caller waits for it, and nothing else would be
        gained by a detour. Otherwise the I/O thread sends several at a time.

        Args:
            more: whether others follow at once.
        """
        if os.getpid() != self.executor.process:
            leave_fork()
        last = not (more or self._woken or self._answers or self.executor.pending or self.draining)
        if not (last and caller.send_now(frame, segments)):
            self._answers.append((caller, frame, segments))
            self._wake()

    def join(self, frame: f.Value, segments: list[Buffer], value: Buffer) -> bool:
        """Adds a value to an answer that was posted; on the executor's thread.

        Returns False if it is being sent, or is not the last one: to take it back is the claim.
        """
        if os.getpid() != self.executor.process:
            leave_fork()
        answers = self._answers
        try:
            answer = answers.pop()
        except IndexError:
            return False
        waits = answer[1] is frame
        if waits:
            frame.sizes.append(len(value))
            segments.append(value)
        answers.append(answer)
        self._wake()
        return waits

    def flush(self) -> None:
        """Sends what was posted, as far as that is possible, on the executor's thread.

        The I/O thread has been woken for it, and may have to wait long until it may run.
        """
        if not self._sending.acquire(blocking=False):
            return
        try:
            while self._answers:
                caller, frame, segments = self._answers[0]
                if not caller.send_now(frame, segments):
                    return
                self._answers.popleft()
        finally:
            self._sending.release()

    def _post_idle(self) -> None:
        """There is nothing to begin; on the executor's thread."""
        for caller in list(self._callers):
            if caller.told < caller.seen and not caller.informed:
                self._idle = True
                self._wake()
                return

    def _wake(self) -> None:
        if not self._woken:
            self._woken = True
            self.call(self._send_answers)

    def _send_answers(self) -> None:
        with self._sending:
            self._send_all(self._answers)
        if self._idle:
            self._idle = False
            self._tell_idle()

    def _send_all(self, answers: deque[Answer]) -> None:
        alone = len(answers) == 1  # then the session's writer is of no use
        while answers or self._woken:
            if not answers:
                self._woken = False  # and look once more: something may just have been posted
                continue
            self._woken = True  # until all are sent: what is posted meanwhile comes behind them
            caller, frame, segments = answers.popleft()
            try:
                if not (alone and caller.send_now(frame, segments)):
                    caller.send(frame, segments)
            except Exception as error:  # one answer must not keep the others
                context = {"message": "an answer could not be sent", "exception": error}
                self._loop.call_exception_handler(context)
                caller.session.fail(error)

    def _tell_idle(self) -> None:
        """Tells each caller once that a call could begin, unless a reply has just said so."""
        if self.executor.idle and not self.draining:
            for caller in self._callers:
                if not caller.informed:
                    caller.told = caller.seen
                    caller.session.send(f.Idle(self.executor.load, caller.seen))

    def call(self, callback: Callable[..., object], *args: Any) -> None:
        """Calls back on the server's loop, from any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed: the worker is stopping
            self._loop.call_soon_threadsafe(callback, *args)

    # Ending -------------------------------------------------------------------------------------

    def forget(self, caller: CallerPeer) -> None:
        """A caller is gone."""
        self._callers.discard(caller)
        if not self._callers:
            self._stalls.stop()
        self.call_ended()
        self._retire(caller.pool)

    def call_ended(self) -> None:
        """A call has ended, or a caller is done; perhaps it was the last one. On any thread."""
        if self.draining:
            self.call(self._quiet.set)

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

    def measure(self, pool: PeerPool, *, retire: bool) -> f.Usage:
        """Tells a pool how much there is to do; begins to drain if that is nothing and `retire`."""
        on_retired = self._on_retired
        if retire and on_retired is not None and not self.draining:
            self.draining = True  # what begins on the other thread is given back, or is seen here
            if not self._has_calls():
                for caller in list(self._callers):
                    caller.drain()
                on_retired()
            else:
                self.draining = False
        executor = self.executor
        wanted = [sorted(tags) for tags in pool.wanted]
        return f.Usage(len(executor.pending), self._has_calls(), executor.ended, wanted)

    async def drain(self, grace: float) -> None:
        """Takes no more calls and lets those that have begun finish, for `grace` seconds."""
        self.start_drain()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace):
                while self._is_busy() or await self._is_joined():
                    self._quiet.clear()
                    await self._quiet.wait()

    def _is_busy(self) -> bool:
        return self._has_calls() or not all(c.drained for c in self._callers)

    async def _is_joined(self) -> bool:
        """Waits for those who are about to be callers; returns whether there is work again.

        They may have been welcomed, and have sent calls, which would be lost.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ARRIVING):
                while self._strangers and not self._is_busy():
                    self._quiet.clear()
                    await self._quiet.wait()
        return self._is_busy()

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
