"""Exceptions of routines: the same class, arguments, attributes, notes, causes, groups."""

from __future__ import annotations

import asyncio
import enum
import json
import os
import subprocess
import threading
import traceback
from collections.abc import Callable
from typing import Any

import pytest

import wool
from contract import types
from contract.routines import (
    add,
    apply,
    echo,
    fail,
    fail_below,
    fail_with,
    serving,
    stream_fail,
)
from contract.types import Colour, Fatal, Group, KeywordOnly, NoArguments, Plain, Slotted
from support.parity import NEAR, Journal, describe
from support.waiting import caught

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.usefixtures("place"),
    pytest.mark.parametrize("place", NEAR, indirect=True, scope="module"),
]


BUILTIN: list[Callable[[], BaseException]] = [
    lambda: Exception(),
    lambda: ValueError("a", 1),
    lambda: TypeError("t"),
    lambda: KeyError("k"),
    lambda: IndexError("i"),
    lambda: LookupError(),
    lambda: ZeroDivisionError("z"),
    lambda: OverflowError(("nested", [1])),
    lambda: AssertionError("a"),
    lambda: NotImplementedError("n"),
    lambda: RecursionError("r"),
    lambda: MemoryError("m"),
    lambda: EOFError("e"),
    lambda: TimeoutError("t"),
    lambda: UserWarning("w"),
    lambda: asyncio.InvalidStateError("i"),
    lambda: asyncio.IncompleteReadError(b"par", 10),
    lambda: asyncio.LimitOverrunError("l", 5),
    lambda: asyncio.QueueEmpty(),
    lambda: OSError(2, "No such file", "name"),
    lambda: ConnectionResetError("c"),
    lambda: PermissionError(13, "Denied"),
    lambda: UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad start"),
    lambda: UnicodeEncodeError("ascii", "ż", 0, 1, "bad"),
    lambda: SyntaxError("bad syntax", ("file.py", 3, 5, "x = = 1", 3, 6)),
    lambda: ImportError("no such module", name="nomod", path="/nowhere"),
    lambda: ModuleNotFoundError("no such module", name="nomod"),
    lambda: AttributeError("no such attribute", name="attr", obj=[1]),
    lambda: NameError("no such name", name="nam"),
    lambda: json.JSONDecodeError("Expecting value", "{]", 1),
    lambda: subprocess.CalledProcessError(3, ["cmd", "arg"], output=b"out", stderr=b"err"),
    lambda: subprocess.TimeoutExpired("cmd", 1.5),
]


@pytest.mark.parametrize("make", BUILTIN, ids=lambda make: type(make()).__name__)
async def test_builtin_exceptions(make: Callable[[], BaseException]) -> None:
    error, thrown = make(), make()
    for one in error, thrown:  # CPython keeps memory for MemoryError, and this with it
        one.__suppress_context__ = False
    with pytest.raises(type(error)) as raised:
        await fail(thrown)
    assert type(raised.value) is type(error)
    assert describe(raised.value) == describe(error)
    assert str(raised.value) == str(error)
    assert repr(raised.value) == repr(error)
    assert vars(raised.value) == vars(error)


async def test_attributes_of_builtin_exceptions() -> None:
    @wool.routine
    async def provoke(what: str) -> Any:
        if what == "file":
            return open("/nonexistent/file")  # noqa: ASYNC230, SIM115
        if what == "attribute":
            return what.nosuchthing  # type: ignore[attr-defined]
        if what == "import":
            import contract_nosuchmodule  # type: ignore[import-not-found]

            return contract_nosuchmodule
        if what == "decode":
            return b"a\xff".decode()
        if what == "json":
            return json.loads("[1,]")
        if what == "recursion":

            def endless() -> Any:
                return endless()

            return endless()
        if what == "name":
            return nosuchname  # type: ignore[name-defined]  # noqa: F821
        if what == "assert":
            assert what == "nothing", "reason"
        return compile("a b", "inline.py", "exec")

    with pytest.raises(FileNotFoundError) as file:
        await provoke("file")
    assert (file.value.errno, file.value.filename) == (2, "/nonexistent/file")
    with pytest.raises(AttributeError) as attribute:
        await provoke("attribute")
    assert attribute.value.name == "nosuchthing"
    with pytest.raises(ModuleNotFoundError) as module:
        await provoke("import")
    assert module.value.name == "contract_nosuchmodule"
    with pytest.raises(UnicodeDecodeError) as decode:
        await provoke("decode")
    assert (decode.value.object, decode.value.start) == (b"a\xff", 1)
    with pytest.raises(json.JSONDecodeError) as parse:
        await provoke("json")
    assert parse.value.doc == "[1,]" and f"(char {parse.value.pos})" in str(parse.value)
    with pytest.raises(RecursionError, match="maximum recursion depth exceeded"):
        await provoke("recursion")
    with pytest.raises(NameError) as name:
        await provoke("name")
    assert name.value.name == "nosuchname"
    with pytest.raises(AssertionError, match="reason"):
        await provoke("assert")
    with pytest.raises(SyntaxError) as syntax:
        await provoke("syntax")
    assert (syntax.value.filename, syntax.value.lineno) == ("inline.py", 1)
    assert syntax.value.text == "a b\n"
    await serving()


CUSTOM: dict[str, tuple[Callable[[], BaseException], dict[str, Any]]] = {
    "plain": (lambda: Plain("a", 1), {}),
    "derived": (lambda: types.Derived("d"), {}),
    "keyword only": (lambda: KeywordOnly(code=3, hint="h"), {"code": 3, "hint": "h"}),
    "keyword only, silent": (lambda: types.KeywordOnlySilent(code=3), {"code": 3}),
    "no arguments": (NoArguments, {}),
    "other arguments": (lambda: types.OtherArguments(1, 2), {"a": 1, "b": 2}),
    "strict": (lambda: types.Strict(3), {"number": 3}),
    "slots": (lambda: Slotted("s", 1, ["d"]), {"code": 1, "detail": ["d"]}),
    "slots, inherited": (
        lambda: types.SlottedChild("s", 1, None, {"m": 2}),
        {"code": 1, "detail": None, "more": {"m": 2}},
    ),
    "with __new__": (lambda: types.WithNew(code=5), {"code": 5}),
    "with __reduce__": (lambda: types.Reducing(1, b=2), {"b": 2}),
    "with __str__": (lambda: types.Spoken("s"), {}),
    "dataclass": (lambda: types.Tabulated(4), {"code": 4, "message": "none"}),
    "generic": (lambda: types.GenericError([1]), {"content": [1]}),
    "with a property": (lambda: types.WithProperty(9), {"code": 9, "_code": 9}),
    "fatal": (lambda: Fatal("f", code=8), {"code": 8}),
}


@pytest.mark.parametrize("name", CUSTOM)
async def test_exceptions_of_modules(name: str) -> None:
    make, attributes = CUSTOM[name]
    made = make()
    with pytest.raises(type(made)) as raised:
        await fail_with(make)
    assert type(raised.value) is type(made)
    assert describe(raised.value) == describe(made)
    assert str(raised.value) == str(made)
    for attribute, value in attributes.items():
        assert getattr(raised.value, attribute) == value
    await serving()


async def test_an_attribute_that_no_serializer_takes() -> None:
    """Class, arguments and the other attributes are kept; a note may tell of the loss."""
    with pytest.raises(types.WithLock) as raised:
        await fail_with(types.WithLock, "message")
    assert type(raised.value) is types.WithLock
    assert (raised.value.args, raised.value.code) == (("message",), 7)
    await serving()


async def test_an_unset_slot_stays_unset() -> None:
    with pytest.raises(Slotted) as raised:
        await fail_with(Slotted, "s", 1, 2)
    assert not hasattr(raised.value, "unset")


async def test_constructors_do_not_run_again(journal: Journal) -> None:
    with pytest.raises(types.Noisy):
        await fail_with(types.Noisy, journal)
    assert journal.lines() == ["made"]


async def test_attributes_given_later() -> None:
    @wool.routine
    async def annotate() -> None:
        error = ValueError("x")
        error.colour = Colour.RED  # type: ignore[attr-defined]
        error.data = {"a": [1, 2]}  # type: ignore[attr-defined]
        error.args = ("changed", 2)
        raise error

    with pytest.raises(ValueError) as raised:
        await annotate()
    assert raised.value.args == ("changed", 2)
    assert raised.value.colour is Colour.RED  # type: ignore[attr-defined]
    assert raised.value.data == {"a": [1, 2]}  # type: ignore[attr-defined]


async def test_a_class_is_raised() -> None:
    with pytest.raises(NoArguments) as raised:
        await fail(NoArguments)
    assert raised.value.args == ("x",)
    with pytest.raises(TypeError, match="exceptions must derive from BaseException"):
        await fail(3)  # type: ignore[arg-type]


async def test_arguments_that_no_serializer_takes() -> None:
    @wool.routine
    async def with_lock() -> None:
        raise LookupError("message", threading.Lock())

    with pytest.raises(LookupError):
        await with_lock()
    await serving()


async def test_exceptions_made_in_a_closure() -> None:
    limit = 3

    class Local(Exception):
        def __init__(self, code: int, *, hint: str = "none") -> None:
            super().__init__(f"local {code}")
            self.code = code
            self.hint = hint

        def over(self) -> bool:
            return self.code > limit

    class LocalChild(Local, KeyError):
        pass

    @wool.routine
    async def raise_local(kind: type[Local]) -> None:
        raise kind(4, hint="h")

    @wool.routine
    async def raise_child() -> None:
        raise LocalChild(1)

    try:
        await raise_local(Local)
    except Local as error:
        assert type(error) is Local
        assert (error.args, error.code, error.hint, error.over()) == (("local 4",), 4, "h", True)
    try:
        await raise_child()
    except KeyError as error:
        assert type(error) is LocalChild
        assert error.hint == "none"
    assert (await caught(raise_local(LocalChild))).__class__ is LocalChild
    assert (await caught(fail(Local(1)))).__class__ is Local


async def test_an_exception_class_made_by_the_routine() -> None:
    @wool.routine
    async def make() -> None:
        class Made(ValueError):
            def __init__(self, *, code: int) -> None:
                super().__init__("made")
                self.code = code

        raise Made(code=1)

    with pytest.raises(ValueError) as raised:
        await make()
    assert type(raised.value).__name__ == "Made"
    assert (raised.value.args, raised.value.code) == (("made",), 1)  # type: ignore[attr-defined]


async def test_caught_inside_a_routine_by_class() -> None:
    class Local(Exception):
        pass

    @wool.routine
    async def inner() -> None:
        raise Local("inner")

    @wool.routine
    async def outer() -> str:
        try:
            await inner()
        except Local as error:
            return f"caught {error}"
        return "not caught"

    assert await outer() == "caught inner"


async def test_enum_in_attributes_keeps_identity() -> None:
    class Mood(enum.Enum):
        GOOD = 1

    class Moody(Exception):
        mood = Mood.GOOD

    @wool.routine
    async def complain() -> None:
        error = Moody(Mood.GOOD)
        error.kept = [Mood.GOOD]  # type: ignore[attr-defined]
        raise error

    error = await caught(complain())
    assert isinstance(error, Moody)
    assert error.args[0] is error.kept[0] is error.mood is Mood.GOOD  # type: ignore[attr-defined]


# What hangs on an exception


async def test_notes() -> None:
    @wool.routine
    async def noted() -> None:
        error = ValueError("x")
        error.add_note("first")
        error.add_note("second\nline")
        raise error

    error = await caught(noted())
    assert error.__notes__ == ["first", "second\nline"]
    assert not hasattr(await caught(fail(ValueError("x"))), "__notes__")
    error.add_note("third")
    assert (await caught(fail(error))).__notes__ == ["first", "second\nline", "third"]


async def test_cause() -> None:
    @wool.routine
    async def chained() -> None:
        try:
            try:
                raise KeywordOnly(code=1)
            except KeywordOnly as error:
                raise Slotted("s", 2, None) from error
        except Slotted as error:
            raise LookupError("last") from error

    error = await caught(chained())
    assert isinstance(error, LookupError)
    assert isinstance(error.__cause__, Slotted) and error.__cause__.code == 2
    root = error.__cause__.__cause__
    assert isinstance(root, KeywordOnly) and root.code == 1
    assert error.__suppress_context__ and error.__cause__.__suppress_context__
    assert error.__context__ is error.__cause__
    assert root.__cause__ is root.__context__ is None


async def test_context() -> None:
    @wool.routine
    async def handling() -> None:
        try:
            raise ValueError("first")
        except ValueError:
            raise KeyError("second")  # noqa: B904

    error = await caught(handling())
    assert isinstance(error, KeyError)
    assert error.__cause__ is None and not error.__suppress_context__
    assert isinstance(error.__context__, ValueError)
    assert error.__context__.args == ("first",)
    assert error.__context__.__context__ is None


async def test_from_none() -> None:
    @wool.routine
    async def hiding() -> None:
        try:
            raise ValueError("hidden")
        except ValueError:
            raise KeyError("shown") from None

    error = await caught(hiding())
    assert error.__cause__ is None and error.__suppress_context__
    assert isinstance(error.__context__, ValueError)
    assert "hidden" not in "".join(traceback.format_exception(error))


async def test_a_cause_given_as_a_value() -> None:
    @wool.routine
    async def with_cause() -> None:
        cause = Plain("cause")
        cause.add_note("noted")
        raise ValueError("x") from cause

    error = await caught(with_cause())
    assert isinstance(error.__cause__, Plain)
    assert error.__cause__.__notes__ == ["noted"]
    assert error.__context__ is None


async def test_nothing_is_added_to_the_context() -> None:
    """What the caller is handling is the context, as for any exception raised below it."""
    error = await caught(fail(ValueError("alone")))
    assert error.__context__ is error.__cause__ is None

    handled = LookupError("handled by the caller")
    try:
        raise handled
    except LookupError:
        error = await caught(fail(ValueError("inner")))
    assert error.__context__ is handled
    assert handled.__context__ is None


async def test_a_long_chain() -> None:
    @wool.routine
    async def long_chain() -> None:
        error: Exception = ValueError(0)
        for i in range(1, 50):
            try:
                raise ValueError(i) from error
            except ValueError as raised:
                error = raised
        raise error

    error: BaseException | None = await caught(long_chain())
    seen = []
    while error is not None:
        seen.append(error.args[0])
        error = error.__cause__
    assert seen == list(range(49, -1, -1))


async def test_a_circular_chain() -> None:
    @wool.routine
    async def circular() -> None:
        first, second = ValueError("first"), KeyError("second")
        first.__cause__, second.__cause__ = second, first
        raise first

    error = await caught(circular())
    assert isinstance(error, ValueError) and isinstance(error.__cause__, KeyError)
    assert error.__cause__.__cause__ is error
    assert "second" in "".join(traceback.format_exception(error))


async def test_cause_made_in_a_closure() -> None:
    class Local(Exception):
        def __init__(self, *, code: int) -> None:
            self.code = code

    @wool.routine
    async def chained() -> None:
        try:
            raise Local(code=3)
        except Local as error:
            raise Local(code=4) from error

    error = await caught(chained())
    assert type(error) is Local and type(error.__cause__) is Local
    assert (error.code, error.__cause__.code) == (4, 3)


async def test_a_shared_exception_stays_shared() -> None:
    @wool.routine
    async def shared() -> None:
        root = ValueError("root")
        first, second = KeyError(1), KeyError(2)
        first.__cause__ = second.__cause__ = root
        first.other = second  # type: ignore[attr-defined]
        raise ExceptionGroup("g", [first, second, root])

    group = await caught(shared())
    assert isinstance(group, ExceptionGroup)
    first, second, root = group.exceptions
    assert first.__cause__ is second.__cause__ is root
    assert first.other is second  # type: ignore[attr-defined]


# Groups


async def test_except_star() -> None:
    class Local(Exception):
        pass

    @wool.routine
    async def several() -> None:
        raise ExceptionGroup("several", [ValueError(1), Local(2), KeyError(3), ValueError(4)])

    seen: list[Any] = []
    try:
        await several()
    except* ValueError as group:
        seen.append([error.args for error in group.exceptions])
    except* Local as group:
        seen.append([type(error) for error in group.exceptions])
    except* KeyError as group:
        seen.append(group.message)
    assert seen == [[(1,), (4,)], [Local], "several"]


async def test_what_except_star_leaves_goes_on() -> None:
    with pytest.raises(ExceptionGroup) as raised:
        try:
            await fail(ExceptionGroup("g", [ValueError(1), KeyError(2)]))
        except* ValueError:
            pass
    assert [type(error) for error in raised.value.exceptions] == [KeyError]


async def test_nested_groups() -> None:
    def make() -> BaseException:
        deep = KeywordOnly(code=1)
        deep.add_note("deep")
        inner = ExceptionGroup("inner", [deep, NoArguments()])
        inner.add_note("inner note")
        try:
            raise ValueError("first") from inner
        except ValueError as error:
            return ExceptionGroup("outer", [error, ExceptionGroup("mid", [inner, Plain()])])

    expected = make()
    error = await caught(fail_with(make))
    assert type(error) is ExceptionGroup
    assert describe(error) == describe(expected)
    matched, rest = error.split(NoArguments)
    assert matched is not None and rest is not None
    assert error.subgroup(KeyError) is None


async def test_group_subclass() -> None:
    def make() -> BaseException:
        return Group("g", [ValueError(1), KeyError(2)], 5)

    error = await caught(fail_with(make))
    assert type(error) is Group
    assert (error.message, error.code) == ("g", 5)
    part = error.subgroup(ValueError)
    assert type(part) is Group and part.code == 5
    assert [e.args for e in error.exceptions] == [(1,), (2,)]


async def test_group_of_a_task_group() -> None:
    @wool.routine
    async def siblings() -> None:
        async def bad(n: int) -> None:
            raise ValueError(n)

        async with asyncio.TaskGroup() as group:
            group.create_task(bad(1))
            group.create_task(bad(2))
            group.create_task(asyncio.sleep(60))

    error = await caught(siblings())
    assert type(error) is ExceptionGroup
    assert error.message == "unhandled errors in a TaskGroup"
    assert [e.args for e in error.exceptions] == [(1,), (2,)]


async def test_base_exception_group() -> None:
    def make() -> BaseException:
        return BaseExceptionGroup("b", [KeyboardInterrupt("k"), SystemExit(3), ValueError("v")])

    error = await caught(fail_with(make))
    assert type(error) is BaseExceptionGroup
    assert describe(error) == describe(make())
    await serving()


async def test_a_task_group_of_failing_routines() -> None:
    with pytest.raises(ExceptionGroup) as raised:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail(Plain("a")))
            group.create_task(fail(KeywordOnly(code=1)))
    assert {type(error) for error in raised.value.exceptions} <= {Plain, KeywordOnly}


# Where exceptions pass


async def test_through_nested_routines() -> None:
    error = await caught(fail_below(3, KeywordOnly(code=6)))
    assert isinstance(error, KeywordOnly) and error.code == 6
    assert error.__notes__ == ["seen at 1", "seen at 2", "seen at 3"]
    assert error.__context__ is None


async def test_a_routine_handles_what_another_raised() -> None:
    @wool.routine
    async def outer() -> Any:
        try:
            await fail(Plain("inner"))
        except Plain as error:
            raise LookupError("outer") from error

    error = await caught(outer())
    assert isinstance(error, LookupError) and isinstance(error.__cause__, Plain)
    assert error.__cause__.args == ("inner",)


async def test_of_a_generator_after_values() -> None:
    seen = []
    with pytest.raises(KeywordOnly) as raised:
        async for i in stream_fail(KeywordOnly(code=2), 3):
            seen.append(i)
    assert seen == [0, 1, 2]
    assert raised.value.code == 2


async def test_of_a_generator_at_once() -> None:
    stream = stream_fail(Plain("at once"), 0)
    with pytest.raises(Plain, match="at once"):
        await anext(stream)
    with pytest.raises(StopAsyncIteration):
        await anext(stream)


async def test_raised_again_by_the_caller() -> None:
    error = await caught(fail(Plain("x")))
    with pytest.raises(Plain) as raised:
        raise error
    assert raised.value is error
    with pytest.raises(ValueError) as chained:
        raise ValueError("y") from error
    assert "Plain: x" in "".join(traceback.format_exception(chained.value))


async def test_many_at_once() -> None:
    results = await asyncio.gather(
        *(fail(ValueError(i)) if i % 2 else add(i, 0) for i in range(100)), return_exceptions=True
    )
    assert [r.args[0] if isinstance(r, ValueError) else r for r in results] == list(range(100))


async def test_an_exception_of_the_callers_own_calls_back() -> None:
    """An exception that travels both ways stays what it is."""
    error = await caught(fail(KeywordOnly(code=1, hint="there and back")))
    again = await caught(fail(error))
    assert describe(again) == describe(error)
    assert describe(await echo(error)) == describe(error)


async def test_large_exceptions() -> None:
    error = await caught(fail(ValueError(bytes(3_000_000), "x" * 1_000_000)))
    assert error.args == (bytes(3_000_000), "x" * 1_000_000)


async def test_errors_of_the_operating_system() -> None:
    with pytest.raises(ProcessLookupError) as raised:
        await apply(os.kill, 2**22 + 1, 0)
    assert raised.value.errno == 3
