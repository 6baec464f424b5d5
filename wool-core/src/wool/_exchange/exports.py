"""Objects of this process that a peer uses: keeping them, and doing with them what it asks for."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import threading
import weakref
from collections.abc import Iterable, Sequence
from contextvars import Context
from typing import Any

from wool._exchange.answers import encode_failure, encode_result, make_raise, make_return
from wool._exchange.cancels import Cancels
from wool._exchange.end import End
from wool._exchange.exchange import cancel_argument
from wool._exchange.packing import Packed
from wool._protocol import frames as f
from wool._serialization.classes import NO_REFERENTS, Referents
from wool._serialization.codec import rebuild_error
from wool._serialization.exceptions import load_exception
from wool._serialization.fetching import rebuild
from wool._serialization.references import STEPS, Export
from wool._serialization.summaries import Summary
from wool._serialization.thrown import Thrown
from wool._serialization.units import MissingCode
from wool._session import background
from wool._session.session import Session
from wool.abc import Buffer
from wool.exceptions import SerializationError, WoolError

_LEAVING = frozenset({"__aexit__", "aclose"})
"""What begins even if it has been cancelled, as what is awaited where it lives does."""


class ExportTable:
    """What is lent to one peer, and how often that has been mentioned to it."""

    def __init__(self, end: End, session: Session) -> None:
        self.end = end
        self.session = session
        self.gone = False
        self._lent: dict[bytes, tuple[Export, int]] = {}
        self._servings: dict[int, Serving] = {}
        self._lock = threading.Lock()

    # On any thread ------------------------------------------------------------------------------

    @property
    def any(self) -> bool:
        """Whether something is lent that can be used."""
        with self._lock:
            return not all(export.finished for export, _ in self._lent.values())

    def lend(self, exports: Sequence[Export]) -> list[bytes]:
        """Notes that the next frame mentions objects; returns their keys, for the frame."""
        with self._lock:
            for export in () if self.gone else exports:
                _, mentions = self._lent.get(export.key, (export, 0))
                self._lent[export.key] = export, mentions + 1
        return [export.key for export in exports]

    def find(self, key: bytes) -> Export | None:
        """Returns what is lent under a key."""
        found = self._lent.get(key)
        return None if found is None else found[0]

    def release(self, references: Iterable[f.Lent]) -> list[Export]:
        """The peer gives up mentions; returns what is lent no more, for the user's loop to drop."""
        released: list[Export] = []
        with self._lock:
            for lent in references:
                export, mentions = self._lent.get(lent.key, (None, 0))
                if export is None:
                    continue
                if mentions > lent.times:
                    self._lent[lent.key] = export, mentions - lent.times
                else:
                    del self._lent[lent.key]
                    released.append(export)
        return released

    # On the loop of the user --------------------------------------------------------------------

    def serve(self, frame: f.Open, segments: Sequence[Buffer], referents: Referents) -> None:
        """Does with an object what the peer asks for."""
        key, _, operation = frame.routine[1:].partition(".")
        export = self.find(_key(key))
        serving = Serving(self, frame.call, export, operation, segments, referents)
        self._servings[frame.call] = serving
        self.end.use_begins()
        if export is not None and operation in STEPS:
            if export.driver is None or export.driver.ended:
                export.driver = _make_driver(export)
            if export.driver.take(serving):
                return
        serving.start()

    def cancel(self, number: int, message: bytes | None) -> None:
        """Cancels a use; its end says what came of it."""
        serving = self._servings.get(number)
        if serving is not None:
            serving.cancel(*cancel_argument(message))

    def answer(self, serving: Serving, frame: f.Return | f.Raise, packed: Packed) -> None:
        """A use has ended."""
        self._servings.pop(serving.number, None)
        try:
            if not self.gone:
                self.end.answer(frame, packed)
        finally:
            self.end.use_ends()

    def lost(self) -> None:
        """The peer is gone: what it was using is cancelled, and nothing is lent any more."""
        with self._lock:
            self.gone = True
            _dropped, self._lent = self._lent, {}  # after the lock: that may run user code
        for serving in list(self._servings.values()):
            serving.abandon()


class Serving:
    """One use of an object, as its owner executes it."""

    def __init__(
        self,
        table: ExportTable,
        number: int,
        export: Export | None,
        operation: str,
        segments: Sequence[Buffer],
        referents: Referents,
    ) -> None:
        self.number = number
        self._table = table
        self._export = export
        self._operation = operation
        self._segments = segments
        self._referents = referents
        self._task: asyncio.Task[Any] | None = None
        self._stopped = False  # cancelled before it began
        self._leaving = False  # will be cancelled when it has begun
        self._ended = False
        self._cancels = Cancels()
        self._thrown: Thrown | None = None

    def start(self) -> None:
        """Begins in a task of its own."""
        export = self._export
        context = None if export is None else export.context.copy()
        task = background.start(self._table.end.user_loop, self._run_alone(), context)
        task.add_done_callback(self._on_ended)

    def cancel(self, *argument: Any) -> None:
        """Cancels it, but has it begin if it leaves or closes something."""
        if self._task is None and self._operation in _LEAVING and not self._leaving:
            self._leaving = True
            self._table.end.user_loop.call_soon(self.cancel, *argument)
        elif self._task is None:
            self._stopped = True
        elif not self._ended:
            self._cancels.deliver(self._task, *argument)

    def abandon(self) -> None:
        """The peer is gone: it is cancelled, unless what runs is a clean-up already."""
        tidying = self._operation == "aclose" or (
            self._task is not None and self._cancels.pending(self._task) > 0
        )
        if not tidying:
            self.cancel("the user of the object is gone")

    async def _run_alone(self) -> None:
        await self.run()

    def _on_ended(self, task: asyncio.Task[None]) -> None:
        """Who cancels all tasks of the loop may do so before the first step: then there is none."""
        if self._task is None:
            self._raise(asyncio.CancelledError())

    async def run(self) -> bool:
        """Does it, and answers. Returns False if the task was cancelled by somebody else."""
        task = self._task = asyncio.current_task()
        assert task is not None
        cancels = self._cancels
        cancels.begin(task)
        foreign = False
        try:
            if self._stopped:
                raise asyncio.CancelledError
            value = await self._perform()
        except BaseException as error:
            foreign = cancels.pending(task) > cancels.delivered
            self._raise(error)
        else:
            self._return(value)
        self._ended = True
        self._thrown = self._export = None
        while not foreign and cancels.pending(task) > 0:
            task.uncancel()
        return not foreign

    async def _perform(self) -> Any:
        export, operation = self._export, self._operation
        if export is None:
            raise WoolError("the object is not lent to the process that uses it")
        methods = export.interface.methods
        if operation not in methods and f"*{operation}" not in methods:
            raise WoolError(f"{operation} of {export.interface.name} cannot be used from elsewhere")
        args, kwargs = await self._arguments()
        value = export.value
        method = value if operation == "__call__" else getattr(value, operation)
        made = method(*args, **kwargs)
        # The traceback of an exception that is thrown in has this frame, which must not have it:
        # what a generator held is to be closed now, not when garbage is collected.
        del args, kwargs
        return await made if inspect.isawaitable(made) else made

    async def _arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        segments, self._segments = self._segments, ()
        referents, self._referents = self._referents, NO_REFERENTS
        end = self._table.end

        def explain(error: Exception) -> SerializationError:
            return rebuild_error(f"what was passed to {self._name}", error, end.where)

        return await rebuild(self._decode, segments, referents, fetch=end.fetch, explain=explain)

    def _decode(
        self, segments: Sequence[Buffer], referents: Referents
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        def decode(segments: Sequence[Buffer]) -> Any:
            return self._table.end.codec.decode(segments, None, referents)

        leaving = self._operation == "__aexit__"
        if leaving and not segments:
            return (None, None, None), {}
        if not leaving and self._operation != "athrow":
            return decode(segments) if segments else ((), {})
        summary = Summary("wool.RemoteError", "an exception that was thrown in", "")
        thrown = load_exception(summary, segments or None, decode, passing=(MissingCode,))
        self._thrown = Thrown(thrown)
        return ((type(thrown), thrown, thrown.__traceback__) if leaving else (thrown,)), {}

    @property
    def _name(self) -> str:
        return "the object" if self._export is None else self._export.interface.name

    # Answers ------------------------------------------------------------------------------------

    def _return(self, value: Any) -> None:
        table = self._table
        name = self._name.removesuffix("()")
        packed = encode_result(table.end.codec, table.session, value, name, self._thrown)
        if isinstance(packed, SerializationError):
            self._raise(packed)
            return
        names = table.lend(packed.exports) if packed.exports else []
        frame = make_return(self.number, packed, names, self._cancels, self._task)
        table.answer(self, frame, packed)

    def _raise(self, error: BaseException) -> None:
        table = self._table
        end = table.end
        failure = encode_failure(end.codec, table.session, error, self._thrown, end.label)
        packed = failure.packed
        names = table.lend(packed.exports) if packed.exports else []
        frame = make_raise(self.number, failure, packed, names, self._cancels, self._task)
        table.answer(self, frame, packed)


class Driver:
    """Makes the steps of an iterator in one task and one context, as a consumer here would.

    Attributes:
        ended: whether it takes no more steps.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, context: Context) -> None:
        self.ended = False
        self._loop = loop
        self._serving: Serving | None = None
        self._wanted: asyncio.Future[None] | None = None
        background.start(loop, self._run(), context).add_done_callback(self._on_ended)

    def take(self, serving: Serving) -> bool:
        """Takes a step; False if one is being made."""
        if self._serving is not None:
            return False
        self._serving = serving
        if self._wanted is not None and not self._wanted.done():
            self._wanted.set_result(None)
        return True

    def end(self) -> None:
        """The iterator is needed no more; on any thread."""
        with contextlib.suppress(RuntimeError):  # the loop is closed, and all is over
            self._loop.call_soon_threadsafe(self._end)

    def _end(self) -> None:
        self.ended = True
        if self._wanted is not None and not self._wanted.done():
            self._wanted.set_result(None)

    async def _run(self) -> None:
        while not self.ended:
            if self._serving is None:
                self._wanted = self._loop.create_future()
                await self._wanted
            else:
                go_on = await self._serving.run()
                self._serving = None
                if not go_on:
                    return

    def _on_ended(self, task: asyncio.Task[None]) -> None:
        """What it has taken and not begun, because its task was cancelled, is done without it."""
        self.ended = True
        serving, self._serving = self._serving, None
        if serving is not None:
            serving.start()


def _make_driver(export: Export) -> Driver:
    driver = Driver(export.loop, export.context)
    weakref.finalize(export, driver.end).atexit = False
    return driver


def _key(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""
