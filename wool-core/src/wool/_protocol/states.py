"""States of a call, as tables.

Both sides keep the same state for a call; the two tables differ only in who may cause an event.
Two rules make the tables small:

Rule 1: a call that is closed has no state. A frame for it was under way when it closed, and is
ignored; a frame for a call that never was is an error.

Rule 2: a cancel changes no state. It asks the callee to end the current step soon; what ends the
step is an ordinary value, return, raise or give-back.

A unary call is `RUNNING` until it closes. A stream is `RUNNING` during a step and `SUSPENDED`
between two. Only a call that is in its first step may be given back or rejected: `BEGUN` tells a
stream that has yielded from one that may still be waiting to begin.
"""

from __future__ import annotations

from enum import IntEnum, auto

from wool._protocol import frames as f
from wool._protocol.frames import Frame


class State(IntEnum):
    """Where a call stands; a number, as it is looked up with each frame."""

    RUNNING = auto()
    """Opened; it may or may not have begun."""
    SUSPENDED = auto()
    """A stream between two steps."""
    BEGUN = auto()
    """A stream in a step after its first, or one that runs ahead and has yielded."""
    CLOSED = auto()


_ends = {f.Return: State.CLOSED, f.Raise: State.CLOSED}
_unbegun = {f.GiveBack: State.CLOSED, f.Reject: State.CLOSED}

CALL: dict[State, dict[type[Frame], State]] = {
    State.RUNNING: {
        f.Cancel: State.RUNNING,
        **_ends,
        **_unbegun,
    },
}

STREAM: dict[State, dict[type[Frame], State]] = {
    State.RUNNING: {
        f.Cancel: State.RUNNING,
        f.Value: State.SUSPENDED,
        **_ends,
        **_unbegun,
    },
    State.SUSPENDED: {
        f.Resume: State.BEGUN,
        # The step that a cancel was meant for has ended while the cancel was under way.
        f.Cancel: State.SUSPENDED,
    },
    State.BEGUN: {
        f.Cancel: State.BEGUN,
        f.Value: State.SUSPENDED,
        **_ends,
    },
}

# The callee runs ahead of the opener: values and resumes cross, so no state tells them apart.
AHEAD: dict[State, dict[type[Frame], State]] = {
    State.RUNNING: {
        f.Cancel: State.RUNNING,
        f.Value: State.BEGUN,
        **_ends,
        **_unbegun,
    },
    State.BEGUN: {
        f.Resume: State.BEGUN,
        f.Cancel: State.BEGUN,
        f.Value: State.BEGUN,
        **_ends,
    },
}

FETCH: dict[State, dict[type[Frame], State]] = {State.RUNNING: {f.Supply: State.CLOSED}}

FROM_OPENER: frozenset[type[Frame]] = frozenset({f.Resume, f.Cancel})
"""Frames about an open call that only its opener sends. Its callee sends all others, but for
`Chunk`, `Whole` and `Credit`, which either does."""


class Standing:
    """Where a call stands for one side: the same object for all calls that stand there.

    Attributes:
        state: of the call.
        sent, received: where frames lead to that this side sends, or the other one; no others are
            allowed now.
    """

    __slots__ = ("received", "sent", "state")

    def __init__(self, state: State) -> None:
        self.state = state
        self.sent: dict[type[Frame], Standing] = {}
        self.received: dict[type[Frame], Standing] = {}


def _opened(table: dict[State, dict[type[Frame], State]], *, mine: bool) -> Standing:
    """Returns where a call stands that begins, by its table and whether this side has opened it."""
    standings = {state: Standing(state) for state in State}
    for state, frames in table.items():
        standing = standings[state]
        for kind, to in frames.items():
            leads = standing.sent if (kind in FROM_OPENER) is mine else standing.received
            leads[kind] = standings[to]
    return standings[State.RUNNING]


BEGINNINGS: dict[bool, tuple[Standing, Standing, Standing, Standing]] = {
    mine: (
        _opened(CALL, mine=mine),
        _opened(STREAM, mine=mine),
        _opened(AHEAD, mine=mine),
        _opened(FETCH, mine=mine),
    )
    for mine in (True, False)
}
"""Where a call, a stream, one that may run ahead and a fetch stand that this side has opened, and
those that the other side has."""
