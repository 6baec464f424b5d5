"""The connection machine: frames in and out of one connection, without any I/O.

Feed it the messages that arrive (`receive`), tell it what to say (`send`), and fetch the messages
to transmit (`outgoing`). It keeps the state of every call in both directions, cuts large payloads
into chunks and puts them together, and refuses whatever the tables in `states` do not allow.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

from wool._protocol import frames as f
from wool._protocol.frames import Buffer, Frame
from wool._protocol.states import AHEAD, CALL, FETCH, FROM_OPENER, STREAM, State
from wool._protocol.transfer import Inbound, Outbound
from wool.exceptions import ProtocolError

Event = tuple[Frame, Sequence[Buffer]]
"""A frame that has arrived and, complete, the segments of its payload.

If there was no memory for them, the segments are a `Missing`: reading them raises `MemoryError`.
"""

Message = list[Buffer]
Payloaded = f.Open | f.Resume | f.Supply | f.Value | f.Return | f.Raise
Opening = f.Open | f.Need
_NOTICES = frozenset(
    {f.Recall, f.Idle, f.Ping, f.Pong, f.Drain, f.Peers, f.Release, f.Inquire, f.Report}
)
_NOTHING: tuple[Buffer, ...] = ()


class _Call:
    """An open call as the machine knows it."""

    __slots__ = ("after", "credit", "inbound", "mine", "state", "table")

    def __init__(
        self, table: dict[State, dict[type[Frame], State]], mine: bool, credit: int
    ) -> None:
        self.table = table
        self.mine = mine
        self.credit: int = credit
        """Bytes that may be sent to the peer in chunks, while no payload is under way."""
        self.state = State.RUNNING
        self.after: dict[type[Frame], State] = table[State.RUNNING]
        """The states that frames lead to; others are not allowed now."""
        self.inbound: Inbound | None = None


class Machine:
    """One side of a connection after the handshake.

    Args:
        dialler: whether this side dialled; it numbers its calls oddly, the other side evenly.
        peer_window: bytes in chunks of one call that may be under way to the peer.
        peer_chunk: largest piece of a payload to put into one message to the peer.
        window: what this side announced as its own window.
    """

    def __init__(self, *, dialler: bool, peer_window: int, peer_chunk: int, window: int) -> None:
        self._calls: dict[int, _Call] = {}
        self._control: deque[Message] = deque()
        self._outbound: dict[int, Outbound] = {}
        self._bulk: deque[Outbound] = deque()
        self._parity = 1 if dialler else 0
        self._last_mine = -1 if dialler else 0
        self._last_theirs = 0
        self._window = peer_window
        self._chunk = peer_chunk
        self._credit_step = max(1, window // 4)

    # Sending ----------------------------------------------------------------------------------

    def next_id(self) -> int:
        """Returns the id for the next call opened from this side; use it at once."""
        return self._last_mine + 2

    def send(self, frame: Frame, segments: Sequence[Buffer] = _NOTHING) -> bool:
        """Queues a frame and its payload.

        Returns False, and sends nothing, if the frame is about a call that has closed: it ended
        while the caller of this method was making up its mind.

        Raises:
            ValueError: the frame is too large, not counting its payload. Nothing was sent.
            RuntimeError: this side may not send it now, which is an error of the caller.
        """
        header = f.encode(frame)
        if isinstance(frame, (f.Open, f.Need)):
            self._last_mine = frame.call
            self._calls[frame.call] = _Call(_table(frame), True, self._window)
            self._queue(frame.call, header, segments, self._window)
        elif type(frame) in _NOTICES:
            self._control.append([header])
        elif isinstance(frame, f.GiveBack):
            for ident in frame.calls:
                self._advance(ident, f.GiveBack)
            self._control.append([header])
        else:
            ident = cast(f.Cancel, frame).call
            call = self._advance(ident, type(frame))
            if call is None:
                return False
            outbound = self._outbound.get(ident)
            # A cancel is for the payload under way, or for what waits behind it.
            if outbound is None or (isinstance(frame, f.Cancel) and not outbound.after):
                self._queue(ident, header, segments, call.credit)
            else:
                outbound.after.append((header, segments))
        return True

    def fits(self, size: int) -> bool:
        """Whether a payload goes with its frame; the chunks of a larger one may be overtaken."""
        return size <= self._chunk

    def outgoing(self, limit: int) -> list[Message]:
        """Returns messages to transmit now: all control frames, then chunks, about `limit` bytes.

        Chunks are taken from all payloads in turn.
        """
        batch = list(self._control)
        self._control.clear()
        size = 0
        while self._bulk and size < limit:
            outbound = self._bulk.popleft()
            before = outbound.left
            batch.append([f.encode(f.Chunk(outbound.call)), *outbound.take(self._chunk)])
            size += before - outbound.left
            if not outbound.left:
                self._sent(outbound)
                batch += self._control  # headers come before their chunks
                self._control.clear()
            elif outbound.credit:
                self._bulk.append(outbound)
        return batch

    @property
    def has_outgoing(self) -> bool:
        """Whether `outgoing` would return something."""
        return bool(self._control or self._bulk)

    def _queue(self, ident: int, header: bytes, segments: Sequence[Buffer], credit: int) -> None:
        if sum(map(len, segments)) <= self._chunk:
            self._control.append([header, *segments])
            return
        self._control.append([header])
        outbound = self._outbound[ident] = Outbound(ident, segments, credit)
        if credit:
            self._bulk.append(outbound)

    def _sent(self, outbound: Outbound) -> None:
        """The last chunk of a payload is on its way: what waited behind it may follow."""
        ident = outbound.call
        del self._outbound[ident]
        call = self._calls.get(ident)
        if call is not None:
            call.credit = outbound.credit
        while outbound.after:
            header, segments = outbound.after.popleft()
            self._queue(ident, header, segments, outbound.credit)
            if ident in self._outbound:
                self._outbound[ident].after = outbound.after
                return

    def _advance(self, ident: int, kind: type[Frame]) -> _Call | None:
        """Makes the transition that sending a frame causes; returns None if the call has closed."""
        call = self._calls.get(ident)
        if call is None:
            return None
        state = call.after.get(kind)
        if state is None or (kind in FROM_OPENER) is not call.mine:
            raise RuntimeError(f"{kind.__name__} cannot be sent in state {call.state.name}")
        self._enter(ident, call, state)
        return call

    def _enter(self, ident: int, call: _Call, state: State) -> None:
        call.state = state
        call.after = call.table.get(state, {})  # from `CLOSED` no frame leads anywhere
        if state is not State.CLOSED:
            return
        del self._calls[ident]
        # The callee may have ended the call without waiting for all of its payload.
        outbound = self._outbound.pop(ident, None) if call.mine else None
        if outbound is not None and outbound in self._bulk:
            self._bulk.remove(outbound)

    # Receiving --------------------------------------------------------------------------------

    def receive(self, message: bytes | memoryview) -> list[Event]:
        """Takes one message and returns what it completes.

        Raises:
            ProtocolError: the peer sent something that is not allowed. The connection is
                unusable; other calls on it are lost with it.
        """
        return self.receive_frame(*f.decode_call(message))

    def receive_frame(self, frame: f.Calling, payload: memoryview) -> list[Event]:
        """Takes a message that has been decoded; as `receive`."""
        kind = type(frame)
        take = _WITH_PAYLOAD.get(kind)
        if take is not None:
            return take(self, frame, payload)
        if len(payload):
            raise ProtocolError(f"the peer sent a payload with {kind.__name__}")
        return _WITHOUT[kind](self, frame)

    def _receive_notice(self, frame: Frame) -> list[Event]:
        return [(frame, _NOTHING)]

    def _receive_need(self, frame: f.Need) -> list[Event]:
        self._accept(frame)
        return [(frame, _NOTHING)]

    def _receive_about(self, frame: f.Cancel | f.Reject) -> list[Event]:
        call = self._find(frame.call, type(frame))
        if call is None:
            return []
        if isinstance(frame, f.Cancel) and call.inbound is not None:
            return self._cancel_incomplete(frame, call)
        self._transit(frame.call, call, type(frame))
        return [(frame, _NOTHING)]

    def _cancel_incomplete(self, frame: f.Cancel, call: _Call) -> list[Event]:
        """Cancels a call whose payload has not arrived; nobody above has heard of it yet."""
        assert call.inbound is not None
        if call.state is not State.RUNNING:
            # The argument of a stream's step is still coming: first the step, then its cancel.
            call.inbound.after.append(frame)
            return []
        self._release(call.inbound.frame)
        self.send(f.GiveBack([frame.call], 0))
        return []

    def _release(self, frame: Frame) -> None:
        """Lets go of what a frame refers to that nobody above will hear of."""
        keys: list[bytes] = getattr(frame, "references", [])
        if keys:
            self.send(f.Release([f.Lent(key, 1) for key in keys]))

    def _receive_give_back(self, frame: f.GiveBack) -> list[Event]:
        known: list[int] = []
        for ident in frame.calls:
            call = self._find(ident, f.GiveBack)
            if call is not None:
                self._transit(ident, call, f.GiveBack)
                known.append(ident)
        return [(f.GiveBack(known, frame.waiting, frame.recalled), _NOTHING)]

    def _receive_credit(self, frame: f.Credit) -> list[Event]:
        call = self._find(frame.call, f.Credit)
        outbound = self._outbound.get(frame.call)
        if outbound is not None:
            waiting = not outbound.credit
            outbound.credit += frame.amount
            if waiting and outbound.credit:
                self._bulk.append(outbound)
        elif call is not None:
            call.credit += frame.amount
        return []

    def _receive_open(self, frame: f.Open, payload: memoryview) -> list[Event]:
        return self._receive_payload(frame, payload, self._accept(frame))

    def _receive_answer(
        self, frame: f.Resume | f.Supply | f.Value | f.Return | f.Raise, payload: memoryview
    ) -> list[Event]:
        kind = type(frame)
        call = self._find(frame.call, kind)
        if call is None:
            self._release(frame)
            return []
        if call.inbound is not None:
            raise ProtocolError("the peer began a payload before the last one was complete")
        state = call.after.get(kind)
        if state is None:
            raise _unexpected(kind, call)
        events = self._receive_payload(frame, payload, call)
        if events:
            self._enter(frame.call, call, state)
        return events

    def _receive_payload(self, frame: Payloaded, payload: memoryview, call: _Call) -> list[Event]:
        """Takes a payload that came with its frame; what exceeds a chunk is yet to come."""
        sizes = frame.sizes
        context = () if isinstance(frame, f.Supply) else frame.context
        if (frame.codes or context) and (
            len(frame.codes) + sum(variable.segments for variable in context) > len(sizes)
        ):
            raise ProtocolError("the peer announced more code and variables than payload segments")
        size = sum(sizes)
        if size == len(payload):
            return [(frame, [payload] if len(sizes) == 1 else _cut(payload, sizes))]
        if len(payload):
            raise ProtocolError(
                f"the peer announced {size} bytes of payload and sent {len(payload)}"
            )
        call.inbound = Inbound(frame, sizes)
        return []

    def _receive_chunk(self, frame: f.Chunk, payload: memoryview) -> list[Event]:
        call = self._find(frame.call, f.Chunk)
        if call is None:
            return []  # its opener drops the rest when it learns that the call has closed
        inbound = call.inbound
        if inbound is None:
            raise ProtocolError("the peer sent a chunk that belongs to no payload")
        try:
            inbound.feed(payload)
        except MemoryError as error:
            # Nothing else may suffer from it.
            if isinstance(inbound.frame, f.Open):
                self._release(inbound.frame)
                self.send(f.Reject(frame.call, str(error) or "out of memory"))
                return []
            inbound.forget(error)
        events: list[Event] = []
        if not inbound.left:
            call.inbound = None
            events.append(self._complete(cast(Payloaded, inbound.frame), call, inbound.segments()))
            events.extend((cancel, _NOTHING) for cancel in inbound.after)
        if call.state is not State.CLOSED and (
            not inbound.left or inbound.unacknowledged >= self._credit_step
        ):
            self._control.append([f.encode(f.Credit(frame.call, inbound.unacknowledged))])
            inbound.unacknowledged = 0
        return events

    def _complete(self, frame: Payloaded, call: _Call, segments: Sequence[Buffer]) -> Event:
        if not isinstance(frame, f.Open):
            self._transit(frame.call, call, type(frame))
        return frame, segments

    def _accept(self, frame: Opening) -> _Call:
        """Registers a call that the peer opens."""
        if frame.call & 1 == self._parity or frame.call <= self._last_theirs:
            raise ProtocolError(f"the peer opened call {frame.call} out of order")
        self._last_theirs = frame.call
        call = _Call(_table(frame), False, self._window)
        self._calls[frame.call] = call
        return call

    def _find(self, ident: int, kind: type[Frame]) -> _Call | None:
        """Returns the call a frame is about, None if it has closed (rule 1)."""
        mine = ident & 1 == self._parity
        if ident > (self._last_mine if mine else self._last_theirs):
            raise ProtocolError(f"the peer sent {kind.__name__} for call {ident}, never opened")
        if kind not in (f.Chunk, f.Credit) and (kind in FROM_OPENER) is mine:
            raise ProtocolError(f"the peer sent {kind.__name__} for a call of the other direction")
        return self._calls.get(ident)

    def _transit(self, ident: int, call: _Call, kind: type[Frame]) -> None:
        """Makes the transition that receiving a frame causes."""
        state = call.after.get(kind)
        if state is None or call.inbound is not None:
            raise _unexpected(kind, call)
        self._enter(ident, call, state)


_WITH_PAYLOAD: Mapping[type[Frame], Callable[[Machine, Any, memoryview], list[Event]]] = {
    f.Chunk: Machine._receive_chunk,
    f.Open: Machine._receive_open,
    **dict.fromkeys((f.Resume, f.Supply, f.Value, f.Return, f.Raise), Machine._receive_answer),
}

_WITHOUT: Mapping[type[Frame], Callable[[Machine, Any], list[Event]]] = {
    f.Credit: Machine._receive_credit,
    f.GiveBack: Machine._receive_give_back,
    f.Need: Machine._receive_need,
    f.Cancel: Machine._receive_about,
    f.Reject: Machine._receive_about,
    **dict.fromkeys(_NOTICES, Machine._receive_notice),
}
"""How each frame is taken, by whether bytes may follow it in its message."""


def _table(frame: Opening) -> dict[State, dict[type[Frame], State]]:
    if isinstance(frame, f.Need):
        return FETCH
    if not frame.stream:
        return CALL
    return AHEAD if frame.prefetch else STREAM


def _unexpected(kind: type[Frame], call: _Call) -> ProtocolError:
    return ProtocolError(f"the peer sent {kind.__name__} for a call in state {call.state.name}")


def _cut(payload: memoryview, sizes: Sequence[int]) -> list[memoryview]:
    """Cuts the payload of a single message into its segments."""
    segments: list[memoryview] = []
    start = 0
    for size in sizes:
        segments.append(payload[start : start + size])
        start += size
    return segments
