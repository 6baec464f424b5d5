"""Exceptions thrown into async generators, and what becomes of them."""

from __future__ import annotations

import asyncio
from traceback import extract_tb
from typing import Any

import pytest

import wool
from contract.routines import (
    tracing,
)
from contract.types import Fatal, KeywordOnly, Plain
from support.parity import Journal, Place, started
from support.waiting import caught

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("place")]


async def test_athrow_is_caught_by_class() -> None:
    class Local(Exception):
        def __init__(self, *, code: int) -> None:
            super().__init__("local")
            self.code = code

    @wool.routine
    async def guarding() -> Any:
        answer: Any = None
        while True:
            try:
                answer = yield answer
            except Local as error:
                answer = ("local", error.code, type(error) is Local)
            except Plain as error:
                answer = ("plain", error.args, getattr(error, "__notes__", None))

    stream = guarding()
    await anext(stream)
    assert await stream.athrow(Local(code=4)) == ("local", 4, True)
    noted = Plain("p")
    noted.add_note("n")
    assert await stream.athrow(noted) == ("plain", ("p",), ["n"])
    await stream.aclose()


@pytest.mark.parametrize(
    "make",
    [
        lambda: ValueError("x", 1),
        lambda: KeywordOnly(code=1),
        lambda: Plain(),
        lambda: asyncio.CancelledError("thrown"),
        lambda: KeyboardInterrupt("k"),
        lambda: SystemExit(3),
        lambda: GeneratorExit("g"),
        lambda: Fatal("f", code=2),
        lambda: ExceptionGroup("g", [ValueError(1)]),
    ],
    ids=lambda make: type(make()).__name__,
)
async def test_athrow_that_comes_back_out_is_the_same_object(make: Any, journal: Journal) -> None:
    stream = tracing(journal)
    await anext(stream)
    error = make()
    error.add_note("the caller's")
    raised = await caught(stream.athrow(error))
    assert raised is error
    assert raised.__notes__ == ["the caller's"]
    assert raised.__cause__ is raised.__context__ is None
    assert journal.lines() == ["step 0", "finally"]
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_athrow_of_what_cannot_travel_comes_back_too(journal: Journal) -> None:
    import threading

    class Locked(Exception):
        def __init__(self) -> None:
            self.lock = threading.Lock()

    stream = tracing(journal)
    await anext(stream)
    error = Locked()
    assert await caught(stream.athrow(error)) is error
    assert journal.lines() == ["step 0", "finally"]


async def test_athrow_that_comes_out_in_a_later_step() -> None:
    @wool.routine
    async def keeping() -> Any:
        kept: BaseException | None = None
        try:
            yield 1
        except ValueError as error:
            kept = error
        yield 2
        assert kept is not None
        raise kept

    stream = keeping()
    await anext(stream)
    error = ValueError("kept")
    assert await stream.athrow(error) == 2
    raised = await caught(anext(stream))
    assert type(raised) is ValueError and raised.args == ("kept",)


@pytest.mark.parametrize("passed", ["directly", "to a routine"])
async def test_what_is_done_to_an_exception_that_was_thrown_in(passed: str) -> None:
    """The one who threw it sees what `raise` and `add_note` do."""

    async def changing() -> Any:
        way: Any = None
        while True:
            try:
                way = yield
            except ValueError as error:
                if way == "noted":
                    error.add_note("on the way")
                    raise
                if way == "caused":
                    raise error from KeyError("cause")
                if way == "causeless":
                    raise error from None
                try:
                    raise KeyError("context")
                except KeyError:
                    raise error  # noqa: B904

    @wool.routine
    async def throw(stream: Any, way: str, error: BaseException) -> BaseException:
        await anext(stream)
        await stream.asend(way)
        raised = await caught(stream.athrow(error))
        assert raised is error
        return raised

    async def outcome(way: str) -> BaseException:
        if passed == "to a routine":
            return await throw(changing(), way, thrown())
        return await throw.__wrapped__(wool.routine(changing)(), way, thrown())

    def thrown() -> ValueError:
        error = ValueError("thrown")
        error.__context__ = error.__cause__ = TypeError("before")
        error.add_note("first")
        return error

    noted, caused, causeless, later = [
        await outcome(way) for way in ("noted", "caused", "causeless", "later")
    ]
    assert noted.__notes__ == ["first", "on the way"]
    assert [type(e.__cause__) for e in (noted, caused, causeless)] == [
        TypeError,
        KeyError,
        type(None),
    ]
    assert [e.__suppress_context__ for e in (noted, caused, causeless, later)] == [True] * 4
    assert type(noted.__context__) is TypeError
    assert type(later.__context__) is KeyError
    for error in (noted, caused, causeless, later):
        assert "way = yield" in [frame.line for frame in extract_tb(error.__traceback__)]


async def test_athrow_that_is_chained() -> None:
    @wool.routine
    async def chaining() -> Any:
        try:
            yield 1
        except ValueError as error:
            raise KeywordOnly(code=2) from error

    stream = chaining()
    await anext(stream)
    thrown = ValueError("thrown")
    raised = await caught(stream.athrow(thrown))
    assert isinstance(raised, KeywordOnly) and raised.code == 2
    assert type(raised.__cause__) is ValueError and raised.__cause__.args == ("thrown",)
    assert raised.__context__ is raised.__cause__
    assert raised.__cause__ is thrown


async def test_athrow_of_nonsense(journal: Journal) -> None:
    stream = tracing(journal)
    await anext(stream)
    with pytest.raises(TypeError, match="exceptions must be classes or instances"):
        await stream.athrow(3)
    await stream.aclose()


async def test_a_cancel_that_crosses_a_value(place: Place, journal: Journal) -> None:
    """It strikes where the generator stands."""
    if not place.remote:
        pytest.skip("nothing crosses here")

    @wool.routine
    async def ticking() -> Any:
        journal.write("started")
        await journal.wait("told")
        journal.write("steps")
        try:
            yield 1
        except asyncio.CancelledError:
            journal.write("cancelled at the yield")
            raise

    step = await started(anext(ticking()), journal)
    journal.write("told")
    journal.block("steps")
    step.cancel("late")
    error = await caught(step)
    assert (type(error), error.args) == (asyncio.CancelledError, ("late",))
    assert journal.lines()[-1] == "cancelled at the yield"
