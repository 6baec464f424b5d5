"""Which of the workers that a client keeps links to gets a call: the least loaded one.

With many of them, of two random ones (Mitzenmacher, 2001): what is known of the load is a little
old, and the one that seems best to all callers would get everything.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol, TypeVar

FEW = 8
"""Up to so many workers the least loaded of all is chosen; beyond, of two random ones."""


class Candidate(Protocol):
    """A worker that could get a call, as a `Link` knows it."""

    @property
    def idle(self) -> bool:
        """Whether it could begin a call at once."""
        ...

    @property
    def load(self) -> int:
        """Calls waiting or running there."""
        ...

    @property
    def session(self) -> object | None:
        """The connection to it; None if it would have to be opened."""
        ...


C = TypeVar("C", bound=Candidate)


def least_loaded(candidates: Sequence[C]) -> C:
    """Returns the one to give a call to, of at least one."""
    if len(candidates) > FEW:
        ready = [one for one in candidates if one.idle and one.session is not None]
        candidates = random.sample(ready if len(ready) > 1 else candidates, 2)
    best, least = candidates[0], None
    for one in candidates:
        burden = not one.idle, one.load, one.session is None
        if least is None or burden < least:
            best, least = one, burden
    return best
