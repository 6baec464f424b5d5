"""The caller's end of a connection, as the references that travel over it see it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from wool._client.loans import Loans
from wool._client.packing import Packed
from wool._protocol import frames as f
from wool._serialization.exceptions import here
from wool._session.session import Session

if TYPE_CHECKING:
    from wool._client.client import Client
    from wool._client.pool import Pool


class LinkEnd:
    """See `references.End`; here one loop is all there is."""

    def __init__(
        self,
        client: Client,
        session: Session,
        fetch: Callable[[Sequence[bytes]], Awaitable[None]],
    ) -> None:
        self._client = client
        self._session = session
        self._fetch = fetch
        self.label: str = here("caller")
        self.where: str = f"process {os.getpid()}"

    @property
    def pool(self) -> Pool:
        """The pool that the worker is one of."""
        return self._client.pool

    @property
    def user_loop(self) -> asyncio.AbstractEventLoop:
        """The loop of the client."""
        return self._client.loop

    def on_user(self, callback: Callable[..., object], *args: Any) -> None:
        """Calls back at once."""
        callback(*args)

    def on_session(self, callback: Callable[..., object], *args: Any) -> None:
        """Calls back at once."""
        callback(*args)

    def answer(self, frame: f.Frame, packed: Packed) -> None:
        """Sends the end of a use."""
        if packed.calls:
            Loans(packed.calls).settle(taken=True)
        for code in packed.codes:
            self._session.known.add(code.key)
            self._session.known.update(code.provides)
        if not self._session.send_now(frame, packed.segments):
            self._session.send(frame, packed.segments)

    async def fetch(self, keys: Sequence[bytes]) -> None:
        """Asks the worker for code."""
        await self._fetch(keys)
