"""Random use by Hypothesis of things that are not the same in each run."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import settings
from hypothesis.errors import FlakyStrategyDefinition
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test


def use_randomly(machine: Callable[[], RuleBasedStateMachine], runs: settings) -> None:
    """Runs state machines, a new one each time.

    Where one fails before its first step and others have not, Hypothesis complains of the data of
    the test: the failure is raised instead.
    """
    try:
        run_state_machine_as_test(machine, settings=runs)  # type: ignore[arg-type]  # any callable
    except FlakyStrategyDefinition as complaint:
        raise complaint.__context__ or complaint from None
