"""A connection over some ZeroMQ socket: what is said, and how much of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import zmq

from wool.abc import Connection, ConnectionLost, MessageTooLarge, Segments

HELLO, DATA, CREDIT, BYE, PING = b"wool-zmq 1", b"data", b"credit", b"bye", b"ping"
"""First part of each ZeroMQ message. That of `DATA` has a part for each message of Wool's."""

WINDOW = 4 << 20
"""Bytes that a sender may be ahead of what the peer's `receive` has returned."""


def cost(message: Any) -> int:
    """What a message takes of the window: even an empty one takes memory."""
    return len(message) + 64


class ZmqConnection(Connection):
    """Sends with credit: ZeroMQ counts messages, not bytes, and a full router stops for all peers.

    Whoever ends says BYE, and knows that all has arrived when the other one says it too.

    Args:
        post: hands a ZeroMQ message to the socket and never waits; `ZMQError` if nobody is there.
        forget: called when there will be no more of the peer.
    """

    max_message_size = 1 << 20
    uid: int | None = None

    def __init__(self, post: Callable[[list[Any]], None], forget: Callable[[], None]) -> None:
        self._post = post
        self._forget = forget
        self._room = WINDOW  # there
        self._held = self._taken = 0  # of the window here: not yet returned, and not yet told
        self._messages: list[bytes | memoryview] = []
        self._news, self._over = asyncio.Event(), asyncio.Event()
        self.ended: str | None = None

    async def send(self, messages: Sequence[Segments]) -> None:
        whole, batch = [b"".join(segments) for segments in messages], list[bytes]()
        if max(map(len, whole), default=0) > self.max_message_size:
            raise MessageTooLarge(f"a message may have {self.max_message_size} bytes")
        for message in whole:
            if self._room < cost(message):
                self._send(batch)
                batch = []
                while self._room < cost(message) and self.ended is None:
                    await self.news()
            self._room -= cost(message)
            batch.append(message)
        self._send(batch)

    def _send(self, batch: list[bytes]) -> None:
        if self.ended is None and batch:
            try:
                self._post([DATA, *batch])
            except zmq.ZMQError as error:
                self.over(f"the peer is gone ({error})")
        if self.ended is not None:
            raise ConnectionLost(self.ended)

    async def receive(self) -> Sequence[bytes | memoryview]:
        while not self._messages:
            if self.ended is not None:
                raise ConnectionLost(self.ended)
            await self.news()
        messages, self._messages = self._messages, []
        self._taken, self._held = self._taken + self._held, 0
        if self._taken > WINDOW // 4:
            with contextlib.suppress(zmq.ZMQError):  # what has been received is still good
                self._post([CREDIT, self._taken.to_bytes(8, "big")])
            self._taken = 0
        return messages

    async def news(self) -> None:
        """Waits for something to have changed."""
        self._news.clear()
        await self._news.wait()

    def take(self, kind: bytes, parts: list[zmq.Frame]) -> None:
        """Something has arrived."""
        if kind == BYE:
            self.over("the peer has closed the connection")
        elif self.ended is None and kind == DATA:
            for part in parts:
                self._held += cost(part)
                if len(part) > self.receive_limit or self._held + self._taken > WINDOW:
                    return self.end("the peer sends more than it may")
                self._messages.append(part.bytes if len(part) < 4096 else part.buffer)
        elif self.ended is None and kind == CREDIT:
            self._room += int.from_bytes(parts[0].bytes if parts else b"", "big")
        self._news.set()

    def end(self, reason: str) -> None:
        """Sends and takes no more; what has been taken can still be received."""
        if self.ended is None:
            self.ended = reason
            with contextlib.suppress(zmq.ZMQError):
                self._post([BYE])
            self._news.set()

    def over(self, reason: str) -> None:
        """There will be no more of the peer."""
        self.end(reason)
        self._over.set()
        self._forget()

    async def aclose(self) -> None:
        """Waits until the peer has everything, but not for long."""
        self.end("the connection is closed")
        try:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), 1.0)
        finally:
            self._messages.clear()
            self.over("")

    def extra(self, attribute: str, default: Any = None) -> Any:
        value = {"peer": "zmq", "same_host": True, "uid": self.uid}.get(attribute)
        return default if value is None else value


def uid_of(frame: zmq.Frame) -> int | None:
    """Returns the user at the other end of a Unix socket: ZeroMQ has asked the kernel."""
    with contextlib.suppress(zmq.ZMQError, ValueError):
        _, uid, _, _ = str(frame.get("Peer-Address")).rsplit(":", 3)
        return int(uid)
    return None
