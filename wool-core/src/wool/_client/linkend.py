"""The caller's end of a connection, as the references that travel over it see it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any

from wool._exchange.exchange import Carrier
from wool._exchange.loans import Loans
from wool._exchange.packing import Packed, note
from wool._protocol import frames as f
from wool._serialization.codec import Codec
from wool._serialization.exceptions import here
from wool._session.session import Session
from wool._workerinfo import WorkerInfo
from wool.exceptions import WoolError, WorkerLost, WorkerStopped

if TYPE_CHECKING:
    from wool._client.pool import Pool


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
        self.label: str = here("caller")
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
            Loans(packed.calls).settle(taken=True)
        note(self._session, packed.codes)
        if not self._session.send_now(frame, packed.segments):
            self._session.send(frame, packed.segments)

    async def fetch(self, keys: Sequence[bytes]) -> None:
        """Asks the worker for code."""
        await self._fetch(keys)


def vanish(pool: Pool, worker: WorkerInfo, *, stopped: bool) -> Callable[[str], WoolError]:
    """Returns what makes the error for using an object, given its name, of a worker that is gone.

    Args:
        stopped: whether it was told to go.
    """
    who = f"worker {worker.pid} on {worker.host}"

    def make(name: str) -> WoolError:
        if pool.closed:
            return pool.closed_error()
        if stopped:
            return WorkerStopped(f"{who}, where {name} lived, was told to stop")
        return WorkerLost(
            f"{who}, where {name} lived, is gone",
            outcome="not started",
            host=worker.host,
            pid=worker.pid,
        )

    return make
