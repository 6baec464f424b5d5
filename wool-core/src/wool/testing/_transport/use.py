"""Random use of a connection, against a model of what may arrive."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule

from wool.abc import ConnectionLost, MessageTooLarge
from wool.testing._kit import remedy, turns
from wool.testing._random import use_randomly
from wool.testing._transport.base import Base, End, Site

T = TypeVar("T")
ENDS = st.sampled_from((0, 1))
SIZES = st.sampled_from((0, 1, 5, 200, 4096, 5000, 70_000, 400_000))
SETTINGS = settings(
    max_examples=80,
    stateful_step_count=25,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],  # a failure may wait: do not shrink it
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)


class Random(RuleBasedStateMachine):
    """Two ends that send, receive, cancel and close as they like.

    It runs in a thread of its own, and what it does in the loop of the test. `sent[n]` and `got[n]`
    is what end `n` has sent and received.
    """

    def __init__(self, site: Site, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self.loop = loop
        self.ends: list[End] = self.run(site.link())
        self.sent: tuple[list[bytes], list[bytes]] = ([], [])
        self.got: tuple[list[bytes], list[bytes]] = ([], [])
        self.closed = [False, False]
        self.complete = [True, True]  # whether all that was sent must arrive
        self.number = 0  # of messages made
        self.has_sent_too_much = False

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result()

    def teardown(self) -> None:
        self.run(self.finish())

    def batch(self, sizes: list[int]) -> list[bytes]:
        """Messages that differ."""
        messages: list[bytes] = []
        for size in sizes:
            self.number += 1
            messages.append((self.number.to_bytes(4, "big") * (size // 4 + 1))[:size])
        return messages

    def expect(self, end: int, messages: list[bytes]) -> None:
        """Checks what an end has received against what the other one has sent."""
        got, sent = self.got[end], self.sent[1 - end]
        assert messages == sent[len(got) : len(got) + len(messages)], "not what was sent"
        got += messages

    def waiting(self, end: int) -> int:
        """How many messages are on their way to an end."""
        return len(self.sent[1 - end]) - len(self.got[end])

    @rule(end=ENDS, sizes=st.lists(SIZES, max_size=5))
    def send(self, end: int, sizes: list[int]) -> None:
        """A batch."""
        self.run(self._send(end, self.batch(sizes)))

    async def _send(self, end: int, messages: list[bytes]) -> None:
        """The other end receives if there is no other way: nobody says how much is buffered."""
        sending = asyncio.ensure_future(self.ends[end].send(*messages))
        if any(self.closed):
            self.complete = [False, False]  # it cannot arrive, and may end the connection early
        else:
            self.sent[end].extend(messages)
            while not (await asyncio.wait([sending], timeout=0.1))[0]:
                if self.waiting(1 - end):
                    self.expect(1 - end, await self.ends[1 - end].receive())
        try:
            await sending
            assert not self.closed[end], "send on a connection that was closed"
        except ConnectionLost:
            assert any(self.closed), "the connection was lost"

    @precondition(lambda self: not self.has_sent_too_much)
    @rule(end=ENDS)
    def send_too_much(self, end: int) -> None:
        """Nothing of the batch is sent. Once is enough, for it may take a while."""
        self.has_sent_too_much = True
        size = self.ends[end].connection.max_message_size + 1
        piece = bytes(1 << 20)
        large = [piece] * (size // len(piece)) + [piece[: size % len(piece)]]
        errors = (MessageTooLarge, ConnectionLost) if any(self.closed) else (MessageTooLarge,)
        with pytest.raises(errors):
            self.run(self.ends[end].send_batch([[b"none"], large]))

    @precondition(lambda self: not any(self.closed))
    @rule(end=ENDS)
    def receive(self, end: int) -> None:
        """If there is something."""
        if self.waiting(end):
            self.expect(end, self.run(self.ends[end].receive()))

    @rule(end=ENDS, before=st.integers(0, 5))
    def receive_and_cancel(self, end: int, before: int) -> None:
        """After some turns of the loop; there may be something or not."""
        self.run(self._receive_and_cancel(end, before))

    async def _receive_and_cancel(self, end: int, before: int) -> None:
        receiving = asyncio.ensure_future(self.ends[end].connection.receive())
        await turns(before)
        receiving.cancel()
        await asyncio.wait([receiving], timeout=self.ends[end].patience)
        assert receiving.done(), "a cancelled receive goes on"
        if receiving.cancelled():
            return
        if receiving.exception() is None:
            self.expect(end, [bytes(message) for message in receiving.result()])
        else:
            assert isinstance(receiving.exception(), ConnectionLost)
            assert any(self.closed), "the connection was lost"

    @precondition(lambda self: self.number > 10)
    @rule(end=ENDS)
    def close(self, end: int) -> None:
        """Perhaps again."""
        self.run(self._close(end))

    async def _close(self, end: int) -> None:
        if any(self.closed):
            if not self.closed[end]:
                self.complete = [False, False]
            await self.ends[end].aclose()
        else:
            if self.waiting(end):
                self.complete[1 - end] = False  # some networks drop what is under way both ways
            waiting = self.sent[end][len(self.got[1 - end]) :]
            if sum(map(len, waiting)) < 4096:
                await self.ends[end].aclose()
            else:  # somebody has to take it
                _, got = await asyncio.gather(self.ends[end].aclose(), self.ends[1 - end].rest())
                self.expect(1 - end, got)
        self.closed[end] = True

    async def finish(self) -> None:
        """Closes, and receives what is left: all of it, unless nobody could promise that."""
        first = self.closed.index(True) if any(self.closed) else 0
        if not any(self.closed):
            if self.waiting(first):
                self.expect(first, await self.ends[first].read(self.waiting(first)))
            await self._close(first)
        self.expect(1 - first, await self.ends[1 - first].rest())
        if self.complete[1 - first]:
            assert not self.waiting(1 - first), "messages are lost"
        await self.ends[1 - first].aclose()
        await self.ends[first].rest()


class Use(Base):
    """Part of `TransportSuite`."""

    @remedy("Repeat by hand the steps that are printed above; what the last one shows is wrong.")
    async def test_random_use(self, site: Site) -> None:
        """Whatever the two ends do, what arrives is what was sent, in order, from the start."""
        loop = asyncio.get_running_loop()
        await asyncio.to_thread(use_randomly, lambda: Random(site, loop), SETTINGS)
