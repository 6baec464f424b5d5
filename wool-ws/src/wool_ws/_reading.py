"""How a socket is read: into memory that is there already.

For an `asyncio.Protocol`, asyncio takes 256 KiB from the system for each read and gives most of
them back, which takes longer than reading a small message.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod

ROOM = 64 << 10
"""Bytes that are read at once."""


class Reader(asyncio.BufferedProtocol):
    """Is told of bytes as an `asyncio.Protocol` is."""

    _room: memoryview | None = None
    _keeps_room = False

    @abstractmethod
    def data_received(self, data: bytes) -> None:
        """Some bytes have arrived."""

    def keep_room(self) -> None:
        """Keeps the memory from one read to the next; nobody should for a stranger."""
        self._keeps_room = True

    def spare_room(self) -> None:
        """Gives the memory back until something arrives."""
        self._room = None

    # asyncio.BufferedProtocol

    def get_buffer(self, sizehint: int) -> memoryview:
        # TLS has got so much already, and forgets what of it was not taken when the peer is gone.
        if self._room is None or len(self._room) < sizehint:
            self._room = memoryview(bytearray(max(ROOM, sizehint)))
        return self._room

    def buffer_updated(self, nbytes: int) -> None:
        assert self._room is not None
        data = bytes(self._room[:nbytes])
        if not self._keeps_room or len(self._room) > ROOM:
            self._room = None
        self.data_received(data)
