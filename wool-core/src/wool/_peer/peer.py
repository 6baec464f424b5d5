"""One end of a connection, the same whoever dialled: the calls made over it, and those served.

A call of a routine, a step of a stream and a use of a live object differ in their target alone. The
side that dialled opens calls of routines (`_client.calls`), the side that listened serves them
(`_worker.callerpeer`); live objects may be used by either.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from typing import Any

from wool._code.loading import NO_REFERENTS, Referents
from wool._code.units import CodeUnit
from wool._peer import using
from wool._peer.background import settle
from wool._peer.end import End
from wool._peer.incoming import IncomingCall
from wool._peer.outgoing import (
    Failed,
    Handover,
    NotStarted,
    OutgoingCall,
    Reply,
    Request,
    Stage,
)
from wool._peer.references import Borrowed, Lent, RemoteReference, Result
from wool._peer.running import RUNNING
from wool._peer.session import Session
from wool._peer.using import IncomingUse
from wool._protocol import frames as f
from wool._protocol.frames import Buffer, Frame
from wool._protocol.status import ProcessStatus, shortened
from wool._protocol.transfer import Missing
from wool._values.codec import Codec, prepend
from wool._values.context import Change, without_changes
from wool.exceptions import Rejected, SerializationError, WoolError

Failing = Callable[[str], WoolError]
"""Makes the error for using an object of a peer that is lost, from the object's name."""


class Peer(End):
    """One end of a connection. Its methods belong to the loop of the session.

    Here one loop is all there is; a side with two names the other one, and overrides `on_user` and
    `on_session`.

    Args:
        loop: that of the user, if it is not the running one.

    Attributes:
        calls: made from here and not ended, by their numbers.
        serving: those of the peer that are served here.
        borrowed: the live objects of the peer that are in use here.
        ships: whether the peer has to be sent modules before calls that need them.
    """

    def __init__(
        self,
        session: Session,
        codec: Codec,
        *,
        label: str,
        where: str,
        loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self.session = session
        self.codec = codec
        self.label = label
        self.where = where
        self.ships: bool = False
        self.loop: asyncio.AbstractEventLoop = loop or asyncio.get_running_loop()
        self.calls: dict[int, OutgoingCall] = {}
        self.serving: dict[int, IncomingCall] = {}
        self.lent = Lent()
        self.borrowed = Borrowed(session, self.lent, self.use)
        self._session_loop = asyncio.get_running_loop()
        self._fetches: dict[int, asyncio.Future[None]] = {}
        self._tokens = count(1)
        self._answers: dict[int, asyncio.Future[Sequence[ProcessStatus]]] = {}
        self._unsent: list[OutgoingCall] = []  # the session had ended before it was known why
        self._failing: Failing | None = None  # once it is lost
        self._handlers: Mapping[type[Frame], Callable[[Any, Sequence[Buffer]], None]] = {
            f.Open: self._on_open,
            f.Cancel: self._on_cancel,
            f.Value: self._on_reply,
            f.Return: self._on_reply,
            f.Raise: self._on_reply,
            f.GiveBack: self._on_give_back,
            f.Reject: self._on_reject,
            f.Release: self._on_release,
            f.Need: self._on_need,
            f.Supply: self._on_supply,
            f.Inquire: self._on_inquire,
            f.Report: self._on_report,
            **self._more_handlers(),
        }

    def _more_handlers(self) -> dict[type[Frame], Callable[[Any, Sequence[Buffer]], None]]:
        """Returns what takes the frames that only the peer of this side sends."""
        return {}

    def on_frame(self, frame: Frame, segments: Sequence[Buffer]) -> None:
        """Takes what the peer sends; what means nothing to this side is ignored."""
        handler = self._handlers.get(type(frame))
        if handler is not None:
            handler(frame, segments)

    # Loops --------------------------------------------------------------------------------------

    def on_user(self, callback: Callable[..., object], *args: Any) -> None:
        callback(*args)

    def on_session(self, callback: Callable[..., object], *args: Any) -> None:
        callback(*args)

    @property
    def cancel_grace(self) -> float:
        """For how many seconds a cancelled use of the peer's object is waited for."""
        raise NotImplementedError

    # Calls made from here -----------------------------------------------------------------------

    def open(self, call: OutgoingCall) -> bool:
        """Sends a call; False if the session has ended."""
        session, request = self.session, call.request
        number = call.number = session.machine.next_id
        codes, segments = (), request.segments
        if request.units or self.ships:
            codes, segments = self._with_code(request.units, segments, number)
        frame = f.Open(
            call=number,
            stream=request.stream,
            routine=request.target,
            parent=request.parent,
            sizes=list(map(len, segments)),
            codes=codes,
            prefetch=request.prefetch,
            references=self.lent.lend(request.exports) if request.exports else (),
            context=request.context,
        )
        alone = not self.calls
        self.calls[number] = call
        call.sender, call.stage = self, Stage.SENT
        # One call after another is quickest without the writer, many at once with it.
        sent = False
        try:
            sent = (alone and session.send_now(frame, segments)) or session.send(frame, segments)
        finally:
            if not sent:  # or there is a RecursionError, of whoever calls
                self.calls.pop(number, None)  # else the next call would have the error as well
                call.number, call.sender, call.stage = 0, None, Stage.WAITING
        return sent

    def _with_code(
        self, units: Sequence[CodeUnit], args: Sequence[Buffer], number: int = 0
    ) -> tuple[tuple[f.Code, ...], Sequence[Buffer]]:
        """Puts those units that the peer does not have before some segments.

        They count as sent.

        Args:
            number: of the call, if it is opened.
        """
        lacking: list[CodeUnit] = []
        for unit in units:
            if unit.key not in self.session.known:  # nor sent with one before it
                self.session.note_known(unit.key, unit.provides)
                lacking.append(unit)
        return prepend(lacking, args) if lacking else ((), args)

    def _on_reply(self, frame: f.Value | f.Return | f.Raise, segments: Sequence[Buffer]) -> None:
        reply = self._unpack(frame, segments)
        call = self._forget(frame.call)
        if call is not None:
            self.on_user(call.end, reply)

    def _forget(self, number: int) -> OutgoingCall | None:
        """Takes a call that has ended off the table; returns it if it is there."""
        return self.calls.pop(number, None)

    def _unpack(self, frame: f.Value | f.Return | f.Raise, segments: Sequence[Buffer]) -> Reply:
        """Takes what came with an answer besides its value."""
        if not (frame.codes or frame.context or frame.references):
            return Reply(frame, segments)
        referents: Referents = NO_REFERENTS
        context: Sequence[Change] = ()
        if frame.codes:
            segments = self._learn(frame.codes, segments)
        if frame.context:
            segments, context = without_changes(frame.context, segments)
        if frame.references:
            referents = self.borrowed.arrive(frame.references)
        return Reply(frame, segments, referents, context)

    def _on_give_back(self, frame: f.GiveBack, segments: Sequence[Buffer]) -> None:
        for number in frame.calls:
            call = self._forget(number)
            if call is not None:
                self.on_user(call.end, NotStarted())

    def _on_reject(self, frame: f.Reject, segments: Sequence[Buffer]) -> None:
        call = self._forget(frame.call)
        if call is not None:
            call.number = 0
            who = "the owner of the object" if call.holder is None else call.holder.info.address
            self.on_user(call.end, Failed(Rejected(f"{who} refused: {frame.message}")))

    # The doings of the two processes ------------------------------------------------------------

    async def ask(self, *, callers: bool = False) -> Sequence[ProcessStatus]:
        """Asks the peer what it is doing; nothing if the connection ends meanwhile.

        Args:
            callers: whether a worker is to ask its callers as well.
        """
        token = next(self._tokens)
        answer = self._answers[token] = self._session_loop.create_future()
        try:
            return await answer if self.session.send(f.Inquire(token, callers)) else ()
        finally:
            del self._answers[token]

    def _on_report(self, frame: f.Report, segments: Sequence[Buffer]) -> None:
        answer = self._answers.get(frame.token)
        if answer is not None and not answer.done():
            answer.set_result(frame.processes)

    def _on_inquire(self, frame: f.Inquire, segments: Sequence[Buffer]) -> None:
        raise NotImplementedError

    def report(self, token: int, processes: Sequence[ProcessStatus]) -> None:
        """Answers the peer, which has asked; what a frame has no room for is left out."""
        try:
            self.session.send(f.Report(token, list(processes)))
        except ValueError:
            self.report(token, list(map(shortened, processes)))

    # Live objects of the peer -------------------------------------------------------------------

    async def use(
        self,
        reference: RemoteReference,
        operation: str,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> Result:
        """Has the peer use an object.

        Raises:
            RuntimeError: the object came to another event loop than the running one.
        """
        name = reference.interface.name
        if asyncio.get_running_loop() is not self.loop:
            raise RuntimeError(f"{name} is bound to a different event loop: use it where it came")
        if self._failing is not None:
            return None, None if operation == "aclose" else self._failing(name)
        running = RUNNING.get()
        if running is not None:
            running.wait_begins()
        try:
            return await using.use(self, self._begin_use, reference, operation, args, kwargs)
        finally:
            if running is not None:
                running.wait_ends()

    def _begin_use(self, request: Request) -> OutgoingCall:
        """Sends a use; called on the loop of the user."""
        call = OutgoingCall(self, request)
        if request.calls:
            call.handover = Handover(request.calls, request.name)
        self.on_session(self._open_use, call)
        return call

    def _open_use(self, call: OutgoingCall) -> None:
        if self.open(call):
            return
        if self._failing is None:
            self._unsent.append(call)  # the session is ending, and will say why
        else:
            self.on_user(call.end, Failed(self._failing(call.request.name)))

    def cancel(self, call: OutgoingCall, message: bytes | None) -> None:
        """Cancels a use; the peer's answer ends it. Called on the loop of the user."""
        self.on_session(self.send_cancel, call, message)

    def send_cancel(self, call: OutgoingCall, message: bytes | None) -> None:
        """Tells the peer that a call is cancelled."""
        if self.calls.get(call.number) is call:
            self.session.send(f.Cancel(call.number, call.awaited, message))

    async def locate(self, call: OutgoingCall) -> tuple[str, bool]:
        """Says for the user where a use stands; its owner is not asked."""
        return f"the owner of {call.request.name} has not answered", False

    def _on_release(self, frame: f.Release, segments: Sequence[Buffer]) -> None:
        released = self.lent.release(frame.references)
        if released:
            self.on_user(released.clear)  # dropping them may run user code

    # Calls served here --------------------------------------------------------------------------

    def _on_open(self, frame: f.Open, segments: Sequence[Buffer]) -> None:
        """The peer uses an object of ours."""
        if frame.codes:
            segments = self._learn(frame.codes, segments)
        use = IncomingUse(self, frame, segments, self.referents(frame))
        self.serving[frame.call] = use
        self.on_user(use.begin)

    def _on_cancel(self, frame: f.Cancel, segments: Sequence[Buffer]) -> None:
        call = self.serving.get(frame.call)
        if call is not None:
            self.on_user(call.cancel, frame.step, frame.message)

    def referents(self, frame: f.Open | f.Resume) -> Referents:
        """Returns the live objects that a frame mentions."""
        return self.borrowed.arrive(frame.references) if frame.references else NO_REFERENTS

    def answer(self, frame: f.Answer, segments: Sequence[Buffer], *, more: bool = False) -> None:
        if not self.send_now(frame, segments):
            self.send(frame, segments)

    def send(self, frame: f.Answer, segments: Sequence[Buffer]) -> None:
        """Sends an answer."""
        self._note_sent(frame)
        self.session.send(frame, segments)

    def send_now(self, frame: f.Answer, segments: Sequence[Buffer]) -> bool:
        """Sends an answer past the writer of the session, if that is possible now."""
        if not self.session.send_now(frame, segments):
            return False
        self._note_sent(frame)
        return True

    def _note_sent(self, frame: f.Answer) -> None:
        """Takes note of what an answer means."""
        if type(frame) is not f.Value:
            self.serving.pop(frame.call, None)
        if frame.codes:
            self._note_known(frame.codes)

    def drop(self, number: int) -> None:
        self.serving.pop(number, None)

    # Code ---------------------------------------------------------------------------------------

    def _learn(self, codes: Sequence[f.Code], segments: Sequence[Buffer]) -> Sequence[Buffer]:
        """Keeps the code that came with a payload; returns the segments of the payload.

        If there is no memory for all of it, a look at what is returned raises the `MemoryError`.
        """
        try:
            units = [
                CodeUnit(code.key, bytes(data), code.provides)
                for code, data in zip(codes, segments, strict=False)
            ]
            rest = segments[len(codes) :]
        except MemoryError as error:  # the code is asked for again if need be
            return Missing(len(segments) - len(codes), str(error) or "out of memory")
        for unit in units:
            self.codec.store.add(unit)
        self._note_known(codes)
        return rest

    def _note_known(self, codes: Iterable[f.Code]) -> None:
        """Notes that the peer has code, because it was sent or came from there."""
        for code in codes:
            self.session.note_known(code.key, code.provides)

    async def fetch(self, keys: Sequence[bytes]) -> None:
        done: asyncio.Future[None] = self.loop.create_future()
        self.on_session(self._ask_for, keys, done)
        await done
        if self.codec.store.missing(keys):
            raise SerializationError(
                "the code that a payload mentions cannot be had any more from the process that "
                "sent it"
            )

    def _ask_for(self, keys: Sequence[bytes], done: asyncio.Future[None]) -> None:
        number = self.session.machine.next_id
        self._fetches[number] = done
        if not self.session.send(f.Need(number, list(keys))):
            self._end_fetch(number)

    def _on_supply(self, frame: f.Supply, segments: Sequence[Buffer]) -> None:
        self._learn(frame.codes, segments)
        self._end_fetch(frame.call)

    def _end_fetch(self, number: int) -> None:
        done = self._fetches.pop(number, None)
        if done is not None:
            self.on_user(settle, done)

    def _on_need(self, frame: f.Need, segments: Sequence[Buffer]) -> None:
        self.on_user(self._supply, frame)

    def _supply(self, frame: f.Need) -> None:
        """Sends code that the peer lacks or has lost."""
        sent = [unit for call in list(self.calls.values()) for unit in call.request.units]
        found = {unit.key: unit for unit in sent if unit.key in frame.keys}
        found |= {unit.key: unit for unit in self.codec.store.find(frame.keys)}
        found |= {unit.key: unit for unit in self.codec.book.find(frame.keys)}
        codes, data = prepend(list(found.values()), ())
        self._note_known(codes)
        self.on_session(self.session.send, f.Supply(frame.call, list(map(len, data)), codes), data)

    # The end ------------------------------------------------------------------------------------

    def clear(self, failing: Failing) -> list[OutgoingCall]:
        """Lets go of the calls made from here; returns those that were out.

        Args:
            failing: makes the error for using an object of the peer from now on.
        """
        if self._failing is None:
            self._failing = failing
        calls = [*self.calls.values(), *self._unsent]
        self.calls, self._unsent = {}, []
        return calls

    def lose(self, failing: Failing) -> list[OutgoingCall]:
        """The session has ended: lets go of everything; returns what was out, as `clear`."""
        for number in list(self._fetches):
            self._end_fetch(number)
        for answer in self._answers.values():
            if not answer.done():
                answer.set_result(())
        self.on_user(self.end_uses)
        return self.clear(failing)

    def end_uses(self) -> None:
        """Cancels what the peer does with objects of ours, and lends it nothing any more.

        Called on the loop of the user.
        """
        self.lent.clear()
        for call in list(self.serving.values()):
            if isinstance(call, IncomingUse):
                call.abandon()
