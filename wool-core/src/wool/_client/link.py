"""A link: one worker as seen from one event loop.

It dials when it is first needed, keeps one session, and tries again after that is lost. Where it
stands:

    APART ──connect──▶ DIALLING ──for long──▶ LATE
      ▲                   │                     │
      │                   └───────welcomed──────┴──▶ CONNECTED ──tasks cancelled──▶ LINGERING
      └──unreachable, lost, closed── (from anywhere)

Whether a worker is used while it is `APART` depends on what it was apart for: it is given no calls
for a while after a failure.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable
from enum import Enum, auto
from time import monotonic

from wool._client.calls import Dispatcher, WorkerPeer
from wool._client.probing import met, without_address
from wool._code.identity import IDENTITIES
from wool._peer import background, outgoing
from wool._peer.handshaking import dial
from wool._peer.outgoing import Failed, NotStarted, Outcome, OutgoingCall
from wool._peer.session import Session
from wool._protocol import frames as f
from wool._workerinfo import WorkerInfo
from wool.exceptions import (
    AuthenticationError,
    ConnectFailed,
    ConnectionLost,
    NoWorkersAvailable,
    ProtocolError,
    TransportError,
    VersionMismatch,
    WoolError,
    WorkerLost,
    WorkerStopped,
)

_RETRY_FIRST = 0.05
_RETRY_MOST = 5.0

_REFUSALS = 6
"""Refusals in a row after which one is believed that anybody in between could have sent.

With the pauses between them they take more than a second.
"""

_REFUSED = (AuthenticationError, ProtocolError, VersionMismatch)
"""Errors that stand for an answer of the peer."""

_PATIENCE = 0.5
"""Seconds a call waits for a connection before it is given to another worker."""

_LOOKS = 10
"""Times it is looked whether there is one: a loop that is blocked meanwhile may need them all."""


class Stage(Enum):
    """Where a link stands; see the top of this module."""

    APART = auto()
    DIALLING = auto()
    LATE = auto()
    """It is being dialled still, and calls are given to others meanwhile."""
    CONNECTED = auto()
    LINGERING = auto()
    """Its task has been cancelled, and the session is kept until its calls have ended."""


class Link:
    """Gives calls from one loop to one worker, and keeps it connected.

    Attributes:
        session: the connection to it, if there is one.
        peer: the other end of that, with the calls that are out.
        load: how many calls wait or run there, as far as is known here.
        idle: whether the worker has said, since it was last sent a call, that it could begin one.
        draining: whether the worker has said that it stops.
        usable: False after the worker was lost, until it may be dialled again, and while it drains.
        failure: why there is no connection, when one was last tried or lost.
        pinned: whether the worker is one that is always linked, and counts as ready undialled.
        met: whether there has been a connection.
        used: when a call was last sent, in `monotonic` time.
    """

    def __init__(
        self, client: Dispatcher, info: WorkerInfo, *, pinned: bool, met: bool = False
    ) -> None:
        self.info: WorkerInfo = info
        self.pinned = pinned
        self.met: bool = met
        self.load: int = 0
        self.idle: bool = True
        self.usable: bool = True
        self.draining: bool = False
        self.session: Session | None = None
        self.peer: WorkerPeer | None = None
        self.failure: WoolError | None = None
        self.used: float = monotonic()
        self._client = client
        self._queue: list[OutgoingCall] = []  # calls that wait for the session
        self._task: asyncio.Task[None] | None = None  # dials, then runs the session
        self._retry = _RETRY_FIRST
        self._refusals = 0  # in a row
        self._stage = Stage.APART
        self._held = False  # whether other calls are kept from beginning while it is dialled
        self._closing = False
        self._resuming: asyncio.TimerHandle | None = None

    # For clients ----------------------------------------------------------------------------

    @property
    def trying(self) -> bool:
        """Whether it is being dialled."""
        return self._stage in (Stage.DIALLING, Stage.LATE)

    @property
    def untried(self) -> bool:
        """Whether nobody has tried to connect."""
        return self._stage is Stage.APART and not self.met and self.failure is None

    @property
    def refused(self) -> bool:
        """Whether the worker can be reached but not be used, which more attempts do not change."""
        if self.failure is None or isinstance(self.failure, TransportError):
            return False
        return self._refusals >= _REFUSALS

    @property
    def dialling(self) -> bool:
        """Whether there may be a connection in a moment."""
        return self._stage is Stage.DIALLING

    @property
    def calls(self) -> list[OutgoingCall]:
        """The calls, and uses of the worker's objects, that are out or wait for the session."""
        return [*self._queue, *(() if self.peer is None else self.peer.calls.values())]

    @property
    def needed(self) -> bool:
        """Whether there is something that would be lost with the session."""
        return bool(self._queue) or (self.peer is not None and self.peer.needed)

    def reason_against(self, tags: frozenset[str]) -> str | None:
        """Returns why a call with these tags cannot be given to the worker; None if it can."""
        if self.failure is not None:
            return without_address(self.failure, self.info.address)
        lacking = tags - self.info.tags if self.info.id else None
        if lacking:
            return f"does not offer the tags {', '.join(sorted(lacking))}"
        if self.met:
            return None
        return "has not answered yet" if self.trying else "there is no connection yet"

    # Calls ----------------------------------------------------------------------------------

    def open(self, call: OutgoingCall) -> None:
        """Gives a call to the worker, once there is a session."""
        call.holder = self
        self.idle = False
        if self.peer is None:
            self.used = monotonic()
            self._keep(call)
            self._held = self._held or self._client.pool.hold()
            self.connect()
        elif self.peer.begin(call):
            self.used = call.sent
        else:
            self.usable = False
            self._keep(call)  # until `_on_lost`

    def _keep(self, call: OutgoingCall) -> None:
        """Has a call wait for the session."""
        self._queue.append(call)
        self.load += 1

    def cancel(self, call: OutgoingCall, message: bytes | None) -> None:
        """Cancels a call, whether it has been sent or not."""
        if call in self._queue:
            self._queue.remove(call)
            self.load -= 1
            call.end(NotStarted())
        elif self.peer is not None:
            self.peer.send_cancel(call, message)

    def fail_all(self, outcome: Outcome) -> None:
        """Ends every call that is out or waiting."""
        out = [] if self.peer is None else self.peer.clear(self._vanish())
        for call in [*out, *self._take_queue()]:
            call.end(outcome)

    def _take_queue(self) -> list[OutgoingCall]:
        queue, self._queue = self._queue, []
        self.load -= len(queue)
        return queue

    def _send_elsewhere(self) -> None:
        """Gives the calls that wait for the session to other workers, if there are any."""
        for call in self._take_queue():
            self._client.submit(call)

    # News of the worker ---------------------------------------------------------------------

    def learn(self, info: WorkerInfo) -> None:
        """Takes note of what discovery says of the worker now."""
        if info.id:
            self.info = info

    def on_drain(self) -> None:
        """The worker has said that it takes no more calls; from those that run there it does."""
        if self.info.id == self._client.pool.here:
            return
        self.usable = self.idle = False
        self.draining = True
        self._client.pool.on_drain(self.info)

    # Connecting -----------------------------------------------------------------------------

    def connect(self) -> None:
        """Dials, unless that is done or under way."""
        if self._stage is Stage.APART:
            self._stage = Stage.DIALLING
            self._task = background.start(self._client.loop, self._run())
            self._task.add_done_callback(self._on_ended)
            self._look(_LOOKS)

    def _look(self, times: int) -> None:
        """Does not keep calls waiting for a worker that takes long to answer."""
        late = self.dialling and not self._closing
        if late and times:
            self._client.loop.call_later(_PATIENCE / _LOOKS, self._look, times - 1)
            return
        self._release()  # in whatever way it has ended
        if late:
            self._stage = Stage.LATE
            self.usable = self.idle = False
            self._send_elsewhere()
            self._client.failed()

    async def _run(self) -> None:
        try:
            session, welcome = await self._dial()
        except Exception as error:
            if not isinstance(error, WoolError):
                error = WoolError(f"{self.info.address} cannot be dialled: {error!r}")
            if isinstance(error, TransportError):
                self._refusals = 0
            elif not isinstance(error, _REFUSED):
                self._refusals = _REFUSALS  # it is us, or a plug-in
            self._on_unreachable(error)
            return
        reason = self._unusable(welcome)
        if reason is not None:
            await session.connection.aclose()
            self._refusals = _REFUSALS
            self._on_unreachable(reason)
            return
        try:
            peer = self._on_connected(session, welcome)
        except BaseException:
            background.start(self._client.loop, session.connection.aclose())
            raise
        await session.run(peer.on_frame, self._on_lost, self._linger)

    async def _dial(self) -> tuple[Session, f.Welcome]:
        pool, address = self._client.pool, self.info.address
        route = pool.routes.to(address)
        credentials = pool.keyring.pick(address, local=route.local)
        try:
            return await dial(route, address, pool.hello(credentials.kind), credentials)
        except _REFUSED as error:
            sure = credentials.channel_proves or isinstance(error.__cause__, ConnectFailed)
            self._refusals += _REFUSALS if sure else 1
            raise type(error)(f"worker {address} cannot be used: {error}") from error

    def _unusable(self, welcome: f.Welcome) -> WoolError | None:
        """Returns why a worker is not used although it could be reached."""
        known = self._client.address_of(welcome.id)
        if known is not None:
            return WoolError(f"{self.info.address} is the worker at {known} again")
        lacking = self._client.pool.required.difference(welcome.tags)
        if lacking:
            return NoWorkersAvailable(
                f"worker {self.info.address} does not offer the tags of the pool: "
                f"{', '.join(sorted(lacking))} missing"
            )
        return None

    def _on_connected(self, session: Session, welcome: f.Welcome) -> WorkerPeer:
        """Sends what has waited for the session."""
        client = self._client
        self._retry = _RETRY_FIRST
        self._refusals = 0
        self.failure = None
        self._end_pause()  # or it would end one day, whatever the worker has said by then
        self.usable = True
        self.draining = False
        self.load = len(self._queue)  # the rest was of one that was there before
        self.met = True
        self.idle = self.idle or self._stage is Stage.LATE
        if self.info.id != welcome.id:
            self.info = met(self.info, welcome, session.peer)
        pool = client.pool
        shares_modules = welcome.pool == pool.id or session.peer.process == IDENTITIES.process
        self._stage, self.session = Stage.CONNECTED, session
        prefix = f"{welcome.id}-{welcome.caller}"
        self.peer = peer = WorkerPeer(
            self, client, session, shares_modules=shares_modules, prefix=prefix
        )
        pool.on_connected(session)
        client.flush()
        for call in self._take_queue():
            self.open(call)
        self._release()
        client.rebalance()
        return peer

    def _on_unreachable(self, error: WoolError) -> None:
        self._release()
        self._part()
        _let_go(error)
        self.failure = error
        self._pause()
        self._send_elsewhere()
        self._client.failed()
        if self.refused:
            self._client.flush()  # those who wait for a worker may do so in vain

    def _on_ended(self, task: asyncio.Task[None]) -> None:
        """It ends by itself in all cases but one: something that is not of Wool's has ended it."""
        if task is not self._task:
            return
        if self.peer is None:  # it had not run, or was dialling
            self._part()
            self._on_cancelled()
        else:
            self._on_lost(ConnectionLost("the session was interrupted"))

    def _on_cancelled(self) -> None:
        """Somebody has cancelled all tasks of the loop, which may nevertheless go on."""
        if not self._closing and not self._client.closed:
            self._release()
            self._pause()
        self._send_elsewhere()

    def _release(self) -> None:
        if self._held:
            self._held = False
            self._client.pool.release()

    def _pause(self) -> None:
        """Stops using the worker for a while, which grows with every failure."""
        self.usable = self.idle = False
        self._end_pause()
        self._resuming = self._client.loop.call_later(self._retry, self._resume_use)
        self._retry = min(self._retry * 2, _RETRY_MOST)

    def _end_pause(self) -> None:
        if self._resuming is not None:
            self._resuming.cancel()
            self._resuming = None

    def _resume_use(self) -> None:
        if self._closing or self._client.closed:
            return
        if self.failure is not None:
            self.connect()  # no call has to find out whether it is back
        else:
            self.usable = self.idle = True
            self._client.flush()

    # The end of a session -------------------------------------------------------------------

    def _on_lost(self, error: Exception) -> None:
        assert self.peer is not None
        lost = self.peer.lose(self._vanish())
        lingering = self._stage is Stage.LINGERING
        self._part()
        if self._closing or self._client.closed or lingering:
            stopped = WorkerStopped("the loop that made the call has ended, or all its tasks have")
            for call in lost:
                call.end(Failed(stopped))
            self._on_cancelled()
            return
        if isinstance(error, TransportError):
            self.failure = error
        self._pause()
        for call in lost:
            call.stage = outgoing.Stage.LOST
        if lost:
            self._client.lost(self.info, lost, error, stopped=self.draining)
        self._send_elsewhere()

    def _part(self) -> None:
        """Lets go of what there was of a connection."""
        self._stage = Stage.APART
        self._task = self.session = self.peer = None

    def _vanish(self) -> Callable[[str], WoolError]:
        """Returns what makes the error for using an object, from its name: its worker is lost."""
        pool, worker = self._client.pool, self.info
        stopped = self.draining or self._closing
        who = f"worker {worker.pid} on {worker.host}"

        def make(name: str) -> WoolError:
            if pool.closed:
                return pool.closed_error()
            if stopped:
                return WorkerStopped(f"{who}, where {name} lived, was told to stop")
            return WorkerLost(
                f"{who}, where {name} lived, is gone",
                outcome="not started",
                host=worker.host,
                pid=worker.pid,
            )

        return make

    def _linger(self) -> bool:
        """Whether the session is still needed although its task has been cancelled.

        A loop that ends cancels all tasks, and then closes generators. Callers that are cancelled
        with it wait for their remote clean-up, so the session stays until there are no more.
        """
        if self._closing or self.peer is None:
            return False
        self.usable = False
        self._stage = Stage.LINGERING
        self.peer.close_suspended()
        return bool(self.peer.calls)

    async def died(self) -> None:
        """The worker's process is gone, even if something keeps its connections open."""
        if self.session is not None:
            await self.session.connection.aclose()

    async def aclose(self) -> None:
        """Closes the session. Calls that are out are the client's to end."""
        self._closing = True
        self._release()
        self._end_pause()
        task, self._task = self._task, None
        self._stage = Stage.APART
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def _let_go(error: BaseException | None) -> None:
    """Drops what the functions had in hand that an error, or what led to it, has ended.

    That is a connection, and the error is kept until there is another one.
    """
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__
