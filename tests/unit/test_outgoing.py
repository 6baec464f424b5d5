"""Cancelled steps, where the answer of the worker crosses the cancel."""

from __future__ import annotations

import asyncio
from typing import Any

from wool._peer.outgoing import Cancelled, Failed, OutgoingCall, Reply, Request
from wool._peer.prefetch import PrefetchCall
from wool._protocol import frames as f
from wool._protocol.frames import CallOptions
from wool._values.context import Change
from wool.exceptions import WorkerLost


class Worker:
    """A client whose worker answers a cancel with what it was given."""

    def __init__(self, answer: Any) -> None:
        self.loop = asyncio.get_running_loop()
        self.cancel_grace = CallOptions().cancel_grace
        self.answer = answer
        self.cancels: list[bytes | None] = []

    def cancel(self, exchange: OutgoingCall, message: bytes | None) -> None:
        self.cancels.append(message)
        exchange.end(self.answer)


def returned(delivered: int = 0, uncancelled: int = 0) -> Reply:
    return Reply(f.Return(1, delivered=delivered, uncancelled=uncancelled), [])


async def cancelled(answer: Any) -> tuple[Any, int, Worker]:
    """Cancels a waiting call; returns its outcome, the task's cancel count and the worker."""
    worker: Any = Worker(answer)
    exchange = OutgoingCall(worker, Request("", "f"))
    counts: list[int] = []

    async def wait() -> Any:
        outcome = await exchange.wait()
        task = asyncio.current_task()
        assert task is not None
        counts.append(task.cancelling())
        return outcome

    task = asyncio.create_task(wait())
    await asyncio.sleep(0)
    task.cancel("why")
    return await task, counts[0], worker


async def test_a_cancel_that_crosses_the_result_wins() -> None:
    outcome, _, worker = await cancelled(returned())
    assert isinstance(outcome, Cancelled)
    assert outcome.error.args == ("why",)
    assert not outcome.open
    assert len(worker.cancels) == 1


async def test_a_cancel_that_crosses_a_yielded_value_leaves_the_stream_open() -> None:
    outcome, _, _ = await cancelled(Reply(f.Value(1), []))
    assert isinstance(outcome, Cancelled)
    assert outcome.open


async def test_a_reply_of_the_same_turn_is_not_lost() -> None:
    worker: Any = Worker(None)
    exchange = OutgoingCall(worker, Request("", "f"))
    task = asyncio.create_task(exchange.wait())
    await asyncio.sleep(0)
    task.cancel()
    exchange.end(returned(delivered=0))
    assert isinstance(await task, Cancelled)
    assert worker.cancels == []


# Streams whose worker runs ahead


def prefetch_exchange(worker: Any, prefetch: int = 8) -> PrefetchCall:
    exchange = PrefetchCall(worker, Request("", "f", stream=True, prefetch=prefetch))
    exchange.number = 1
    return exchange


def value(number: int, step: int = 0, delivered: int = 0) -> Reply:
    return Reply(f.Value(1, step=step, delivered=delivered), [b"x" * number])


async def test_a_cancel_that_crosses_a_value_drops_it_and_what_came_with_it() -> None:
    crossing = Reply(f.Value(1), [], context=[Change(f.Variable((), b"", 0))])
    exchange = prefetch_exchange(Worker(crossing))
    task = asyncio.create_task(exchange.wait())
    await asyncio.sleep(0)
    task.cancel()
    outcome = await task
    assert isinstance(outcome, Cancelled)
    assert outcome.open
    assert not outcome.context
    assert exchange.begin_close()
    exchange.next_step()
    exchange.end(value(2))
    exchange.end(value(3, step=1))
    assert await exchange.wait() == value(3, step=1)


async def test_values_come_before_the_loss_of_the_worker() -> None:
    exchange = prefetch_exchange(Worker(None))
    for outcome in (value(1), value(2), Failed(WorkerLost("gone"))):
        exchange.end(outcome)
    outcomes = [await exchange.wait() for _ in range(3)]
    assert [type(outcome) for outcome in outcomes] == [Reply, Reply, Failed]


async def test_the_worker_is_asked_for_several_at_once() -> None:
    exchange = prefetch_exchange(Worker(None), prefetch=8)
    for _ in range(9):
        exchange.end(value(1))
    asked = []
    for _ in range(9):
        await exchange.wait()
        asked.append(exchange.ask(urgent=False))
    assert asked == [0, 0, 0, 4, 0, 0, 0, 4, 0]  # it runs ahead without the last one
    assert exchange.ask(urgent=True) == 2
