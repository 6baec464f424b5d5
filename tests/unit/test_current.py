"""The pools that are open in a process."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import pytest

from wool._client.current import OpenPools


@pytest.mark.parametrize("line", range(10))
def test_a_pool_that_is_left_as_another_thread_looks_for_it(line: int) -> None:
    """At whichever line: it is found, or there is none."""
    pool: Any = object()
    pools = OpenPools()
    pools.add(pool)
    seen = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal seen
        if frame.f_code is not OpenPools.only.__code__:
            return None
        if event == "line" and seen == line:
            sys.settrace(None)
            pools.remove(pool)
        seen += 1
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        found = pools.only()
    finally:
        sys.settrace(before)
    assert found in (pool, None)
