"""From values to payload segments and back, on one connection's serializer.

The codec adds to the serializer what every serializer needs: exceptions and classes that keep
their identity, routines, and errors that say which argument it was.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import CodeType, FunctionType
from typing import Any

from wool._serialization.classes import CLASSES, MissingCode, find_class, find_thrown, loading
from wool._serialization.code import CodeBook, CodeStore, CodeUnit
from wool._serialization.codeobjects import reduce_code
from wool._serialization.codepickler import reduce_routine
from wool._serialization.exceptions import reduce_exception
from wool._serialization.modules import importable
from wool.abc import Buffer, Payload, Serializer
from wool.exceptions import SerializationError


@dataclass(slots=True)
class Encoded:
    """A value as segments, and the classes it mentions that travel by value."""

    segments: list[Buffer]
    classes: dict[bytes, type]


class _Reducer:
    """Takes part in the pickling of one value."""

    __slots__ = ("classes", "label", "thrown")

    def __init__(self, label: str | None, thrown: BaseException | None) -> None:
        self.classes: dict[bytes, type] = {}
        self.label = label
        self.thrown = thrown

    def __call__(self, obj: Any) -> Any:
        if isinstance(obj, type):
            if obj.__module__ == "builtins" or importable(obj):
                return NotImplemented
            key = CLASSES.key(obj)
            self.classes[key] = obj
            return find_class, (key,)
        if isinstance(obj, FunctionType):
            return reduce_routine(obj)
        if isinstance(obj, BaseException):
            if obj is self.thrown:
                return find_thrown, ()
            return reduce_exception(obj, self.label)
        if isinstance(obj, CodeType):
            return reduce_code(obj)
        return NotImplemented


class Codec:
    """Encodes and decodes values; usable from several threads.

    Args:
        serializer: the back-end for values.
        book: units of this process's own code.
        store: units received from others.
    """

    def __init__(self, serializer: Serializer, book: CodeBook, store: CodeStore) -> None:
        self.book = book
        self.store = store
        self._dumps = serializer.dumps
        self._loads = serializer.loads

    def encode(
        self, value: Any, label: str | None = None, thrown: BaseException | None = None
    ) -> Encoded:
        """Encodes a value.

        Args:
            label: says where exceptions in it were raised.
            thrown: an exception that came from the receiver, who has the original.

        Raises:
            Exception: whatever the serializer raises.
        """
        reducer = _Reducer(label, thrown)
        payload = self._dumps(value, reducer)
        return Encoded([payload.head, *payload.buffers], reducer.classes)

    def encode_closed(self, value: Any) -> Encoded:
        """Encodes a value, and makes sure that the classes it mentions can be sent as well."""
        encoded = self.encode(value)
        self.units(encoded.classes)
        return encoded

    def encode_arguments(
        self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Encoded:
        """Encodes the arguments of a call.

        Raises:
            SerializationError: names the argument that cannot be encoded.
        """
        try:
            return self.encode((args, kwargs))
        except Exception as error:
            raise self._argument_error(function, args, kwargs, error) from error

    def decode(self, segments: Sequence[Buffer], thrown: BaseException | None = None) -> Any:
        """Rebuilds a value; `thrown` is the exception that its maker had from here.

        Raises:
            MissingCode: code that the value mentions is not here.
            Exception: whatever rebuilding raises: it runs the user's code.
            KeyboardInterrupt: Ctrl-C, or the user's code again.
        """
        buffers = [_writable(buffer) for buffer in segments[1:]]
        try:
            with loading(self.store, thrown):
                return self._loads(Payload(segments[0], buffers))
        except (Exception, KeyboardInterrupt):
            raise
        except BaseException as error:
            raise interrupted(error) from error

    def units(self, classes: dict[bytes, type]) -> list[CodeUnit]:
        """Returns the units that define classes.

        Raises:
            SerializationError: a class cannot be pickled.
        """
        units: list[CodeUnit] = []
        for cls in classes.values():
            try:
                units.append(self.book.cls(cls))
            except Exception as error:
                raise SerializationError(
                    f"the class {cls.__qualname__!r} cannot be sent: {_reason(error)}. Move it "
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
        for name, value in _named(function, args, kwargs):
            try:
                self.encode(value)
            except Exception as culprit:
                error = culprit
                what = f"argument {name!r} ({type(value).__qualname__})"
                break
        else:
            what = "the arguments"
        return SerializationError(
            f"{what} of {function.__qualname__}() cannot be sent to a worker: {_reason(error)}. "
            "Pass something that can be pickled, such as the data to make it from"
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
        f"the result of {function}() ({type(value).__qualname__}) cannot be sent back: "
        f"{_reason(error)}. Return something that can be pickled"
    )


def rebuild_error(what: str, error: BaseException, where: str) -> SerializationError:
    """Returns the error for a value that arrived but cannot be rebuilt."""
    return SerializationError(
        f"{what} cannot be rebuilt on {where}: {_reason(error)}. Check that the module is "
        "installed there in the same version and that the value survives pickling"
    )


def _reason(error: BaseException) -> str:
    try:
        return f"{type(error).__name__}: {error}"
    except Exception:
        return type(error).__name__


def _writable(buffer: Buffer) -> Buffer:
    """Makes out-of-band data writable, as the original was; pickle protects read-only ones."""
    return bytearray(buffer) if memoryview(buffer).readonly else buffer


__all__ = ["Codec", "Encoded", "MissingCode", "interrupted", "rebuild_error", "result_error"]
