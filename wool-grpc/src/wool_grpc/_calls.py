"""The stream of one connection, from the side that dialled and from the one that accepted."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from typing import Any

from wool_grpc._library import aio

METHOD = "/wool.Transport/Connect"


class Call(ABC):
    """A bidirectional stream. At most one read and one write at a time.

    Attributes:
        farewell: what it means when there is nothing more to read.
    """

    farewell: str

    @abstractmethod
    async def read(self) -> bytes | None:
        """Returns what the peer has written next; None: there is nothing more.

        Raises:
            Exception: the stream has broken, see `errors.broken`.
        """

    @abstractmethod
    async def write(self, data: bytes) -> None:
        """Writes; returns when the peer has made room."""

    @abstractmethod
    async def finish(self) -> None:
        """Ends the stream after what was written; returns when the peer has ended it as well.

        Somebody must go on reading.
        """

    @abstractmethod
    def abort(self) -> None:
        """Ends the stream and lets go of all it holds, at once. Idempotent."""


class Dialled(Call):
    """The stream of a channel of its own."""

    farewell = "the peer closed the connection"

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self.call = channel.stream_stream(METHOD)()

    async def read(self) -> bytes | None:
        data = await self.call.read()
        return None if data is aio.EOF else data

    async def write(self, data: bytes) -> None:
        await self.call.write(data)

    async def finish(self) -> None:
        await self.call.done_writing()
        await self.call.code()

    def abort(self) -> None:
        self.call.cancel()
        try:
            self._channel.close().send(None)  # has nothing to wait for, as no grace is given
        except StopIteration:
            pass


class Accepted(Call):
    """The stream of a call to a listener.

    Must be made in the task that gRPC has made for the call, and held there.
    """

    farewell = "the peer is gone"  # gRPC does not tell how

    def __init__(self, context: Any) -> None:
        self._context = context
        self._released: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        context.add_done_callback(self._end)

    def _end(self, context: Any) -> None:
        self._over.set_result(None)

    async def hold(self) -> None:
        """Returns when the stream is to end. gRPC cancels it when the peer is gone."""
        await self._released

    async def read(self) -> bytes | None:
        data = await self._context.read()
        return None if data is aio.EOF else data

    async def write(self, data: bytes) -> None:
        await self._context.write(data)

    async def finish(self) -> None:
        self.abort()
        await self._over

    def abort(self) -> None:
        if not self._released.done():
            self._released.set_result(None)
