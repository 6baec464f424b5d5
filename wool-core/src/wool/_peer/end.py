"""The end of a connection that is here, as its calls and the objects lent over it see it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from wool._peer.references import Lent
from wool._peer.session import Session
from wool._protocol import frames as f
from wool._values.codec import Codec
from wool.abc import Buffer


class End(Protocol):
    """One end of a connection.

    Frames come and go on the loop of the session; user code runs on the loop of the user. A caller
    has one loop for both.

    Attributes:
        label: says in tracebacks which process this is.
        where: names this process in messages.
        loop: that of the user.
        lent: the objects that are lent to the peer.
    """

    session: Session
    codec: Codec
    label: str
    where: str
    loop: asyncio.AbstractEventLoop
    lent: Lent

    def on_user(self, callback: Callable[..., object], *args: Any) -> None:
        """Calls back on the loop of the user; called on that of the session."""

    def on_session(self, callback: Callable[..., object], *args: Any) -> None:
        """Calls back on the loop of the session; called on that of the user."""

    def answer(self, frame: f.Answer, segments: Sequence[Buffer], *, more: bool = False) -> None:
        """Sends what a step of a call served here has come to; called on the loop of the user.

        Args:
            more: whether others follow at once: then they go together.
        """

    def drop(self, number: int) -> None:
        """A call served here has ended without an answer; called on the loop of the user."""

    async def fetch(self, keys: Sequence[bytes]) -> None:
        """Asks the peer for code; called on the loop of the user.

        Raises:
            SerializationError: it has it no more, or is gone.
        """
