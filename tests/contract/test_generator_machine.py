"""One random sequence of steps, made with a plain async generator and with a routine of it.

Whatever is done to the two — `anext`, `asend`, `athrow`, `aclose`, cancelling a step, a second
step while one is running — and whatever their bodies do, every outcome must be the same, and so
must everything the bodies saw.
"""

from __future__ import annotations

import asyncio
import itertools
import textwrap
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import wool
from contract.types import Fatal, KeywordOnly
from support.parity import SOAK, Journal
from support.waiting import PATIENCE, forever, turns

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.usefixtures("place")]

Body = Callable[[Journal], Any]

THROWN: dict[str, Callable[[], BaseException]] = {
    "ValueError": lambda: ValueError("thrown", 1),
    "KeyError": lambda: KeyError("thrown"),
    "KeywordOnly": lambda: KeywordOnly(code=7),
    "StopIteration": lambda: StopIteration("thrown"),
    "StopAsyncIteration": lambda: StopAsyncIteration("thrown"),
    "GeneratorExit": lambda: GeneratorExit("thrown"),
    "CancelledError": lambda: asyncio.CancelledError("thrown"),
    "KeyboardInterrupt": lambda: KeyboardInterrupt("thrown"),
    "Fatal": lambda: Fatal("thrown", code=1),
}


# Driving


@dataclass(frozen=True)
class Operation:
    """One thing done to a generator.

    Attributes:
        verb: `next`, `send`, `throw` or `close`.
        argument: what is sent, or the name of what is thrown.
        early: cancelled before it is made.
        meanwhile: what else is tried, each time the body is suspended.
    """

    verb: str
    argument: Any = None
    early: bool = False
    meanwhile: Operation | None = None


def brief(error: BaseException | None) -> Any:
    return error and (type(error), error.args)


@dataclass
class Driver:
    """Does operations to one generator and writes down what comes of them."""

    stream: Any
    journal: Journal
    thrown: list[Any] = field(default_factory=list)

    async def outcome(self, operation: Operation) -> Any:
        thrown: BaseException | None = None
        try:
            match operation.verb:
                case "next":
                    value = await anext(self.stream)
                case "send":
                    value = await self.stream.asend(operation.argument)
                case "throw":
                    thrown = THROWN[operation.argument]()
                    value = await self.stream.athrow(thrown)
                case _:
                    value = await self.stream.aclose()
        except BaseException as error:
            if error is thrown:
                return ("the thrown object itself", brief(error))
            return self.sketch(error)
        finally:
            self.thrown.append(brief(thrown))
        return ("value", value)

    def sketch(self, error: BaseException) -> Any:
        """An exception with what hangs on it.

        What hangs on the caller's own objects, which are those thrown and what `aclose` throws, was
        hung there elsewhere, as on any argument.
        """
        own = isinstance(error, (asyncio.CancelledError, GeneratorExit))
        if own or brief(error) in self.thrown:
            return ("raised", brief(error), None, None)
        return ("raised", brief(error), brief(error.__cause__), brief(error.__context__))

    async def perform(self, operation: Operation) -> Any:
        """Do one operation; cancel it as often as the body suspends."""
        seen = self.journal.count("suspended")
        task = asyncio.create_task(self.outcome(operation))
        if operation.early:
            task.cancel()
            await asyncio.wait([task])
            return ("never made", task.cancelled())
        cancels: int = 0
        meanwhile: list[Any] = []
        for _ in range(int(PATIENCE / 0.002)):
            done, _pending = await asyncio.wait([task], timeout=0.002)
            if done:
                result = task.result()
                if cancels and result[0] == "raised" and result[1][0] is asyncio.CancelledError:
                    result = "cancelled"  # the caller's own CancelledError is the one raised
                return (result, cancels, task.cancelling(), meanwhile)
            now = self.journal.count("suspended")
            if now > seen:
                assert now == seen + 1
                seen = now
                if operation.meanwhile is not None:
                    meanwhile.append(await self.outcome(operation.meanwhile))
                cancels += 1
                task.cancel(f"cancel {cancels}")
        raise AssertionError(f"{operation} does not end")


async def drive(make: Body, operations: list[Operation], journal: Journal) -> tuple[Any, Any]:
    """Returns the outcome of each operation, and what the body wrote."""
    driver = Driver(make(journal), journal)
    outcomes = [await driver.perform(operation) for operation in operations]
    for _ in range(40):  # to the end, so that nothing is left to the garbage collector
        outcomes.append(await driver.perform(Operation("next")))
        if outcomes[-1][0] == ("raised", (StopAsyncIteration, ()), None, None):
            break
    else:
        raise AssertionError("the body does not end")
    outcomes.append(await driver.perform(Operation("close")))
    return outcomes, journal.lines()


_numbers = itertools.count()


async def compare(make: Body, operations: list[Operation], journal: Journal) -> None:
    number = next(_numbers)
    here = await drive(make, operations, Journal(f"{journal.path}-{number}-here"))
    there = await drive(wool.routine(make), operations, Journal(f"{journal.path}-{number}-there"))
    assert there[0] == here[0]
    assert there[1] == here[1]


_simple = st.one_of(
    st.just(Operation("next")),
    st.builds(Operation, st.just("send"), st.sampled_from([None, 0, "sent"])),
    st.builds(Operation, st.just("throw"), st.sampled_from(list(THROWN))),
    st.just(Operation("close")),
)
_operation = st.one_of(
    st.just(Operation("next")),
    _simple,
    st.builds(
        Operation,
        st.sampled_from(["next", "close"]),
        early=st.booleans(),
        meanwhile=st.none() | _simple,
    ),
    st.builds(
        Operation,
        st.just("throw"),
        st.sampled_from(list(THROWN)),
        early=st.booleans(),
        meanwhile=st.none() | _simple,
    ),
)
OPERATIONS = st.lists(_operation, max_size=8)


def examples(n: int) -> Any:
    return settings(
        max_examples=n * SOAK or n,
        deadline=None,
        derandomize=not SOAK,
        database=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


# Bodies by hand


async def suspend(journal: Journal) -> None:
    """Stop until cancelled, and let the driver know.

    The turn afterwards avoids a defect of CPython 3.11 and 3.12: an `aclose` that ends in the very
    moment it is cancelled leaves the generator "already running" for good.
    """
    journal.write("suspended")
    try:
        await forever()
    finally:
        await turns()


def shapes() -> dict[str, Body]:
    async def plain(journal: Journal) -> Any:
        for i in range(4):
            journal.write(f"sent {(yield i)!r}")

    async def empty(journal: Journal) -> Any:
        journal.write("ran")
        return
        yield

    async def failing(journal: Journal) -> Any:
        yield 1
        raise KeywordOnly(code=2)

    async def catching(journal: Journal) -> Any:
        answer: Any = "ready"
        for _ in range(6):
            try:
                answer = yield answer
            except Exception as error:
                answer = (type(error).__name__, error.args)

    async def catching_all(journal: Journal) -> Any:
        for i in range(3):
            try:
                yield i
            except BaseException as error:
                journal.write(f"{type(error).__name__} {error.args}")

    async def stubborn_once(journal: Journal) -> Any:
        try:
            yield 1
            yield 2
        except GeneratorExit as error:
            journal.write(f"exit {error.args}")
            yield 3
        yield 4

    async def yielding_in_finally(journal: Journal) -> Any:
        try:
            yield 1
            yield 2
        finally:
            journal.write("finally")
            yield 3
            journal.write("still there")

    async def taking_turns(journal: Journal) -> Any:
        try:
            for i in range(3):
                await turns(i)
                journal.write(f"sent {(yield i)!r}")
                await turns(2)
        finally:
            await turns(3)
            journal.write("finally")

    async def suspending(journal: Journal) -> Any:
        try:
            yield 1
            await suspend(journal)
            yield 2
        finally:
            await turns(2)
            journal.write("finally")

    async def swallowing_cancels(journal: Journal) -> Any:
        for i in range(4):
            try:
                yield i
                await suspend(journal)
            except asyncio.CancelledError as error:
                journal.write(f"swallowed {error.args}")

    async def uncancelling(journal: Journal) -> Any:
        for i in range(4):
            yield i
            try:
                await suspend(journal)
            except asyncio.CancelledError:
                asyncio.current_task().uncancel()  # type: ignore[union-attr]

    async def cancelled_in_turn(journal: Journal) -> Any:
        try:
            yield 1
            await suspend(journal)
        finally:
            try:
                await suspend(journal)
            finally:
                journal.write("finally")

    async def raising_when_cancelled(journal: Journal) -> Any:
        yield 1
        try:
            await suspend(journal)
        except asyncio.CancelledError as error:
            raise KeyError("instead") from error

    async def raising_when_thrown_at(journal: Journal) -> Any:
        try:
            yield 1
            yield 2
        except BaseException as error:
            journal.write(f"{type(error).__name__} {error.args}")
            raise LookupError("instead") from error

    async def stopping(journal: Journal) -> Any:
        try:
            yield 1
        except ValueError:
            raise StopIteration("own")  # noqa: B904
        except KeyError:
            raise StopAsyncIteration("own")  # noqa: B904
        yield 2

    async def suspending_while_closing(journal: Journal) -> Any:
        try:
            yield 1
            yield 2
        finally:
            journal.write("closing")
            await suspend(journal)

    async def returning_when_thrown_at(journal: Journal) -> Any:
        try:
            yield 1
            yield 2
        except BaseException:
            return

    async def odd(journal: Journal) -> Any:
        try:
            yield 1
        except ValueError:
            raise KeyboardInterrupt("own")  # noqa: B904
        except KeyError:
            raise asyncio.CancelledError("own")  # noqa: B904
        except KeywordOnly:
            raise GeneratorExit("own")  # noqa: B904
        yield 2
        raise SystemExit(3)

    return {name: body for name, body in locals().items() if callable(body)}


SHAPES = shapes()


@pytest.mark.parametrize("shape", SHAPES)
@examples(30)
@given(operations=OPERATIONS)
async def test_shapes(shape: str, journal: Journal, operations: list[Operation]) -> None:
    await compare(SHAPES[shape], operations, journal)


# Bodies by chance

_caught = st.sampled_from(
    ["Exception", "ValueError", "GeneratorExit", "asyncio.CancelledError", "BaseException"]
)
_raised = st.sampled_from(
    [
        "ValueError('own')",
        "KeywordOnly(code=1)",
        "StopIteration('own')",
        "StopAsyncIteration('own')",
        "asyncio.CancelledError('own')",
        "GeneratorExit('own')",
        "Fatal('own')",
    ]
)
_leaf = st.one_of(
    st.integers(0, 9).map("journal.write(f'sent {{(yield {0})!r}}')".format),
    st.integers(0, 9).map("yield {}".format),
    st.just("await turns(1)"),
    st.just("await suspend(journal)"),
    _raised.map("raise {}".format),
    st.just("return"),
)


def _indented(lines: list[str]) -> str:
    return textwrap.indent("\n".join(lines), "    ")


def _try(
    body: list[str], kind: str, handler: list[str], last: str | None, cleanup: list[str] | None
) -> str:
    seen = "journal.write(f'caught {type(error).__name__} {error.args}')"
    again = {None: [], "raise": ["raise"], "from": ["raise KeyError('from') from error"]}[last]
    lines = ["try:", _indented(body), f"except {kind} as error:"]
    lines.append(_indented([seen, *handler, *again]))
    if cleanup is not None:
        lines += ["finally:", _indented(["journal.write('finally')", *cleanup])]
    return "\n".join(lines)


def _program(lines: list[str]) -> str:
    return "async def program(journal):\n" + _indented(["yield 'first'", *lines]) + "\n"


def _block(statements: st.SearchStrategy[str]) -> st.SearchStrategy[list[str]]:
    return st.lists(statements, min_size=1, max_size=3)


_statement = st.recursive(
    _leaf,
    lambda inner: st.builds(
        _try,
        _block(inner),
        _caught,
        _block(inner),
        st.sampled_from([None, "raise", "from"]),
        st.none() | _block(inner),
    ),
    max_leaves=12,
)
PROGRAMS = st.lists(_statement, min_size=1, max_size=4).map(_program)


def compiled(source: str) -> Body:
    namespace: dict[str, Any] = {
        "__name__": "contract_program",
        "asyncio": asyncio,
        "turns": turns,
        "suspend": suspend,
        "KeywordOnly": KeywordOnly,
        "Fatal": Fatal,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # `return` in `finally`, since Python 3.14
        exec(compile(source, "<program>", "exec"), namespace)  # noqa: S102
    return namespace["program"]


@examples(200)
@given(source=PROGRAMS, operations=OPERATIONS)
async def test_programs(journal: Journal, source: str, operations: list[Operation]) -> None:
    await compare(compiled(source), operations, journal)
