"""Exceptions of routines: the same class, arguments, attributes, notes, causes, groups."""

from __future__ import annotations

import asyncio
import json
import subprocess
import traceback
from collections.abc import Callable
from typing import Any

import pytest

import wool
from contract import types
from contract.routines import (
    apply,
    echo,
    fail,
    fail_with,
    serving,
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


def endless() -> Any:
    return endless()


def imported() -> Any:
    import contract_nosuchmodule  # type: ignore[import-not-found]

    return contract_nosuchmodule


PROVOKED: dict[type[Exception], tuple[Callable[[], Any], dict[str, Any]]] = {
    FileNotFoundError: (
        lambda: open("/nonexistent/file"),  # noqa: SIM115
        {"errno": 2, "filename": "/nonexistent/file"},
    ),
    AttributeError: (lambda: "".nosuchthing, {"name": "nosuchthing"}),  # type: ignore[attr-defined]
    ModuleNotFoundError: (imported, {"name": "contract_nosuchmodule"}),
    UnicodeDecodeError: (lambda: b"a\xff".decode(), {"object": b"a\xff", "start": 1}),
    json.JSONDecodeError: (lambda: json.loads("[1,]"), {"doc": "[1,]"}),
    RecursionError: (endless, {}),
    NameError: (lambda: nosuchname, {"name": "nosuchname"}),  # type: ignore[name-defined]  # noqa: F821
    SyntaxError: (
        lambda: compile("a b", "inline.py", "exec"),
        {"filename": "inline.py", "lineno": 1, "text": "a b\n"},
    ),
}


@pytest.mark.parametrize("kind", PROVOKED)
async def test_what_the_interpreter_raises(kind: type[Exception]) -> None:
    provoke, attributes = PROVOKED[kind]
    with pytest.raises(kind) as raised:
        await apply(provoke)
    assert {name: getattr(raised.value, name) for name in attributes} == attributes
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


async def test_constructors_do_not_run_again(journal: Journal) -> None:
    with pytest.raises(types.Noisy):
        await fail_with(types.Noisy, journal)
    assert journal.lines() == ["made"]


async def test_a_class_is_raised() -> None:
    with pytest.raises(NoArguments) as raised:
        await fail(NoArguments)
    assert raised.value.args == ("x",)
    with pytest.raises(TypeError, match="exceptions must derive from BaseException"):
        await fail(3)  # type: ignore[arg-type]


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


# What hangs on an exception


def with_notes() -> None:
    error = ValueError("x")
    error.add_note("first")
    error.add_note("second\nline")
    raise error


def with_causes() -> None:
    try:
        try:
            raise KeywordOnly(code=1)
        except KeywordOnly as error:
            raise Slotted("s", 2, None) from error
    except Slotted as error:
        raise LookupError("last") from error


def with_a_context() -> None:
    try:
        raise ValueError("first")
    except ValueError:
        raise KeyError("second")  # noqa: B904


def with_a_cause_that_was_not_raised() -> None:
    cause = Plain("cause")
    cause.add_note("noted")
    raise ValueError("x") from cause


def from_none() -> None:
    try:
        raise ValueError("hidden")
    except ValueError:
        raise KeyError("shown") from None


def with_attributes_given_later() -> None:
    error: Any = ValueError("x")
    error.colour, error.data = Colour.RED, {"a": [1, 2]}
    error.args = ("changed", 2)
    raise error


def a_circle() -> None:
    first, second = ValueError("first"), KeyError("second")
    first.__cause__, second.__cause__ = second, first
    raise first


def groups_in_groups() -> None:
    deep = KeywordOnly(code=1)
    deep.add_note("deep")
    inner = ExceptionGroup("inner", [deep, NoArguments()])
    inner.add_note("inner note")
    try:
        raise ValueError("first") from inner
    except ValueError as error:
        raise ExceptionGroup("outer", [error, ExceptionGroup("mid", [inner, Plain()])]) from None


def a_group_of_interrupts() -> None:
    raise BaseExceptionGroup("b", [KeyboardInterrupt("k"), SystemExit(3), ValueError("v")])


SHAPES = [
    with_notes,
    with_causes,
    with_a_context,
    with_a_cause_that_was_not_raised,
    from_none,
    with_attributes_given_later,
    a_circle,
    groups_in_groups,
    a_group_of_interrupts,
]


@pytest.mark.parametrize("fail_so", SHAPES)
async def test_what_hangs_on_it(fail_so: Callable[[], None]) -> None:
    """It travels back as well, and back again; a note more is one more."""
    error = await caught(apply(fail_so))
    try:
        fail_so()
    except BaseException as expected:
        assert describe(error) == describe(expected)
        assert {k: v for k, v in vars(error).items() if k != "__notes__"} == {
            k: v for k, v in vars(expected).items() if k != "__notes__"
        }
    error.add_note("one more")
    assert describe(await echo(error)) == describe(error)
    assert "one more" in "".join(traceback.format_exception(error))
    await serving()


async def test_nothing_is_added_to_the_context() -> None:
    """The exception that the caller is handling is the context, as for any raised below it."""
    error = await caught(fail(ValueError("alone")))
    assert error.__context__ is error.__cause__ is None

    handled = LookupError("handled by the caller")
    try:
        raise handled
    except LookupError:
        error = await caught(fail(ValueError("inner")))
    assert error.__context__ is handled
    assert handled.__context__ is None


# Groups


async def test_group_subclass() -> None:
    def make() -> BaseException:
        return Group("g", [ValueError(1), KeyError(2)], 5)

    error = await caught(fail_with(make))
    assert type(error) is Group
    assert (error.message, error.code) == ("g", 5)
    part = error.subgroup(ValueError)
    assert type(part) is Group and part.code == 5
    assert [e.args for e in error.exceptions] == [(1,), (2,)]


# Where exceptions pass


async def test_an_exception_of_the_callers_own_calls_back() -> None:
    """An exception that travels both ways stays what it is."""
    error = await caught(fail(KeywordOnly(code=1, hint="there and back")))
    again = await caught(fail(error))
    assert describe(again) == describe(error)
    assert describe(await echo(error)) == describe(error)


async def test_large_exceptions() -> None:
    error = await caught(fail(ValueError(bytes(3_000_000), "x" * 1_000_000)))
    assert error.args == (bytes(3_000_000), "x" * 1_000_000)
