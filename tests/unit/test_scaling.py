"""How many workers a pool of varying size is to have: on simulated time."""

from __future__ import annotations

from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wool._pool.scaling import LOOK, Demand, Sizing


@pytest.mark.parametrize(
    ("concurrency", "demands", "sizes"),
    [
        # Where there is nobody, the first call has a worker started at once, and one alone.
        (1, [Demand(waiting=3, unplaced=3)] * 3, [1, 3, 3]),
        (4, [Demand(waiting=9, unplaced=9)] * 2, [1, 3]),
        (None, [Demand(waiting=9, unplaced=9)] * 3, [1, 1, 1]),
        # Calls that wait for a moment have none started.
        (1, [Demand(busy=2, waiting=n) for n in (5, 0, 5, 0)], [2, 2, 2, 2]),
        (1, [Demand(busy=2, waiting=n) for n in (5, 1, 9)], [2, 3, 3]),
        # Without a limit, twice as many may help, and no more than there are calls.
        (None, [Demand(busy=n, waiting=9) for n in (1, 1, 2, 2, 4, 4)], [1, 2, 2, 4, 4, 8]),
        (None, [Demand(busy=3, waiting=1)] * 2, [3, 4]),
        # Those that somebody waits for, and no more than there may be.
        (1, [Demand(awaited=5), Demand(awaited=50), Demand(busy=20)], [5, 10, 10]),
    ],
)
def test_growing(concurrency: int | None, demands: list[Demand], sizes: list[int]) -> None:
    sizing = Sizing(0, 10, 1, concurrency)
    assert [sizing.size(LOOK * n, demand) for n, demand in enumerate(demands)] == sizes


def test_shrinking() -> None:
    """As many as were needed at most in the last seconds are kept, and no longer."""
    sizing = Sizing(1, 10, 3, None)
    busy = [4, 2, 3, 0, 0, 1, 0, 0, 0, 0, 0]
    sizes = [sizing.size(now, Demand(busy=number)) for now, number in enumerate(busy)]
    assert sizes == [4, 4, 4, 4, 3, 3, 1, 1, 1, 1, 1]
    assert sizing.size(99, Demand()) == 1  # also after a loop has been blocked for long


calls = st.lists(st.tuples(st.integers(0, 100), st.integers(1, 40)), max_size=40)


@given(
    calls,
    st.tuples(st.integers(0, 3), st.integers(1, 8)),
    st.integers(0, 30),
    st.sampled_from([None, 1, 3]),
    st.integers(0, 20),
)
def test_load_that_comes_and_goes(
    calls: list[tuple[int, int]],
    bounds: tuple[int, int],
    idle: int,
    concurrency: int | None,
    starting: int,
) -> None:
    """Each look is a tick. A call comes at one, and takes so many on a worker it has to itself."""
    least, most = bounds[0], bounds[0] + bounds[1]
    sizing = Sizing(least, most, idle, concurrency)
    room = concurrency or 1
    arriving = sorted(calls)
    queue: list[int] = []
    ready = [0] * least  # when each worker was
    serving: list[list[int]] = [[] for _ in ready]  # when their calls end
    recent: list[int] = []
    for tick in range(100 + 40 * 41 + starting + idle + 3):
        while arriving and arriving[0][0] <= tick:
            queue.append(arriving.pop(0)[1])
        for worker, ends in enumerate(serving):
            ends[:] = [end for end in ends if end > tick]
            while queue and ready[worker] <= tick and len(ends) < room:
                ends.append(tick + queue.pop(0))
        up = [ends for worker, ends in enumerate(serving) if ready[worker] <= tick]
        busy = sum(map(bool, up))
        unplaced = 0 if up else len(queue)
        size = sizing.size(tick, Demand(busy=busy, waiting=len(queue), unplaced=unplaced))
        recent = [*recent, busy][-idle - 1 :]
        assert least <= size <= most
        assert size >= max(recent)
        assert size <= max(least, len(calls) if concurrency is None else ceil(len(calls) / room))
        while len(ready) < size:
            ready.append(tick + starting)
            serving.append([])
        for worker in reversed(range(len(ready))):
            if len(ready) > size and ready[worker] <= tick and not serving[worker]:
                del ready[worker], serving[worker]
    assert not arriving and not queue  # nobody has waited for ever
    assert len(ready) == least
