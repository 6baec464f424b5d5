"""Objects of a peer that are in use here: asking their owner, and saying when they are not needed.

The peer keeps an object for as many mentions of it as have arrived here. Proxies hold an `Import`;
when nothing does, the mentions that it stands for are given up.
"""

from __future__ import annotations

import asyncio
import contextlib
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, TypeGuard

from wool._exchange.end import End
from wool._exchange.exchange import (
    Cancelled,
    Exchange,
    Failed,
    NotStarted,
    Outcome,
    Reply,
    Request,
    shield,
)
from wool._exchange.handover import Handover
from wool._exchange.packing import Packed, mark_known, pack
from wool._exchange.proxies import make_proxy
from wool._exchange.replies import decode_reply, reply_error
from wool._exchange.running import RUNNING
from wool._protocol import frames as f
from wool._serialization.classes import Referents
from wool._serialization.exceptions import dump_exception
from wool._serialization.references import GENERATOR, Export, Interface, interface_of
from wool._serialization.summaries import reason_of
from wool._session.session import Session
from wool.abc import Buffer
from wool.exceptions import Rejected, SerializationError, WoolError

RELEASED = 1 << 14
"""So many objects are given up with one frame, which must not become too large."""

_YIELDING = frozenset({"__anext__", "asend", "athrow"})
"""What comes to the next value of an iterator, or to its end."""

THROWING = frozenset({"athrow", "__aexit__"})
"""What has an exception for its argument, and does not fail because of what that is."""

_END = "builtins.StopAsyncIteration"

_LOCKS = frozenset(
    interface_of(lock) for lock in (asyncio.Lock(), asyncio.Semaphore(), asyncio.BoundedSemaphore())
)
"""Objects whose `acquire` is what entering them is."""


class Import:
    """An object of the peer's, as long as it is needed here.

    Attributes:
        key: its key at the peer.
        origin: its key where it lives.
        interface: what of it can be used.
        table: of the connection it came by.
    """

    __slots__ = (
        "__weakref__",
        "_ended",
        "_proxy",
        "interface",
        "key",
        "mentions",
        "origin",
        "table",
    )

    def __init__(self, table: ImportTable, key: bytes) -> None:
        self.table = table
        self.key = key
        self.origin = b""
        self.interface = Interface(0, "", ())
        self._proxy: weakref.ref[Any] | None = None
        self._ended = False  # a generator that has ended needs no owner

    def proxy(self, origin: bytes, interface: Interface) -> Any:
        """Returns what user code gets for it, the same as long as that is in use."""
        proxy = None if self._proxy is None else self._proxy()
        if proxy is None:
            self.origin, self.interface = origin, interface
            proxy = make_proxy(self)
            self._proxy = weakref.ref(proxy)
        return proxy

    async def use(
        self, operation: str, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> tuple[Any, BaseException | None]:
        """Has the owner do something; returns the result and None, or None and an exception."""
        if self._ended and operation in ("__anext__", "aclose"):
            return None, StopAsyncIteration() if operation == "__anext__" else None
        value, error = await self.table.use(self, operation, args, kwargs or {})
        if self.interface.kind == GENERATOR:
            said = error is None if operation == "aclose" else type(error) is StopAsyncIteration
            self._ended = said and operation in ("__anext__", "aclose")
        return value, error


class Mentioned(weakref.ref[Import]):
    """Tells whether an import is needed still, and counts the frames that have mentioned it.

    Not a finalizer of the import: while that runs, the import could be found and used again.
    """

    __slots__ = ("key", "times")

    key: bytes
    times: int


def _opens(interface: Interface, operation: str) -> bool:
    """Whether something is left open when this has succeeded, such as a lock that is held."""
    if operation == "__aenter__":
        return "__aexit__" in interface.methods
    if operation == "acquire":
        return interface in _LOCKS
    return interface.kind == GENERATOR and operation in _YIELDING


def _returned(outcome: Outcome | Cancelled) -> TypeGuard[Reply]:
    return isinstance(outcome, Reply) and type(outcome.frame) is f.Return


class Use(Exchange):
    """One use of an object of the peer's, as its user sees it."""

    __slots__ = ("_opens", "_table", "_yielding")

    def __init__(
        self, table: ImportTable, request: Request, interface: Interface, operation: str
    ) -> None:
        super().__init__(table, request)
        self._table = table
        self._yielding = operation in _YIELDING
        self._opens = _opens(interface, operation)

    def _is_end(self, frame: f.Raise) -> bool:
        return self._yielding and frame.summary[0] == _END

    def _is_open(self, frame: f.Value | f.Return | f.Raise) -> bool:
        return self._opens and isinstance(frame, f.Return)

    def cancel(self, message: bytes | None) -> None:
        """Cancels it; the owner's answer ends it."""
        self.cancelled = True
        self._table.end_point.on_session(self._table.send_cancel, self, message)

    async def fetch(self, keys: Sequence[bytes]) -> None:
        """Asks the owner for code that its answer mentions."""
        await self._table.end_point.fetch(keys)


class ImportTable:
    """The objects of one peer that are in use here."""

    def __init__(
        self, end: End, session: Session, lend: Callable[[Sequence[Export]], list[bytes]]
    ) -> None:
        self.end_point = end
        self._session = session
        self._session_loop = asyncio.get_running_loop()
        self._lend = lend
        self._imports: dict[bytes, Mentioned] = {}
        self._uses: dict[int, Use] = {}
        self._unsent: list[Use] = []  # the session had ended before it was known why
        self._failing: Callable[[str], WoolError] | None = None
        self._dropped: deque[Mentioned] = deque()
        self._flushing = False

    # Carrier: what an exchange needs ------------------------------------------------------------

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """Where uses are waited for."""
        return self.end_point.user_loop

    @property
    def cancel_grace(self) -> float:
        """For how many seconds a cancelled use is waited for."""
        return self.end_point.cancel_grace

    # On the loop of the session -----------------------------------------------------------------

    @property
    def any(self) -> bool:
        """Whether something of the peer's is in use."""
        return bool(self._imports)

    @property
    def uses(self) -> list[Use]:
        """The uses that are out."""
        return [*self._uses.values(), *self._unsent]

    def arrive(self, key: bytes) -> Import:
        """Counts a mention of an object."""
        mentioned = self._imports.get(key)
        item = None if mentioned is None else mentioned()
        if mentioned is None or item is None:
            item = Import(self, key)
            mentioned = self._imports[key] = Mentioned(item, self._drop)
            mentioned.key, mentioned.times = key, 0
        mentioned.times += 1
        return item

    def on_reply(
        self, frame: f.Return | f.Raise, segments: Sequence[Buffer], referents: Referents
    ) -> None:
        """The owner has answered."""
        self._end(frame.call, Reply(frame, segments, referents))

    def on_give_back(self, frame: f.GiveBack) -> None:
        """Uses were cancelled before they had arrived."""
        for number in frame.calls:
            self._end(number, NotStarted())

    def on_reject(self, frame: f.Reject) -> None:
        """The owner has no memory for what was passed."""
        self._end(frame.call, Failed(Rejected(f"the owner of the object refused: {frame.message}")))

    def _end(self, number: int, outcome: Outcome) -> None:
        use = self._uses.pop(number, None)
        if use is not None:
            self.end_point.on_user(use.end, outcome)

    def lost(self, failing: Callable[[str], WoolError]) -> list[Use]:
        """Nothing can be used any more; returns the uses that are out."""
        if self._failing is None:
            self._failing = failing
        uses = [*self._uses.values(), *self._unsent]
        self._uses, self._unsent = {}, []
        return uses

    def _open(self, use: Use, packed: Packed) -> None:
        session = self._session
        number = session.machine.next_id()
        request = use.request
        frame = f.Open(
            call=number,
            stream=False,
            routine=request.target,
            parent=request.parent,
            sizes=packed.sizes,
            codes=packed.codes,
            references=self._lend(packed.exports) if packed.exports else [],
        )
        alone = not self._uses
        self._uses[number] = use
        use.number = number
        try:
            sent = (alone and session.send_now(frame, packed.segments)) or session.send(
                frame, packed.segments
            )
        except BaseException:  # a RecursionError of whoever uses the object
            self._uses.pop(number, None)
            raise
        if sent:
            mark_known(session, packed.codes)
            return
        use.number = 0
        if self._uses.pop(number, None) is None:
            return
        if self._failing is None:
            self._unsent.append(use)  # the session is ending, and will say why
        else:
            self.end_point.on_user(use.end, Failed(self._failing(request.name)))

    def send_cancel(self, use: Use, message: bytes | None) -> None:
        """Tells the owner that a use is cancelled."""
        if use.number in self._uses:
            self._session.send(f.Cancel(use.number, message=message))

    def _flush(self) -> None:
        """Says what is not needed any more."""
        self._flushing = False
        lent: list[f.Lent] = []
        while self._dropped:
            mentioned = self._dropped.popleft()
            lent.append(f.Lent(mentioned.key, mentioned.times))
            if self._imports.get(mentioned.key) is mentioned:
                del self._imports[mentioned.key]
            if len(lent) == RELEASED:
                self._session.send(f.Release(lent))
                lent = []
        if lent:
            self._session.send(f.Release(lent))

    # On any thread, at any time -----------------------------------------------------------------

    def _drop(self, mentioned: Mentioned) -> None:
        """Nothing needs an import any more."""
        self._dropped.append(mentioned)
        if not self._flushing and self._failing is None:
            self._flushing = True
            with contextlib.suppress(RuntimeError):  # the loop is closed, and the session with it
                self._session_loop.call_soon_threadsafe(self._flush)

    # On the loop of the user --------------------------------------------------------------------

    async def use(
        self, item: Import, operation: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[Any, BaseException | None]:
        """Has the owner use an object; returns the result and None, or None and an exception.

        Raises:
            RuntimeError: the object came to another event loop than the running one.
        """
        name = item.interface.name
        if asyncio.get_running_loop() is not self.loop:
            raise RuntimeError(f"{name} is bound to a different event loop: use it where it came")
        running = RUNNING.get()
        if running is not None:
            running.wait_begins()
        thrown = args[0] if args and operation in THROWING else None
        try:
            if self._failing is not None:
                if operation == "aclose":
                    return None, None  # closing is silent
                return None, self._failing(name)
            use = self._use(item, operation, args, kwargs)
            outcome = await use.wait()
            entering = operation not in _YIELDING
            while isinstance(outcome, Cancelled) and outcome.open:
                # The cancel crossed the answer: it strikes where the generator stands now, or as
                # if it had been the first thing after entering.
                thrown = outcome.error
                if entering:
                    use = self._use(item, "__aexit__", (thrown,), {})
                else:
                    use = self._use(item, "athrow", (thrown,), {})
                with shield():  # what the cancel sets going there is not to be cancelled as well
                    outcome = await use.wait()
                if isinstance(outcome, Failed) or (entering and _returned(outcome)):
                    return None, thrown
            if _returned(outcome):
                return await decode_reply(self.end_point.codec, use, outcome), None
            if isinstance(outcome, Failed) and operation == "aclose":
                return None, None
            return None, await reply_error(self.end_point.codec, use, outcome, thrown)
        except WoolError as error:
            return None, error.with_traceback(None)
        finally:
            if running is not None:
                running.wait_ends()

    def _use(
        self, item: Import, operation: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Use:
        """Asks the owner to use an object."""
        name = item.interface.name
        packed = self._pack(name, operation, args, kwargs)
        running = RUNNING.get()
        request = Request(
            target=f"@{item.key.hex()}.{operation}",
            name=name,
            stream=False,
            tags=frozenset(),
            parent="" if running is None else running.info.id,
            units=(),
            segments=(),
        )
        use = Use(self, request, item.interface, operation)
        if packed.calls:
            use.handover = Handover(packed.calls)
        self.end_point.on_session(self._open, use, packed)
        return use

    def _pack(
        self, name: str, operation: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Packed:
        codec = self.end_point.codec
        if not args and not kwargs:
            return Packed()
        try:
            if operation in THROWING:  # as much of it as can be sent: a lock has to be released
                _, encoded = dump_exception(args[0], codec.encode_closed)
                if encoded is None:
                    raise SerializationError("nothing of the exception can be pickled")
            else:
                encoded = codec.encode((args, kwargs))
            return pack(codec, self._session, encoded)
        except Exception as error:
            raise SerializationError(
                f"what is passed to {name} cannot be sent to its owner: {reason_of(error)}"
            ) from error
