"""The stream of one connection, from the side that dialled and from the one that accepted."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine
from typing import Any

from wool_grpc._library import aio

METHOD = "/wool.Transport/Connect"

TAKEN = ("wool-transport", "1")
"""What a listener sends at once as metadata: that it has taken the call."""

EOF: Any = aio.EOF
"""What `Call.read` returns when there is nothing more."""


class Call(ABC):
    """A bidirectional stream. At most one read and one write at a time.

    Attributes:
        read: returns what the peer has written next, or `EOF`; raises what `errors.broken`
            explains.
        write: writes; returns when the peer has made room.
        farewell: what it means when there is nothing more to read.
        open_to_threads: whether a write may be begun on any thread, not only on the loop's.
    """

    read: Callable[[], Coroutine[Any, Any, Any]]
    write: Callable[[bytes], Coroutine[Any, Any, None]]
    farewell: str
    open_to_threads: bool

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
    open_to_threads = False

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self.call = channel.stream_stream(METHOD)()
        self.read, self.write = self.call.read, self.call.write

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
    open_to_threads = True

    def __init__(self, context: Any) -> None:
        self.read, self.write = context.read, context.write
        self._released: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        context.add_done_callback(self._end)

    def _end(self, context: Any) -> None:
        self._over.set_result(None)

    async def hold(self) -> None:
        """Returns when the stream is to end. gRPC cancels it when the peer is gone."""
        await self._released

    async def finish(self) -> None:
        self.abort()
        await self._over

    def abort(self) -> None:
        if not self._released.done():
            self._released.set_result(None)
