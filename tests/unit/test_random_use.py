"""What the kits say of random use that fails."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from wool.testing._random import use_randomly


class Steps(RuleBasedStateMachine):
    @rule(number=st.integers())
    def step(self, number: int) -> None: ...


def test_a_failure_to_begin_is_raised_as_it_is() -> None:
    """Hypothesis alone would say that the generation of data depends on external state."""
    made: list[Steps] = []

    def machine() -> Steps:
        if len(made) == 3:
            pytest.fail("connect did not end within 10 s")
        made.append(Steps())
        return made[-1]

    with pytest.raises(pytest.fail.Exception, match="connect did not end"):
        use_randomly(machine, settings(database=None))
