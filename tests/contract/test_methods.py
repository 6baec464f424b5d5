"""Routines as methods, in either decorator order, with inheritance."""

from __future__ import annotations

import asyncio
import functools
from dataclasses import dataclass
from typing import Any

import pytest

import wool
from contract import routines
from contract.routines import (
    Account,
    Savings,
    apply,
    echo,
)
from support.parity import NEAR, Journal, Place

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.usefixtures("place"),
    pytest.mark.parametrize("place", NEAR, indirect=True, scope="module"),
]


@pytest.mark.parametrize(
    ("kind", "deposited", "suffix", "statement"),
    [(Account, 15, "EUR!", [11, 13]), (Savings, 150, "CHF!", [-11, -13])],
)
async def test_methods(kind: type[Account], deposited: int, suffix: str, statement: Any) -> None:
    assert await kind(10).deposit(5) == deposited
    assert await kind(10).deposit(amount=5) == deposited
    assert await kind.deposit(kind(10), 5) == deposited
    assert [b async for b in kind(10).statement(1, 2)] == statement
    assert await kind.named_inside("!") == suffix
    assert await kind.named_outside("!") == suffix
    assert await kind().named_inside("!") == suffix
    assert await kind().named_outside("!") == suffix
    assert await kind.sum_inside(1, 2) == 3
    assert await kind.sum_outside(1, 2) == 3
    assert await kind().sum_inside(1, y=2) == 3
    assert await kind().sum_outside(1, y=2) == 3
    assert [x async for x in kind.stream_inside(2)] == [f"{kind.currency}0", f"{kind.currency}1"]
    assert [x async for x in kind().stream_outside(2)] == [0, 1]
    assert await kind(10)(5) == 15


async def test_bound_methods_are_values() -> None:
    deposit = Account(1).deposit
    assert await deposit(1) == 2
    assert await asyncio.gather(*map(Account(1).deposit, [])) == []
    assert await apply(Account(5).deposit, 1) == 6
    assert await functools.partial(Account.deposit, Account(1))(2) == 3
    assert await routines.Account.named_outside(suffix="?") == "EUR?"


async def test_class_methods_are_values() -> None:
    for kind in Account, Savings:
        for method in kind.named_inside, kind.named_outside, kind(1).named_outside:
            assert await apply(method, "?") == await method("?")
            assert await echo([method]) == [method]
    assert await echo(Account.named_inside.__func__) is Account.named_inside.__func__  # type: ignore[attr-defined]


async def test_methods_of_a_class_made_in_a_closure() -> None:
    bonus = 100

    class Base:
        def __init__(self, n: int) -> None:
            self.n = n

        @wool.routine
        async def get(self) -> int:
            return self.n + bonus

        @wool.routine
        @classmethod
        async def make(cls, n: int) -> Base:
            return cls(n)

        @staticmethod
        @wool.routine
        async def plus(x: int) -> int:
            return x + bonus

        @wool.routine
        async def up_to(self, *, step: int = 1) -> Any:
            for i in range(0, self.n, step):
                yield i

    class Child(Base):
        @wool.routine
        async def get(self) -> int:
            return -await super().get()

    assert await Base(1).get() == 101
    assert await Child(1).get() == -101
    made = await Child.make(7)
    assert type(made) is Child and made.n == 7
    assert type(await Base.make(7)) is Base
    assert await Child.plus(1) == 101
    assert [i async for i in Child(4).up_to(step=2)] == [0, 2]


async def test_methods_of_dataclasses_slots_and_properties() -> None:
    @dataclass(frozen=True)
    class Rectangle:
        width: int
        height: int = 2

        @property
        def area(self) -> int:
            return self.width * self.height

        @wool.routine
        async def scaled(self, factor: int) -> int:
            return self.area * factor

    class Slotted:
        __slots__ = ("n",)

        def __init__(self, n: int) -> None:
            self.n = n

        @wool.routine
        async def get(self) -> int:
            return self.n

    assert await Rectangle(3).scaled(10) == 60
    assert await Slotted(5).get() == 5


async def test_the_asynchronous_protocols(journal: Journal) -> None:
    class Resource:
        def __init__(self, n: int) -> None:
            self.n = n

        @wool.routine
        async def __aenter__(self) -> str:
            journal.write("enter")
            return "entered"

        @wool.routine
        async def __aexit__(self, kind: Any, error: Any, traceback: Any) -> bool:
            where = traceback and traceback.tb_frame.f_code.co_name
            journal.write(f"exit {kind and kind.__name__} {error} {where}")
            return kind is KeyError

        @wool.routine
        async def __aiter__(self) -> Any:
            for i in range(self.n):
                yield i

        @wool.routine
        async def __call__(self, x: int) -> int:
            return self.n * x

    resource = Resource(3)
    async with resource as value:
        assert value == "entered"
        assert [i async for i in resource] == [0, 1, 2]
        assert await resource(5) == 15
    assert journal.lines() == ["enter", "exit None None None"]
    async with resource:
        raise KeyError(1)
    assert journal.lines()[3] == "exit KeyError 1 test_the_asynchronous_protocols"


async def test_changes_of_self_stay_where_they_were_made(place: Place) -> None:
    account = Account(1)
    assert await account.deposit(5) == 6
    assert account.balance == (1 if place.remote else 6)
