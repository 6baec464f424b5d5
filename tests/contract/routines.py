"""Routines that workers import; those made in closures are in the tests themselves."""

from __future__ import annotations

import asyncio
import contextvars
import os
from collections.abc import AsyncIterator, Callable
from typing import Any

import wool
from support.parity import Journal
from support.waiting import forever, turns

# Calls


@wool.routine
async def add(x: int, y: int = 2) -> int:
    """Add two numbers."""
    return x + y


@wool.routine
async def echo(value: Any) -> Any:
    return value


@wool.routine
async def parameters(
    a: Any, b: Any = "b", /, c: Any = "c", *args: Any, d: Any, e: Any = "e", **rest: Any
) -> Any:
    return (a, b, c, args, d, e, rest)


@wool.routine
async def collect(*args: Any, **kwargs: Any) -> Any:
    return args, kwargs


@wool.routine
async def apply(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call something inside the routine, and await what it returns if need be."""
    result = function(*args, **kwargs)
    if asyncio.iscoroutine(result):
        result = await result
    return result


@wool.routine
async def process_id() -> int:
    return os.getpid()


async def serving() -> None:
    """Assert that routines are served, by every worker there is."""
    assert await asyncio.gather(*(add(n, 1) for n in range(8))) == list(range(1, 9))


class Account:
    """Methods in either decorator order."""

    currency = "EUR"

    def __init__(self, balance: int = 0) -> None:
        self.balance = balance

    @wool.routine
    async def deposit(self, amount: int) -> int:
        """Put something in."""
        self.balance += amount
        return self.balance

    @wool.routine
    async def statement(self, *amounts: int) -> AsyncIterator[int]:
        for amount in amounts:
            self.balance += amount
            yield self.balance

    @classmethod
    @wool.routine
    async def named_inside(cls, suffix: str) -> str:
        return cls.currency + suffix

    @wool.routine
    @classmethod
    async def named_outside(cls, suffix: str) -> str:
        return cls.currency + suffix

    @staticmethod
    @wool.routine
    async def sum_inside(x: int, y: int) -> int:
        return x + y

    @wool.routine
    @staticmethod
    async def sum_outside(x: int, y: int) -> int:
        return x + y

    @classmethod
    @wool.routine
    async def stream_inside(cls, n: int) -> AsyncIterator[str]:
        for i in range(n):
            yield f"{cls.currency}{i}"

    @wool.routine
    @staticmethod
    async def stream_outside(n: int) -> AsyncIterator[int]:
        for i in range(n):
            yield i

    @wool.routine
    async def __call__(self, amount: int) -> int:
        return self.balance + amount


class Savings(Account):
    currency = "CHF"

    @wool.routine
    async def deposit(self, amount: int) -> int:
        return 10 * await super().deposit(amount)

    @wool.routine
    async def statement(self, *amounts: int) -> AsyncIterator[int]:
        async for balance in super().statement(*amounts):
            yield -balance


# Exceptions


@wool.routine
async def fail(error: BaseException | type[BaseException]) -> None:
    raise error


@wool.routine
async def fail_with(make: Callable[..., BaseException], *args: Any, **kwargs: Any) -> None:
    raise make(*args, **kwargs)


@wool.routine
async def stream_fail(error: BaseException | type[BaseException], n: int = 1) -> AsyncIterator[int]:
    for i in range(n):
        yield i
    raise error


def third_floor(text: str) -> None:
    raise ValueError(text)  # third floor


def second_floor(text: str) -> None:
    third_floor(text)  # second floor


@wool.routine
async def first_floor(text: str) -> None:
    second_floor(text)  # first floor


@wool.routine
async def ground_floor(text: str) -> None:
    await first_floor(text)  # ground floor


@wool.routine
async def replaced(text: str) -> None:
    try:
        third_floor(text)
    except ValueError as error:
        raise LookupError("replaced") from error


@wool.routine
async def stream_floor(text: str) -> AsyncIterator[int]:
    yield 1
    second_floor(text)


# Cancellation


@wool.routine
async def hang(journal: Journal, name: str = "") -> None:
    """Tell when it has started and when it has cleaned up."""
    journal.write("started" + name)
    try:
        await forever()
    finally:
        journal.write("finally" + name)


@wool.routine
async def hang_and_tidy(journal: Journal, after: int = 20) -> None:
    """Clean up with awaits."""
    journal.write("started")
    try:
        await forever()
    finally:
        for _ in range(after):
            await asyncio.sleep(0.001)
        journal.write("finally")


@wool.routine
async def hang_and_swallow(journal: Journal, value: Any = "swallowed") -> Any:
    journal.write("started")
    try:
        await forever()
    except asyncio.CancelledError:
        journal.write("finally")
        return value


@wool.routine
async def hang_and_raise(journal: Journal, error: BaseException) -> None:
    journal.write("started")
    try:
        await forever()
    except asyncio.CancelledError:
        journal.write("finally")
        raise error  # the implicit context is what the tests look at


@wool.routine
async def finish_when(journal: Journal, line: str, value: Any = None) -> Any:
    """Return once somebody has written `line`."""
    journal.write("started")
    await journal.wait(line)
    journal.write("finished")
    return value


@wool.routine
async def write(journal: Journal, line: str) -> None:
    journal.write(line)


# Generators


@wool.routine
async def count(n: int, start: int = 0) -> AsyncIterator[int]:
    for i in range(start, start + n):
        yield i


@wool.routine
async def echoing() -> Any:
    """Answer each value sent with that value."""
    sent = yield "ready"
    while sent != "stop":
        sent = yield sent


@wool.routine
async def tracing(journal: Journal, n: int = 3) -> AsyncIterator[int]:
    """Tell of every step and of the clean-up, which takes a while."""
    try:
        for i in range(n):
            journal.write(f"step {i}")
            yield i
        journal.write("exhausted")
    finally:
        await turns(3)
        journal.write("finally")


@wool.routine
async def stalling(journal: Journal) -> AsyncIterator[str]:
    """One value, then no more."""
    try:
        yield "first"
        journal.write("started")
        await forever()
    finally:
        await turns(3)
        journal.write("finally")


ambient: contextvars.ContextVar[str] = contextvars.ContextVar("ambient", default="unset")


# Nesting


@wool.routine
async def fib(n: int) -> int:
    if n < 2:
        return n
    left, right = await asyncio.gather(fib(n - 1), fib(n - 2))
    return left + right


@wool.routine
async def descend(depth: int) -> int:
    return 0 if depth == 0 else 1 + await descend(depth - 1)


@wool.routine
async def fail_below(depth: int, error: BaseException) -> None:
    if depth == 0:
        raise error
    try:
        await fail_below(depth - 1, error)
    except BaseException as raised:
        raised.add_note(f"seen at {depth}")
        raise


@wool.routine
async def is_even(n: int) -> bool:
    return True if n == 0 else await is_odd(n - 1)


@wool.routine
async def is_odd(n: int) -> bool:
    return False if n == 0 else await is_even(n - 1)


# Leftovers

_leftovers: set[asyncio.Task[Any]] = set()


@wool.routine
async def leave_behind(journal: Journal) -> str:
    """Return while a task of its own goes on."""

    async def later() -> None:
        await journal.wait("go on")
        journal.write(f"result {await add(20, 22)}")

    task = asyncio.get_running_loop().create_task(later())
    _leftovers.add(task)
    task.add_done_callback(_leftovers.discard)
    return "returned"


@wool.routine
async def stream_with_task(journal: Journal) -> AsyncIterator[str]:
    """A task of the generator runs while the generator is suspended."""

    async def meanwhile() -> None:
        await journal.wait("go on")
        journal.write("meanwhile")

    task = asyncio.get_running_loop().create_task(meanwhile())
    yield "suspended"
    await task
    yield "joined"
