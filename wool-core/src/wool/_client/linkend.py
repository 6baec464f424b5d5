"""The caller's end of a connection, as the references that travel over it see it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from wool._exchange.exchange import Carrier
from wool._exchange.handover import Handover
from wool._exchange.packing import Packed, mark_known
from wool._protocol import frames as f
from wool._serialization.codec import Codec
from wool._serialization.tracebacks import process_label
from wool._session.session import Session


class LinkEnd:
    """See `end.End`; here one loop is all there is."""

    def __init__(
        self,
        carrier: Carrier,
        session: Session,
        codec: Codec,
        fetch: Callable[[Sequence[bytes]], Awaitable[None]],
    ) -> None:
        self.codec = codec
        self._carrier = carrier
        self._session = session
        self._fetch = fetch
        self.label: str = process_label("caller")
        self.where: str = f"process {os.getpid()}"

    @property
    def cancel_grace(self) -> float:
        """As for calls."""
        return self._carrier.cancel_grace

    @property
    def user_loop(self) -> asyncio.AbstractEventLoop:
        """The loop of the client."""
        return self._carrier.loop

    def on_user(self, callback: Callable[..., object], *args: Any) -> None:
        """Calls back at once."""
        callback(*args)

    def on_session(self, callback: Callable[..., object], *args: Any) -> None:
        """Calls back at once."""
        callback(*args)

    def answer(self, frame: f.Frame, packed: Packed) -> None:
        """Sends the end of a use."""
        if packed.calls:
            Handover(packed.calls).settle(taken=True)
        mark_known(self._session, packed.codes)
        if not self._session.send_now(frame, packed.segments):
            self._session.send(frame, packed.segments)

    def use_begins(self) -> None:
        """Nobody has to know: the loop is not this end's to end."""

    def use_ends(self) -> None:
        """As above."""

    async def fetch(self, keys: Sequence[bytes]) -> None:
        """Asks the worker for code."""
        await self._fetch(keys)
