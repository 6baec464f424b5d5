"""How exceptions are taken apart and put together, where the contract cannot reach."""

from __future__ import annotations

import io
import linecache
import pickle
import textwrap
import threading
import traceback
from collections.abc import Callable
from typing import Any

import cloudpickle
import pytest

from wool._backends import dill as dill_backend
from wool._code.units import MissingCode
from wool._protocol.frames import Summary
from wool._values import tracebacks
from wool._values.exceptions import dump_exception, load_exception, reduce_exception
from wool._values.tracebacks import summarise
from wool.exceptions import RemoteError

LABEL = "<worker pid 42 on elsewhere>"


def dumps(value: Any, label: str | None = LABEL, mend: bool = False) -> bytes:
    class Pickler(cloudpickle.Pickler):
        def reducer_override(self, obj: Any) -> Any:
            if isinstance(obj, BaseException):
                return reduce_exception(obj, label, failure if mend else None)
            return super().reducer_override(obj)

    file = io.BytesIO()
    Pickler(file, 5).dump(value)
    return file.getvalue()


def failure(value: Any) -> BaseException | None:
    try:
        dumps(value)
    except BaseException as error:
        return error
    return None


def trip(value: Any, label: str | None = LABEL) -> Any:
    return pickle.loads(dumps(value, label))


def send(exc: BaseException) -> BaseException:
    """The whole way of an exception that ends a call."""
    summary, payload = dump_exception(exc, lambda value, mend: dumps(value, LABEL, mend), LABEL)
    return load_exception(summary, payload, pickle.loads)


def fail_deeply(text: str) -> None:
    def inner() -> None:
        raise ValueError(text)

    inner()


def raised(action: Callable[[], Any]) -> BaseException:
    try:
        action()
    except BaseException as exc:
        return exc
    raise AssertionError("nothing was raised")


def throw(exc: BaseException) -> None:
    raise exc


def shown(exc: BaseException) -> str:
    return "".join(traceback.format_exception(exc))


def names(exc: BaseException) -> list[str]:
    return [frame.name for frame in traceback.extract_tb(exc.__traceback__)]


# Classes with all kinds of signatures


class Plain(Exception): ...


class Slotted(Exception):
    __slots__ = ("__private", "count", "unset")

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.count = count
        self.__private = count * 2

    @property
    def private(self) -> int:
        return self.__private


def test_the_object_that_lacked_an_attribute_stays() -> None:
    lock = threading.Lock()
    exc: Any = raised(lambda: lock.nothing)  # type: ignore[attr-defined]
    for back in (trip(exc), send(exc)):
        assert (back.name, back.obj, str(back)) == ("nothing", None, str(exc))
        assert not hasattr(back, "__notes__")


# Classes that say themselves how to be pickled


class Reduces(Exception):
    def __init__(self, text: str, resource: Any) -> None:
        super().__init__(f"<{text}>")
        self.text = text
        self.resource = resource

    def __reduce__(self) -> Any:
        return Reduces, (self.text, "reopened")


class ReducesWithState(Exception):
    def __reduce_ex__(self, protocol: Any) -> Any:
        return ReducesWithState, (), {"restored": True}


def test_own_reduce() -> None:
    exc = raised(lambda: throw(Reduces("a", threading.Lock())))
    exc.add_note("a note")
    exc.__cause__ = KeyError("cause")
    back = trip(exc)
    assert (type(back), back.args, back.resource) == (Reduces, ("<a>",), "reopened")
    assert back.__notes__ == ["a note"]
    assert back.__cause__.args == ("cause",)
    assert names(back)[-1] == "throw"
    assert trip(ReducesWithState()).restored is True


# Notes, causes, contexts, groups


def chained() -> BaseException:
    try:
        try:
            raise KeyError("context")
        except KeyError:
            raise ValueError("cause")  # noqa: B904
    except ValueError as cause:
        try:
            throw_from(RuntimeError("outer"), cause)
        except RuntimeError as exc:
            return exc
    raise AssertionError


def throw_from(exc: BaseException, cause: BaseException | None) -> None:
    raise exc from cause


@pytest.mark.parametrize("start", ["group", "member"])
def test_cycles_through_groups(start: str) -> None:
    member = ValueError("member")
    group = ExceptionGroup("group", [member, KeyError("other")])
    member.__context__ = group  # as `raise group.exceptions[0]` in an except block makes it
    back = trip(group if start == "group" else member)
    group = back if start == "group" else back.__context__
    assert group.exceptions[0].__context__ is group
    assert len(group.exceptions) == 2


# Tracebacks


def run_as(module: str, filename: str, source: str) -> dict[str, Any]:
    namespace: dict[str, Any] = {"__name__": module}
    exec(compile(textwrap.dedent(source), filename, "exec"), namespace)
    return namespace


SOURCES = ["/no/such/directory/module.py", "no_such_relative.py", "<stdin>", "<string>"]


@pytest.mark.parametrize("filename", SOURCES)
def test_lines_show_without_the_file(filename: str) -> None:
    source = "\n\ndef fail():\n    1 / 0  # here\n\ndef other():\n    fail()\n"
    namespace = run_as("users", filename, source)
    lines = source.splitlines(keepends=True)
    linecache.cache[filename] = (len(source), None, lines, filename)
    try:
        one, both = (dumps(raised(namespace[name])) for name in ("fail", "other"))
    finally:
        del linecache.cache[filename]
    assert "1 / 0  # here" not in shown(raised(namespace["fail"]))
    try:
        for _ in range(2):
            text = shown(pickle.loads(one))
            assert "    1 / 0  # here\n" in text and "~~^~~" in text
            linecache.checkcache()
        assert "    fail()\n" in shown(pickle.loads(both))
        assert linecache.getline(filename, 5) == "\n"
    finally:
        linecache.cache.pop(filename, None)


def recurse(depth: int) -> None:
    if depth == 0:
        raise ValueError("at the bottom")
    recurse(depth - 1)


def test_endless_recursion() -> None:
    def forever() -> None:
        forever()

    back = trip(raised(forever))
    assert type(back) is RecursionError
    assert len(shown(back)) < 10_000
    data = dumps(raised(lambda: recurse(700)))
    assert len(data) < 10_000
    back = pickle.loads(data)
    assert len(names(back)) == tracebacks.MAX_FRAMES + 2
    assert any("frames left out" in name for name in names(back))
    assert names(back)[-1] == "recurse"


def test_rebuilt_frames_hold_on_to_nothing() -> None:
    tb = trip(raised(lambda: fail_deeply("x"))).__traceback__
    while tb is not None:
        assert tb.tb_frame.f_back is None
        assert set(tb.tb_frame.f_globals) <= {"__name__", "__file__", "__builtins__"}
        tb.tb_frame.clear()
        tb = tb.tb_next


def test_long_chains_with_dill() -> None:
    serializer = dill_backend.make(dill_backend.Options())
    exc: BaseException = ValueError(0)
    for number in range(300):
        following = ValueError(number)
        following.__cause__ = exc
        exc = following
    payload = serializer.dumps(
        exc, lambda obj: reduce_exception(obj) if isinstance(obj, BaseException) else NotImplemented
    )
    assert serializer.loads(payload).__cause__.args == (298,)


# What cannot be pickled


class Unpicklable:
    def __reduce_ex__(self, protocol: Any) -> Any:
        raise TypeError("this stays here")

    def __repr__(self) -> str:
        return "<a thing>"


class ExitsWhenPickled:
    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise self.error


def test_texts_take_the_place_of_what_cannot_be_pickled() -> None:
    exc: Any = raised(lambda: throw(Slotted(3)))
    exc.args = ("kept", Unpicklable())
    exc.thing, exc.fine = (1, Unpicklable()), [1, 2]
    exc.unset = Unpicklable()
    exc.add_note("a note")
    before = dict(exc.__dict__), exc.args, list(exc.__notes__)
    back: Any = send(exc)
    assert type(back) is Slotted
    assert back.args == ("kept", "<unpicklable: <a thing>>")
    assert (back.fine, back.count, back.private) == ([1, 2], 3, 6)
    assert back.unset == "<unpicklable: <a thing>>"
    assert back.thing == "<unpicklable: (1, <a thing>)>"
    first, second = back.__notes__
    assert first == "a note"
    for name in ("args[1]", "thing", "unset"):
        assert repr(name) in second
    assert "this stays here" in second
    assert names(back)[-1] == "throw"
    assert before == (exc.__dict__, exc.args, exc.__notes__)


def test_other_exceptions_of_the_graph_are_mended_too() -> None:
    culprit: Any = raised(lambda: throw(ValueError(Unpicklable())))
    culprit.original = inner = KeyError("inner")
    culprit.errors = [inner, Plain(threading.Lock())]
    culprit.__context__ = inner
    group = ExceptionGroup("group", [culprit, OSError(2, "fine")])
    group.lock = threading.Lock()  # type: ignore[attr-defined]
    inner.__context__ = group
    exc = Plain("outer")
    exc.__cause__ = group
    back: Any = send(exc)
    assert (type(back), back.args) == (Plain, ("outer",))
    assert not hasattr(back, "__notes__")
    group = back.__cause__
    assert type(group) is ExceptionGroup and "'lock'" in group.__notes__[0]
    first, second = group.exceptions
    assert second.errno == 2  # type: ignore[attr-defined]
    assert first.args == ("<unpicklable: <a thing>>",)
    assert first.original is first.__context__ is first.errors[0]  # type: ignore[attr-defined]
    assert first.original.__context__ is group  # type: ignore[attr-defined]
    assert group.args[1][0] is first


class Attempted(Exception):
    """As that of tenacity is: its message is that of something that cannot be pickled."""

    def __init__(self, attempt: Any) -> None:
        self.attempt = attempt
        super().__init__(attempt)

    def __str__(self) -> str:
        return f"Attempted[{self.attempt}]"


def test_the_message_needs_what_cannot_be_pickled() -> None:
    back: Any = send(Attempted(Unpicklable()))
    assert type(back) is Attempted and str(back) == "Attempted[<unpicklable: <a thing>>]"
    assert "'attempt'" in back.__notes__[0]


class Broken(Exception):
    def __reduce__(self) -> Any:
        raise SystemExit(1)


def test_own_reduce_that_fails_or_works_beside_what_cannot_be_pickled() -> None:
    broken: Any = raised(lambda: throw(Broken("text")))
    broken.detail = 5
    broken.__cause__ = Plain(Unpicklable())
    back: Any = send(broken)
    assert (type(back), back.args, back.detail) == (Broken, ("text",), 5)

    fine = Reduces("a", threading.Lock())
    fine.__cause__ = Plain(Unpicklable())
    back = send(fine)
    assert (type(back), back.resource) == (Reduces, "reopened")
    assert back.__cause__.args == ("<unpicklable: <a thing>>",)


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit, RecursionError])
def test_nothing_escapes(error: type[BaseException]) -> None:
    back = send(Plain("text", ExitsWhenPickled(error)))
    assert back.args[0] == "text" and back.args[1].startswith("<unpicklable: ")


def test_a_serializer_that_fails_altogether() -> None:
    def fail(value: Any, mend: bool) -> bytes:
        raise SystemExit

    summary, payload = dump_exception(ValueError("text"), fail)
    assert payload is None
    back: Any = load_exception(summary, payload, pickle.loads)
    assert (type(back), back.type_name, back.__cause__) == (
        RemoteError,
        "builtins.ValueError",
        None,
    )


def explode() -> Any:
    raise SystemExit("while loading")


class ExplodesWhenLoaded(Exception):
    def __reduce__(self) -> Any:
        return explode, ()


class LoadsAsText(Exception):
    def __reduce__(self) -> Any:
        return str, ("not an exception",)


def test_what_cannot_be_loaded() -> None:
    back: Any = send(ExplodesWhenLoaded("text"))
    assert (type(back), back.message) == (RemoteError, "text")
    assert type(back.__cause__) is SystemExit
    assert type(send(LoadsAsText()).__cause__) is TypeError  # a string has no cause
    summary = Summary("a.B", "message", "")
    back = load_exception(summary, b"garbage", pickle.loads)
    assert type(back) is RemoteError and isinstance(back.__cause__, Exception)
    back = load_exception(summary, b"x", lambda data: "text")
    assert isinstance(back.__cause__, TypeError)


def test_code_that_is_missing_is_the_callers_business() -> None:
    def loads(data: bytes) -> Any:
        raise MissingCode(data)

    with pytest.raises(MissingCode):
        load_exception(Summary("a.B", "", ""), b"key", loads)


# Summaries


def test_summaries_describe() -> None:
    summary = summarise(chained(), LABEL)
    assert (summary.type_name, summary.message) == ("builtins.RuntimeError", "outer")
    text = summary.traceback
    assert text.index("KeyError: 'context'") < text.index("ValueError: cause")
    assert text.index("direct cause") < text.index("RuntimeError: outer")
    assert LABEL in text and "in throw_from\n    raise exc from cause\n" in text
    text = summarise(ExceptionGroup("g", [ValueError("first"), KeyError("second")])).traceback
    assert "  | ValueError: first" in text and "  | KeyError: 'second'" in text
