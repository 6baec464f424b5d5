"""State that a fork must not share with its parent."""

from __future__ import annotations

import os
from collections.abc import Callable


def after_fork(forget: Callable[[], None]) -> None:
    """Calls back in the child of every fork of this process; Windows has none."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=forget)


class Forks:
    """Counts the forks of this process: what a child looks at must not change for its parent."""

    def __init__(self) -> None:
        self.count = 0
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=self._note)

    def _note(self) -> None:
        self.count += 1


FORKS = Forks()
