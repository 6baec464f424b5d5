"""The calls that are out over one session: sending them, and taking what the worker answers."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable, Sequence
from math import ceil
from typing import TYPE_CHECKING

from wool._client.exchange import CallExchange
from wool._client.linkend import LinkEnd
from wool._exchange.exchange import Exchange, Failed, Reply
from wool._exchange.packing import keep_code, name_code, supply, unpack_context
from wool._exchange.references import References
from wool._protocol import frames as f
from wool._protocol.frames import Buffer, Frame
from wool._serialization.classes import NO_REFERENTS
from wool._serialization.codec import Codec
from wool._serialization.context import Arrived
from wool._serialization.references import Export
from wool._serialization.units import CodeUnit
from wool._session.session import Session
from wool.exceptions import Rejected, SerializationError, WoolError, WorkerStopped

if TYPE_CHECKING:
    from wool._client.client import Client
    from wool._client.link import Link


class CallTable:
    """The calls that are out over one session.

    Args:
        link: to the worker; it is told what the worker says of itself.
        shares_modules: whether the worker imports what the pool does, and needs no modules sent.

    Attributes:
        calls: by their number; none once the session has ended.
        recalling: whether an answer to `recall` is awaited.
    """

    def __init__(
        self, client: Client, link: Link, session: Session, codec: Codec, *, shares_modules: bool
    ) -> None:
        self.calls: dict[int, CallExchange] = {}
        self.recalling: bool = False
        self._references = References(LinkEnd(client, session, codec, self.fetch), session)
        self._client = client
        self._link = link
        self._session = session
        self._codec = codec
        self._shares_modules = shares_modules
        self._version = 0  # of the modules that the worker has
        self._shipping: dict[int, tuple[int, list[bytes]]] = {}  # those under way with a large call
        self._begun = 0  # how many of the calls are known to have begun
        self._last = 0  # the number of the call that was sent last
        self._recalled = 0  # the last one there was when calls were recalled
        self._fetches: dict[int, asyncio.Future[None]] = {}

    @property
    def unbegun(self) -> int:
        """How many of the calls may not have begun."""
        return len(self.calls) - self._begun

    @property
    def oldest(self) -> float:
        """When the first of those that may not have begun was sent, in the loop's time."""
        sent = (exchange.sent for exchange in self.calls.values() if not exchange.begun)
        return next(sent, float("inf"))

    @property
    def exchanges(self) -> list[Exchange]:
        """The calls, and the uses of the worker's objects, that are out."""
        return [*self.calls.values(), *self._references.imports.uses]

    @property
    def needed(self) -> bool:
        """Whether there is something that would be lost with the session."""
        return bool(self.exchanges) or self._references.any

    # To the worker ------------------------------------------------------------------------------

    def open(self, exchange: CallExchange) -> bool:
        """Sends a call; False if the session has ended, of which the link is about to be told."""
        session, request = self._session, exchange.request
        number = exchange.number = self._last = session.machine.next_id()
        codes, data = self._codes(request.units, request.segments, number)
        exchange.table = self
        exchange.begun = False
        exchange.sent = self._client.loop.time()
        segments = [*data, *request.segments]
        frame = f.Open(
            call=number,
            stream=request.stream,
            routine=request.target,
            parent=request.parent,
            sizes=list(map(len, segments)),
            codes=codes,
            prefetch=request.prefetch,
            references=self._lend(request.exports) if request.exports else [],
            context=list(request.context),
        )
        alone = not self.calls
        self.calls[number] = exchange
        # One call after another is quickest without the writer, many at once with it.
        sent = False
        try:
            sent = (alone and session.send_now(frame, segments)) or session.send(frame, segments)
        finally:
            if not sent:  # or there is a RecursionError, of whoever calls
                del self.calls[number]  # which the next call would have as well
                exchange.number, exchange.table = 0, None
        return sent

    def resume(
        self,
        exchange: CallExchange,
        operation: int,
        units: Sequence[CodeUnit] = (),
        args: Sequence[Buffer] = (),
        exports: Sequence[Export] = (),
        context: Sequence[f.Variable] = (),
        more: int = 1,
    ) -> bool:
        """Asks for the next step of a stream; False if the worker is gone."""
        if exchange.losing:
            return False  # the step ends when it is known why the worker was lost
        if self.calls.get(exchange.number) is not exchange:
            exchange.end(Failed(WorkerStopped("the stream's worker is gone")))
            return False
        session = self._session
        codes, data = self._codes(units, args)
        segments = [*data, *args]
        frame = f.Resume(
            call=exchange.number,
            step=exchange.step,
            operation=operation,
            sizes=list(map(len, segments)),
            codes=codes,
            references=self._lend(exports) if exports else [],
            context=list(context),
            more=more,
        )
        if not (len(self.calls) == 1 and session.send_now(frame, segments)):
            session.send(frame, segments)
        return True

    def close_stream(self, exchange: CallExchange) -> None:
        """Closes a suspended stream, without anybody waiting for it."""
        if not exchange.begin_close():
            return
        exchange.closing = True
        exchange.next_step()
        operation = f.CLOSE if exchange.request.prefetch else f.THROW
        self.resume(exchange, operation, args=[pickle.dumps(GeneratorExit())])

    def close_suspended(self) -> None:
        """Closes all streams that are between two steps."""
        for exchange in list(self.calls.values()):
            if exchange.suspended:
                self.close_stream(exchange)

    def cancel(self, exchange: CallExchange, message: bytes | None) -> None:
        """Cancels a call; the worker's answer ends the step."""
        if exchange.number in self.calls:
            self._session.send(f.Cancel(exchange.number, exchange.awaited, message))

    def recall(self) -> None:
        """Asks for half of the calls that have not begun."""
        if not self.recalling:
            self.recalling = True
            self._recalled = self._last
            self._session.send(f.Recall(ceil(self.unbegun / 2)))

    async def fetch(self, keys: Sequence[bytes]) -> None:
        """Asks the worker for code that a reply mentions.

        Raises:
            SerializationError: the worker is gone or has it no more.
        """
        number = self._session.machine.next_id()
        future = self._client.loop.create_future()
        if not self._session.send(f.Need(number, list(keys))):
            raise SerializationError("the worker that could say what the reply means is gone")
        self._fetches[number] = future
        await future
        if self._codec.store.missing(keys):
            raise SerializationError("the worker no longer has the code that its reply mentions")

    def _codes(
        self, units: Sequence[CodeUnit], args: Sequence[Buffer], number: int = 0
    ) -> tuple[list[f.Code], list[Buffer]]:
        """Returns those units that the worker does not have, and marks them as sent.

        Args:
            args: what follows them.
            number: of the call, if it is opened.
        """
        codes: list[f.Code] = []
        data: list[Buffer] = []
        modules: Sequence[CodeUnit] = ()
        version, session = self._version, self._session
        if not self._shares_modules:
            version = self._codec.modules.version()
            if version != self._version:
                modules = self._codec.modules.units()
                units = [*modules, *units]
        for unit in units:
            if unit.key not in session.known:
                session.note_known(unit.key, unit.provides)
                codes.append(name_code(unit))
                data.append(unit.data)
        if version != self._version:
            if session.machine.fits(f.total(data) + f.total(args)):
                self._version = version
            else:
                self._ship(number, version, modules, codes)
        return codes, data

    def _ship(
        self, number: int, version: int, modules: Sequence[CodeUnit], codes: Sequence[f.Code]
    ) -> None:
        """Takes note that modules go with a large payload.

        Later calls may overtake it, and must not find modules as they were before; or it is cut
        short. So others have them along as well, until it has arrived.
        """
        sent = {code.key for code in codes}
        keys = [unit.key for unit in modules if unit.key in sent]
        self._session.known.difference_update(keys)
        if number:
            self._shipping[number] = version, keys

    def _arrived(self, number: int) -> None:
        """A call has begun: the modules that went with it have arrived."""
        version, keys = self._shipping.pop(number, (0, ()))
        for key in keys:
            self._session.note_known(key, ())
        self._version = max(self._version, version)

    def _lend(self, exports: Sequence[Export]) -> list[bytes]:
        return self._references.exports.lend(exports)

    # The end ------------------------------------------------------------------------------------

    def clear(self, failing: Callable[[str], WoolError]) -> list[Exchange]:
        """Lets go of the calls, and of uses of the worker's objects; returns all that were out.

        Args:
            failing: makes the error for using such an object from now on, from its name.
        """
        calls, self.calls = self.calls, {}
        self._begun = 0
        return [*calls.values(), *self._references.imports.lost(failing)]

    def lose(self, failing: Callable[[str], WoolError]) -> list[Exchange]:
        """The session has ended: lets go of everything; returns what was out, as `clear`."""
        for future in self._fetches.values():
            if not future.done():
                future.set_result(None)
        self._fetches.clear()
        self._references.exports.lost()
        return self.clear(failing)

    # From the worker ----------------------------------------------------------------------------

    def on_frame(self, frame: Frame, segments: Sequence[Buffer]) -> None:
        """Takes what the worker sends."""
        if isinstance(frame, (f.Return, f.Raise, f.Value)):
            self._on_reply(frame, segments)
        elif isinstance(frame, f.GiveBack):
            self._on_give_back(frame)
        elif isinstance(frame, f.Reject):
            self._on_reject(frame)
        elif isinstance(frame, f.Open):  # the worker uses an object of ours
            self._references.on_open(frame, self._learn(frame.codes, segments))
        elif isinstance(frame, f.Cancel):
            self._references.on_cancel(frame)
        elif isinstance(frame, f.Release):
            self._references.on_release(frame)
        elif isinstance(frame, f.Idle):
            self._note_load(frame.load, frame.idle_as_of)
        elif isinstance(frame, f.Drain):
            self._session.send(f.Drain())  # after it comes no call that the worker must expect
            self._link.on_drain()
        elif isinstance(frame, f.Need):
            self._supply(frame)
        elif isinstance(frame, f.Supply):
            self._learn(frame.codes, segments)
            future = self._fetches.pop(frame.call, None)
            if future is not None and not future.done():
                future.set_result(None)

    def _on_reply(self, frame: f.Return | f.Raise | f.Value, segments: Sequence[Buffer]) -> None:
        referents = NO_REFERENTS
        context: Sequence[Arrived] = ()
        if self._shipping:
            self._arrived(frame.call)
        if frame.codes:
            segments = self._learn(frame.codes, segments)
        if frame.context:
            segments, context = unpack_context(frame.context, segments)
        if frame.references:
            referents = self._references.arrive(frame)
        if isinstance(frame, f.Value):
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
            if exchange is None:
                self._references.imports.on_reply(frame, segments, referents)
                return
        self._note_load(frame.load, frame.idle_as_of)
        if exchange is not None:
            exchange.end(Reply(frame, segments, referents, context))

    def _note_load(self, load: int, seen: int) -> None:
        """Tells the link how much the worker has to do.

        Args:
            load: how many calls it has.
            seen: if it could begin another one, the last of ours that it had seen; else 0. If there
                is one under way that it had not, that is the one.
        """
        hungry = seen > 0 and seen >= self._last
        self._link.on_load(load - len(self.calls), hungry=hungry)

    def _on_give_back(self, frame: f.GiveBack) -> None:
        self._references.imports.on_give_back(frame)
        returned = [e for number in frame.calls if (e := self._forget(number)) is not None]
        if frame.recalled:
            self.recalling: bool = False
            if not frame.waiting:
                for number, exchange in self.calls.items():
                    exchange.begun = exchange.begun or number <= self._recalled
                self._begun = sum(exchange.begun for exchange in self.calls.values())
            if self.unbegun:  # they were sent after the recall
                self._client.rebalance()
        for exchange in returned:
            # The call may have been cut short: its code need not have arrived.
            self._session.known.difference_update(u.key for u in exchange.request.units)
            self._client.given_back(exchange)

    def _on_reject(self, frame: f.Reject) -> None:
        exchange = self._forget(frame.call)
        if exchange is None:
            self._references.imports.on_reject(frame)
        else:
            exchange.number = 0
            address = self._link.info.address
            exchange.end(Failed(Rejected(f"{address} refused: {frame.message}")))

    def _forget(self, number: int) -> CallExchange | None:
        exchange = self.calls.pop(number, None)
        self._shipping.pop(number, None)
        if exchange is not None and exchange.begun:
            self._begun -= 1
        return exchange

    def _supply(self, frame: f.Need) -> None:
        """Sends code that the worker lacks or has lost."""
        sent = [unit for exchange in self.calls.values() for unit in exchange.request.units]
        units = [unit for unit in sent if unit.key in frame.keys]
        units += self._codec.book.find(frame.keys)
        self._session.send(*supply(frame.call, units))

    def _learn(self, codes: Sequence[f.Code], segments: Sequence[Buffer]) -> Sequence[Buffer]:
        """Keeps the code that came with a payload; returns the segments of the payload."""
        return keep_code(self._codec.store, self._session, codes, segments)
