"""Reading that is delegated: over the transports that do so, and what these cannot show."""

from __future__ import annotations

import asyncio
import dis
import itertools
import os
import random
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from types import CodeType, FrameType
from typing import Any

import pytest

from unit.delegationkit import Elsewhere, Ends, Split, elsewhere, ends
from wool._transports import delegation, sockets, unix
from wool._transports.delegation import Delegation
from wool._transports.stream import StreamConnection
from wool._worker.delegating import LASTING, LEAST, MOST, DelegationPolicy
from wool.abc import ConnectionLost
from wool.testing._kit import descriptors
from wool_ws import Options
from wool_ws._transport import WebSocketTransport

TRANSPORTS = [unix.UnixTransport(unix.Options()), WebSocketTransport(Options())]


@pytest.fixture(params=TRANSPORTS, ids=["unix", "ws"])
async def pair(request: pytest.FixtureRequest) -> AsyncIterator[Ends]:
    async with ends(request.param) as both:
        yield both


@pytest.fixture
async def other() -> AsyncIterator[Elsewhere]:
    async with elsewhere() as there:
        yield there


# Over a connection --------------------------------------------------------------------------------


async def send(sender: StreamConnection, *messages: bytes) -> None:
    await sender.send([[message] for message in messages])


async def test_what_arrives_is_given_on_the_other_thread(pair: Ends, other: Elsewhere) -> None:
    """As long as it is taken there."""
    for sender, receiver in (pair, pair[::-1]):
        halves = Split(receiver, other)
        await halves.begin()
        for number in range(100):
            await send(sender, b"%d" % number, b"and more")
            await halves.given(2 * number + 2)
            if not halves.there:  # that thread may not have come to it in time
                halves.delegate()
                await other.free()  # it has heard of it by now
        assert halves.there
        await halves.stop()


async def test_delegating_again_and_again(pair: Ends, other: Elsewhere) -> None:
    """Each message is given once and in order, whichever thread takes it."""
    for sender, receiver in (pair, pair[::-1]):
        halves, luck, sent = Split(receiver, other), random.Random(5), list[bytes]()
        await halves.begin()
        halves.choosy = True
        for number in range(200):
            batch = [
                b"%d," % number * luck.choice((1, 1, 1, 9, 9000, 90_000))
                for _ in range(luck.choice((1, 1, 2, 30)))
            ]
            await send(sender, *batch)
            sent += batch
            if number % 3 == 0:
                await halves.given(len(sent))
            halves.delegate()
        await halves.given(len(sent))
        await halves.stop()
        assert halves.messages == sent


async def test_a_thread_that_is_busy(pair: Ends, other: Elsewhere) -> None:
    """What arrives meanwhile is given by `pump`, which keeps reading."""
    for sender, receiver in (pair, pair[::-1]):
        halves = Split(receiver, other)
        await halves.begin()
        await send(sender, b"before")
        await halves.given(1)
        count = halves.there
        await other.block()
        for number in range(3):
            await send(sender, b"%d" % number)
            await halves.given(number + 2)
        await other.free()
        await send(sender, b"after")
        await halves.given(5)
        assert not receiver.delegated
        assert halves.messages == [b"before", b"0", b"1", b"2", b"after"]
        assert halves.there == count
        await halves.stop()


async def test_a_delegation_ends_with_its_pump(pair: Ends, other: Elsewhere) -> None:
    """Whenever `pump` is cancelled, nothing is lost, nor given to the other thread any more."""
    for sender, receiver in (pair, pair[::-1]):
        luck, sent, got = random.Random(11), list[bytes](), list[bytes]()
        for number in range(100):
            halves = Split(receiver, other)
            await halves.begin()
            batch = [b"%d" % number] * luck.choice((1, 2, 40))
            sending = asyncio.ensure_future(send(sender, *batch))
            sent += batch
            for _ in range(luck.randrange(12)):
                await asyncio.sleep(0)
            await halves.stop()
            got += halves.messages
            await sending
            while len(got) < len(sent):
                got += map(bytes, await receiver.receive())
        assert got == sent


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
@pytest.mark.parametrize("closer", [0, 1], ids=["peer", "own side"])
async def test_closing_what_is_delegated(
    pair: Ends, other: Elsewhere, busy: bool, closer: int
) -> None:
    """`pump` ends with `ConnectionLost`, and the peer sees the end, whichever side closes."""
    sender, receiver = pair
    halves = Split(receiver, other)
    await halves.begin()
    await send(sender, b"the last")
    await halves.given(1)
    if busy:
        await other.block()
    await pair[closer].aclose()
    await halves.lost()
    async with asyncio.timeout(30):
        with pytest.raises(ConnectionLost):
            await sender.receive()
    await other.free()
    assert halves.messages == [b"the last"]


# By itself ----------------------------------------------------------------------------------------


class Reader:
    """A loop on this very thread, on which nothing happens unless `turn` is called."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.raised: list[dict[str, Any]] = []
        self.loop.set_exception_handler(lambda loop, context: self.raised.append(context))

    def turn(self) -> None:
        """Does what is to be done now, twice: what is told to the loop may tell it more."""
        for _ in range(2):
            self.loop.call_soon(self.loop.stop)
            self.loop.run_forever()


class Connection:
    """Bytes that come out of a socket; none is taken from `!` on."""

    def __init__(self, here: Reader, there: Reader) -> None:
        self.peer, self.mine = socket.socketpair()
        self.mine.setblocking(False)
        self.taken: list[bytes] = []
        self.left: list[bytes] = []  # one for each end
        self._rest = b""
        self.aborted = 0
        self.delegation = self.delegate(here, there)

    def delegate(self, here: Reader, there: Reader) -> Delegation:
        own = sockets.duplicate(self.mine)
        try:
            return Delegation(
                own,
                here.loop,
                there.loop,
                read=self.read,
                resume=self.resume,
                abort=self.abort,
            )
        except RuntimeError:
            own.close()
            raise

    def read(self, sock: socket.socket) -> bool:
        try:
            data = sock.recv(16)
        except BlockingIOError:
            return True
        count = self.take(data)
        self._rest = data[count:]
        return bool(data) and not self._rest

    def take(self, data: bytes) -> int:
        count = data.index(b"!") if b"!" in data else len(data)
        self.taken += [bytes([byte]) for byte in data[:count]]
        return count

    def resume(self) -> None:
        self.left.append(self._rest)

    def abort(self) -> None:
        self.aborted += 1

    def close(self) -> None:
        self.peer.close()
        self.mine.close()


@pytest.fixture
def loops() -> Iterator[tuple[Reader, Reader]]:
    here, there = Reader(), Reader()
    yield here, there
    for reader in (here, there):
        reader.loop.close()


@pytest.fixture
def connection(loops: tuple[Reader, Reader]) -> Iterator[Connection]:
    connection = Connection(*loops)
    yield connection
    connection.delegation.end()
    loops[1].turn()
    connection.close()


def test_what_is_taken(connection: Connection, loops: tuple[Reader, Reader]) -> None:
    _, there = loops
    for text in (b"ab", b"c"):
        connection.peer.send(text)
        there.turn()
    assert connection.taken == [b"a", b"b", b"c"]
    assert connection.left == []


@pytest.mark.parametrize(
    ("text", "taken", "left"),
    [
        (b"ab!c", [b"a", b"b"], b"!c"),
        (b"!", [], b"!"),
    ],
)
@pytest.mark.parametrize("ended", [False, True], ids=["by itself", "from here"])
def test_what_is_left(
    connection: Connection,
    loops: tuple[Reader, Reader],
    text: bytes,
    taken: list[bytes],
    left: bytes,
    ended: bool,
) -> None:
    here, there = loops
    connection.peer.send(text)
    there.turn()
    if ended:  # before this loop has heard of it
        connection.delegation.end()
        assert connection.left == [left]
    connection.peer.send(b"more")
    there.turn()
    here.turn()
    connection.delegation.end()
    assert connection.taken == taken
    assert connection.left == [left]
    assert connection.mine.recv(9) == b"more"


def test_the_end_is_left_to_the_connection(
    connection: Connection, loops: tuple[Reader, Reader]
) -> None:
    here, there = loops
    connection.peer.close()
    there.turn()
    here.turn()
    assert connection.left == [b""]
    assert connection.mine.recv(9) == b""


def test_an_end_before_it_has_begun(connection: Connection, loops: tuple[Reader, Reader]) -> None:
    connection.peer.send(b"ab")
    connection.delegation.end()
    assert connection.left == [b""]
    loops[1].turn()
    assert connection.taken == []
    assert connection.mine.recv(9) == b"ab"


SAFE = {"CALL", "CALL_KW", "CALL_FUNCTION_EX", "RESUME", "JUMP_BACKWARD"}
"""Behind these instructions Python handles signals."""


class Signal:
    """Has a handler of a signal raise: in the module that is tested, at the nth chance.

    Attributes:
        place: where it was.
    """

    def __init__(self, nth: int) -> None:
        self.place = ""
        self._left = nth
        self._names: dict[CodeType, dict[int, str]] = {}

    def __enter__(self) -> Signal:
        sys.settrace(self._trace)
        return self

    def __exit__(self, *error: object) -> None:
        sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, arg: object) -> Any:
        if frame.f_code.co_filename != delegation.__file__:
            return None
        frame.f_trace_opcodes = True
        if event == "opcode" and self._before(frame) in SAFE:
            self._left -= 1
            if not self._left:
                self.place = f"{frame.f_code.co_name}:{frame.f_lineno}"
                sys.settrace(None)
                raise TimeoutError("from a handler")
        return self._trace

    def _before(self, frame: FrameType) -> str:
        """Names the instruction before the one that is about to run."""
        if frame.f_code not in self._names:
            found = list(dis.get_instructions(frame.f_code))
            self._names[frame.f_code] = {
                after.offset: before.opname for before, after in itertools.pairwise(found)
            }
        return self._names[frame.f_code].get(frame.f_lasti, "")


@pytest.mark.parametrize("text", [b"ab", b"a!b"])
def test_a_signal_at_any_moment(text: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read is passed on, or the connection is aborted; it never just stops."""
    monkeypatch.setattr(delegation, "LOOK", 0)
    for nth in itertools.count(1):
        here, there = Reader(), Reader()
        connection = Connection(here, there)
        there.turn()
        connection.peer.send(text)
        with Signal(nth) as signal:
            there.turn()
        for _ in range(3):
            here.turn()
            there.turn()
        outcome = [*connection.taken, *connection.left]
        if not connection.aborted:
            assert b"".join(outcome) == text, signal.place
        assert connection.aborted + len(connection.left) + connection.delegation.active == 1
        assert connection.delegation.open == connection.delegation.active, signal.place
        raised = [context["exception"] for context in there.raised + here.raised]
        assert [type(error) for error in raised] == [TimeoutError] * bool(signal.place)
        connection.delegation.end()
        there.turn()
        connection.close()
        here.loop.close()
        there.loop.close()
        if not signal.place:
            break
    assert nth > 4


def test_what_raises_while_something_is_read(loops: tuple[Reader, Reader]) -> None:
    """What was read is lost: the connection must not go on as if nothing had happened."""
    here, there = loops

    class Interrupted(Connection):
        def take(self, data: bytes) -> int:
            raise TimeoutError

    connection = Interrupted(here, there)
    connection.peer.send(b"ab")
    there.turn()
    assert [type(context["exception"]) for context in there.raised] == [TimeoutError]
    here.turn()
    assert (connection.aborted, connection.left) == (1, [])
    connection.delegation.end()
    connection.peer.send(b"cd")
    there.turn()
    assert (connection.aborted, connection.taken, connection.left) == (1, [], [])
    connection.close()


@pytest.mark.filterwarnings("error")
def test_descriptors(connection: Connection) -> None:
    """None is left behind by one that cannot be begun."""
    here, there = Reader(), Reader()
    there.loop.close()
    before = descriptors()
    with pytest.raises(RuntimeError, match="closed"):
        connection.delegate(here, there)
    assert descriptors() <= before  # garbage may have been collected
    here.loop.close()


def test_a_loop_that_is_closed(loops: tuple[Reader, Reader]) -> None:
    here, there = loops
    connection = Connection(here, there)
    there.loop.close()
    connection.delegation.end()
    assert connection.left == [b""]
    with pytest.raises(RuntimeError, match="closed"):
        connection.delegate(here, there)
    connection.close()


def test_the_peer_sees_the_end(connection: Connection, loops: tuple[Reader, Reader]) -> None:
    """Although the other loop has not come round to closing its socket."""
    loops[1].turn()
    connection.delegation.end()
    connection.mine.close()
    connection.delegation.shut()
    assert connection.peer.recv(1) == b""
    loops[1].turn()
    connection.delegation.shut()


def test_end_waits_for_what_is_being_taken(loops: tuple[Reader, Reader]) -> None:
    here, there = loops
    taking, go_on = threading.Event(), threading.Event()

    class Slow(Connection):
        def take(self, data: bytes) -> int:
            taking.set()
            go_on.wait()
            return super().take(data)

    connection = Slow(here, there)
    connection.peer.send(b"a")
    thread = threading.Thread(target=there.turn)
    thread.start()
    taking.wait()
    ending = threading.Thread(target=connection.delegation.end)
    ending.start()
    ending.join(0.02)
    assert ending.is_alive()
    assert connection.left == []
    go_on.set()
    ending.join()
    thread.join()
    assert (connection.taken, connection.left) == ([b"a"], [b""])
    there.turn()
    connection.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks")
@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_process_reads_nothing(
    connection: Connection, loops: tuple[Reader, Reader]
) -> None:
    """Its loop is a copy of ours, and waits for the same sockets."""
    loops[1].turn()
    connection.peer.send(b"ab")
    child = os.fork()
    if not child:
        with suppress(BaseException):
            loops[1].turn()
            os._exit(len(connection.taken))
        os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    loops[1].turn()
    assert connection.taken == [b"a", b"b"]


def test_it_lasts_as_long_as_something_arrives(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delegation, "LOOK", 0.001)
    monkeypatch.setattr(delegation, "QUIET", 0.02)
    here, there = Reader(), Reader()
    connection = Connection(here, there)
    for number in range(12):
        connection.peer.send(b"a")
        there.turn()
        here.loop.run_until_complete(asyncio.sleep(0.004))
        assert len(connection.taken) == number + 1
        assert connection.delegation.active
    while connection.delegation.active:
        here.loop.run_until_complete(asyncio.sleep(0.004))
    assert connection.left == [b""]
    there.turn()
    connection.close()
    here.loop.close()
    there.loop.close()


def test_reading_never_waits(loops: tuple[Reader, Reader]) -> None:
    """Whatever sockets do in this program, and although there may be nothing to read after all."""
    socket.setdefaulttimeout(30)
    try:
        connection = Connection(*loops)
    finally:
        socket.setdefaulttimeout(None)
    loops[1].turn()
    began = time.monotonic()
    connection.delegation._on_readable()
    assert time.monotonic() - began < 20
    assert connection.delegation.active
    connection.delegation.end()
    loops[1].turn()
    connection.close()


def test_what_has_just_arrived_is_left_to_the_other_thread(connection: Connection) -> None:
    """For a moment: only at the second look does it wait for too long."""
    connection.delegation._look()
    connection.peer.send(b"ab")
    connection.delegation._look()
    assert connection.delegation.active
    connection.delegation._look()
    assert connection.left == [b""]
    assert connection.mine.recv(9) == b"ab"


# When it is done ----------------------------------------------------------------------------------


def needed(policy: DelegationPolicy) -> int:
    """Returns how many frames in a row it takes."""
    return next(number for number in itertools.count(1) if policy.should_delegate(alone=True))


def test_frames_in_a_row() -> None:
    policy = DelegationPolicy()
    for _ in range(5):
        for _ in range(LEAST - 1):
            assert not policy.should_delegate(alone=True)
        assert not policy.should_delegate(alone=False)
    assert needed(policy) == LEAST


def test_what_does_not_last() -> None:
    """It takes more and more frames, up to a point; until it has lasted."""
    policy = DelegationPolicy()
    assert needed(policy) == LEAST
    waits = list[int]()
    for taken in (0, LASTING - 1, 0, 0, 0, 0, 0):
        policy.taken = taken
        waits.append(needed(policy))
    assert waits == [LEAST * factor for factor in (2, 4, 8, 16)] + [MOST] * 3
    policy.taken = LASTING
    assert needed(policy) == LEAST
