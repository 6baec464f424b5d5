"""How messages travel: a batch of them is one binary WebSocket message.

The payload of a WebSocket message is a sequence of `<u32 length, little endian> bytes`, one for
each message of Wool's. Large batches are sent in fragments, cut anywhere; a message of Wool's never
continues in another WebSocket message. No frame is larger than `FRAME`, and none larger than
`STRANGERS_FRAME` is sent to, or taken from, somebody whose `receive_limit` has not been raised.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence

from websockets.exceptions import PayloadTooBig, ProtocolError
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from wool.abc import Buffer, Segments

FRAME = 256 << 10
"""Largest payload in bytes of a frame: what a peer can make us hold before we see any of it."""

STRANGERS_FRAME = 16 << 10
"""The same as long as the peer is a stranger."""

_JOIN_BELOW = 64 << 10


def payloads(messages: Sequence[Segments], sizes: Sequence[int], most: int) -> list[Buffer]:
    """Returns the payloads of the frames for a batch of messages.

    Large segments are not copied.

    Args:
        sizes: of the messages, in bytes.
        most: bytes in a frame.
    """
    if len(messages) == 1 and sizes[0] < min(most, _JOIN_BELOW) - 4:
        return [b"".join((sizes[0].to_bytes(4, "little"), *messages[0]))]
    frames: list[Buffer] = []
    small: list[Buffer] = []
    filled = 0
    for segments, size in zip(messages, sizes, strict=True):
        for part in (size.to_bytes(4, "little"), *segments):
            length = len(part)
            large = length > min(most, _JOIN_BELOW)
            if small and (large or filled + length > most):
                frames.append(b"".join(small))
                small, filled = [], 0
            if large:
                view = memoryview(part)
                frames += [view[at : at + most] for at in range(0, length, most)]
            elif length:
                small.append(part)
                filled += length
    if small:
        frames.append(b"".join(small))
    return frames


class Malformed(Exception):
    """The peer has sent something that does not consist of messages."""


class TooLarge(Exception):
    """The peer has announced a message that is too large."""


def cut(data: bytes, limit: int, *, masked: bool) -> tuple[list[memoryview], bytes]:
    """Cuts what a socket has brought as far as it is binary WebSocket messages of one frame each.

    Args:
        limit: the largest message of Wool's in bytes to accept.
        masked: whether the frames are those of a client.

    Returns:
        Wool's messages, and the bytes that follow.
    """
    messages: list[memoryview] = []
    reader, cutter = StreamReader(), Messages()
    reader.feed_data(data)
    left = len(data)  # bytes that follow the messages
    while left:
        try:
            frame = _only(Frame.parse(reader.read_exact, mask=masked, max_size=FRAME))
            if frame is None or frame.opcode is not Opcode.BINARY or not frame.fin:
                break
            messages += list(cutter.cut(frame.data, limit, last=True))
        except (PayloadTooBig, ProtocolError, TooLarge, Malformed):
            break  # whoever reads it next says so
        left = len(reader.buffer)
    return messages, data[len(data) - left :]


def _only(parsing: Generator[None, None, Frame]) -> Frame | None:
    """Returns the frame if all of it is there."""
    try:
        next(parsing)
    except StopIteration as stop:
        return stop.value
    return None


class Messages:
    """Cuts the payloads of frames into messages."""

    def __init__(self) -> None:
        self._prefix = b""  # the part of a length that has arrived
        self._body = bytearray()  # of a message that has not arrived completely
        self._missing = 0  # bytes of it; 0 if there is none

    def cut(self, payload: Buffer, limit: int, *, last: bool) -> Iterator[memoryview]:
        """Yields the messages that are complete with this payload.

        Args:
            limit: the largest message in bytes to accept.
            last: whether the WebSocket message ends here.

        Raises:
            TooLarge: a message exceeds the limit.
            Malformed: the WebSocket message ends within a message.
        """
        view = memoryview(self._prefix + payload if self._prefix else payload)
        self._prefix = b""
        while view:
            if self._missing:
                piece = view[: self._missing]
                self._body += piece
                self._missing -= len(piece)
                view = view[len(piece) :]
                if not self._missing:
                    yield memoryview(self._body)
                    self._body = bytearray()
                continue
            if len(view) < 4:
                self._prefix = bytes(view)
                break
            end = 4 + int.from_bytes(view[:4], "little")
            if end - 4 > limit:
                raise TooLarge
            if end <= len(view):
                yield view[4:end]
                view = view[end:]
            else:
                self._missing = end - 4
                view = view[4:]
        if last and (self._prefix or self._missing):
            raise Malformed
