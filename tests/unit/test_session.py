"""Sessions, and handshakes before them, with a peer that fails or is silent."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import NoReturn

import pytest

from wool._client.identity import hello
from wool._client.probing import Probe
from wool._peer.handshaking import dial
from wool._peer.routes import Route, Routes
from wool._peer.session import Session
from wool._protocol import frames as f
from wool._protocol.connection import Machine
from wool._protocol.frames import Frame
from wool._security.credentials import Keyring, SameUser
from wool._transports.stream import TakeSome
from wool._transports.unix import UnixConnection
from wool.abc import Buffer, Connection, Listener, Segments, Take, Transport, WorkerInfo
from wool.exceptions import ConnectFailed, ConnectionLost, MessageTooLarge, ProtocolError


class Pipe(Connection):
    """Nothing comes through it, and what is sent fails."""

    max_message_size = 1 << 20

    def __init__(self, error: BaseException | None) -> None:
        self._error = error
        self._closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def send(self, messages: Sequence[Segments]) -> None:
        if self._error is not None:
            raise self._error

    async def receive(self) -> Sequence[bytes | memoryview]:
        await asyncio.shield(self._closed)
        raise ConnectionLost("closed")

    async def aclose(self) -> None:
        if not self._closed.done():
            self._closed.set_result(None)


@pytest.mark.parametrize(
    "error",
    [MemoryError(), RuntimeError("odd"), OSError(32, "broken"), MessageTooLarge("too large")],
    ids=repr,
)
async def test_what_cannot_be_sent_ends_the_session(error: Exception) -> None:
    """Else whoever waits for an answer would do so for ever."""
    lost: list[Exception] = []
    machine = Machine(dialler=True, peer_window=1 << 20, peer_chunk=1 << 18, window=1 << 20)
    session = Session(Pipe(error), machine, hello(["cloudpickle"], security=""))
    session.send(f.Recall(1))
    async with asyncio.timeout(10):
        await session.run(lambda frame, segments: None, lost.append)
    assert [type(failure) for failure in lost] == [ConnectionLost]
    assert f"nothing can be sent any more: {error!r}" in str(lost[0])
    assert not session.send(f.Recall(2))


class Delegating(UnixConnection):
    """Has its messages put in by hand, and notes to whom it is asked to give them instead."""

    def __init__(self) -> None:
        super().__init__()
        self.take: Take | None = None
        self.take_there: TakeSome | None = None
        self.delegated_to: list[asyncio.AbstractEventLoop] = []

    async def pump(self, take: Take) -> NoReturn:
        self.take = take
        await self._inbox.receive()
        raise AssertionError

    async def aclose(self) -> None:
        self._inbox.end("closed")

    def delegate(self, loop: asyncio.AbstractEventLoop, take: TakeSome) -> bool:
        assert self.take is not None, "nobody pumps"
        self.delegated_to.append(loop)
        self.take_there = take
        return True


def messages(*sent: Frame) -> list[bytes]:
    """Returns what a peer that has dialled transmits."""
    machine = Machine(dialler=True, peer_window=1 << 20, peer_chunk=1 << 18, window=1 << 20)
    for frame in sent:
        machine.send(frame)
    return [b"".join(message) for message in machine.outgoing(1 << 20)]


def opening(call: int, routine: str = "m:f") -> f.Open:
    return f.Open(call, routine=routine)


async def test_what_is_taken_elsewhere() -> None:
    """Once somebody pumps: frames that suit, up to the first that does not or is not allowed."""
    first, second, third, fourth, odd, cancel = messages(
        *(opening(number) for number in (1, 3, 5, 7)), opening(9, "odd"), f.Cancel(7, 0)
    )
    loop, here, there, lost = asyncio.new_event_loop(), list[int](), list[int](), list[Exception]()
    machine = Machine(dialler=False, peer_window=1 << 20, peer_chunk=1 << 18, window=1 << 20)
    pipe = Delegating()
    session = Session(pipe, machine, hello(["cloudpickle"], security=""), early=[first])

    def on_frame(frame: Frame, segments: Sequence[Buffer]) -> None:
        assert isinstance(frame, f.Open)
        here.append(frame.call)
        session.delegate(loop, suits, on_frame_there)

    def suits(frame: Frame) -> bool:
        return isinstance(frame, f.Open) and frame.routine != "odd"

    def on_frame_there(frame: Frame, segments: Sequence[Buffer]) -> None:
        assert isinstance(frame, f.Open)
        there.append(frame.call)

    running = asyncio.ensure_future(session.run(on_frame, lost.append))
    while pipe.take is None:
        await asyncio.sleep(0)
    assert (here, pipe.delegated_to) == ([1], [])
    pipe.take([second])
    assert (here, pipe.delegated_to) == ([1, 3], [loop])
    assert pipe.take_there is not None
    assert pipe.take_there([third, fourth, odd]) == 2
    assert pipe.take_there([cancel]) == 0
    assert pipe.take_there([b"nonsense"]) == 0
    assert pipe.take_there([first, odd]) == 0  # it has been opened
    assert there == [5, 7]
    pipe.take([odd])
    assert here == [1, 3, 9]
    with pytest.raises(ProtocolError, match="out of order"):
        pipe.take([first])
    await session.connection.aclose()
    await running
    loop.close()


class Slow(Transport):
    """Takes most of the time to connect to somebody who then says nothing: its clock goes on."""

    async def connect(self, address: str, *, credentials: object, timeout: float) -> Connection:
        loop = asyncio.get_running_loop()
        clock, ahead = loop.time, timeout - 0.2
        setattr(loop, "time", lambda: clock() + ahead)  # noqa: B010
        return Pipe(None)

    async def listen(self, address: str | None, *, credentials: object) -> Listener:
        raise NotImplementedError


async def test_the_time_to_dial_is_for_all_of_it() -> None:
    """Else this would take another quarter of an hour."""
    route, greeting = Route(Slow(), local=True), hello(["cloudpickle"], security="")
    with pytest.raises(ConnectFailed, match="within 1000 s") as raised:
        await dial(route, "slow://host:1", greeting, Unasked(), timeout=1000)
    assert raised.value.reason == "timeout"


class Broken(Slow):
    """Raises what no transport must."""

    async def connect(self, address: str, *, credentials: object, timeout: float) -> Connection:
        raise TypeError("odd")


async def test_a_transport_that_raises_anything_is_not_the_end_of_a_look_around() -> None:
    routes = Routes(lambda address: Route(Broken(), local=True))
    probe = Probe(routes, Keyring(SameUser()), lambda kind: hello(["cloudpickle"], security=kind))
    seen = await probe.look(WorkerInfo(address="broken://host:1"))
    assert seen.problem == "cannot be dialled: TypeError('odd')"


class Unasked(SameUser):
    """Credentials that anybody has."""

    def check_peer(self, connection: Connection) -> None:
        """Takes whoever it is."""
