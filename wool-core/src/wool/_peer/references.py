"""The live objects that the two sides of one connection lend each other, counted.

The owner keeps an object for as many mentions of it as have been sent to the peer. There, proxies
hold a `RemoteReference`; when nothing does, the mentions that it stands for are given up.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import weakref
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from wool._code.loading import NO_REFERENTS
from wool._peer.proxies import make_proxy
from wool._peer.session import Session
from wool._protocol import frames as f
from wool._values.references import EXPORTS, Export, Interface

RELEASED = 1 << 14
"""So many objects are given up with one frame, which must not become too large."""


class Lent:
    """The objects lent to the peer, and how often each was mentioned to it; on any thread."""

    def __init__(self) -> None:
        self._gone = False
        self._lent: dict[bytes, tuple[Export, int]] = {}
        self._lock = threading.Lock()

    @property
    def any(self) -> bool:
        """Whether something is lent that can be used."""
        with self._lock:
            return not all(export.finished for export, _ in self._lent.values())

    def lend(self, exports: Sequence[Export]) -> tuple[bytes, ...]:
        """Notes that the next frame mentions objects; returns their keys, for the frame."""
        with self._lock:
            for export in () if self._gone else exports:
                _, mentions = self._lent.get(export.key, (export, 0))
                self._lent[export.key] = export, mentions + 1
        return tuple(export.key for export in exports)

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

    def clear(self) -> None:
        """The peer is gone: nothing is lent any more. On the loop of the user."""
        with self._lock:
            self._gone = True
            _dropped, self._lent = self._lent, {}  # after the lock: that may run user code


Result = tuple[Any, BaseException | None]
"""The outcome of a use: a value and None, or None and an exception."""

Use = Callable[["RemoteReference", str, tuple[Any, ...], dict[str, Any]], Awaitable[Result]]
"""Has the owner of an object use it."""


class RemoteReference:
    """An object of the peer's, as long as it is needed here.

    Attributes:
        key: its key at the peer.
        origin: its key where it lives.
        interface: what of it can be used.
    """

    __slots__ = ("__weakref__", "_proxy", "_use", "interface", "key", "origin")

    def __init__(self, use: Use, key: bytes) -> None:
        self._use = use
        self.key = key
        self.origin = b""
        self.interface = Interface(0, "", ())
        self._proxy: weakref.ref[Any] | None = None

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
    ) -> Result:
        """Has the owner do something."""
        return await self._use(self, operation, args, kwargs or {})


class Mentioned(weakref.ref[RemoteReference]):
    """Tells whether a reference is needed still, and counts the frames that have mentioned it.

    Not a finalizer of the reference: while that runs, it could be found and used again.
    """

    __slots__ = ("key", "times")

    key: bytes
    times: int


class Borrowed:
    """The objects of the peer that are in use here; on the loop of the session."""

    def __init__(self, session: Session, lent: Lent, use: Use) -> None:
        self._session = session
        self._lent = lent
        self._use = use
        self._loop = asyncio.get_running_loop()
        self._borrowed: dict[bytes, Mentioned] = {}
        self._dropped: deque[Mentioned] = deque()
        self._flushing = False

    @property
    def any(self) -> bool:
        """Whether something of the peer's is in use."""
        return bool(self._borrowed)

    def arrive(self, keys: Sequence[bytes]) -> Arrived:
        """Takes note of what a frame mentions."""
        return Arrived(self._lent, [self._mention(key) for key in keys])

    def _mention(self, key: bytes) -> RemoteReference:
        mentioned = self._borrowed.get(key)
        item = None if mentioned is None else mentioned()
        if mentioned is None or item is None:
            item = RemoteReference(self._use, key)
            mentioned = self._borrowed[key] = Mentioned(item, self._drop)
            mentioned.key, mentioned.times = key, 0
        mentioned.times += 1
        return item

    def _drop(self, mentioned: Mentioned) -> None:
        """Nothing needs a reference any more; on any thread, at any time."""
        self._dropped.append(mentioned)
        if not self._flushing:
            self._flushing = True
            with contextlib.suppress(RuntimeError):  # the loop is closed, and the session with it
                self._loop.call_soon_threadsafe(self._flush)

    def _flush(self) -> None:
        """Says what is not needed any more."""
        self._flushing = False
        session = self._session
        lent: list[f.Lent] = []
        while self._dropped:
            mentioned = self._dropped.popleft()
            lent.append(f.Lent(mentioned.key, mentioned.times))
            if self._borrowed.get(mentioned.key) is mentioned:
                del self._borrowed[mentioned.key]
            if len(lent) == RELEASED:
                session.send(f.Release(lent))
                lent = []
        if lent:
            session.send(f.Release(lent))


class Arrived:
    """The live objects that came with one payload."""

    def __init__(self, lent: Lent, references: Iterable[RemoteReference]) -> None:
        self._lent = lent
        self._references = {item.key: item for item in references}

    def find(self, key: bytes, home: bytes, origin: bytes, interface: Interface) -> Any:
        """Returns the object itself if it lives here, else a proxy for it."""
        own: Export | None = self._lent.find(home) if home else None
        if own is None:
            own = EXPORTS.own(origin)
        if own is not None:
            return own.value
        item = self._references.get(key)
        if item is None:
            return NO_REFERENTS.find(key, home, origin, interface)
        return item.proxy(origin, interface)
