"""A link: one worker as seen from one event loop.

It dials when it is first needed, keeps one session, and knows which calls are out.
"""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable, Sequence
from math import ceil
from typing import TYPE_CHECKING

from wool._client.exchange import Exchange, Failed, NotStarted, Outcome, Reply
from wool._client.imports import Use
from wool._client.linkend import LinkEnd, vanish
from wool._client.packing import learn, unpack_context
from wool._client.probing import met
from wool._client.references import References
from wool._protocol import frames as f
from wool._protocol.frames import Buffer, Frame
from wool._serialization.classes import CLASSES, NO_REFERENTS
from wool._serialization.context import Arrived
from wool._serialization.references import Export
from wool._serialization.units import CodeUnit
from wool._session import background
from wool._session.handshaking import dial
from wool._session.session import Session
from wool._workerinfo import WorkerInfo
from wool.exceptions import (
    NoWorkersAvailable,
    Rejected,
    SerializationError,
    TransportError,
    WoolError,
    WorkerStopped,
)

if TYPE_CHECKING:
    from wool._client.client import Client

_RETRY_FIRST = 0.05
_RETRY_MOST = 5.0
_RETRY_REFUSED = 30.0
"""Seconds until a worker is dialled again that could be reached, but not be used."""

_PATIENCE = 0.5
"""Seconds a call waits for a connection before it is given to another worker."""

_LOOKS = 10
"""Times it is looked whether there is one: a loop that is blocked meanwhile may need them all."""


class Link:
    """Carries calls from one loop to one worker.

    Attributes:
        calls: calls that are out, by their number.
        hungry: whether the worker has said, since it was last sent a call, that it could begin one.
        draining: whether the worker has said that it stops.
        usable: False after the worker was lost, until it may be dialled again, and while it drains.
        failure: why there is no connection, when one was last tried or lost.
        own: whether the worker is certain to be there, as one that the pool has started.
        met: whether there has been a connection.
        used: when a call was last sent, in the loop's time.
    """

    def __init__(self, client: Client, info: WorkerInfo, *, own: bool, met: bool = False) -> None:
        self.info: WorkerInfo = info
        self.own = own
        self.met: bool = met
        self.calls: dict[int, Exchange] = {}
        self.hungry: bool = True
        self.usable: bool = True
        self.draining: bool = False
        self.session: Session | None = None
        self.failure: WoolError | None = None
        self.used: float = client.loop.time()
        self._client = client
        self._queue: list[Exchange] = []
        self._others = 0  # load that comes from other callers
        self._begun = 0  # of our calls, how many are known to have begun
        self._last = 0  # the number of the call that was sent last
        self._recalling = False
        self._closing = False
        self._lingering = False
        self._recalled = 0  # the last call there was when calls were recalled
        self._retry = _RETRY_FIRST
        self._task: asyncio.Task[None] | None = None
        self._held = False  # whether other calls are kept from beginning meanwhile
        self._slow = False  # whether it takes long to connect
        self._kin = False  # whether it imports what the pool does
        self._version = 0  # of the modules it has been sent
        self._fetches: dict[int, asyncio.Future[None]] = {}
        self._references: References | None = None  # of the session

    # What the balancer looks at -------------------------------------------------------------

    @property
    def load(self) -> int:
        """Calls waiting or running there, as far as is known here."""
        return len(self.calls) + len(self._queue) + self._others

    @property
    def unbegun(self) -> int:
        """How many of our calls there may not have begun."""
        return len(self.calls) - self._begun

    @property
    def oldest(self) -> float:
        """When the first of the calls that may not have begun was sent, in the loop's time."""
        sent = (exchange.sent for exchange in self.calls.values() if not exchange.begun)
        return next(sent, float("inf"))

    @property
    def untried(self) -> bool:
        """Whether nobody has tried to connect."""
        return self._task is None and not self.met and self.failure is None

    @property
    def refused(self) -> bool:
        """Whether the worker can be reached but not be used, which more attempts do not change."""
        return self.failure is not None and not isinstance(self.failure, TransportError)

    @property
    def dialling(self) -> bool:
        """Whether there may be a connection in a moment."""
        return self._task is not None and self.session is None and not self._slow

    def learn(self, info: WorkerInfo) -> None:
        """Takes note of what discovery says of the worker now."""
        if info.id:
            self.info = info

    # Calls ----------------------------------------------------------------------------------

    def open(self, exchange: Exchange) -> None:
        """Gives a call to the worker, once there is a session."""
        exchange.link = self
        self.used = self._client.loop.time()
        self.hungry = False
        if self.session is None:
            self._queue.append(exchange)
            self._held = self._held or self._client.pool.hold()
            self.connect()
            return
        self._send_open(self.session, exchange)

    def _send_queue(self, session: Session) -> None:
        queue, self._queue = self._queue, []
        for exchange in queue:
            self._send_open(session, exchange)

    def _send_open(self, session: Session, exchange: Exchange) -> None:
        request = exchange.request
        codes, data = self._codes(session, request.units)
        number = exchange.number = self._last = session.machine.next_id()
        exchange.begun = False
        exchange.sent = self._client.loop.time()
        segments = [*data, *request.segments]
        frame = f.Open(
            number,
            request.stream,
            request.target,
            request.parent,
            [len(s) for s in segments],
            codes,
            request.ahead,
            self._lend(request.exports) if request.exports else [],
            list(request.context),
        )
        alone = not self.calls
        self.calls[number] = exchange
        # One call after another is quickest without the writer, many at once with it.
        if not (alone and session.send_now(frame, segments)):
            session.send(frame, segments)

    def resume(
        self,
        exchange: Exchange,
        operation: int,
        units: Sequence[CodeUnit] = (),
        args: Sequence[Buffer] = (),
        exports: Sequence[Export] = (),
        context: Sequence[f.Variable] = (),
        more: int = 1,
    ) -> bool:
        """Asks for the next step of a stream; False if the worker is gone."""
        session = self.session
        if exchange.losing:
            return False  # the step ends when it is known why the worker was lost
        if session is None or self.calls.get(exchange.number) is not exchange:
            exchange.end(Failed(WorkerStopped("the stream's worker is gone")))
            return False
        codes, data = self._codes(session, units)
        segments = [*data, *args]
        sizes = [len(s) for s in segments]
        names = self._lend(exports) if exports else []
        frame = f.Resume(
            exchange.number, exchange.step, operation, sizes, codes, names, list(context), more
        )
        if not (len(self.calls) == 1 and session.send_now(frame, segments)):
            session.send(frame, segments)
        return True

    def close_stream(self, exchange: Exchange) -> None:
        """Closes a suspended stream, without anybody waiting for it."""
        if not exchange.begin_close():
            return
        exchange.next_step()
        operation = f.CLOSE if exchange.request.ahead else f.THROW
        self.resume(exchange, operation, args=[pickle.dumps(GeneratorExit())])

    def cancel(self, exchange: Exchange, message: bytes | None) -> None:
        """Cancels a call; the worker's answer ends the step."""
        if exchange in self._queue:
            self._queue.remove(exchange)
            exchange.end(NotStarted())
        elif self.session is not None and exchange.number in self.calls:
            self.session.send(f.Cancel(exchange.number, exchange.awaited, message))

    def recall(self) -> None:
        """Asks for half of the calls that have not begun."""
        if self.session is not None and not self._recalling:
            self._recalling = True
            self._recalled = self._last
            self.session.send(f.Recall(ceil(self.unbegun / 2)))

    @property
    def exchanges(self) -> list[Exchange]:
        """The calls, and uses of the worker's objects, that are out or wait for the session."""
        return [*self.calls.values(), *self._queue, *self._uses]

    @property
    def needed(self) -> bool:
        """Whether there is something that would be lost with the session."""
        references = self._references
        return bool(self.exchanges) or (references is not None and references.any)

    @property
    def recalling(self) -> bool:
        """Whether an answer to `recall` is awaited."""
        return self._recalling

    async def fetch(self, keys: Sequence[bytes]) -> None:
        """Asks the worker for code that a reply mentions.

        Raises:
            SerializationError: the worker is gone or has it no more.
        """
        if self.session is None:
            raise SerializationError("the worker that could say what the reply means is gone")
        number = self.session.machine.next_id()
        future = self._fetches[number] = self._client.loop.create_future()
        self.session.send(f.Need(number, list(keys)))
        await future
        if self._client.pool.store.missing(keys):
            raise SerializationError("the worker no longer has the code that its reply mentions")

    def _codes(
        self, session: Session, units: Sequence[CodeUnit]
    ) -> tuple[list[f.Code], list[Buffer]]:
        """Returns those units that the worker does not have, and marks them as sent."""
        codes: list[f.Code] = []
        data: list[Buffer] = []
        if not self._kin:
            modules = self._client.pool.modules
            version = modules.version()
            if version != self._version:
                self._version = version
                units = [*modules.units(), *units]
        for unit in units:
            if unit.key not in session.known:
                session.known.add(unit.key)
                session.known.update(unit.provides)
                codes.append(f.Code(unit.key, list(unit.provides)))
                data.append(unit.data)
        return codes, data

    # Connection -----------------------------------------------------------------------------

    def connect(self) -> None:
        """Dials, unless that is done or under way."""
        if self._task is None:
            self._task = background.start(self._client.loop, self._run())
            self._look(_LOOKS)

    def _look(self, times: int) -> None:
        """Does not keep calls waiting for a worker that takes long to answer."""
        if times and self.dialling and not self._closing:
            self._client.loop.call_later(_PATIENCE / _LOOKS, self._look, times - 1)
            return
        self._release()  # in whatever way it has ended
        if self.dialling and not self._closing:
            self._slow = True
            self.usable = self.hungry = False
            queue, self._queue = self._queue, []
            for exchange in queue:
                self._client.submit(exchange)
            self._client.failed(self)

    async def _run(self) -> None:
        client = self._client
        try:
            session, welcome = await client.dial(self.info, dial)
        except WoolError as error:
            self._unreachable(error)
            return
        except Exception as error:
            self._unreachable(WoolError(f"{self.info.address} cannot be dialled: {error!r}"))
            return
        reason = self._unusable(welcome)
        if reason is not None:
            await session.connection.aclose()
            self._unreachable(reason)
            return
        self._retry = _RETRY_FIRST
        self.failure = None
        self.usable = True
        self.met = True
        self.hungry = self.hungry or self._slow
        self._slow = False
        if self.info.id != welcome.id:
            self.info = met(self.info, welcome, session.peer)
        self.session = session
        self._references = References(LinkEnd(client, session, self.fetch), session)
        self._kin = welcome.pool == client.pool.id or session.peer.process == CLASSES.process
        self._version = 0
        client.connected(self, session)
        self._send_queue(session)
        self._release()
        client.rebalance()
        await session.run(self._on_frame, self._on_lost, self._linger)

    def _unusable(self, welcome: f.Welcome) -> WoolError | None:
        """Returns why a worker is not used although it could be reached."""
        twin = self._client.twin(self, welcome.id)
        if twin is not None:
            return WoolError(f"{self.info.address} is the worker at {twin.info.address} again")
        lacking = self._client.pool.required.difference(welcome.tags)
        if lacking:
            return NoWorkersAvailable(
                f"worker {self.info.address} does not offer the tags of the pool: "
                f"{', '.join(sorted(lacking))} missing"
            )
        return None

    def _release(self) -> None:
        if self._held:
            self._held = False
            self._client.pool.release()

    def _unreachable(self, error: WoolError) -> None:
        self._release()
        self._task = None
        self._slow = False
        self.failure = error
        queue, self._queue = self._queue, []
        self._pause(_RETRY_REFUSED if self.refused else None)
        for exchange in queue:
            self._client.submit(exchange)  # to another one, if there is any
        self._client.failed(self)
        if self.refused:
            self._client.flush()  # those who wait for a worker may do so in vain

    def _pause(self, seconds: float | None = None) -> None:
        """Stops using the worker for a while, by default one that grows with every failure."""
        self.usable = self.hungry = False
        self._client.loop.call_later(seconds or self._retry, self._resume_use)
        self._retry = min(self._retry * 2, _RETRY_MOST)

    def _resume_use(self) -> None:
        if self._closing or self._client.closed:
            return
        if self.failure is not None:
            self.connect()  # no call has to find out whether it is back
        else:
            self.usable = self.hungry = True
            self._client.flush()

    def _on_lost(self, error: Exception) -> None:
        self.session = None
        self._task = None
        self._last = 0
        self._recalling = False
        calls, self.calls = self.calls, {}
        self._begun = 0
        for future in self._fetches.values():
            if not future.done():
                future.set_result(None)
        self._fetches.clear()
        uses: list[Use] = []
        if self._references is not None:
            uses = self._references.lost(self._vanish())
            self._references = None
        if self._closing or self._client.closed or self._lingering:
            stopped = WorkerStopped("the event loop that made the call has ended")
            for exchange in [*calls.values(), *uses]:
                exchange.end(Failed(stopped))
        else:
            if isinstance(error, TransportError):
                self.failure = error
            self._pause()
            for exchange in calls.values():
                exchange.losing = True
            self._client.lost(self, [*calls.values(), *uses], error)

    def _vanish(self) -> Callable[[str], WoolError]:
        """Returns what makes the errors for using objects of a worker that is lost now."""
        return vanish(self._client.pool, self.info, stopped=self.draining or self._closing)

    @property
    def _uses(self) -> list[Use]:
        return [] if self._references is None else self._references.imports.uses

    def _lend(self, exports: Sequence[Export]) -> list[bytes]:
        assert self._references is not None
        return self._references.exports.lend(exports)

    def _linger(self) -> bool:
        """Whether the session is still needed although its task has been cancelled.

        A loop that ends cancels all tasks, and then closes generators. Callers that are cancelled
        with it wait for their remote clean-up, so the session stays until there are no more.
        """
        if self._closing:
            return False
        self.usable = False
        self._lingering = True
        for exchange in list(self.calls.values()):
            if exchange.suspended:
                self.close_stream(exchange)
        return bool(self.calls or self._uses)

    async def died(self) -> None:
        """The worker's process is gone, even if something keeps its connections open."""
        if self.session is not None:
            await self.session.connection.aclose()

    async def aclose(self) -> None:
        """Closes the session. Calls that are out are the client's to end."""
        self._closing = True
        self._release()
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    # Frames ---------------------------------------------------------------------------------

    def _on_frame(self, frame: Frame, segments: Sequence[Buffer]) -> None:
        if isinstance(frame, (f.Return, f.Raise, f.Value)):
            self._on_reply(frame, segments)
        elif isinstance(frame, f.GiveBack):
            self._on_give_back(frame)
        elif isinstance(frame, f.Reject):
            exchange = self._forget(frame.call)
            if exchange is not None:
                exchange.number = 0
                exchange.end(Failed(Rejected(f"{self.info.address} refused: {frame.message}")))
            elif self._references is not None:
                self._references.imports.on_reject(frame)
        elif isinstance(frame, (f.Open, f.Cancel, f.Release)):
            self._on_reference(frame, segments)
        elif isinstance(frame, f.Idle):
            self._others = max(0, frame.load - len(self.calls))
            self._note_hunger(frame.hungry)
        elif isinstance(frame, f.Drain):
            self.usable = self.hungry = False
            self.draining = True
            if self.session is not None:
                self.session.send(f.Drain())  # after it comes no call that the worker must expect
            self._client.pool.on_drain(self.info)
        elif isinstance(frame, f.Need):
            self._supply(frame)
        elif isinstance(frame, f.Supply):
            self._learn(frame.codes, segments)
            future = self._fetches.pop(frame.call, None)
            if future is not None and not future.done():
                future.set_result(None)

    def _on_reference(
        self, frame: f.Open | f.Cancel | f.Release, segments: Sequence[Buffer]
    ) -> None:
        """The worker uses an object of ours."""
        references = self._references
        if references is None:
            return
        if isinstance(frame, f.Open):
            references.on_open(frame, self._learn(frame.codes, segments))
        elif isinstance(frame, f.Cancel):
            references.on_cancel(frame)
        else:
            references.on_release(frame)

    def _on_reply(self, frame: f.Return | f.Raise | f.Value, segments: Sequence[Buffer]) -> None:
        referents = NO_REFERENTS
        context: Sequence[Arrived] = ()
        if frame.codes:
            segments = self._learn(frame.codes, segments)
        if frame.context:
            segments, context = unpack_context(frame.context, segments)
        if frame.references and self._references is not None:
            referents = self._references.arrive(frame)
        if type(frame) is f.Value:
            exchange = self.calls.get(frame.call)
            if exchange is not None:
                exchange.suspended = True
                if exchange.abandoned:
                    self.close_stream(exchange)
                    return
                if not exchange.begun:
                    exchange.begun = True
                    self._begun += 1
        else:
            exchange = self._forget(frame.call)
            if exchange is None and self._references is not None:
                assert not isinstance(frame, f.Value)
                self._references.imports.on_reply(frame, segments, referents)
                return
        others = frame.load - len(self.calls)
        self._others = max(0, others)
        if frame.hungry:
            self._note_hunger(frame.hungry)
        if exchange is not None:
            exchange.end(Reply(frame, segments, referents, context))

    def _note_hunger(self, seen: int) -> None:
        """The worker can begin a call at once, unless one is under way that it had not seen."""
        if seen >= self._last:
            self.hungry = True
            self._client.rebalance()

    def _on_give_back(self, frame: f.GiveBack) -> None:
        if self._references is not None:
            self._references.imports.on_give_back(frame)
        returned = [e for number in frame.calls if (e := self._forget(number)) is not None]
        if frame.recalled:
            self._recalling = False
            if not frame.waiting:
                for number, exchange in self.calls.items():
                    exchange.begun = exchange.begun or number <= self._recalled
                self._begun = sum(exchange.begun for exchange in self.calls.values())
        for exchange in returned:
            if self.session is not None:
                # The call may have been cut short: its code need not have arrived.
                self.session.known.difference_update(u.key for u in exchange.request.units)
            self._client.given_back(exchange)

    def _forget(self, number: int) -> Exchange | None:
        exchange = self.calls.pop(number, None)
        if exchange is not None and exchange.begun:
            self._begun -= 1
        return exchange

    def _supply(self, frame: f.Need) -> None:
        """Sends code that the worker lacks or has lost."""
        sent = [unit for exchange in self.calls.values() for unit in exchange.request.units]
        units = [unit for unit in sent if unit.key in frame.keys]
        units += self._client.pool.book.find(frame.keys)
        codes = [f.Code(unit.key, list(unit.provides)) for unit in units]
        data = [unit.data for unit in units]
        if self.session is not None:
            self.session.send(f.Supply(frame.call, [len(d) for d in data], codes), data)

    def _learn(self, codes: Sequence[f.Code], segments: Sequence[Buffer]) -> Sequence[Buffer]:
        """Keeps the code that came with a payload; returns the segments of the payload."""
        if self.session is None:
            return segments[len(codes) :]
        return learn(self._client.pool.store, self.session, codes, segments)

    def fail_all(self, outcome: Outcome) -> None:
        """Ends every call that is out or waiting."""
        uses = []
        if self._references is not None:
            uses = self._references.imports.lost(self._vanish())
        calls, self.calls = self.calls, {}
        queue, self._queue = self._queue, []
        self._begun = 0
        for exchange in [*calls.values(), *queue, *uses]:
            exchange.end(outcome)
