"""Payloads that are larger than a chunk: cut up on one side, put together on the other.

Either side of a call may have `window` bytes of chunks under way that the other has not yet
taken; `Credit` allows more. So one slow payload fills no buffers, and small messages pass between
the chunks of large ones.
"""

from __future__ import annotations

import mmap
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import accumulate
from typing import NoReturn, Protocol

from wool._protocol import frames as f
from wool._protocol.frames import Buffer, Frame
from wool.exceptions import ProtocolError

CHUNK = 256 << 10
WINDOW = 4 << 20
AHEAD_BYTES = 4 << 20
"""A stream that has sent so many bytes that its consumer has not taken does not run ahead."""

ALIGNMENT = 64
"""In shared memory, each part of a payload begins at a multiple of so many bytes."""

PIECE = 2 << 20
"""Bytes that are copied to shared memory at once: what a small message may have to wait behind."""

_COPY_BELOW = 4096
"""A part that is smaller does not keep a segment of shared memory from being used again."""

_MAP_FROM = 16 << 20


class Room(Protocol):
    """Shared memory for one payload. Dropped, it may be used for another one."""

    def write(self, at: int, data: memoryview) -> None:
        """Copies data to a place in it."""
        ...

    def hand_over(self) -> int:
        """Lets the peer have it, and returns its number.

        Raises:
            OSError: that is not possible now.
        """
        ...


class Shared(Protocol):
    """Memory that is shared with the peer, for payloads larger than a chunk."""

    def room(self, size: int) -> Room | None:
        """Returns room for `size` bytes, if it can be had."""
        ...

    def map(self, segment: int, size: int) -> memoryview:
        """Returns the first `size` bytes of a segment that the peer has handed over, writable.

        Raises:
            ProtocolError: there is no such segment.
            MemoryError: it cannot be had.
        """
        ...

    def decline(self, segment: int) -> None:
        """Returns a segment without a look at it."""
        ...

    def take(self, frame: f.Share | f.Reuse) -> None:
        """Takes what the peer says of such memory."""
        ...


def places(sizes: Iterable[int]) -> list[int]:
    """Returns where the parts of a payload begin in shared memory, and where the last one ends."""
    return list(
        accumulate(sizes, lambda at, size: -(-(at + size) // ALIGNMENT) * ALIGNMENT, initial=0)
    )


class Outbound:
    """A payload on its way out: by chunks, or through shared memory if there is room."""

    __slots__ = ("_copied", "_room", "after", "call", "credit", "left", "segments")

    def __init__(
        self, call: int, segments: Sequence[Buffer], credit: int, shared: Shared | None = None
    ) -> None:
        self.after: deque[tuple[bytes, Sequence[Buffer]]] = deque()
        """Messages about the same call that must not overtake this payload."""
        self.call = call
        self.segments = deque(memoryview(s).cast("B") for s in segments if len(s))
        self.left = sum(map(len, self.segments))
        self.credit: int = credit
        self._copied = (0, 0)  # whole segments, and bytes of the next one
        self._room = None
        if shared is not None:
            self._room = shared.room(places(map(len, self.segments))[-1])

    @property
    def ready(self) -> bool:
        """Whether something can be done for it now."""
        return self._room is not None or self.credit > 0

    def next(self, limit: int) -> tuple[list[Buffer], int]:
        """Goes on with it: returns a message, if there is one, and how many bytes were copied.

        Args:
            limit: of bytes in a chunk.
        """
        if self._room is None:
            chunk = self.take(limit)
            return [f.encode(f.Chunk(self.call)), *chunk], sum(map(len, chunk))
        count = self._copy(self._room)
        if self._copied[0] < len(self.segments):
            return [], count
        room, self._room = self._room, None
        try:
            segment = room.hand_over()
        except OSError:
            return [], count  # it goes by chunks
        self.left = 0
        self.segments.clear()
        return [f.encode(f.Whole(self.call, segment))], count

    def _copy(self, room: Room) -> int:
        """Copies the next bytes to shared memory; returns how many."""
        starts = places(map(len, self.segments))
        index, done = self._copied
        count = 0
        while index < len(self.segments) and count < PIECE:
            piece = self.segments[index][done : done + PIECE - count]
            room.write(starts[index] + done, piece)
            count += len(piece)
            done += len(piece)
            if done == len(self.segments[index]):
                index, done = index + 1, 0
        self._copied = (index, done)
        return count

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

    def __init__(self, frame: f.Loaded) -> None:
        self.frame = frame
        self.left = sum(frame.sizes)
        self.unacknowledged = 0
        self.after: list[Frame] = []
        """Frames that arrived meanwhile and mean what this payload begins."""
        self._sizes = frame.sizes
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

    def adopt(self, shared: Shared, segment: int) -> None:
        """Takes all of it at once, out of shared memory.

        Raises:
            ProtocolError: it has begun to arrive otherwise, or is not there.
            MemoryError: the memory cannot be had.
        """
        if self._parts or self._missing is not None or not self.left:
            raise ProtocolError("the peer sent a payload twice")
        self.left = 0
        starts = places(self._sizes)
        memory = shared.map(segment, starts[-1])
        for start, size in zip(starts, self._sizes, strict=False):
            part = memory[start : start + size]
            self._parts.append(part if size >= _COPY_BELOW else bytearray(part))
        self._filled = self._sizes[-1]

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
        self._parts.append(allocate(size))
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


def allocate(size: int) -> bytearray | memoryview:
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
