"""Callers that have the secret and misbehave: they lose their own connection, nobody else does."""

from __future__ import annotations

import os
import pickle
from collections.abc import Awaitable, Callable

from security.siegekit import RAW, Target, besieged, every_channel, served
from security.siegepeers import Caller, opening, recorded, side_by_side
from support.jobs import add
from wool._protocol import frames as f
from wool._worker.transports import Transports

Garbage = Callable[[bytes], list[bytes]]
"""Makes messages, given a good `Open`."""


GARBAGE: dict[str, Garbage] = {
    "nothing": lambda example: [b""],
    "less than a prefix": lambda example: [b"\1\0"],
    "a header of 4 GiB": lambda example: [b"\xff" * 64],
    "random bytes": lambda example: [os.urandom(500)],
    "random header": lambda example: [(200).to_bytes(4, "little") + os.urandom(200)],
    "a nested header": lambda example: [(2000).to_bytes(4, "little") + b"\x91" * 2000],
    "an unknown frame": lambda example: [b"\x03\0\0\0\x92\x7f\x05"],
    "a pickle": lambda example: [pickle.dumps(example)],
    "a second Hello": lambda example: [f.encode(f.Proof(bytes(32)))],
    "a payload for Measure": lambda example: [f.encode(f.Measure()) + b"x"],
    "a call of the other side": lambda example: [opening(example, b"", call=2)],
    "a call twice": lambda example: [opening(example, b"", call=3)] * 2,
    "an answer to nothing": lambda example: [f.encode(f.Return(2))],
    "an answer to itself": lambda example: [example, f.encode(f.Return(1))],
    "a chunk of nothing": lambda example: [f.encode(f.Chunk(99)) + b"x"],
    "credit for nothing": lambda example: [f.encode(f.Credit(99, 1))],
    "a step of nothing": lambda example: [f.encode(f.Resume(99, step=1))],
    "a cancel of nothing": lambda example: [f.encode(f.Cancel(99))],
    "sizes that do not add up": lambda example: [opening(example, b"four", sizes=[3])],
    "more code than there is": lambda example: [opening(example, b"", codes=[f.Code(b"k")] * 9)],
    "a chunk too many": lambda example: [
        opening(example, b"", call=1, sizes=[3]),
        f.encode(f.Chunk(1)) + b"four",
    ],
    "a message of 500 KiB": lambda example: [f.encode(f.Measure()) + bytes(500 << 10)],
}


@every_channel
async def test_garbage_after_authentication(target: Target) -> None:
    """Ends the connection that it came on; the worker does not even complain."""
    example = (await recorded(target))[2]
    routes = Transports({}).routes
    ends: dict[str, str] = {}

    def attack(name: str) -> Callable[[], Awaitable[None]]:
        async def send() -> None:
            caller = await Caller.at(target, routes=routes)
            await caller.enter()
            await caller.say(*GARBAGE[name](example))
            ends[name] = await caller.end()

        return send

    async with besieged(target):
        await side_by_side(map(attack, GARBAGE))
    assert set(ends) == set(GARBAGE)
    assert not [end for end in ends.values() if RAW.search(end)]


@every_channel
async def test_a_payload_of_no_use(target: Target) -> None:
    """A pickle that is none ends its call and not even the connection."""
    example = (await recorded(target))[2]
    bad = [b"", b"\x80", b"no pickle", os.urandom(100), pickle.dumps(add)[:-5], b"(" * 100_000]
    async with besieged(target):
        caller = await Caller.at(target)
        await caller.enter()
        for number, data in enumerate(bad):
            await caller.say(opening(example, data, call=2 * number + 1))
        await caller.say(f.encode(f.Measure()))
        answered: set[int] = set()
        measured = False
        while len(answered) < len(bad) or not measured:
            for frame in await caller.hear():
                measured = measured or isinstance(frame, f.Usage)
                if isinstance(frame, (f.Raise, f.Reject)):
                    answered.add(frame.call)
        await caller.leave()


@every_channel
async def test_a_caller_that_does_not_read(target: Target) -> None:
    """Thousands of calls of somebody who takes no answer: he waits, others are served."""
    example = (await recorded(target))[2]
    opened, payload = f.decode_call(example)
    assert isinstance(opened, f.Open)
    async with besieged(target):
        caller = await Caller.at(target)
        await caller.enter()
        for first in range(1, 4001, 400):
            numbers = range(first, first + 400, 2)
            calls = [opening(example, payload, call=n, sizes=opened.sizes) for n in numbers]
            await caller.say(*calls)
        await served(target)
        await caller.leave()
