"""From a call of a routine to what is sent to a worker."""

from __future__ import annotations

from itertools import count
from types import FunctionType
from typing import Any

from wool._client.routine import Routine, without_defaults
from wool._code.modules import Modules
from wool._code.units import CodeUnit
from wool._peer.outgoing import Request
from wool._peer.running import RUNNING, RunningCall
from wool._texts import kind_of, reason_of
from wool._values.codec import Codec, Encoded
from wool._values.context import CallerContext, with_changes
from wool.exceptions import SerializationError
from wool.plugins import CallInfo

_NUMBERS = count(1)


def make_request(
    codec: Codec,
    routine: Routine,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    running: RunningCall | None,
    shared: CallerContext | None,
    info: CallInfo | None,
) -> Request:
    """Encodes a call.

    Args:
        shared: what the worker knows of the context; None if there is nothing to know.
        info: what a balancer is to be told of it, if there is one.

    Raises:
        SerializationError: an argument or the routine's own code cannot be sent.
    """
    function = routine.function
    if function.__defaults__ or function.__kwdefaults__:
        args, kwargs = without_defaults(function, args, kwargs)
    encoded = codec.encode_arguments(function, args, kwargs)
    units: list[CodeUnit] = []
    target = routine.target
    if target is None or codec.modules.travelling:
        target = _target(codec.modules, routine)
    if target is None:
        units.append(_function_unit(codec, function))
        target = f"#{units[0].key.hex()}"
    if shared is not None:  # code went first: it gives its variables names
        encoded = with_changes(encoded, shared.changes())
    if encoded.code:
        units += codec.units(encoded.code)
    return Request(
        target=target,
        name=function.__qualname__,
        stream=routine.is_stream,
        tags=routine.tags,
        parent="" if running is None else running.info.id,
        units=units,
        segments=encoded.segments,
        calls=encoded.calls,
        exports=encoded.exports,
        context=encoded.context,
        prefetch=routine.prefetch if routine.is_stream else 0,
        info=info,
    )


def describe(pool: str, routine: Routine) -> CallInfo:
    """Returns what observers, and a balancer, are told of a call that a pool is about to make."""
    running = RUNNING.get()
    return CallInfo(
        id=f"{pool}-{next(_NUMBERS)}",
        parent=None if running is None else running.info.id,
        routine=f"{routine.function.__module__}:{routine.function.__qualname__}",
        stream=routine.is_stream,
        tags=routine.tags,
    )


def _target(modules: Modules, routine: Routine) -> str | None:
    """Returns how a routine is named to workers, None if its function travels by value."""
    wrapper, function = routine.wrapper, routine.function
    reference = modules.qualified_name(wrapper) or modules.qualified_name(function)
    if reference is not None:
        return "=" + ":".join(reference)
    if routine.target is None and (modules.importable(wrapper) or modules.importable(function)):
        routine.target = f"{function.__module__}:{function.__qualname__}"
    return routine.target


def _function_unit(codec: Codec, function: FunctionType) -> CodeUnit:
    try:
        return codec.book.function(function)
    except Exception as error:
        reason = reason_of(error)
        culprit = codec.book.culprit(function)
        if culprit is not None:
            reason = f"{culprit} cannot be pickled: {reason}"
        raise SerializationError(
            f"the routine {function.__qualname__}() cannot be sent to a worker: {reason}. Pass "
            "what it needs as an argument, make it inside, or move the routine to a module that "
            "workers can import"
        ) from error


def encode_sent(codec: Codec, routine: Routine, value: Any) -> Encoded:
    try:
        return codec.encode(value)
    except Exception as error:
        raise SerializationError(
            f"the value ({kind_of(value)}) sent to {routine.function.__qualname__}() "
            f"cannot be pickled: {reason_of(error)}"
        ) from error
