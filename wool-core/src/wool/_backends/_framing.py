"""Cuts the bytes of a socket into messages: `<u32 length> bytes`.

A socket is read into memory that is there already; what belongs to a large message, to where it is
to stay. (`asyncio.Protocol` would take 256 KiB from the system for each read, and give most of them
back.)
"""

from __future__ import annotations

from collections.abc import Iterator

PREFIX = 4
SCRATCH = 64 << 10
"""Bytes read at once where no large message is under way."""


def cut(data: bytes, limit: int) -> tuple[list[bytes], bytes]:
    """Returns the complete messages at the beginning, of at most `limit` bytes, and the rest."""
    messages: list[bytes] = []
    at, end = 0, len(data)
    while end - at >= PREFIX:
        start = at + PREFIX
        size = int.from_bytes(data[at:start], "little")
        if size > limit or size > end - start:
            break
        at = start + size
        messages.append(data[start:at])
    return messages, data[at:]


class Incoming:
    """The messages of one socket."""

    __slots__ = ("_body", "_filled", "_kept", "_scratch")

    def __init__(self) -> None:
        self._scratch = memoryview(bytearray(SCRATCH))
        self._kept = 0  # bytes of an incomplete prefix, at the beginning of the scratch
        self._body: memoryview | None = None
        self._filled = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing incomplete has been taken."""
        return self._body is None and not self._kept

    def room(self) -> memoryview:
        """Returns where the next bytes are to be written; not empty."""
        if self._body is None:
            return self._scratch[self._kept :]
        return self._body[self._filled :]

    def take(self, count: int, limit: int) -> Iterator[bytes | memoryview]:
        """Takes note of `count` new bytes; yields the messages that are complete.

        Raises:
            ValueError: one of more than `limit` bytes is announced.
        """
        if self._body is not None:
            self._filled += count
            if self._filled == len(self._body):
                body, self._body = self._body, None
                yield body
            return
        scratch, at, end = self._scratch, 0, self._kept + count
        self._kept = 0
        while end - at >= PREFIX:
            size = int.from_bytes(scratch[at : at + PREFIX], "little")
            if size > limit:
                raise ValueError(f"a message of {size} bytes is announced")
            at += PREFIX
            if size > end - at:
                self._body = memoryview(bytearray(size))
                self._filled = end - at
                self._body[: self._filled] = scratch[at:end]
                return
            yield bytes(scratch[at : at + size])
            at += size
        self._kept = end - at
        scratch[: self._kept] = bytes(scratch[at:end])
