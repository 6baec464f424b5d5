"""Payloads that are larger than a chunk: cut up on one side, put together on the other.

Either side of a call may have `window` bytes of chunks under way that the other has not yet
taken; `Credit` allows more. So one slow payload fills no buffers, and small messages pass between
the chunks of large ones.
"""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import Sequence
from typing import NoReturn

from wool._protocol.frames import Buffer, Frame
from wool.exceptions import ProtocolError

CHUNK = 256 << 10
WINDOW = 4 << 20
AHEAD_BYTES = 4 << 20
"""A stream that has sent so many bytes that its consumer has not taken does not run ahead."""

_MAP_FROM = 16 << 20


class Outbound:
    """A payload on its way out."""

    __slots__ = ("after", "call", "credit", "left", "segments")

    def __init__(self, call: int, segments: Sequence[Buffer], credit: int) -> None:
        self.after: deque[tuple[bytes, Sequence[Buffer]]] = deque()
        """Messages about the same call that must not overtake this payload."""
        self.call = call
        self.segments = deque(memoryview(s).cast("B") for s in segments if len(s))
        self.left = sum(map(len, self.segments))
        self.credit: int = credit

    def take(self, limit: int) -> list[memoryview]:
        """Cuts the next chunk: at most `limit` bytes, and no more than there is credit for."""
        limit = min(limit, self.credit, self.left)
        self.credit -= limit
        self.left -= limit
        chunk: list[memoryview] = []
        while limit:
            segment = self.segments.popleft()
            if len(segment) > limit:
                self.segments.appendleft(segment[limit:])
                segment = segment[:limit]
            chunk.append(segment)
            limit -= len(segment)
        return chunk


class Inbound:
    """A payload being put together. Memory is taken as bytes arrive, not as they are announced."""

    __slots__ = (
        "_filled",
        "_missing",
        "_parts",
        "_sizes",
        "after",
        "frame",
        "left",
        "unacknowledged",
    )

    def __init__(self, frame: Frame, sizes: Sequence[int]) -> None:
        self.frame = frame
        self.left = sum(sizes)
        self.unacknowledged = 0
        self.after: list[Frame] = []
        """Frames that arrived meanwhile and mean what this payload begins."""
        self._sizes = list(sizes)
        self._parts: list[bytearray | memoryview] = []
        self._filled = 0
        self._missing: Missing | None = None

    def feed(self, data: memoryview) -> None:
        """Adds the bytes of a chunk.

        Raises:
            ProtocolError: there are more than were announced.
            MemoryError: there is no memory for the segment that begins here.
        """
        if len(data) > self.left:
            raise ProtocolError("the peer sent more payload than it announced")
        self.left -= len(data)
        self.unacknowledged += len(data)
        while data and self._missing is None:
            part = self._part()
            room = len(part) - self._filled
            piece = data[:room]
            part[self._filled : self._filled + len(piece)] = piece
            self._filled += len(piece)
            data = data[room:]

    def forget(self, error: MemoryError) -> None:
        """Gives up what has arrived; the rest is counted and dropped."""
        self._missing = Missing(len(self._sizes), str(error) or "out of memory")
        self._parts.clear()

    def segments(self) -> Sequence[Buffer]:
        """Returns the complete segments."""
        if self._missing is not None:
            return self._missing
        while len(self._parts) < len(self._sizes):
            self._parts.append(bytearray())
        return self._parts

    def _part(self) -> bytearray | memoryview:
        """Returns the segment that the next byte belongs to."""
        if self._parts and self._filled < len(self._parts[-1]):
            return self._parts[-1]
        size = self._sizes[len(self._parts)]
        while not size:
            self._parts.append(bytearray())
            size = self._sizes[len(self._parts)]
        self._parts.append(_allocate(size))
        self._filled = 0
        return self._parts[-1]


class Missing(Sequence[Buffer]):
    """Segments for which there was no memory: whoever looks at them gets the `MemoryError`."""

    def __init__(self, count: int, reason: str) -> None:
        self._count = count
        self._reason = reason

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: object) -> NoReturn:
        raise MemoryError(self._reason)


def _allocate(size: int) -> bytearray | memoryview:
    """Returns `size` writable bytes.

    A bytearray reuses memory that is warm. But it is zeroed at once, which stops everything else on
    this thread, for a quarter of a second per GiB; so large ones are mapped, and their pages are
    zeroed one by one.
    """
    if size < _MAP_FROM or not hasattr(mmap, "MAP_PRIVATE"):
        return bytearray(size)
    try:
        return memoryview(mmap.mmap(-1, size, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
    except (OSError, OverflowError, ValueError) as error:
        raise MemoryError(f"no memory for {size} bytes") from error
