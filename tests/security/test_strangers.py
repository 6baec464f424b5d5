"""Strangers, and what they say instead of a handshake: pickles, pieces of it, and far too much."""

from __future__ import annotations

import asyncio
import os
import pickle
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from security.siegekit import (
    RAW,
    Target,
    besieged,
    calling,
    every_channel,
    every_local,
)
from security.siegepeers import (
    Caller,
    Intruder,
    failure,
    greeting,
    opening,
    read,
    recorded,
    side_by_side,
)
from security.siegeproxies import listening
from security.siegewire import HEADERS, PREFACE, Wire, frame
from support.jobs import add
from wool import abc
from wool._peer import handshaking
from wool._protocol import frames as f
from wool._protocol.handshake import Handshake, Role
from wool._worker.transports import Transports
from wool.exceptions import WoolError

# Pickles


def smuggled(target: Target, example: bytes, data: bytes) -> list[list[bytes]]:
    """Messages that bring a pickle where it has no business: before the proof, or a false one."""
    credentials = target.credentials
    hello = f.encode(greeting(credentials))
    false = f.encode(f.Proof(bytes(32)))
    key = os.urandom(16)
    code = f.encode(f.Supply(2, [len(data)], (f.Code(key, (key,)),))) + data
    call = opening(example, data)
    by_code = opening(example, data, routine=f"#{key.hex()}", codes=[f.Code(key, (key,))])
    return [
        [data],
        [struct.pack("<I", len(data)) + data],
        [hello + data],
        [f.encode(greeting(credentials, process=data, nonce=data)), false],
        [f.encode(greeting(credentials, pool=data.decode("latin-1"))), false],
        [f.encode(f.Proof(data))],
        [hello, f.encode(f.Proof(data))],
        [hello, false + data],
        [call],
        [by_code],
        [code],
        [hello, call],
        [hello, code, call],
        [hello, false, call],
        [hello, false, code, by_code],
        [hello, false, f.encode(f.Cancel(1, 0, data))],
        [hello, f.encode(f.Welcome(id="x", host="x", pid=1)), call],
        [call + bytes(5000)],
    ]


@every_channel
async def test_a_pickle_before_authentication(target: Target, folder: Path) -> None:
    """Never runs."""
    trace = folder / "trace"
    example = (await recorded(target))[2]
    routes = Transports({}).routes
    ends: dict[str, None] = {}

    def attack(messages: list[bytes]) -> Callable[[], Awaitable[None]]:
        async def send() -> None:
            stranger = await Caller.at(target, target.wrong, routes)
            await stranger.say(*messages)
            ends[await stranger.end()] = None

        return send

    async with besieged(target):
        pickles = [pickle.dumps(Intruder(trace), protocol) for protocol in (0, 2, 5)]
        attacks = [attack(said) for data in pickles for said in smuggled(target, example, data)]
        assert await side_by_side(attacks) == len(attacks)
        for data in pickles:
            await asyncio.to_thread(raw_pickles, target, data)
    assert not trace.exists()
    assert not [end for end in ends if RAW.search(end) or "Return" in end or "Raise" in end]
    # The same call from somebody who has the secret does run, or this test would prove nothing.
    caller = await Caller.at(target)
    await caller.enter()
    await caller.say(opening(example, pickles[-1]))
    while not [frame for frame in await caller.hear() if isinstance(frame, (f.Return, f.Raise))]:
        pass
    await caller.leave()
    assert trace.exists()


def raw_pickles(target: Target, data: bytes) -> None:
    """Says a pickle on a bare connection, framed as various protocols would."""
    size = len(data)
    shapes = [
        data,
        struct.pack("<I", size) + data,
        struct.pack(">I", size) + data,
        struct.pack("<II", size + 4, size) + data,
        b"POST / HTTP/1.1\r\nContent-Length: %d\r\n\r\n" % size + data,
        PREFACE + frame(4, 0, 0, b"") + frame(1, 4, 1, HEADERS) + frame(0, 1, 1, data),
    ]
    for shape in shapes:
        with Wire(target.address) as wire, suppress(TimeoutError):
            wire.send(shape)
            wire.rest()


@every_channel
async def test_a_pickle_from_a_false_worker(target: Target, folder: Path) -> None:
    """Callers unpickle nothing either before the other side has proved itself."""
    trace = folder / "trace"
    data = pickle.dumps(Intruder(trace))
    hello = f.encode(greeting(target.credentials))
    result = f.encode(f.Return(1, [len(data)], idle_as_of=1)) + data
    error = f.encode(f.Raise(1, [len(data)], idle_as_of=1, summary=f.Summary("x"))) + data
    welcome = f.encode(f.Welcome(id="x", host="x", pid=1))
    false = f.encode(f.Proof(bytes(32)))
    lies = (
        [data],
        [result],
        [hello + data],
        [hello, result],
        [hello, welcome, result],
        [hello, false, welcome, result, error],
        [f.encode(f.Refuse("", data.decode("latin-1")))],
    )

    async def told(said: list[bytes]) -> WoolError:
        async def pretend(connection: abc.Connection) -> None:
            await connection.send([[message] for message in said])
            while True:
                for message in await connection.receive():
                    assert not isinstance(read(message), f.Open)

        async with listening(target.address, pretend, secure=not target.local) as address:
            async with calling(address, target.credentials):
                return await failure(add(1, 2))

    *_, last = errors = await asyncio.gather(*map(told, lies))
    assert not [error for error in errors if RAW.search(str(error))]
    assert not trace.exists()


# Pieces


@every_local
async def test_a_worker_cut_at_every_byte(target: Target) -> None:
    """A worker that knows the secret and hangs up anywhere in the handshake: callers are told."""
    credentials = target.credentials
    places: dict[bytes, tuple[int, int]] = {}

    async def break_off(connection: abc.Connection) -> None:
        (theirs,) = await connection.receive()
        hello = f.decode_handshake(theirs)
        assert isinstance(hello, f.Hello)
        number, size = places[hello.nonce]
        mine = greeting(credentials)
        acceptor = Handshake(Role.ACCEPTOR, mine, credentials.secret, welcome=welcome)
        said = [*acceptor.start(), *acceptor.receive(theirs)]
        if number:
            await connection.send([[message] for message in said])
            (proof,) = await connection.receive()
            said = acceptor.receive(proof)
        before, last = said[: max(0, number - 1)], said[max(0, number - 1)]
        await connection.send([[message] for message in [*before, last[:size]]])

    async def call(number: int, size: int) -> None:
        hello = greeting(credentials)
        places[hello.nonce] = number, size
        error = await failure(handshaking.dial(route, address, hello, credentials))
        assert isinstance(error, WoolError) and not RAW.search(str(error))
        ends[type(error).__name__] = None

    ends: dict[str, None] = {}
    welcome = f.Welcome(id="w", host="h", pid=1)
    whole = greeting(credentials), f.Proof(bytes(32)), welcome
    lengths = [len(f.encode(frame)) for frame in whole]
    async with listening(target.address, break_off, secure=False) as address:
        route = Transports({}).routes.to(address)
        works = [partial(call, n, size) for n in range(3) for size in range(lengths[n])]
        assert await side_by_side(works) == len(works)


# Too much


def peak(target: Target) -> int:
    """The most memory that the worker has had since `forget_peak`, in bytes."""
    for line in Path(f"/proc/{target.pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    raise AssertionError("the kernel does not tell")


def forget_peak(target: Target) -> None:
    Path(f"/proc/{target.pid}/clear_refs").write_text("5")


def flood(wire: Wire, head: bytes) -> int:
    """Sends what begins with `head` until the worker hangs up; returns how many bytes.

    Over TLS it has a second to do so, in which it drops what comes: gigabytes on a fast machine.
    """
    sent = 0
    wire.send(head)
    while wire.send(bytes(1 << 20)):
        sent += 1 << 20
        assert sent < 32 << 30, "nobody minds"
    return sent


@every_channel
@pytest.mark.parametrize(
    "way", ["framing of the transport", "framing of ours", "without framing", "endless request"]
)
async def test_an_announcement_of_gigabytes(target: Target, way: str) -> None:
    """Takes no memory: what is announced is refused, or taken a piece at a time."""

    def attack() -> int:
        with Wire(target.address) as wire:
            if way == "framing of the transport":
                return flood(wire.begin(), wire.announce(3 << 30))
            if way == "framing of ours":
                return flood(wire.begin(), wire.wrap(struct.pack("<I", 3 << 30)))
            if way == "endless request":
                return flood(wire, b"GET / HTTP/1.1\r\nX-Long: ")
            return flood(wire, struct.pack("<I", 3 << 30))

    async with besieged(target):
        forget_peak(target)
        before = peak(target)
        await asyncio.to_thread(attack)
        growth = (peak(target) - before) / (1 << 20)
    assert growth < 16


@every_channel
async def test_a_large_proof(target: Target) -> None:
    """Is not even taken in: whoever has only said hello may send no more than before."""
    async with besieged(target):
        stranger = await Caller.at(target, target.wrong)
        await stranger.proof()
        await stranger.say(f.encode(f.Proof(bytes(32))) + bytes(1 << 16))
        seen = await stranger.end()
    assert seen == "nothing, then the connection ends"


@every_channel
@pytest.mark.parametrize("message", [b"", b"\0", bytes(4)], ids=["empty", "1 byte", "4 bytes"])
async def test_thousands_of_tiny_messages(target: Target, message: bytes) -> None:
    """From somebody who does not read; the first is one too many."""
    async with besieged(target):
        forget_peak(target)
        before = peak(target)
        stranger = await Caller.at(target, target.wrong)
        for _ in range(50):
            await stranger.say(*[message] * 1000)
        await stranger.end()
        growth = (peak(target) - before) / (1 << 20)
    assert growth < 16
