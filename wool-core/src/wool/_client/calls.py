"""The connection to a worker, as its caller has it: calls of routines go out over it."""

from __future__ import annotations

import asyncio
import os
import pickle
from collections.abc import Callable, Sequence
from math import ceil
from time import monotonic
from typing import Any, Protocol

from wool._client.output import show
from wool._client.poolbase import PoolBase
from wool._code.units import CodeUnit
from wool._peer.outgoing import Failed, NotStarted, OutgoingCall, Stage
from wool._peer.peer import Failing, Peer
from wool._peer.session import Session
from wool._protocol import frames as f
from wool._protocol.frames import Buffer, Frame
from wool._values.references import Export
from wool._values.tracebacks import process_label
from wool._workerinfo import WorkerInfo
from wool.exceptions import WorkerStopped


class Dispatcher(Protocol):
    """The giver of calls to workers, which is told what becomes of them; see `client.Client`."""

    loop: asyncio.AbstractEventLoop
    closed: bool
    pool: PoolBase
    """The pool that has the workers."""

    def submit(self, call: OutgoingCall) -> None:
        """Gives a call to a worker, or keeps it until there is one."""

    def flush(self) -> None:
        """Tries again to place the calls that wait for a worker."""

    def rebalance(self) -> None:
        """Looks, in a moment, whether an idle worker could relieve another one."""

    def address_of(self, ident: str) -> str | None:
        """Returns the address at which it is connected to a worker, None if it is not."""

    def failed(self) -> None:
        """A worker cannot be reached, or does not answer soon."""

    def lost(
        self, worker: WorkerInfo, calls: list[OutgoingCall], error: Exception, *, stopped: bool
    ) -> None:
        """A session has ended with calls under way.

        Args:
            stopped: whether the worker had said that it stops.
        """


class Owner(Protocol):
    """The owner of the connection; see `link.Link`."""

    load: int
    """How many calls the worker has, as far as is known; the connection keeps it up to date."""
    idle: bool
    """Whether the worker has said, since it was last sent a call, that it could begin one."""

    def on_drain(self) -> None:
        """The worker has said that it takes no more calls."""


class WorkerPeer(Peer):
    """The calls that are out over one connection to a worker.

    Args:
        owner: of the connection.
        client: has given the calls.
        shares_modules: whether the worker imports what the pool does, and needs no modules sent.
        prefix: ids of calls over this connection begin with it.

    Attributes:
        out: how many calls of routines are out.
        recalling: whether an answer to `recall` is awaited.
        usage: the answer to the last `measure`, once there is one.
    """

    def __init__(
        self,
        owner: Owner,
        client: Dispatcher,
        session: Session,
        *,
        shares_modules: bool,
        prefix: str,
    ) -> None:
        label, where = process_label("caller"), f"process {os.getpid()}"
        super().__init__(session, client.pool.codec, label=label, where=where)
        self.out: int = 0
        self.recalling: bool = False
        self.usage: f.Usage | None = None
        self.prefix = prefix
        self._owner = owner
        self._client = client
        self.ships = not shares_modules
        self._version = 0  # of the modules that the worker has
        self._shipping: dict[int, tuple[int, list[bytes]]] = {}  # those under way with a large call
        self._begun = 0  # how many of the calls are known to have begun
        self._last = 0  # the number of the call that was sent last
        self._recalled = 0  # the last one there was when calls were recalled

    def _more_handlers(self) -> dict[type[Frame], Callable[[Any, Sequence[Buffer]], None]]:
        return {
            f.Idle: self._on_idle,
            f.Output: self._on_output,
            f.Drain: self._on_drain,
            f.Usage: self._on_usage,
        }

    @property
    def cancel_grace(self) -> float:
        """As for calls."""
        return self._client.pool.options.cancel_grace

    @property
    def unbegun(self) -> int:
        """How many of the calls may not have begun."""
        return self.out - self._begun

    @property
    def oldest(self) -> float:
        """When the first of those that may not have begun was sent, in `monotonic` time."""
        calls = (call for call in self.calls.values() if call.holder is not None)
        return next((call.sent for call in calls if call.stage is Stage.SENT), float("inf"))

    @property
    def needed(self) -> bool:
        """Whether there is something that would be lost with the session."""
        return bool(self.calls) or self.lent.any or self.borrowed.any

    # To the worker ------------------------------------------------------------------------------

    def begin(self, call: OutgoingCall) -> bool:
        """Sends a call of a routine; False if the session has ended."""
        call.sent = monotonic()
        if not self.open(call):
            return False
        self.out += 1
        self._owner.load += 1
        self._last = call.number
        return True

    def resume(
        self,
        call: OutgoingCall,
        operation: int,
        units: Sequence[CodeUnit] = (),
        args: Sequence[Buffer] = (),
        exports: Sequence[Export] = (),
        context: tuple[f.Variable, ...] = (),
        more: int = 1,
    ) -> bool:
        """Asks for the next step of a stream; False if the worker is gone."""
        call.next_step()
        if call.stage is Stage.LOST:
            return False  # the step ends when it is known why the worker was lost
        if self.calls.get(call.number) is not call:
            call.end(Failed(WorkerStopped("the stream's worker is gone")))
            return False
        codes, segments = self._with_code(units, args)
        frame = f.Resume(
            call=call.number,
            step=call.step,
            operation=operation,
            sizes=list(map(len, segments)),
            codes=codes,
            references=self.lent.lend(exports) if exports else (),
            context=context,
            more=more,
        )
        if not (len(self.calls) == 1 and self.session.send_now(frame, segments)):
            self.session.send(frame, segments)
        return True

    def close_stream(self, call: OutgoingCall) -> None:
        """Closes a suspended stream, without anybody waiting for it."""
        if not call.begin_close():
            return
        call.closing = True
        operation = f.CLOSE if call.request.prefetch else f.THROW
        self.resume(call, operation, args=[pickle.dumps(GeneratorExit())])

    def close_suspended(self) -> None:
        """Closes all streams that are between two steps."""
        for call in list(self.calls.values()):
            if call.stage is Stage.SUSPENDED:
                self.close_stream(call)

    def recall(self) -> None:
        """Asks for half of the calls that have not begun."""
        if not self.recalling:
            self.recalling = True
            self._recalled = self._last
            self.session.send(f.Recall(ceil(self.unbegun / 2)))

    def measure(self, *, retire: bool) -> None:
        """Asks how much the worker has to do, and to leave if that is nothing and `retire`."""
        self.usage = None
        self.session.send(f.Measure(retire))

    # Modules that travel ------------------------------------------------------------------------

    def _with_code(
        self, units: Sequence[CodeUnit], args: Sequence[Buffer], number: int = 0
    ) -> tuple[tuple[f.Code, ...], Sequence[Buffer]]:
        version = self.codec.modules.version() if self.ships else self._version
        if version == self._version:
            return super()._with_code(units, args)
        modules = self.codec.modules.units()
        codes, segments = super()._with_code([*modules, *units], args)
        if self.session.machine.fits(f.total(segments)):
            self._version = version
        else:
            self._ship(number, version, modules, codes)
        return codes, segments

    def _ship(
        self, number: int, version: int, modules: Sequence[CodeUnit], codes: Sequence[f.Code]
    ) -> None:
        """Takes note that modules go with a large payload.

        Later calls may overtake it, and must not find modules as they were before; or it is cut
        short. So others have them along as well, until it has arrived.
        """
        sent = {code.key for code in codes}
        keys = [unit.key for unit in modules if unit.key in sent]
        self.session.known.difference_update(keys)
        if number:
            self._shipping[number] = version, keys

    def _arrived(self, number: int) -> None:
        """A call has begun: the modules that went with it have arrived."""
        version, keys = self._shipping.pop(number, (0, ()))
        for key in keys:
            self.session.note_known(key, ())
        self._version = max(self._version, version)

    # From the worker ----------------------------------------------------------------------------

    def _on_reply(self, frame: f.Value | f.Return | f.Raise, segments: Sequence[Buffer]) -> None:
        if self._shipping:
            self._arrived(frame.call)
        reply = self._unpack(frame, segments)
        if type(frame) is f.Value:
            call = self.calls.get(frame.call)
            if call is not None:
                if call.stage is Stage.SENT:
                    self._begun += 1
                call.stage = Stage.SUSPENDED
                if call.abandoned:
                    self.close_stream(call)
                    return
        else:
            call = self._forget(frame.call)
        if call is None:
            return
        if call.holder is not None:  # a use of an object says nothing of the worker's load
            self._note_load(frame)
        call.end(reply)

    def _forget(self, number: int) -> OutgoingCall | None:
        call = self.calls.pop(number, None)
        if self._shipping:
            self._shipping.pop(number, None)
        if call is not None and call.holder is not None:
            self.out -= 1
            self._owner.load -= 1
            if call.stage is not Stage.SENT:
                self._begun -= 1
        return call

    def _note_load(self, frame: f.Answer | f.Idle) -> None:
        """Takes note of how much the worker has to do.

        It is not idle if a call is under way that it had not seen when it said so.
        """
        owner, out = self._owner, self.out
        owner.load = max(out, frame.load)
        if frame.idle_as_of >= self._last and frame.idle_as_of and not owner.idle:
            owner.idle = True
            self._client.rebalance()

    def _on_idle(self, frame: f.Idle, segments: Sequence[Buffer]) -> None:
        self._note_load(frame)

    def _on_output(self, frame: f.Output, segments: Sequence[Buffer]) -> None:
        call = self.calls.get(frame.call)
        if call is not None:
            show(call, frame, self.session.send)

    def _on_drain(self, frame: f.Drain, segments: Sequence[Buffer]) -> None:
        self.session.send(f.Drain())  # after it comes no call that the worker must expect
        self._owner.on_drain()

    def _on_usage(self, frame: f.Usage, segments: Sequence[Buffer]) -> None:
        self.usage = frame

    def _on_inquire(self, frame: f.Inquire, segments: Sequence[Buffer]) -> None:
        self.report(frame.token, [self._client.pool.status()])

    def _on_give_back(self, frame: f.GiveBack, segments: Sequence[Buffer]) -> None:
        returned = [call for number in frame.calls if (call := self._forget(number)) is not None]
        if frame.recalled:
            self._on_recalled(frame.waiting)
        for call in returned:
            if call.holder is None:
                call.end(NotStarted())
                continue
            # The call may have been cut short: its code need not have arrived.
            self.session.known.difference_update(u.key for u in call.request.units)
            call.number, call.stage = 0, Stage.WAITING
            if call.cancelled:
                call.end(NotStarted())
            else:
                self._client.submit(call)

    def _on_recalled(self, waiting: int) -> None:
        self.recalling = False
        if not waiting:  # all that were out when they were recalled have begun
            for number, call in self.calls.items():
                counts = call.holder is not None and call.stage is Stage.SENT
                if counts and number <= self._recalled:
                    call.stage = Stage.BEGUN
                    self._begun += 1
        if self.unbegun:  # they were sent after the recall
            self._client.rebalance()

    # The end ------------------------------------------------------------------------------------

    def clear(self, failing: Failing) -> list[OutgoingCall]:
        self._owner.load -= self.out
        self.out = self._begun = 0
        return super().clear(failing)
