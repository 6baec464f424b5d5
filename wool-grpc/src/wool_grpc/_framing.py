"""Messages in the byte stream that the writes of both sides make up.

A message is `<u32 length, little-endian> bytes`. A write is one gRPC message. It holds as many
Wool messages as fit; one that is larger than a write spans several.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from wool.abc import Buffer, MessageTooLarge, Segments

WRITE = 512 << 10
"""Bytes in one write at most; what gRPC has to take from a stranger."""

MAX_MESSAGE = 16 << 20

_LENGTH = struct.Struct("<I")


def cut(messages: Sequence[Segments], sizes: Sequence[int], write: int = WRITE) -> Iterator[bytes]:
    """Yields the writes for a batch of messages of these sizes."""
    parts: list[Buffer] = []
    room = write
    for size, segments in zip(sizes, messages, strict=True):
        if size + 4 > room and parts:
            yield b"".join(parts)
            parts, room = [], write
        parts.append(_LENGTH.pack(size))
        room -= 4
        for segment in segments:
            rest = segment
            while len(rest) > room:
                view = memoryview(rest)
                parts.append(view[:room])
                yield b"".join(parts)
                rest, parts, room = view[room:], [], write
            parts.append(rest)
            room -= len(rest)
    if parts:
        yield b"".join(parts)


class Assembler:
    """Puts messages together from what arrives."""

    __slots__ = ("_body", "_filled", "_prefix")

    def __init__(self) -> None:
        self._prefix: bytes = b""
        self._body: memoryview | None = None
        self._filled = 0

    def feed(self, data: bytes, limit: int) -> Iterator[memoryview]:
        """Adds what has arrived; yields the messages that are complete.

        Raises:
            MessageTooLarge: a message of more than `limit` bytes has been announced.
        """
        if self._prefix:
            data = self._prefix + data
            self._prefix = b""
        view, position, end, unpack = memoryview(data), 0, len(data), _LENGTH.unpack_from
        body = self._body
        if body is not None:
            position = self._fill(body, view)
            if self._filled == len(body):
                self._body = None
                yield body
        while position < end:
            start = position + 4
            if start > end:
                self._prefix = data[position:]
                return
            (size,) = unpack(data, position)
            if size > limit:
                raise MessageTooLarge(f"a message of {size} bytes; at most {limit}")
            position = start + size
            if position <= end:
                yield view[start:position]
            else:
                self._body = memoryview(bytearray(size))
                self._filled = 0
                self._fill(self._body, view[start:])
                return

    def _fill(self, body: memoryview, view: memoryview) -> int:
        """Adds to the message under way; returns how much of `view` was of it."""
        filled = min(self._filled + len(view), len(body))
        taken = filled - self._filled
        body[self._filled : filled] = view[:taken]
        self._filled = filled
        return taken
