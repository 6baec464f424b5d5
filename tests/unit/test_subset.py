"""The few of many workers that a client keeps links to."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wool._client.subset import MANY, MOST, MOST_SPARE, Subset
from wool._workerinfo import WorkerInfo


def workers(count: int, *tags: str, start: int = 0) -> dict[str, WorkerInfo]:
    return {
        f"w{n}": WorkerInfo(id=f"w{n}", address=f"x://{n}", tags=frozenset(tags))
        for n in range(start, start + count)
    }


def named(keys: set[str]) -> dict[str, WorkerInfo]:
    return {key: WorkerInfo(id=key, address=f"x://{key}") for key in keys}


def subset_of(client: bytes, width: int) -> Subset:
    subset = Subset(client)
    subset.width = width
    return subset


keys = st.sets(st.text(max_size=4), max_size=60)


@given(members=keys, pinned=keys, limit=st.integers(0, 40), client=st.binary(max_size=8))
def test_own_ones_and_as_many_others(
    members: set[str], pinned: set[str], limit: int, client: bytes
) -> None:
    chosen = subset_of(client, limit).choose(named(members), pinned)
    assert pinned & members <= set(chosen) <= members
    assert len(set(chosen) - pinned) == min(limit, len(members - pinned))


@given(members=keys, gone=keys, limit=st.integers(1, 20))
def test_only_those_who_preferred_a_worker_mind_that_it_goes(
    members: set[str], gone: set[str], limit: int
) -> None:
    subset = subset_of(b"me", limit)
    before = set(subset.choose(named(members), ()))
    after = set(subset.choose(named(members - gone), ()))
    assert before - gone <= after
    assert len(after - before) <= len(before & gone)


def test_clients_choose_differently_and_evenly() -> None:
    members = workers(200)
    chosen: Counter[str] = Counter()
    for client in range(400):
        chosen.update(list(subset_of(client.to_bytes(8, "big"), 20).choose(members, ())))
    assert len(chosen) == 200
    assert sum(chosen.values()) == 400 * 20
    assert 15 < min(chosen.values()) and max(chosen.values()) < 70, "40 each, on average"


def test_a_client_prefers_differently_even_among_few() -> None:
    first = {next(iter(Subset(bytes([n])).choose(workers(4), ()))) for n in range(20)}
    assert len(first) > 1


def test_those_with_rare_tags() -> None:
    subset = Subset(b"me")
    members = workers(1000) | workers(3, "gpu", start=1000)
    assert subset.ask(frozenset({"gpu"}))
    assert not subset.ask(frozenset({"gpu"}))
    chosen = subset.choose(members, ())
    assert {"w1000", "w1001", "w1002"} <= set(chosen)
    assert MANY <= len(chosen) <= MANY + 3
    unknown = {f"x://{n}": WorkerInfo(address=f"x://{n}") for n in range(1000)}
    assert MANY <= len(subset.choose(unknown, ())) <= 2 * MANY, "any of them may offer the tags"


@pytest.mark.parametrize("failing", [0, 5, 1000])
def test_others_stand_in(failing: int) -> None:
    subset = Subset(b"me")
    members = workers(1000)
    chosen = set(subset.choose(members, (), failing))
    assert len(chosen) == MANY + min(failing, MOST_SPARE)
    assert set(subset.choose(members, ())) <= chosen


def test_ranks_of_those_that_are_gone_are_forgotten() -> None:
    subset = Subset(b"me")
    for start in range(0, 100_000, 10_000):
        subset.choose(workers(100, start=start), ())
    assert len(subset._ranks) <= 2 * 100 + MANY + 100


def test_more_while_there_is_much_to_do() -> None:
    subset = Subset(b"me")
    members = workers(1000)
    before = set(subset.choose(members, ()))
    while subset.can_widen:
        subset.widen()
        after = set(subset.choose(members, ()))
        assert before < after
        before = after
    assert len(before) == MOST
    assert not subset.narrow(calls=MOST), "there still is"
    while subset.narrow(calls=3):
        assert set(subset.choose(members, ())) < before
    assert len(subset.choose(members, ())) == MANY


def test_nobody_is_ranked_again_as_long_as_the_members_are_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    subset = Subset(b"me")
    members = workers(1000)
    subset.ask(frozenset({"gpu"}))
    first = subset.choose(members, (), failing=40)
    monkeypatch.setattr("heapq.nsmallest", None)
    assert subset.choose(members, (), failing=40) == first
    assert set(subset.choose(members, ())) < set(first)
