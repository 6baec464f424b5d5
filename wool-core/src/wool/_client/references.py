"""The live objects that the two sides of one connection lend each other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from wool._client.exports import ExportTable
from wool._client.imports import Import, ImportTable, Use
from wool._protocol import frames as f
from wool._serialization.classes import NO_REFERENTS, Referents
from wool._serialization.codec import Codec
from wool._serialization.references import EXPORTS, Export, Interface
from wool.abc import Buffer
from wool.exceptions import WoolError

if TYPE_CHECKING:
    from wool._client.packing import Packed
    from wool._session.session import Session


class End(Protocol):
    """One end of a connection, as references see it.

    Frames come and go on the loop of the session; objects are used on the loop of the user. A
    caller has one loop for both.
    """

    @property
    def codec(self) -> Codec: ...

    @property
    def cancel_grace(self) -> float:
        """For how many seconds a cancelled use of the peer's object is waited for."""
        ...

    @property
    def user_loop(self) -> asyncio.AbstractEventLoop: ...

    @property
    def label(self) -> str:
        """Says in tracebacks which process this is."""
        ...

    @property
    def where(self) -> str:
        """Names this process in messages."""
        ...

    def on_user(self, callback: Callable[..., object], *args: Any) -> None:
        """Calls back on the loop of the user; called on that of the session."""

    def on_session(self, callback: Callable[..., object], *args: Any) -> None:
        """Calls back on the loop of the session; called on that of the user."""

    def answer(self, frame: f.Frame, packed: Packed) -> None:
        """Sends the end of a use; called on the loop of the user."""

    async def fetch(self, keys: Sequence[bytes]) -> None:
        """Asks the peer for code.

        Raises:
            SerializationError: it has it no more.
        """


class References:
    """What one end of a connection has lent to the other, and what it has from there."""

    def __init__(self, end: End, session: Session) -> None:
        self.exports = ExportTable(end, session)
        self.imports = ImportTable(end, session, self.exports.lend)
        self._end = end

    @property
    def any(self) -> bool:
        """Whether anything is lent, in either direction."""
        return self.exports.any or self.imports.any

    def arrive(self, frame: f.Open | f.Resume | f.Value | f.Return | f.Raise) -> Referents:
        """Takes note of what a frame refers to; on the loop of the session."""
        if not frame.references:
            return NO_REFERENTS
        return Arrived(self, [self.imports.arrive(key) for key in frame.references])

    def on_open(self, frame: f.Open, segments: Sequence[Buffer]) -> None:
        """The peer uses an object of ours; on the loop of the session."""
        self._end.on_user(self.exports.serve, frame, segments, self.arrive(frame))

    def on_cancel(self, frame: f.Cancel) -> None:
        """The peer cancels a use of an object of ours; on the loop of the session."""
        self._end.on_user(self.exports.cancel, frame.call, frame.message)

    def on_release(self, frame: f.Release) -> None:
        """The peer is done with objects of ours; on the loop of the session."""
        released = self.exports.release(frame.references)
        if released:
            self._end.on_user(released.clear)  # dropping them may run user code

    def lost(self, failing: Callable[[str], WoolError]) -> list[Use]:
        """The connection has ended; on the loop of the session.

        Args:
            failing: makes the error for using an object that was the peer's, from its name.

        Returns:
            The uses that are out, which are the caller's to end.
        """
        self._end.on_user(self.exports.lost)
        return self.imports.lost(failing)


class Arrived:
    """The live objects that came with one payload."""

    def __init__(self, references: References, imports: Iterable[Import]) -> None:
        self._exports = references.exports
        self._imports = {item.key: item for item in imports}

    def find(self, key: bytes, home: bytes, origin: bytes, interface: Interface) -> Any:
        """Returns the object itself if it lives here, else a proxy for it."""
        own: Export | None = self._exports.find(home) if home else None
        if own is None:
            own = EXPORTS.own(origin)
        if own is not None:
            return own.value
        item = self._imports.get(key)
        if item is None:
            return NO_REFERENTS.find(key, home, origin, interface)
        return item.proxy(origin, interface)
