"""The connection machine: frames in and out of one connection, without any I/O.

Feed it the messages that arrive (`receive`), tell it what to say (`send`), and fetch the messages
to transmit (`outgoing`). It keeps the state of every call in both directions, cuts large payloads
into chunks and puts them together, and refuses whatever the tables in `states` do not allow.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast, get_args

from wool._protocol import frames as f
from wool._protocol.frames import Buffer, Frame
from wool._protocol.states import BEGINNINGS, FROM_OPENER, Standing, State
from wool._protocol.transfer import Inbound, Outbound, Shared
from wool.exceptions import ProtocolError

Event = tuple[Frame, Sequence[Buffer]]
"""A frame that has arrived and, complete, the segments of its payload.

If there was no memory for them, the segments are a `Missing`: reading them raises `MemoryError`.
"""

Message = list[Buffer]
Opening = f.Open | f.Need
_NOTICES: frozenset[type[Frame]] = frozenset(get_args(f.Notice))
_EITHER_WAY = frozenset({f.Chunk, f.Credit, f.Whole})
_NOTHING: tuple[Buffer, ...] = ()


class Machine:
    """One side of a connection after the handshake.

    Args:
        dialler: whether this side dialled; it numbers its calls oddly, the other side evenly.
        peer_window: bytes in chunks of one call that may be under way to the peer.
        peer_chunk: largest piece of a payload to put into one message to the peer.
        window: what this side announced as its own window.

    Attributes:
        next_id: for the next call opened from this side; to be used at once.
        shared: memory through which large payloads travel, if the two sides can share some.
    """

    def __init__(self, *, dialler: bool, peer_window: int, peer_chunk: int, window: int) -> None:
        self.shared: Shared | None = None
        self._calls: dict[int, Standing] = {}
        self._credit: dict[int, int] = {}  # bytes of chunks that a call may send, if not a window
        self._inbound: dict[int, Inbound] = {}
        self._control: deque[Message] = deque()
        self._outbound: dict[int, Outbound] = {}
        self._bulk: deque[Outbound] = deque()
        self._parity = 1 if dialler else 0
        self.next_id: int = 1 if dialler else 2
        self._last_theirs = 0
        self._window = peer_window
        self._chunk = peer_chunk
        self._credit_step = max(1, window // 4)

    # Sending ----------------------------------------------------------------------------------

    def send(self, frame: Frame, segments: Sequence[Buffer] = _NOTHING) -> bool:
        """Queues a frame and its payload.

        Returns False, and sends nothing, if the frame is about a call that has closed: it ended
        while the caller of this method was making up its mind.

        Raises:
            ValueError: the frame is too large, not counting its payload. Nothing was sent.
            RuntimeError: this side may not send it now, which is an error of the caller.
        """
        header, kind = f.encode(frame), type(frame)
        if isinstance(frame, (f.Open, f.Need)):
            self.next_id = frame.call + 2
            self._calls[frame.call] = _beginning(frame, BEGINNINGS[True])
            self._queue(frame.call, header, segments, self._window)
        elif kind in _NOTICES:
            self._control.append([header])
        elif isinstance(frame, f.GiveBack):
            for ident in frame.calls:
                self._advance(ident, kind)
            self._control.append([header])
        else:
            ident = cast(f.Cancel, frame).call
            credit = self._credit.get(ident, self._window)
            if not self._advance(ident, kind):
                return False
            outbound = self._outbound.get(ident)
            # A cancel is for the payload under way, or for what waits behind it.
            if outbound is None or (kind is f.Cancel and not outbound.after):
                self._queue(ident, header, segments, credit)
            else:
                outbound.after.append((header, segments))
        return True

    def fits(self, size: int) -> bool:
        """Whether a payload goes with its frame; the chunks of a larger one may be overtaken."""
        return size <= self._chunk

    def outgoing(self, limit: int) -> list[Message]:
        """Returns messages to transmit now: all control frames, then chunks, about `limit` bytes.

        Chunks are taken from all payloads in turn. There may be no message, and more to do, while
        a payload is being copied to shared memory.
        """
        batch = list(self._control)
        self._control.clear()
        size = 0
        while self._bulk and size < limit:
            outbound = self._bulk.popleft()
            message, count = outbound.next(self._chunk)
            if message:
                batch.append(message)
            size += count
            if not outbound.left:
                self._sent(outbound)
                batch += self._control  # headers come before their chunks
                self._control.clear()
            elif outbound.ready:
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
        outbound = self._outbound[ident] = Outbound(ident, segments, credit, self.shared)
        if outbound.ready:
            self._bulk.append(outbound)

    def _sent(self, outbound: Outbound) -> None:
        """The last chunk of a payload is on its way: what waited behind it may follow."""
        ident = outbound.call
        del self._outbound[ident]
        if ident in self._calls:
            self._credit[ident] = outbound.credit
        while outbound.after:
            header, segments = outbound.after.popleft()
            self._queue(ident, header, segments, outbound.credit)
            if ident in self._outbound:
                self._outbound[ident].after = outbound.after
                return

    def _advance(self, ident: int, kind: type[Frame]) -> bool:
        """Makes the transition that sending a frame causes; False if the call has closed."""
        standing = self._calls.get(ident)
        if standing is None:
            return False
        after = standing.sent.get(kind)
        if after is None:
            raise RuntimeError(f"{kind.__name__} cannot be sent in state {standing.state.name}")
        self._enter(ident, after)
        return True

    def _enter(self, ident: int, standing: Standing) -> None:
        if standing.state is not State.CLOSED:
            self._calls[ident] = standing
            return
        del self._calls[ident]
        if not (self._outbound or self._credit or self._inbound):
            return  # no payload is larger than a chunk, as with most calls
        self._credit.pop(ident, None)
        self._inbound.pop(ident, None)
        # The callee may have ended the call without waiting for all of its payload.
        outbound = self._outbound.pop(ident, None) if ident & 1 == self._parity else None
        if outbound is not None and outbound in self._bulk:
            self._bulk.remove(outbound)

    # Receiving --------------------------------------------------------------------------------

    def receive(self, frame: f.Calling, payload: memoryview) -> list[Event]:
        """Takes one message, as `decode_call` returns it, and returns what it completes.

        Raises:
            ProtocolError: the peer sent something that is not allowed. The connection is
                unusable; other calls on it are lost with it.
        """
        kind = type(frame)
        if len(payload) and kind not in _WITH_PAYLOAD:
            raise ProtocolError(f"the peer sent a payload with {kind.__name__}")
        return _TAKE[kind](self, frame, payload)

    def _receive_notice(self, frame: Frame, _: memoryview) -> list[Event]:
        return [(frame, _NOTHING)]

    def _receive_about(self, frame: f.Cancel | f.Reject, _: memoryview) -> list[Event]:
        ident, kind = frame.call, type(frame)
        standing = self._find(ident, kind)
        if standing is None:
            return []
        if kind is f.Cancel and ident in self._inbound:
            return self._cancel_incomplete(frame, standing)
        self._transit(ident, standing, kind)
        return [(frame, _NOTHING)]

    def _cancel_incomplete(self, frame: Frame, standing: Standing) -> list[Event]:
        """Cancels a call whose payload has not arrived; nobody above has heard of it yet."""
        assert isinstance(frame, f.Cancel)
        inbound = self._inbound[frame.call]
        if standing.state is not State.RUNNING:
            # The argument of a stream's step is still coming: first the step, then its cancel.
            inbound.after.append(frame)
            return []
        self._release(inbound.frame)
        self.send(f.GiveBack([frame.call], 0))
        return []

    def _release(self, frame: f.Loaded) -> None:
        """Lets go of what a frame refers to that nobody above will hear of."""
        if frame.references:
            self.send(f.Release([f.Lent(key, 1) for key in frame.references]))

    def _receive_give_back(self, frame: f.GiveBack, _: memoryview) -> list[Event]:
        known: list[int] = []
        for ident in frame.calls:
            standing = self._find(ident, f.GiveBack)
            if standing is not None:
                self._transit(ident, standing, f.GiveBack)
                known.append(ident)
        return [(f.GiveBack(known, frame.waiting, frame.recalled), _NOTHING)]

    def _receive_credit(self, frame: f.Credit, _: memoryview) -> list[Event]:
        ident = frame.call
        standing = self._find(ident, f.Credit)
        outbound = self._outbound.get(ident)
        if outbound is not None:
            waiting = not outbound.ready
            outbound.credit += frame.amount
            if waiting and outbound.ready:
                self._bulk.append(outbound)
        elif standing is not None:
            self._credit[ident] = self._credit.get(ident, self._window) + frame.amount
        return []

    def _receive_opening(self, frame: Opening, payload: memoryview) -> list[Event]:
        """Registers a call that the peer opens."""
        if frame.call & 1 == self._parity or frame.call <= self._last_theirs:
            raise ProtocolError(f"the peer opened call {frame.call} out of order")
        self._last_theirs = frame.call
        self._calls[frame.call] = _beginning(frame, BEGINNINGS[False])
        if isinstance(frame, f.Need):
            return [(frame, _NOTHING)]
        return self._receive_payload(frame, payload)

    def _receive_later(self, frame: f.Loaded, payload: memoryview) -> list[Event]:
        """Takes a frame that has a payload and opens no call."""
        ident, kind = frame.call, type(frame)
        standing = self._calls.get(ident)
        after = None if standing is None else standing.received.get(kind)
        if after is None or ident in self._inbound:
            standing = self._find(ident, kind)
            if standing is not None:
                raise _unexpected(kind, standing)
            self._release(frame)
            return []
        events = self._receive_payload(frame, payload)
        if events:
            self._enter(ident, after)
        return events

    def _receive_payload(self, frame: f.Loaded, payload: memoryview) -> list[Event]:
        """Takes a payload that came with its frame; what exceeds a chunk is yet to come."""
        sizes = frame.sizes
        if (frame.codes or frame.context) and (
            len(frame.codes) + sum(variable.segments for variable in frame.context) > len(sizes)
        ):
            raise ProtocolError("the peer announced more code and variables than payload segments")
        size = sum(sizes)
        if size == len(payload):
            return [(frame, [payload] if len(sizes) == 1 else _cut(payload, sizes))]
        if len(payload):
            raise ProtocolError(
                f"the peer announced {size} bytes of payload and sent {len(payload)}"
            )
        self._inbound[frame.call] = Inbound(frame)
        return []

    def _receive_part(self, frame: f.Chunk | f.Whole, payload: memoryview) -> list[Event]:
        """Takes more of a payload; returns what that completes."""
        ident, shared = frame.call, self.shared
        standing = self._find(ident, type(frame))
        if shared is None and isinstance(frame, f.Whole):
            raise ProtocolError("the peer sent a segment of memory, and none is shared with it")
        if standing is None:  # its opener drops the rest when it learns that the call has closed
            if shared is not None and isinstance(frame, f.Whole):
                shared.decline(frame.segment)
            return []
        inbound = self._inbound.get(ident)
        if inbound is None:
            raise ProtocolError("the peer sent a part of no payload")
        try:
            if isinstance(frame, f.Chunk):
                inbound.feed(payload)
            elif shared is not None:
                inbound.adopt(shared, frame.segment)
        except MemoryError as error:
            # Nothing else may suffer from it.
            if isinstance(inbound.frame, f.Open):
                self._release(inbound.frame)
                self.send(f.Reject(ident, str(error) or "out of memory"))
                return []
            inbound.forget(error)
        events = [] if inbound.left else self._complete(ident, inbound)
        if ident in self._calls and (
            inbound.unacknowledged >= (self._credit_step if inbound.left else 1)
        ):
            self._control.append([f.encode(f.Credit(ident, inbound.unacknowledged))])
            inbound.unacknowledged = 0
        return events

    def _complete(self, ident: int, inbound: Inbound) -> list[Event]:
        """All of a payload has arrived."""
        del self._inbound[ident]
        if not isinstance(inbound.frame, f.Open):
            self._transit(ident, self._calls[ident], type(inbound.frame))
        events: list[Event] = [(inbound.frame, inbound.segments())]
        events.extend((cancel, _NOTHING) for cancel in inbound.after)
        return events

    def _receive_sharing(self, frame: f.Share | f.Reuse, _: memoryview) -> list[Event]:
        if self.shared is not None:
            self.shared.take(frame)
        return []

    def _find(self, ident: int, kind: type[Frame]) -> Standing | None:
        """Returns where the call stands that a frame is about, None if it has closed (rule 1)."""
        mine = ident & 1 == self._parity
        if ident >= self.next_id if mine else ident > self._last_theirs:
            raise ProtocolError(f"the peer sent {kind.__name__} for call {ident}, never opened")
        if kind not in _EITHER_WAY and (kind in FROM_OPENER) is mine:
            raise ProtocolError(f"the peer sent {kind.__name__} for a call of the other direction")
        return self._calls.get(ident)

    def _transit(self, ident: int, standing: Standing, kind: type[Frame]) -> None:
        """Makes the transition that receiving a frame causes."""
        after = standing.received.get(kind)
        if after is None or ident in self._inbound:
            raise _unexpected(kind, standing)
        self._enter(ident, after)


_WITH_PAYLOAD = frozenset({f.Chunk, f.Open, f.Resume, f.Supply, f.Value, f.Return, f.Raise})
"""Frames that bytes may follow in their message."""

_TAKE: Mapping[type[Frame], Callable[[Machine, Any, memoryview], list[Event]]] = {
    **dict.fromkeys(_NOTICES, Machine._receive_notice),
    **dict.fromkeys((f.Share, f.Reuse), Machine._receive_sharing),
    **dict.fromkeys((f.Chunk, f.Whole), Machine._receive_part),
    **dict.fromkeys((f.Open, f.Need), Machine._receive_opening),
    **dict.fromkeys((f.Cancel, f.Reject), Machine._receive_about),
    **dict.fromkeys((f.Resume, f.Supply, f.Value, f.Return, f.Raise), Machine._receive_later),
    f.Credit: Machine._receive_credit,
    f.GiveBack: Machine._receive_give_back,
}
"""How each frame is taken."""


def _beginning(
    frame: Opening, beginnings: tuple[Standing, Standing, Standing, Standing]
) -> Standing:
    """Returns where a call stands that a frame opens."""
    call, stream, ahead, fetch = beginnings
    if isinstance(frame, f.Need):
        return fetch
    if not frame.stream:
        return call
    return ahead if frame.prefetch else stream


def _unexpected(kind: type[Frame], standing: Standing) -> ProtocolError:
    return ProtocolError(f"the peer sent {kind.__name__} for a call in state {standing.state.name}")


def _cut(payload: memoryview, sizes: Sequence[int]) -> list[memoryview]:
    """Cuts the payload of a single message into its segments."""
    segments: list[memoryview] = []
    start = 0
    for size in sizes:
        segments.append(payload[start : start + size])
        start += size
    return segments
