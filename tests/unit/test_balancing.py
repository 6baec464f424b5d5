"""The choice among the workers that could get a call."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest

from wool._client.balancing import FEW, least_loaded
from wool._workerinfo import WorkerInfo


@dataclass
class One:
    load: int = 0
    idle: bool = True
    session: object | None = "a connection"
    usable: bool = True
    info: WorkerInfo = WorkerInfo(address="unix://worker", tags=frozenset({"gpu"}))


def choose(candidates: list[One], *tags: str) -> One:
    chosen = least_loaded(candidates, frozenset(tags))
    assert chosen is not None
    return chosen


@pytest.mark.parametrize(
    ("better", "worse"),
    [
        (One(5), One(0, idle=False)),
        (One(1), One(2)),
        (One(), One(session=None)),
        (One(1, session=None), One(2)),
    ],
    ids=["idle", "load", "connected", "a new connection to one with less to do"],
)
@pytest.mark.parametrize("turned", [False, True])
def test_of_two(better: One, worse: One, turned: bool) -> None:
    assert least_loaded([worse, better] if turned else [better, worse]) is better


def test_of_a_few_it_is_the_best() -> None:
    best = One(1)
    assert least_loaded([*(One(2) for _ in range(FEW - 1)), best]) is best


def test_of_many_it_is_the_better_one_of_two() -> None:
    many = [One(load) for load in range(50)]
    chosen = Counter(choose(many).load for _ in range(2000))
    assert len(chosen) > 30, "not always the same"
    assert sum(load * times for load, times in chosen.items()) / 2000 < 20, "a third, not a half"


def test_of_many_those_that_are_connected_and_idle_come_first() -> None:
    ready = [One(), One()]
    others = [*(One(session=None) for _ in range(50)), *(One(3, idle=False) for _ in range(50))]
    assert {id(choose([*others, *ready])) for _ in range(200)} == {*map(id, ready)}


def test_if_all_are_busy_a_connection_is_opened() -> None:
    busy = [One(1, idle=False) for _ in range(20)]
    fresh = [One(session=None) for _ in range(20)]
    chosen = [choose([*busy, *fresh]) for _ in range(200)]
    assert sum(one.session is None for one in chosen) > 100


@pytest.mark.parametrize("count", [FEW, 50])
def test_only_those_that_fit(count: int) -> None:
    unusable = [One(usable=False) for _ in range(count)]
    plain = [One(info=WorkerInfo(address="unix://plain")) for _ in range(count)]
    assert least_loaded(unusable) is None
    assert least_loaded([*unusable, *plain], frozenset({"gpu"})) is None
    fits = One(7, idle=False, session=None)
    assert choose([*unusable, *plain, fits], "gpu") is fits


def test_of_a_few_that_fit_among_many_it_is_the_best() -> None:
    plain = [One(info=WorkerInfo(address="unix://plain")) for _ in range(50)]
    fits = [One(load, idle=False) for load in range(FEW)]
    assert all(choose([*plain, *fits], "gpu") is fits[0] for _ in range(50))
