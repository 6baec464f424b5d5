"""The call of a routine as its caller sees it: which worker has it, and which step is running."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from wool._exchange.exchange import Carrier, Exchange, Failed, Outcome, Request
from wool.exceptions import SerializationError

if TYPE_CHECKING:
    from wool._client.calls import CallTable
    from wool._client.link import Link


class CallCarrier(Carrier, Protocol):
    """Where a call was given to, as its exchange sees it."""

    def cancel(self, exchange: CallExchange, message: bytes | None) -> None:
        """Cancels a call wherever it is."""


class CallExchange(Exchange):
    """The state of one call.

    Attributes:
        link: the worker it was given to; None while it waits for one.
        table: where it is among the calls of a session, once it has been sent.
        begun: whether it is known to have begun there.
        closing: of a stream, whether it is being closed although its consumer has not said so.
        sent: when it was sent there, in the loop's time.
        step: of a stream, the step that is running or was last to run.
        failed: of a stream, why it can make no further step.
        suspended: of a stream, whether it is between two steps.
    """

    __slots__ = (
        "_client",
        "begun",
        "closing",
        "failed",
        "link",
        "sent",
        "step",
        "suspended",
        "table",
    )

    def __init__(self, client: CallCarrier, request: Request) -> None:
        super().__init__(client, request)
        self.link: Link | None = None
        self.table: CallTable | None = None
        self.begun: bool = False
        self.closing: bool = False
        self.sent: float = 0.0
        self.step: int = 0
        self.suspended: bool = False
        self.failed: Failed | None = None
        self._client = client

    def end(self, outcome: Outcome) -> None:
        """Ends the step; called by the link."""
        if self.suspended and isinstance(outcome, Failed):
            self.failed = outcome
        super().end(outcome)

    def cancel(self, message: bytes | None) -> None:
        """Cancels the call, wherever it is."""
        self._client.cancel(self, message)

    @property
    def awaited(self) -> int:
        """Which step a cancel is for."""
        return self.step

    def ask(self, *, urgent: bool) -> int:
        """Asks for the next value; returns for how many to ask the worker now."""
        return 1

    def begin_close(self) -> bool:
        """Notes that the next step closes the stream; False if that has been done."""
        return True

    async def fetch(self, keys: Sequence[bytes]) -> None:
        """Asks the worker for code that its reply mentions.

        Raises:
            SerializationError: it has it no more, or is gone.
        """
        if self.table is None:
            raise SerializationError("a reply mentions code that its worker did not send")
        await self.table.fetch(keys)

    def next_step(self) -> None:
        """Prepares for the end of another step."""
        self.step += 1
        self.suspended = False
        self.cancelled: bool = False
        self.cancellation: asyncio.CancelledError | None = None
        self._outcome = None
        self._end = self.loop.create_future()
