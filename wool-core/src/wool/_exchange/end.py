"""One end of a connection, as the live objects see it that travel over it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from wool._exchange.packing import Packed
from wool._protocol import frames as f
from wool._serialization.codec import Codec


class End(Protocol):
    """One end of a connection.

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

    def use_begins(self) -> None:
        """The peer uses an object of this process; called on the loop of the user."""

    def use_ends(self) -> None:
        """Such a use has ended, whether or not somebody is told."""

    async def fetch(self, keys: Sequence[bytes]) -> None:
        """Asks the peer for code.

        Raises:
            SerializationError: it has it no more.
        """
