"""A stream that runs ahead of its consumer: both ends.

Values arrive before they are asked for, and wait with the consumer. Each step takes the next one,
whatever it sends or throws: that takes effect where the generator has got to. See "Running ahead"
in docs/protocol.md.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterable

from wool._peer.outgoing import Cancelled, Carrier, Outcome, OutgoingCall, Reply, Request
from wool._protocol import frames as f
from wool._protocol.transfer import AHEAD_BYTES


class PrefetchCall(OutgoingCall):
    """The state of a stream whose worker runs ahead, as its caller sees it."""

    def __init__(self, carrier: Carrier, request: Request) -> None:
        super().__init__(carrier, request)
        self._batch = (request.prefetch + 1) // 2
        self._taken = 0  # how many values the consumer has had
        self._unsaid = 0  # steps that the worker does not know of
        self._unsaid_bytes = 0  # of the values that they follow
        self._closing = 0  # the step that closes it

    @property
    def awaited(self) -> int:
        """The value that is waited for: a cancel is of no use once it has been sent."""
        return self._taken

    def ask(self, *, urgent: bool) -> int:
        """Asks for one more value; returns for how many to ask the worker now.

        It is asked long before it has to stop, not for each single value.
        """
        self._unsaid += 1
        if not urgent and self._unsaid < self._batch and self._unsaid_bytes < AHEAD_BYTES // 4:
            return 0
        unsaid, self._unsaid, self._unsaid_bytes = self._unsaid, 0, 0
        return unsaid

    @property
    def ahead(self) -> Reply | None:
        """The next value, if it has arrived already and nothing came with it."""
        outcome = self._arrived[0] if self._arrived else None
        if type(outcome) is Reply and type(outcome.frame) is f.Value and not outcome.context:
            return outcome
        return None

    def take_ahead(self) -> int:
        """Takes that value; returns for how many more to ask the peer now."""
        more = self.ask(urgent=False)
        reply = self._arrived.popleft()
        assert isinstance(reply, Reply)
        self._note(reply)
        return more

    def _note(self, reply: Reply) -> None:
        """Counts a value that the consumer has taken."""
        self._taken += 1
        self._unsaid_bytes += f.total(reply.segments)

    def next_step(self) -> None:
        """Counts what the worker is asked; a step that it need not be asked for has no number."""
        self.step += 1

    def begin_close(self) -> bool:
        """Notes that the next step closes the stream: nobody takes what is under way."""
        if self._closing:
            return False
        self._closing = self.step + 1
        wanted = map(self._wanted, self._arrived)
        self._arrived = deque(outcome for outcome in wanted if outcome is not None)
        return True

    def end(self, outcome: Outcome) -> None:
        """Takes what has arrived."""
        self.settle_handover(outcome)
        wanted = self._wanted(outcome) if self._closing else outcome
        if wanted is not None:
            self._arrived += _apart(wanted)
            self._wake()

    async def wait(self) -> Outcome | Cancelled:
        """Takes the next value, or whatever else comes next, waiting for it if need be."""
        outcome = await super().wait()
        if isinstance(outcome, Reply) and type(outcome.frame) is f.Value:
            self._note(outcome)
        return outcome

    def _judge(
        self, outcome: Outcome | None, error: asyncio.CancelledError, sent: int
    ) -> Outcome | Cancelled:
        judged = super()._judge(outcome, error, sent)
        if isinstance(judged, Cancelled) and judged.open:
            return Cancelled(error, open=True)  # its changes come with its value, if at all
        return judged

    def _wanted(self, outcome: Outcome) -> Outcome | None:
        """Returns what an outcome is for a stream that is being closed.

        Values from before the worker knew of that are dropped. So is an exception: nobody has asked
        for the step that has raised it, and without running ahead it would not have been made.
        """
        frame = outcome.frame if isinstance(outcome, Reply) else None
        if isinstance(frame, f.Value) and frame.step < self._closing:
            return None
        if isinstance(frame, f.Raise) and frame.step < self._closing:
            return Reply(f.Return(frame.call, load=frame.load, idle_as_of=frame.idle_as_of), [])
        return outcome


def _apart(outcome: Outcome) -> Iterable[Outcome]:
    """Returns the values of a frame that has several; anything else as it is."""
    if not isinstance(outcome, Reply) or len(outcome.segments) < 2:
        return (outcome,)
    frame, segments = outcome.frame, outcome.segments
    if type(frame) is f.Value and frame.apart and isinstance(segments, list):
        return [Reply(frame, [segment]) for segment in segments]
    return (outcome,)


class PrefetchWindow:
    """How far a stream may run ahead, as the side that runs it counts.

    It knows what was asked for, what was sent, and what the consumer has not had yet.

    Args:
        count: how many values may be sent before they are asked for. If together they have
            `AHEAD_BYTES` no more are, however many that is.

    Attributes:
        sent: how many values have been sent.
    """

    __slots__ = ("_asked", "_bytes", "_count", "_sizes", "sent")

    def __init__(self, count: int) -> None:
        self.sent = 0
        self._count = count
        self._asked = 1
        self._sizes: deque[int] = deque()  # of the values that the consumer has not had
        self._bytes = 0

    def ask(self, more: int) -> None:
        """The consumer has asked for more values: it has had those before."""
        self._asked += more
        while self.sent - len(self._sizes) < self._asked - 1 and self._sizes:
            self._bytes -= self._sizes.popleft()

    def note(self, size: int) -> None:
        """A value is being sent."""
        self.sent += 1
        self._sizes.append(size)
        self._bytes += size

    @property
    def may_go(self) -> bool:
        """Whether another value may be sent now."""
        if self.sent < self._asked:
            return True
        return self.sent < self._asked + self._count and self._bytes < AHEAD_BYTES
