"""From values to payload segments and back, on one pool's serializer.

The codec adds to the serializer what every serializer needs: exceptions and classes that keep
their identity, routines, and errors that say which argument it was.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import pickle
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from pickle import PickleBuffer
from types import (
    AsyncGeneratorType,
    CoroutineType,
    FunctionType,
    TracebackType,
)
from typing import Any, cast

import msgspec

from wool._backends._pickling import PROTOCOL, PickleSerializer
from wool._code.calls import Call, future_stays, reduce_call
from wool._code.code import CodeBook, CodeStore
from wool._code.codepickler import Values
from wool._code.loading import (
    LOADING,
    NO_REFERENTS,
    Referents,
    find_class,
)
from wool._code.modules import Modules
from wool._code.names import missing_remedy
from wool._code.treatments import Reducer
from wool._code.units import CodeUnit
from wool._protocol import frames as f
from wool._texts import kind_of, reason_of
from wool._values.exceptions import Failure, Thrown, reduce_exception
from wool._values.references import (
    Export,
    function_travels,
    interface_of,
    must_stay,
    reduce_reference,
    travels,
)
from wool._values.tracebacks import capture, rebuild
from wool._values.variables import reduce_variable
from wool.abc import Buffer, Payload, Serializer
from wool.exceptions import SerializationError

MOST_OBJECTS, MOST_CODE = 1 << 16, 1 << 13
"""So many live objects, and so many classes and routines by value, one value may mention: the
header of a frame has room for them, see `frames.MAX_HEADER`."""

LIFTED = 1 << 20
"""Bytes of a `bytes` object from which on it is kept out of the pickle, where it would be copied
while nothing else of its event loop runs. Only those are that stand by themselves, as an argument
or a result: what is in a container is pickled with it."""

ATOMS = frozenset({type(None), bool, int, float, str, bytes})
"""Types of values that have no parts, and no pickler is asked about. Most arguments and results are
of them, and to make a pickler takes longer than to pickle them."""

_LARGE = "There is too little memory: pass less at once, such as pieces in a stream"


class Encoded(msgspec.Struct, frozen=True):
    """A value as it is sent.

    Attributes:
        segments: the value.
        code: the classes and routines that it mentions and that travel by value, by their keys.
        calls: the unstarted calls that it describes.
        exports: the live objects that it refers to.
        context: names the trailing segments, which are values of context variables.
        codes: names the leading segments, which are code that a peer lacks.
    """

    segments: list[Buffer] = []  # Struct makes a new one for each
    code: dict[bytes, type | FunctionType] = {}
    calls: Sequence[Call] = ()
    exports: Sequence[Export] = ()
    context: tuple[f.Variable, ...] = ()
    codes: tuple[f.Code, ...] = ()


def prepend(
    units: Sequence[CodeUnit], segments: Sequence[Buffer]
) -> tuple[tuple[f.Code, ...], list[Buffer]]:
    """Puts code before some segments; returns its names, and all segments."""
    codes = tuple(f.Code(unit.key, unit.provides) for unit in units)
    return codes, [*(unit.data for unit in units), *segments]


class _Reducer(Reducer, kw_only=True):
    """Takes part in the pickling of one value."""

    book: CodeBook
    label: str | None
    thrown: Thrown | None
    failure: Failure | None
    code: dict[bytes, type | FunctionType]
    calls: list[Call]
    exports: list[Export]

    def class_by_value(self, cls: type) -> Any:
        key = self.book.key(cls)
        self.code[key] = cls
        return find_class, (key,)

    def function(self, function: FunctionType) -> Any:
        if function_travels(function):
            return self.reduce_reference(function)
        return super().function(function)

    def other(self, obj: Any) -> Any:
        return self.reduce_reference(obj) if travels(obj) else super().other(obj)

    def reduce_exception(self, error: BaseException) -> Any:
        if self.thrown is not None and error is self.thrown.exception:
            return self.thrown.reduce(self.label)
        return reduce_exception(error, self.label, self.failure)

    def reduce_future(self, future: asyncio.Future[Any]) -> Any:
        raise SerializationError(future_stays(future))

    def reduce_call(self, call: Call) -> Any:
        reduced = reduce_call(call, self.modules, self._key)
        if reduced is NotImplemented:
            return self.reduce_reference(call)
        self.calls.append(call)
        return reduced

    def reduce_reference(self, obj: Any) -> Any:
        export, reduced = reduce_reference(obj)
        self.exports.append(export)
        return reduced

    def _key(self, function: FunctionType) -> bytes:
        key = self.book.function(function).key
        self.code[key] = function
        return key


_Reducer.of_type = {
    **Reducer.of_type,
    AsyncGeneratorType: _Reducer.reduce_call,
    ContextVar: lambda reducer, variable: reduce_variable(variable, reducer.modules),
    CoroutineType: _Reducer.reduce_call,
    FunctionType: _Reducer.function,
    TracebackType: lambda _, traceback: (rebuild, (capture(traceback),)),
}
_Reducer.of_base = {
    **Reducer.of_base,
    BaseException: _Reducer.reduce_exception,
    asyncio.Future: _Reducer.reduce_future,
}


class ValuesInCode(Values):
    """Treats values that code has among its globals, defaults and closures, for a `CodeBook`."""

    def reduce(self, obj: Any, modules: Modules, /) -> Any:
        if isinstance(obj, BaseException):
            return reduce_exception(obj)
        if type(obj) is ContextVar:
            return reduce_variable(cast("ContextVar[Any]", obj), modules)
        return NotImplemented

    def must_stay(self, obj: Any, /) -> bool:
        return must_stay(obj)


class Codec:
    """Encodes and decodes values; usable from several threads.

    Args:
        serializer: the back-end for values.
        book: units of this process's own code.
        store: units received from others.

    Attributes:
        modules: those that travel with the calls.
    """

    def __init__(self, serializer: Serializer, book: CodeBook, store: CodeStore) -> None:
        self.book = book
        self.store = store
        self.modules: Modules = book.modules
        self._dumps = serializer.dumps
        self._loads = serializer.loads
        self._dumps_pickles = isinstance(serializer, PickleSerializer)
        self._loads_pickles = type(serializer).loads is PickleSerializer.loads

    def encode(
        self,
        value: Any,
        label: str | None = None,
        thrown: Thrown | None = None,
        mend: bool = False,
    ) -> Encoded:
        """Encodes a value.

        Args:
            label: says where exceptions in it were raised.
            thrown: an exception that came from the receiver, who has the original.
            mend: whether to put texts in place of what of exceptions cannot be pickled.

        Raises:
            SerializationError: it mentions too much.
            Exception: whatever the serializer raises.
        """
        if type(value) is bytes:
            value = _lift(value)
        parts = cast("tuple[Any, ...]", value) if type(value) is tuple else (value,)
        if self._dumps_pickles and ATOMS.issuperset(map(type, parts)):
            return Encoded([pickle.dumps(value, PROTOCOL)], {})
        failure = self._failure if mend else None
        reducer = _Reducer(
            self.modules,
            book=self.book,
            label=label,
            thrown=thrown,
            failure=failure,
            code={},
            calls=[],
            exports=[],
        )
        payload = self._dumps(value, reducer)
        if len(reducer.exports) > MOST_OBJECTS:
            raise _too_many(len(reducer.exports), "live objects", MOST_OBJECTS)
        if len(reducer.code) > MOST_CODE:
            raise _too_many(len(reducer.code), "classes and routines by value", MOST_CODE)
        segments = [payload.head, *payload.buffers]
        return Encoded(segments, reducer.code, reducer.calls, reducer.exports)

    def encode_closed(self, value: Any, mend: bool = False) -> Encoded:
        """Encodes a value, and makes sure that the classes it mentions can be sent as well."""
        encoded = self.encode(value, None, None, mend)
        self.units(encoded.code)
        return encoded

    def _failure(self, value: Any) -> BaseException | None:
        try:
            self.encode_closed(value)
        except BaseException as error:  # pickling runs the user's code
            return error
        return None

    def encode_arguments(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Encoded:
        """Encodes the arguments of a call.

        Raises:
            SerializationError: names the argument that cannot be encoded.
        """
        try:
            if bytes in map(type, args) or bytes in map(type, kwargs.values()):
                args, kwargs = _lift_all(args, kwargs)
            if self._dumps_pickles and not kwargs and ATOMS.issuperset(map(type, args)):
                return Encoded([pickle.dumps((args, kwargs), PROTOCOL)], {})
            return self.encode((args, kwargs))
        except Exception as error:
            raise self._argument_error(function, args, kwargs, error) from error

    def decode(
        self,
        segments: Sequence[Buffer],
        thrown: BaseException | None = None,
        referents: Referents = NO_REFERENTS,
    ) -> Any:
        """Rebuilds a value.

        Args:
            thrown: the exception that its maker had from here.
            referents: the live objects that came with it.

        Raises:
            MissingCode: code that the value mentions is not here.
            Exception: whatever rebuilding raises: it runs the user's code.
            KeyboardInterrupt: Ctrl-C, or the user's code again.
        """
        buffers = list(map(_writable, segments[1:])) if len(segments) > 1 else ()
        before = LOADING.set((self.store, thrown, referents))
        try:
            if self._loads_pickles:
                return pickle.loads(segments[0], buffers=buffers)
            return self._loads(Payload(segments[0], buffers))
        except (Exception, KeyboardInterrupt):
            raise
        except BaseException as error:
            raise interrupted(error) from error
        finally:
            LOADING.reset(before)

    def units(self, code: dict[bytes, type | FunctionType]) -> list[CodeUnit]:
        """Returns the units that define classes and routines.

        Raises:
            SerializationError: one of them cannot be pickled.
        """
        units: list[CodeUnit] = []
        for item in code.values():
            try:
                unit = self.book.cls(item) if isinstance(item, type) else self.book.function(item)
                units.append(unit)
            except Exception as error:
                kind = "class" if isinstance(item, type) else "routine"
                raise SerializationError(
                    f"the {kind} {item.__qualname__!r} cannot be sent: {reason_of(error)}. Move it "
                    "to a module that the worker can import"
                ) from error
        return units

    def _argument_error(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        error: Exception,
    ) -> SerializationError:
        remedy = "Pass something that can be pickled, such as the data to make it from"
        for name, value in _named(function, args, kwargs):
            try:
                self.encode(value)
            except Exception as culprit:
                error = culprit
                what = f"argument {name!r} ({kind_of(value)})"
                if _can_stay(value):
                    remedy += ", or wool.reference() of it, whose async methods then run here"
                break
        else:
            what = "the arguments"
        return SerializationError(
            f"{what} of {function.__qualname__}() cannot be sent to a worker: "
            + _remedied(error, remedy)
        )


class Lifted:
    """Stands for a large `bytes` object in a pickle, to be sent without a copy."""

    def __init__(self, value: bytes) -> None:
        self._value = value

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return bytes, (PickleBuffer(self._value),)


def _lift(value: Any) -> Any:
    return Lifted(value) if type(value) is bytes and len(value) >= LIFTED else value


def _lift_all(
    args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Replaces the large arguments. One that is passed twice stays one."""
    lifted = {id(value): _lift(value) for value in (*args, *kwargs.values())}
    return (
        tuple(lifted[id(value)] for value in args),
        {name: lifted[id(value)] for name, value in kwargs.items()},
    )


def _can_stay(value: Any) -> bool:
    """Whether a value can be marked with `wool.reference`."""
    with contextlib.suppress(Exception):  # looking at an object may run its class's code
        return bool(type(value).__weakrefoffset__ and interface_of(value).methods)
    return False


def _too_many(count: int, what: str, most: int) -> SerializationError:
    return SerializationError(
        f"it refers to {count:,} {what}, and {most:,} is the most that can go at once: pass them "
        "in several calls, or by means of one object that has them"
    )


def _named(
    function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Iterator[tuple[str, Any]]:
    """Yields the name and value of every argument."""
    signature = inspect.signature(function)
    for name, value in signature.bind(*args, **kwargs).arguments.items():
        kind = signature.parameters[name].kind
        if kind is inspect.Parameter.VAR_KEYWORD:
            yield from value.items()
        elif kind is inspect.Parameter.VAR_POSITIONAL:
            yield from ((f"{name}[{i}]", item) for i, item in enumerate(value))
        else:
            yield name, value


def interrupted(error: BaseException) -> SerializationError:
    """Returns the error for user code that raised SystemExit or the like while being rebuilt."""
    return SerializationError(f"rebuilding it raised {type(error).__name__}")


def result_error(function: str, value: Any, error: BaseException) -> SerializationError:
    """Returns the error for a result that cannot be encoded."""
    return SerializationError(
        f"the result of {function}() ({kind_of(value)}) cannot be sent back: "
        + _remedied(error, "Return something that can be pickled")
    )


def rebuild_error(what: str, error: BaseException, where: str) -> SerializationError:
    """Returns the error for a value that arrived but cannot be rebuilt."""
    reason = str(error) if isinstance(error, SerializationError) else reason_of(error)
    return SerializationError(f"{what} cannot be rebuilt on {where}: {reason}{_hint(error)}")


def _hint(error: BaseException) -> str:
    if isinstance(error, MemoryError):
        return f". {_LARGE}"
    if "Move it to a module" in str(error):
        return ""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return (
            ". Check that the module is installed there in the same version and that the value "
            "survives pickling"
        )
    return "" if "ship=[" in str(error) else f". {missing_remedy(error.name)}"


def _remedied(error: BaseException, remedy: str) -> str:
    """Says what is wrong and what to do; our own errors say both."""
    if isinstance(error, SerializationError):
        return str(error)
    return f"{reason_of(error).rstrip('.')}. {_LARGE if isinstance(error, MemoryError) else remedy}"


def _writable(buffer: Buffer) -> Buffer:
    """Makes out-of-band data writable, as the original was; pickle protects read-only ones."""
    return bytearray(buffer) if memoryview(buffer).readonly else buffer
