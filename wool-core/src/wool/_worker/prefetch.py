"""How far a stream may run ahead of its consumer."""

from __future__ import annotations

from collections import deque

from wool._protocol.transfer import AHEAD_BYTES


class PrefetchWindow:
    """Counts what was asked for, what was sent, and what the consumer has not had yet.

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
