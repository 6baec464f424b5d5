"""Reading that is delegated: over the transports that do so, and what these cannot show."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator

import pytest

from support.transports import connected
from unit.delegationkit import Elsewhere, Ends, Split, elsewhere
from wool._transports import unix
from wool._transports.stream import StreamConnection
from wool._worker.delegating import LASTING, LEAST, MOST, DelegationPolicy
from wool.abc import ConnectionLost
from wool_ws import Options
from wool_ws._transport import WebSocketTransport

TRANSPORTS = [unix.UnixTransport(unix.Options()), WebSocketTransport(Options())]


@pytest.fixture(params=TRANSPORTS, ids=["unix", "ws"])
async def pair(request: pytest.FixtureRequest) -> AsyncIterator[Ends]:
    async with connected(request.param) as both:
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
    """Messages that arrive meanwhile are given by `pump`, which keeps reading."""
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
