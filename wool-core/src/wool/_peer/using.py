"""A use of a live object, which is a call with that object as its target: made, and served.

Steps of one iterator share a task and a context at its owner, as with a consumer there.
"""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import weakref
from collections.abc import Callable
from contextvars import Context
from typing import Any, TypeGuard

from wool._peer import background
from wool._peer.end import End
from wool._peer.incoming import NOTHING, IncomingCall, Leaving, State, cancel_argument
from wool._peer.outgoing import (
    Cancelled,
    Failed,
    Outcome,
    OutgoingCall,
    Reply,
    Request,
    decode_reply,
    reply_error,
    shield,
)
from wool._peer.references import RemoteReference, Result
from wool._peer.running import RUNNING
from wool._protocol import frames as f
from wool._texts import reason_of
from wool._values.codec import Encoded, rebuild_error
from wool._values.exceptions import dump_exception
from wool._values.references import (
    GENERATOR,
    STEPS,
    Export,
    Interface,
    interface_of,
)
from wool.exceptions import SerializationError, WoolError

ITERATING = frozenset({"__anext__", "asend", "athrow"})
"""Operations that lead to the next value of an iterator, or to its end."""

THROWING = frozenset({"athrow", "__aexit__"})
"""Operations whose argument is an exception. None fails because of that exception."""

_LEAVING = frozenset({"__aexit__", "aclose"})
"""Operations that begin even if they have been cancelled, as they do in the owner's own code."""

_LOCKS = frozenset(
    interface_of(lock) for lock in (asyncio.Lock(), asyncio.Semaphore(), asyncio.BoundedSemaphore())
)
"""Objects whose `acquire` is what entering them is."""


# Asking the owner ---------------------------------------------------------------------------------

Begin = Callable[[Request], OutgoingCall]
"""Sends a call to the owner of an object."""


async def use(
    peer: End,
    begin: Begin,
    reference: RemoteReference,
    operation: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Result:
    """Has the owner use an object."""
    thrown = args[0] if args and operation in THROWING else None
    try:
        call = begin(_request(peer, reference, operation, args, kwargs))
        outcome = await call.wait()
        entering = operation not in ITERATING
        while isinstance(outcome, Cancelled) and outcome.open:
            # The cancel crossed the answer: it strikes where the generator stands now, or as
            # if it had been the first thing after entering.
            thrown = outcome.error
            leave = "__aexit__" if entering else "athrow"
            call = begin(_request(peer, reference, leave, (thrown,), {}))
            with shield():  # the clean-up there is not to be cancelled as well
                outcome = await call.wait()
            if isinstance(outcome, Failed) or (entering and _is_return(outcome)):
                return None, thrown
        if _is_return(outcome):
            return await decode_reply(peer.codec, call, outcome), None
        if isinstance(outcome, Failed) and operation == "aclose":
            return None, None  # closing is silent about the loss of the owner
        return None, await reply_error(peer.codec, call, outcome, thrown)
    except WoolError as error:
        return None, error.with_traceback(None)


def _is_return(outcome: Outcome | Cancelled) -> TypeGuard[Reply]:
    return isinstance(outcome, Reply) and type(outcome.frame) is f.Return


def _request(
    peer: End,
    reference: RemoteReference,
    operation: str,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Request:
    """Encodes a use."""
    running, interface, codec = RUNNING.get(), reference.interface, peer.codec
    encoded, units = Encoded(), []
    try:
        if args and operation in THROWING:  # as much of it as can be sent, to release a lock
            encoded = dump_exception(args[0], codec.encode_closed)[1]
            if encoded is None:
                raise SerializationError("nothing of the exception can be pickled")
        elif args or kwargs:
            encoded = codec.encode((args, kwargs))
        if encoded.code:
            units = codec.units(peer.session.lacking(encoded.code))
    except Exception as error:
        what = f"what is passed to {interface.name}"
        reason = reason_of(error)
        raise SerializationError(f"{what} cannot be sent to its owner: {reason}") from error
    return Request(
        target=f"@{reference.key.hex()}.{operation}",
        name=interface.name,
        parent="" if running is None else running.info.id,
        units=units,
        segments=encoded.segments,
        calls=encoded.calls,
        exports=encoded.exports,
        opens=f.Return if _opens(interface, operation) else None,
        iterates=operation in ITERATING,
    )


def _opens(interface: Interface, operation: str) -> bool:
    """Whether something is left open when this has succeeded, such as a lock that is held."""
    if operation == "__aenter__":
        return "__aexit__" in interface.methods
    if operation == "acquire":
        return interface in _LOCKS
    return interface.kind == GENERATOR and operation in ITERATING


# As the owner -------------------------------------------------------------------------------------


class IncomingUse(IncomingCall):
    """A use of an object of ours, as its owner executes it."""

    _closing = False  # will be cancelled when it has begun

    def begin(self) -> None:
        """Does with an object what the peer asks for."""
        key, _, operation = self.frame.routine[1:].partition(".")
        export: Export | None = None  # if it is not lent to the peer
        with contextlib.suppress(ValueError):
            export = self.peer.lent.find(bytes.fromhex(key))
        self._export = export
        self._operation = operation
        self._name = "the object" if export is None else export.interface.name
        if export is not None and operation in STEPS:
            if export.driver is None or export.driver.ended:
                export.driver = _make_driver(export)
            if export.driver.take(self):
                return
        self.start()

    def start(self) -> None:
        """Begins in a task of its own."""
        export = self._export
        context = None if export is None else export.context.copy()
        task = background.start(self.peer.loop, self.run(), context)
        task.add_done_callback(self._on_ended)

    def cancel(self, step: int, message: bytes | None) -> None:
        """Cancels it, but has it begin if it leaves or closes something."""
        self._cancel(*cancel_argument(message))

    def _cancel(self, *argument: Any) -> None:
        if self.state is State.RUNNING:
            assert self.task is not None
            self._deliver(self.task, *argument)
        elif self.state is State.PENDING and self._operation in _LEAVING and not self._closing:
            self._closing = True
            self.peer.loop.call_soon(self._cancel, *argument)
        elif self.state is State.PENDING:
            self.state = State.DISMISSED

    def abandon(self, *, gone: bool = True) -> None:
        """The peer is gone: it is cancelled, unless what runs is a clean-up already."""
        self.leaving = Leaving.CALLER
        if self._operation != "aclose" and not self._tidying:
            self._cancel("the user of the object is gone")

    def _on_ended(self, task: asyncio.Task[bool]) -> None:
        """Answers for a task that was cancelled before its first step."""
        if self.task is None:
            self._finish_raise(asyncio.CancelledError())

    async def run(self) -> bool:
        """Does it, and answers. Returns False if the task was cancelled by somebody else."""
        task = self.task = asyncio.current_task()
        assert task is not None
        self._begin_step(task)
        foreign, dismissed = False, self.state is State.DISMISSED
        self.state = State.RUNNING
        try:
            if dismissed:
                raise asyncio.CancelledError
            value = await self._perform()
        except BaseException as error:
            foreign = self._pending(task) > self.delivered
            self._finish_raise(error)
        else:
            self._finish_return(value)
        self._export = None
        while not foreign and self._pending(task) > 0:
            task.uncancel()
        return not foreign

    async def _perform(self) -> Any:
        export, operation = self._export, self._operation
        if export is None:
            raise WoolError("the object is not lent to the process that uses it")
        methods = export.interface.methods
        if operation not in methods and f"*{operation}" not in methods:
            raise WoolError(f"{operation} of {self._name} cannot be used from elsewhere")
        args, kwargs = await self._arguments()
        value = export.value
        method = value if operation == "__call__" else getattr(value, operation)
        made = method(*args, **kwargs)
        # The traceback of an exception that is thrown in has this frame, which must not have it: a
        # generator's resources are to be closed now, not when garbage is collected.
        del args, kwargs
        return await made if inspect.isawaitable(made) else made

    async def _arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        (segments, referents), self._payload = self._payload, NOTHING
        leaving = self._operation == "__aexit__"
        if not leaving and self._operation != "athrow":
            if not segments:
                return (), {}
            return await self._load(segments, referents, self._unreadable)
        if leaving and not segments:
            return (None, None, None), {}
        thrown = await self._load_thrown(segments, referents)
        return ((type(thrown), thrown, thrown.__traceback__) if leaving else (thrown,)), {}

    def _unreadable(self, error: Exception) -> SerializationError:
        return rebuild_error(f"what was passed to {self._name}", error, self.peer.where)

    def _encode(self, value: Any) -> Encoded | None:
        self._name = self._name.removesuffix("()")
        return super()._encode(value)


class Driver:
    """Makes the steps of an iterator in one task and one context, as a consumer here would.

    Attributes:
        ended: whether it takes no more steps.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, context: Context) -> None:
        self.ended = False
        self._loop = loop
        self._use: IncomingUse | None = None
        self._wanted: asyncio.Future[None] | None = None
        background.start(loop, self._run(), context).add_done_callback(self._on_ended)

    def take(self, use: IncomingUse) -> bool:
        """Takes a step; False if one is being made."""
        if self._use is not None:
            return False
        self._use = use
        self._wake()
        return True

    def end(self) -> None:
        """The iterator is needed no more; on any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed, and all is over
            self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        self.ended = True
        self._wake()

    def _wake(self) -> None:
        if self._wanted is not None:
            background.settle(self._wanted)

    async def _run(self) -> None:
        while not self.ended:
            if self._use is None:
                self._wanted = self._loop.create_future()
                await self._wanted
            else:
                go_on = await self._use.run()
                self._use = None
                if not go_on:
                    return

    def _on_ended(self, task: asyncio.Task[None]) -> None:
        """Starts without the task the use that it has taken and, being cancelled, not begun."""
        self.ended = True
        use, self._use = self._use, None
        if use is not None:
            use.start()


def _make_driver(export: Export) -> Driver:
    driver = Driver(export.loop, export.context)
    weakref.finalize(export, driver.end).atexit = False
    return driver
