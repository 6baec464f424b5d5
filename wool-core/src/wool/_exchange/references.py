"""The live objects that the two sides of one connection lend each other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from wool._exchange.end import End
from wool._exchange.exports import ExportTable
from wool._exchange.imports import Import, ImportTable, Use
from wool._protocol import frames as f
from wool._serialization.classes import NO_REFERENTS, Referents
from wool._serialization.references import EXPORTS, Export, Interface
from wool._session.session import Session
from wool.abc import Buffer
from wool.exceptions import WoolError


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
