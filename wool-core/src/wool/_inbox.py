"""Messages that have arrived at a connection and have not been taken yet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn

from wool.exceptions import ConnectionLost

if TYPE_CHECKING:
    import asyncio

Take = Callable[[Sequence[bytes | memoryview]], None]
"""Is given messages that have arrived, at least one."""

_OBJECT = 128
"""Bytes that a message takes besides its own."""


class Inbox:
    """Messages on their way from a transport's callbacks to `receive` and `pump` of a connection.

    A connection that has one keeps the promises that `Connection` makes for those two: it puts in
    what arrives, ends it with the connection, and calls the methods of the same names. Everything
    happens on the thread of the loop.

    Args:
        loop: the connection's.

    Attributes:
        waiting: memory in bytes that the messages in it take: a transport that looks at this after
            each `put` knows when to stop reading. 0 while somebody pumps.
    """

    __slots__ = ("_arrived", "_loop", "_messages", "_raised", "_reason", "_take", "waiting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._messages: list[bytes | memoryview] = []
        self.waiting: int = 0
        self._reason: str | None = None  # why nothing more arrives
        self._arrived: asyncio.Future[None] | None = None
        self._take: Take | None = None  # of whoever pumps
        self._raised: BaseException | None = None  # by it

    def put(self, messages: Sequence[bytes | memoryview]) -> None:
        """Gives messages, if there are any, to whoever pumps, else keeps them. Never fails."""
        if not messages:
            return
        if self._take is None:
            self._messages += messages
            self.waiting += sum(map(len, messages)) + _OBJECT * len(messages)
            self._wake()
            return
        try:
            self._take(messages)
        except BaseException as error:
            self._take, self._raised = None, error
            self._wake()

    def end(self, reason: str) -> None:
        """Lets `receive` and `pump` raise once they have given everything; the first reason counts.

        Messages put in until they have woken, in the same turn of the loop, are given as well.

        Args:
            reason: the text of their `ConnectionLost`.
        """
        if self._reason is None:
            self._reason = reason
        self._wake()

    async def receive(self) -> Sequence[bytes | memoryview]:
        """Waits for messages and returns all there are, as `Connection.receive` does.

        Raises:
            ConnectionLost: it has ended, and everything has been taken.
        """
        if not self._messages and self._reason is None:
            await self._change()
        return self._empty()

    async def pump(self, take: Take) -> NoReturn:
        """Calls `take` with all messages, as `Connection.pump` does: from within `put`.

        Raises:
            ConnectionLost: it has ended, and everything has been given.
            Exception: what `take` raises.
        """
        while True:
            if self._messages or self._reason is not None:
                take(self._empty())
                continue
            self._take = take
            try:
                await self._change()
            finally:
                self._take = None
                if self._raised is not None:  # it counts, whatever else has ended the wait
                    try:
                        raise self._raised
                    finally:
                        self._raised = None

    def _empty(self) -> Sequence[bytes | memoryview]:
        if not self._messages:
            raise ConnectionLost(self._reason or "the connection has ended")
        messages, self._messages = self._messages, []
        self.waiting = 0
        return messages

    async def _change(self) -> None:
        """Waits for messages, or the end."""
        self._arrived = self._loop.create_future()
        try:
            await self._arrived
        finally:
            self._arrived = None

    def _wake(self) -> None:
        if self._arrived is not None and not self._arrived.done():
            self._arrived.set_result(None)
