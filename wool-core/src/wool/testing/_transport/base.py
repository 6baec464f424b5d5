"""What the parts of the suite share: the methods that authors override, and `Site`."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from wool.abc import (
    Connection,
    ConnectionLost,
    Handler,
    Listener,
    Segments,
    Tls,
    Transport,
)
from wool.testing import _kit
from wool.testing._kit import soon


def chance(seed: int) -> random.Random:
    """Numbers that look random but are the same each time."""
    return random.Random(seed)  # noqa: S311


class End:
    """One end of a connection: waits are bounded, and what it returns is checked."""

    def __init__(self, connection: Connection, patience: float) -> None:
        self.connection = connection
        self.patience = patience

    async def send(self, *messages: bytes) -> None:
        """Sends a batch of messages of one segment each."""
        await self.send_batch([[message] for message in messages])

    async def send_batch(self, messages: Sequence[Segments]) -> None:
        await soon(self.connection.send(messages), "send", self.patience)

    async def receive(self) -> list[bytes]:
        """Copies of what one `receive` returns."""
        messages = await soon(self.connection.receive(), "receive", self.patience)
        assert len(messages) > 0, "receive returned no message"
        for message in messages:
            assert isinstance(message, (bytes, memoryview)), f"received a {type(message)}"
            assert len(message) == memoryview(message).nbytes, "a view must be one of bytes"
        return [bytes(message) for message in messages]

    async def read(self, count: int) -> list[bytes]:
        """The next `count` messages; more at once is a mistake."""
        got: list[bytes] = []
        while len(got) < count:
            got += await self.receive()
        assert len(got) == count, f"received {len(got)} messages, but only {count} were sent"
        return got

    async def rest(self) -> list[bytes]:
        """What arrives before the end. The end stays the end."""
        got: list[bytes] = []
        try:
            while True:
                got += await self.receive()
                assert len(got) < 100_000, "received more than was ever sent"
        except ConnectionLost:
            pass
        for _ in range(3):
            with pytest.raises(ConnectionLost):
                await self.receive()
        with pytest.raises(ConnectionLost):
            await self.send(b"after the end")
        return got

    async def aclose(self) -> None:
        await soon(self.connection.aclose(), "aclose of a connection", self.patience)


class Place:
    """A listener that is being served, unless told otherwise."""

    def __init__(self, listener: Listener, patience: float) -> None:
        self.listener = listener
        self.address: str = listener.address
        self.patience = patience
        self.accepted: asyncio.Queue[End] = asyncio.Queue()
        self.serving: asyncio.Task[None] | None = None

    def serve(self, handler: Handler | None = None) -> None:
        """Serves in a task; by default connections are kept in `accepted`."""
        self.serving = asyncio.ensure_future(self.listener.serve(handler or self.keep))

    async def keep(self, connection: Connection) -> None:
        self.accepted.put_nowait(End(connection, self.patience))
        await asyncio.get_running_loop().create_future()

    async def next(self, within: float | None = None) -> End:
        """The next connection that has come in."""
        seconds = self.patience if within is None else within
        return await soon(self.accepted.get(), "a handler to start", seconds)

    async def stop(self) -> None:
        """Cancels `serve`, and waits for it; it must not have failed."""
        if self.serving is not None:
            self.serving.cancel()
            await soon(asyncio.wait([self.serving]), "serve, once cancelled,", self.patience)
            if not self.serving.cancelled():
                self.serving.result()

    async def aclose(self) -> None:
        await soon(self.listener.aclose(), "aclose of a listener", self.patience)


class Site:
    """The listeners and connections of one test; what it has made is closed at its end."""

    def __init__(self, suite: Base, folder: Path) -> None:
        self.suite = suite
        self.patience: float = suite.patience
        self.transport: Transport = suite.transport()
        self.credentials: Tls | None = suite.credentials()
        self._folder = folder
        self._places: list[Place] = []
        self._ends: list[End] = []
        self._common: Place | None = None

    def address(self) -> str | None:
        """A fresh address to listen at."""
        folder = self._folder / str(len(list(self._folder.iterdir())))
        folder.mkdir(mode=0o700)
        return self.suite.address(folder)

    async def listen(self, handler: Handler | None = None, *, serve: bool = True) -> Place:
        """Opens a listener."""
        place = await self.listen_at(self.address(), self.credentials)
        if serve:
            place.serve(handler)
        return place

    async def listen_at(self, address: str | None, credentials: Tls | None) -> Place:
        listening = self.transport.listen(address, credentials=credentials)
        place = Place(await soon(listening, "listen", self.patience), self.patience)
        self._places.append(place)
        return place

    async def dial(self, address: str, timeout: float = 30.0) -> End:
        return await self.dial_with(self.credentials, address, timeout)

    async def dial_with(self, credentials: Tls | None, address: str, timeout: float = 30.0) -> End:
        dialling = self.transport.connect(address, credentials=credentials, timeout=timeout)
        connection = await soon(dialling, "connect", self.patience)
        end = End(connection, self.patience)
        self._ends.append(end)
        return end

    async def link(self, place: Place | None = None, *, strangers: bool = False) -> list[End]:
        """Both ends of a new connection: the one that dialled, the one that was accepted.

        Args:
            strangers: leave the limits of what they accept as low as they are at first.
        """
        if place is None:
            place = self._common = self._common or await self.listen()
        ends = [await self.dial(place.address), await place.next()]
        if not strangers:
            for end in ends:
                end.connection.receive_limit = end.connection.max_message_size
        return ends

    async def links(self) -> list[list[End]]:
        """Two connections, for a test that treats the ends differently: each way round once."""
        return [await self.link(), (await self.link())[::-1]]

    async def each_way(self, check: Callable[[End, End], Coroutine[Any, Any, None]]) -> None:
        """Runs a check that takes long on such two connections at once."""
        tasks = [asyncio.ensure_future(check(*ends)) for ends in await self.links()]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=self.patience)

    async def until(self, condition: Callable[[], Any], what: str) -> None:
        """Waits for a condition that nothing announces."""
        await _kit.until(condition, what, self.patience)

    async def aclose(self) -> None:
        for end in self._ends:
            await end.aclose()
        for place in self._places:
            await place.stop()
            await place.aclose()


class Base:
    """What authors override."""

    in_process: bool = False
    patience: float = 10.0

    def transport(self) -> Transport:
        """Makes the transport; called once for each test."""
        raise NotImplementedError("override transport() to make the transport that is tested")

    def address(self, tmp_path: Path) -> str | None:
        """Where to listen; None, the default, if the transport is to choose.

        Called for each listener, with a new, empty directory of mode 0700.
        """
        return None

    def credentials(self) -> Tls | None:
        """How connections are secured; None, the default, if they are not."""
        return None

    @pytest_asyncio.fixture(loop_scope="function")
    async def site(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Site]:
        """Checks, besides, that tests leave no tasks behind and log nothing that alarms."""
        gc.collect(1)  # complaints of finalizers belong to their test; older garbage takes long
        before = asyncio.all_tasks()
        site = Site(self, tmp_path)
        yield site
        await site.aclose()
        await self._tasks_end(before)
        gc.collect(1)
        await asyncio.sleep(0)
        for record in (*caplog.get_records("call"), *caplog.records):
            assert record.levelno < logging.WARNING, f"logged: {record.getMessage()}"

    async def _tasks_end(self, before: set[asyncio.Task[Any]]) -> None:
        """A task may need some turns of the loop to notice that all has been closed."""
        left = asyncio.all_tasks() - before - {asyncio.current_task()}
        if left:
            await asyncio.wait(left, timeout=self.patience)
        left = {task for task in left if not task.done()}
        assert not left, f"tasks are left behind: {left}"
