"""Values and exceptions that cannot travel: an error for their call, and for nothing else.

Where `transport` is a parameter the test runs on worker processes and inside of this one.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, AsyncIterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

import wool
from support.jobs import add, hold
from support.pools import ASIDE_AND_WITHIN, opened, unharmed
from support.waiting import caught, pid_in, until
from wool._values import codec

pytestmark = pytest.mark.timeout(120)

both = pytest.mark.parametrize("transport", ASIDE_AND_WITHIN)


async def fails(awaitable: Any, named: str = "") -> None:
    """Checks for a `SerializationError`; nothing else may escape, least of all to pytest."""
    error = await caught(awaitable)
    assert isinstance(error, wool.SerializationError), repr(type(error))
    assert named in str(error)


def explode(error: BaseException) -> None:
    raise error


class FailsToPickle:
    def __reduce__(self) -> Any:
        raise ValueError("reduce says no")


class FailsToUnpickle:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __reduce__(self) -> Any:
        return explode, (self.error,)


class FailsInSetstate:
    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def __setstate__(self, state: dict[str, Any]) -> None:
        raise state["error"]("setstate says no")


class Deadly:
    def __init__(self, status: int) -> None:
        self.status = status

    def __reduce__(self) -> Any:
        return os._exit, (self.status,)


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


@wool.routine
async def take(subject: Any, *rest: Any, **named: Any) -> str:
    return type(subject).__name__


@wool.routine
async def give(kind: str) -> Any:
    return BAD_RESULTS[kind]()


@wool.routine
async def give_in_steps(kind: str, path: Path):
    try:
        yield 1
        yield BAD_RESULTS[kind]()
        yield 2
    finally:
        path.touch()


BAD_ARGUMENTS: dict[str, Any] = {
    "lock": threading.Lock,
    "lock deep inside": lambda: {"a": [1, {"b": threading.Lock()}]},
    "reduce raises": FailsToPickle,
    "too deep": lambda: nested(200_000),
    "unpickling raises": lambda: FailsToUnpickle(ValueError("not here")),
    "unpickling raises KeyboardInterrupt": lambda: FailsToUnpickle(KeyboardInterrupt()),
    "unpickling raises CancelledError": lambda: FailsToUnpickle(asyncio.CancelledError()),
    "unpickling raises StopIteration": lambda: FailsToUnpickle(StopIteration(3)),
    "setstate raises SystemExit": lambda: FailsInSetstate(SystemExit),
    "setstate raises KeyboardInterrupt": lambda: FailsInSetstate(KeyboardInterrupt),
    "setstate raises GeneratorExit": lambda: FailsInSetstate(GeneratorExit),
}
BAD_RESULTS = BAD_ARGUMENTS
FOUND_BY_CALLER = {"lock", "lock deep inside", "reduce raises", "too deep"}


@both
async def test_bad_argument(transport: str, folder: Path) -> None:
    """`SerializationError`, naming what the caller can know; worker, connection, pool go on."""
    async with unharmed(folder, transport):
        for kind, make in BAD_ARGUMENTS.items():
            subject, keyed = ("subject", "keyed") if kind in FOUND_BY_CALLER else ("", "")
            await fails(take(make()), subject)
            await fails(take(subject=make()), subject)
            await fails(take(1, keyed=make()), keyed)
            assert await take("fine") == "str"


@both
async def test_bad_result(transport: str, folder: Path) -> None:
    """The same for a result, whether it fails on the worker or here.

    What asks this very process to end while the caller unpickles may pass through to the await.
    """
    async with unharmed(folder, transport):
        for kind in BAD_RESULTS:
            allowed: tuple[type[BaseException], ...] = (wool.SerializationError,)
            if "SystemExit" in kind:
                allowed += (SystemExit,)
            if "KeyboardInterrupt" in kind:
                allowed += (KeyboardInterrupt,)
            assert isinstance(await caught(give(kind)), allowed), kind


@both
async def test_bad_value_in_a_stream(transport: str, folder: Path) -> None:
    """The step fails, and the stream is finished on both sides: its `finally` has run."""
    async with unharmed(folder, transport):
        for kind in "lock", "unpickling raises":
            stream = give_in_steps(kind, folder / kind)
            assert await anext(stream) == 1
            await fails(anext(stream))
            await stream.aclose()
            await until((folder / kind).exists, what="the remote `finally`")
            with pytest.raises(StopAsyncIteration):
                await anext(stream)


@both
async def test_bad_value_sent_to_a_stream(transport: str, folder: Path) -> None:
    """A value that `asend` cannot carry fails there; the stream can be closed."""
    async with unharmed(folder, transport):
        for kind in "lock", "unpickling raises", "setstate raises KeyboardInterrupt":
            stream = give_in_steps("lock", folder / kind)
            assert await anext(stream) == 1
            await fails(stream.asend(BAD_ARGUMENTS[kind]()))
            await stream.aclose()
            await until((folder / kind).exists, what="the remote `finally`")


class Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text either")


class RaisesWhenPickled:
    def __init__(self, error: BaseException) -> None:
        self.error = error

    def __reduce__(self) -> Any:
        raise self.error


BAD_VARIABLES: dict[str, Any] = {
    "exits": lambda: RaisesWhenPickled(SystemExit(3)),
    "is cancelled": lambda: RaisesWhenPickled(asyncio.CancelledError()),
    "closes": lambda: RaisesWhenPickled(GeneratorExit()),
    "cannot say why": lambda: RaisesWhenPickled(Unprintable()),
    "cannot say why when rebuilt": lambda: FailsToUnpickle(Unprintable()),
}
variable: ContextVar[Any] = ContextVar("variable", default=None)


@wool.routine
async def set_variable(kind: str) -> str:
    variable.set(BAD_VARIABLES[kind]())
    return kind


@wool.routine
async def set_in_a_step(kind: str) -> AsyncGenerator[str, None]:
    yield "before"
    variable.set(BAD_VARIABLES[kind]())
    yield kind


@both
@pytest.mark.parametrize("kind", BAD_VARIABLES)
async def test_bad_value_of_a_context_variable(kind: str, transport: str, folder: Path) -> None:
    """It stays where it is, which is told once; neither call nor step fails."""
    async with unharmed(folder, transport):
        with pytest.warns(wool.ContextWarning, match="variable"):
            assert await set_variable(kind) == kind
        assert [value async for value in set_in_a_step(kind)] == ["before", kind]
        variable.set(BAD_VARIABLES[kind]())
        assert await add(1, 2) == 3


async def live() -> AsyncIterator[int]:
    yield 1


@both
async def test_too_many_live_objects(
    transport: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(codec, "MOST_OBJECTS", 100)
    async with unharmed(folder, transport):
        await fails(take([live() for _ in range(101)]), "argument 'subject' (list)")
        assert await take([live() for _ in range(100)]) == "list"


@pytest.mark.usefixtures("ends_are_known")
async def test_argument_that_kills_its_worker(folder: Path) -> None:
    """Unpickling calls `os._exit`: that is a death, told as such, of that worker only."""
    async with opened(concurrency=1) as pool:  # what has not begun goes to no busy worker
        beside = asyncio.ensure_future(hold(folder / "pid", folder / "go"))
        victim_of_chance = await pid_in(folder / "pid")
        async with asyncio.timeout(20):
            with pytest.raises(wool.WorkerLost) as raised:
                await take(Deadly(9))
        assert raised.value.exitcode == 9
        assert raised.value.pid != victim_of_chance, "the least loaded worker was not chosen"
        await pool.wait(2, timeout=30)
        (folder / "go").touch()
        assert await beside == victim_of_chance
        assert await add(1, 2) == 3


# Exceptions


class WithLock(Exception):
    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.lock = threading.Lock()
        self.code = 7


class ReduceRaises(Exception):
    def __reduce__(self) -> Any:
        raise ValueError("reduce says no")


class StrRaises(Exception):
    def __str__(self) -> str:
        raise ValueError("str says no")

    __repr__ = __str__


class InitRaises(Exception):
    """Cannot be made again in another process."""

    def __init__(self, message: str, pid: int) -> None:
        if pid != os.getpid():
            raise ValueError("not here")
        super().__init__(message, pid)


class FailsToLoad(Exception):
    def __reduce__(self) -> Any:
        return explode, (SystemExit(4),)


def unpicklable_class() -> type[Exception]:
    """A class that no serializer can describe."""

    class Homeless(Exception):
        lock = threading.Lock()

    return Homeless


def long_chain() -> Exception:
    error = ValueError("last")
    link: BaseException = error
    for i in range(2000):
        link.__cause__ = ValueError(f"link {i}")
        link = link.__cause__
    return error


ERRORS: dict[str, Any] = {
    "with lock": lambda: WithLock("on purpose"),
    "reduce raises": lambda: ReduceRaises("on purpose"),
    "str raises": lambda: StrRaises("on purpose"),
    "init raises": lambda: InitRaises("on purpose", os.getpid()),
    "unpicklable class": lambda: unpicklable_class()("on purpose"),
    "fails to load": lambda: FailsToLoad("on purpose"),
    "lock among the arguments": lambda: ValueError("on purpose", threading.Lock()),
    "group with a bad member": lambda: ExceptionGroup(
        "group", [ValueError("good"), WithLock("bad"), unpicklable_class()("worse")]
    ),
    "long chain": long_chain,
}
AS_THEMSELVES = {
    "with lock": WithLock,
    "str raises": StrRaises,
    "lock among the arguments": ValueError,
    "group with a bad member": ExceptionGroup,
    "long chain": ValueError,
}


@wool.routine
async def fail(kind: str) -> None:
    error = ERRORS[kind]()
    raise error


@wool.routine
async def fail_in_steps(kind: str):
    yield 1
    error = ERRORS[kind]()
    raise error


@both
async def test_exception_of_every_odd_kind(transport: str, folder: Path) -> None:
    """The same class wherever it can be rebuilt, else `RemoteError` that tells what it was."""
    async with unharmed(folder, transport):
        for kind, make in ERRORS.items():
            error = await caught(fail(kind))
            stream = fail_in_steps(kind)
            assert await anext(stream) == 1
            error_of_step = await caught(anext(stream))
            for found in (error, error_of_step):
                if kind in AS_THEMSELVES:
                    assert type(found) is AS_THEMSELVES[kind], repr(type(found))
                else:
                    original = make() if kind != "unpicklable class" else None
                    name = type(original).__name__ if original is not None else "Homeless"
                    if isinstance(found, wool.RemoteError):
                        assert name in found.type_name
                        assert "on purpose" in found.message
                        assert "raise error" in found.traceback
                    else:
                        assert type(found).__name__ == name
                        assert "on purpose" in found.args


@both
async def test_what_an_odd_exception_keeps(transport: str, folder: Path) -> None:
    """Arguments and attributes arrive; what cannot travel is left out, not the rest with it."""
    async with unharmed(folder, transport):
        error = await caught(fail("with lock"))
        assert isinstance(error, WithLock)
        assert error.args == ("on purpose",) and error.code == 7
        error = await caught(fail("group with a bad member"))
        assert isinstance(error, ExceptionGroup)
        good, bad, worse = error.exceptions
        assert type(good) is ValueError and good.args == ("good",)
        assert type(bad) is WithLock and bad.args == ("bad",)
        assert "worse" in str(worse)
