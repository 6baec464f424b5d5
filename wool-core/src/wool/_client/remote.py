"""A call of a routine, from its arguments to its result: encoded, sent to a worker, decoded.

Nothing here raises into user code: the outcome is returned, and the wrapper of the routine raises
it, so that no frame of Wool's stands in a traceback.
"""

from __future__ import annotations

import asyncio
import time
from itertools import count
from types import FunctionType
from typing import Any

from wool._client.poolbase import PoolBase
from wool._client.routine import Routine, without_defaults
from wool._code.modules import Modules
from wool._code.units import CodeUnit
from wool._peer.outgoing import (
    OutgoingCall,
    Reply,
    Request,
    decode_reply,
    load_variable,
    reply_error,
)
from wool._peer.running import RUNNING, RunningCall
from wool._plugins.observers import FINISHED, STARTED
from wool._protocol import frames as f
from wool._texts import reason_of
from wool._values.codec import Codec
from wool._values.context import CallerContext, with_changes
from wool._workerinfo import WorkerInfo
from wool.exceptions import ContextWarning, SerializationError, WoolError
from wool.plugins import CallInfo, Outcome

_NUMBERS = count(1)


class Observation:
    """One call as observers, and a balancer, are told of it; not made where there are none.

    Attributes:
        info: the facts that they have been told of it.
        call: it, once it has been opened.
    """

    def __init__(self, pool: PoolBase, routine: Routine) -> None:
        running = RUNNING.get()
        self.info = CallInfo(
            id=f"{pool.id}-{next(_NUMBERS)}",
            parent=None if running is None else running.info.id,
            routine=f"{routine.function.__module__}:{routine.function.__qualname__}",
            stream=routine.is_stream,
            tags=routine.tags,
        )
        self.call: OutgoingCall | None = None
        self._observers = pool.observers  # that are to be told of its end
        self._began = time.monotonic()
        for observer in self._observers:
            observer.tell(STARTED, self.info)

    def end(self, error: BaseException | None, *, cancelled: bool = False) -> None:
        """Tells how the call has ended, once."""
        holder = self.call.holder if self.call is not None else None
        cancelled = cancelled or isinstance(error, asyncio.CancelledError)
        outcome = Outcome(
            status="cancelled" if cancelled else "returned" if error is None else "raised",
            error=error,
            worker=holder.info if holder is not None else None,
            seconds=time.monotonic() - self._began,
        )
        observers, self._observers = self._observers, ()
        for observer in observers:
            observer.tell(FINISHED, self.info, outcome=outcome)


async def observed_call(
    pool: PoolBase,
    routine: Routine,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    worker: WorkerInfo | None = None,
) -> tuple[Any, BaseException | None]:
    """As `call`, with observers told of it."""
    observation = Observation(pool, routine)
    try:
        value, error = await call(pool, routine, args, kwargs, worker, observation)
    except BaseException as failure:
        observation.end(failure)
        raise
    observation.end(error)
    return value, error


async def call(
    pool: PoolBase,
    routine: Routine,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    worker: WorkerInfo | None = None,
    observation: Observation | None = None,
) -> tuple[Any, BaseException | None]:
    """Calls a routine on a worker; returns its result and None, or None and its exception.

    Args:
        worker: the one that it is for; None: any that fits.
    """
    running = RUNNING.get()
    if running is not None:
        running.wait_begins()
    try:
        codec = pool.codec
        context = pool.context
        shared = None  # as there is nothing to share, with most calls
        if context is not None and context.any_set():
            shared = CallerContext(context, pool.complaints.make)
        request = make_request(codec, routine, args, kwargs, running, shared, worker, observation)
        call = pool.client().open(request)
        if observation is not None:
            observation.call = call
        outcome = await call.wait()
        if outcome.context:
            shared = shared or CallerContext(context, pool.complaints.make)
            await shared.take(outcome.context, lambda s: load_variable(codec, call, s))
        if type(outcome) is Reply and type(outcome.frame) is f.Return:
            return await decode_reply(codec, call, outcome), None
        return None, await reply_error(codec, call, outcome, None)
    except (WoolError, ContextWarning) as error:
        return None, error.with_traceback(None)
    finally:
        if running is not None:
            running.wait_ends()


def make_request(
    codec: Codec,
    routine: Routine,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    running: RunningCall | None,
    shared: CallerContext | None,
    worker: WorkerInfo | None = None,
    observation: Observation | None = None,
) -> Request:
    """Encodes a call.

    Args:
        running: the call that makes this one.
        shared: knows which part of the context the worker has; None if there is nothing to know.
        worker: the one that it is for; None: any that fits.

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
    if shared is not None:  # the code went first: it gives its variables names
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
        info=None if observation is None else observation.info,
        worker=worker,
    )


def _target(modules: Modules, routine: Routine) -> str | None:
    """Returns how a routine is named to workers, None if its function travels by value."""
    wrapper, function = routine.wrapper, routine.function
    if not modules.may_refer_to(function.__module__):  # as of a script's own, with every call
        return None
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
