"""Tracebacks: the frames of the routine with their source lines, and none of Wool's own."""

from __future__ import annotations

import asyncio
import linecache
import logging
import os
import socket
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import wool
from contract import routines
from contract.routines import (
    first_floor,
    ground_floor,
    replaced,
    serving,
    stream_floor,
)
from support.parity import NEAR, Journal, Place, started
from support.waiting import caught

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.usefixtures("place"),
    pytest.mark.parametrize("place", NEAR, indirect=True, scope="module"),
]

WOOL = str(Path(wool.__file__).parent) + os.sep


def family(error: BaseException) -> Iterator[BaseException]:
    """An exception, its causes and contexts, and the members of groups."""
    yield error
    for other in (error.__cause__, error.__context__):
        if other is not None:
            yield from family(other)
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            yield from family(member)


def functions(error: BaseException) -> list[str]:
    return [frame.name for frame in traceback.extract_tb(error.__traceback__)]


def assert_hidden(error: BaseException) -> None:
    """Assert that no frame of Wool's shows, in the objects or in the text."""
    for member in family(error):
        for frame, _ in traceback.walk_tb(member.__traceback__):
            assert not frame.f_code.co_filename.startswith(WOOL), frame.f_code
    assert WOOL not in "".join(traceback.format_exception(error))


async def test_frames_and_source_lines() -> None:
    error = await caught(first_floor("boom"))
    text = "".join(traceback.format_exception(error))
    assert functions(error)[-3:] == ["first_floor", "second_floor", "third_floor"]
    for line in (
        "raise ValueError(text)  # third floor",
        "third_floor(text)  # second floor",
        "second_floor(text)  # first floor",
    ):
        assert line in text
    assert f'File "{routines.__file__}"' in text
    assert text.startswith("Traceback (most recent call last):\n")
    assert text.rstrip().splitlines()[-1] == "ValueError: boom"
    assert_hidden(error)


async def test_the_callers_frame_comes_first() -> None:
    error = await caught(first_floor("boom"))
    assert functions(error)[0] == "caught"

    async def caller() -> None:
        await first_floor("boom")

    names = functions(await caught(caller()))
    assert names[:2] == ["caught", "caller"]
    assert names[-1] == "third_floor"


async def test_where_a_cancel_struck(journal: Journal) -> None:
    """A time limit says what was too slow: in a call, in calls below it and in a stream."""

    @wool.routine
    async def slow() -> None:
        journal.write("started")
        await asyncio.Event().wait()  # too slow

    @wool.routine
    async def above() -> None:
        await slow()

    @wool.routine
    async def stream() -> Any:
        yield 1
        await above()

    async def drain() -> None:
        async for _ in stream():
            pass

    for awaitable in slow(), above(), drain():
        task = await started(awaitable, journal)
        task.cancel("enough")
        cancelled = await caught(task)
        assert cancelled.args == ("enough",)
        assert functions(cancelled)[-2:] == ["slow", "wait"]
        assert "# too slow" in "".join(traceback.format_exception(cancelled))
        assert_hidden(cancelled)


async def test_frames_of_a_closure() -> None:
    def helper(n: int) -> float:
        return 1 / n  # in the helper

    @wool.routine
    async def divide(n: int) -> float:
        return helper(n)  # in the routine

    error = await caught(divide(0))
    text = "".join(traceback.format_exception(error))
    assert functions(error)[-2:] == ["divide", "helper"]
    assert "return 1 / n  # in the helper" in text
    assert "return helper(n)  # in the routine" in text
    assert f'File "{__file__}"' in text
    assert_hidden(error)


async def test_frames_across_nested_routines() -> None:
    error = await caught(ground_floor("boom"))
    text = "".join(traceback.format_exception(error))
    names = functions(error)
    positions = [names.index(f) for f in ("ground_floor", "first_floor", "third_floor")]
    assert positions == sorted(positions)
    assert "await first_floor(text)  # ground floor" in text
    assert "raise ValueError(text)  # third floor" in text
    assert_hidden(error)


async def test_frames_of_a_cause() -> None:
    error = await caught(replaced("boom"))
    assert functions(error)[-1] == "replaced"
    assert error.__cause__ is not None
    assert functions(error.__cause__)[-2:] == ["replaced", "third_floor"]
    text = "".join(traceback.format_exception(error))
    cause, direct = text.split(
        "\nThe above exception was the direct cause of the following exception:\n"
    )
    assert "# third floor" in cause
    assert 'raise LookupError("replaced") from error' in direct
    assert_hidden(error)


async def test_frames_of_a_generator() -> None:
    stream = stream_floor("boom")
    await anext(stream)
    error = await caught(anext(stream))
    assert functions(error)[-3:] == ["stream_floor", "second_floor", "third_floor"]
    assert_hidden(error)


async def test_frames_of_an_exception_thrown_in() -> None:
    stream = routines.tracing(routines.Journal(os.devnull))
    await anext(stream)
    thrown = KeyError("thrown")
    error = await caught(stream.athrow(thrown))
    assert error is thrown
    assert functions(error)[-1] == "tracing"
    assert_hidden(error)


async def test_frames_of_code_without_a_file() -> None:
    namespace: dict[str, Any] = {"wool": wool, "__name__": "contract_inline"}
    source = "@wool.routine\nasync def inline():\n    raise ValueError('inline')\n"
    exec(compile(source, "<contract inline>", "exec"), namespace)  # noqa: S102
    error = await caught(namespace["inline"]())
    last = traceback.extract_tb(error.__traceback__)[-1]
    assert (last.name, last.filename, last.lineno) == ("inline", "<contract inline>", 3)
    traceback.format_exception(error)


async def test_source_known_only_to_the_caller() -> None:
    """A notebook's cells are in `linecache` of the caller and nowhere else."""
    source = "@wool.routine\nasync def cell():\n    raise ValueError('x')  # in the cell\n"
    name = "<contract cell 1>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    namespace: dict[str, Any] = {"wool": wool, "__name__": "contract_cell"}
    exec(compile(source, name, "exec"), namespace)  # noqa: S102
    try:
        error = await caught(namespace["cell"]())
        assert "raise ValueError('x')  # in the cell" in "".join(traceback.format_exception(error))
    finally:
        del linecache.cache[name]


async def test_the_worker_is_named(place: Place) -> None:
    @wool.routine
    async def where() -> None:
        raise ValueError(os.getpid())

    error = await caught(where())
    [pid] = error.args
    text = "".join(traceback.format_exception(error))
    if place.elsewhere:
        assert pid != os.getpid()
        assert str(pid) in text.replace(f"ValueError: {pid}", "")
        assert socket.gethostname() in text
    assert not hasattr(error, "__notes__")


async def test_tracebacks_are_ordinary(caplog: pytest.LogCaptureFixture) -> None:
    error = await caught(first_floor("boom"))
    logging.getLogger("contract").error("seen", exc_info=error)
    assert "# third floor" in caplog.text
    with pytest.raises(ValueError) as raised:
        raise error.with_traceback(None)
    assert functions(raised.value) == ["test_tracebacks_are_ordinary"]
    await serving()


async def test_a_traceback_does_not_grow_by_passing_on() -> None:
    """Raised through three levels it names each level once or twice, not more and more."""
    error = await caught(routines.fail_below(6, ValueError("deep")))
    names = functions(error)
    assert 7 <= names.count("fail_below") <= 30
    assert_hidden(error)
