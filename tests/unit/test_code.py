"""Functions and classes as units of code, and what keeps them."""

from __future__ import annotations

import gc
import pickle
import weakref
from collections.abc import Callable
from typing import Any

import pytest

import wool
from wool._code import code
from wool._code.code import CodeBook, CodeStore
from wool._code.modules import Modules
from wool._code.namespaces import HOMES
from wool._peer import session
from wool._peer.session import Session


def routine_of_itself() -> Any:
    @wool.routine
    async def again(count: int) -> int:
        return await again(count - 1) if count else 0

    return again.__wool__.function  # type: ignore[attr-defined]


def function_of_itself() -> Any:
    def again(count: int) -> int:
        return again(count - 1) if count else 0

    return again


def two_of_each_other() -> Any:
    def one(count: int) -> int:
        return other(count - 1) if count else 0

    def other(count: int) -> int:
        return one(count)

    return one


def globals_of_its_own() -> Any:
    scope: dict[str, Any] = {"__name__": "test_code_scope"}
    exec("def helper(): return function\ndef function(): return helper", scope)
    return scope["function"]


MAKERS = [routine_of_itself, function_of_itself, two_of_each_other, globals_of_its_own]


@pytest.mark.parametrize("make", MAKERS)
def test_a_function_that_leads_back_to_itself_is_let_go(make: Callable[[], Any]) -> None:
    """Programs make such functions with each request: what is cached of them is to go with them."""
    book = CodeBook(Modules())
    function = make()
    assert book.function(function) is book.function(function)
    gone = weakref.ref(function)
    del function
    gc.collect()
    assert gone() is None


def numbered(number: int) -> Any:
    return lambda: number


def test_small_functions_are_forgotten_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """The functions made of them take more memory than the units: so many are few bytes."""
    monkeypatch.setattr(code, "LIMIT", 100_000)
    book = CodeBook(Modules())
    store = CodeStore(CodeBook(Modules()))
    units = [book.function(numbered(i)) for i in range(100)]
    assert sum(len(unit.data) for unit in units) < code.LIMIT
    loaded: list[weakref.ref[Any]] = []
    for unit in units:
        store.add(unit)
        loaded.append(weakref.ref(store.load(unit.key)))
    gc.collect()
    assert loaded[0]() is None
    assert loaded[-1]() is not None


async def test_a_peer_is_not_remembered_to_have_code_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session, "MOST_KNOWN", 10)
    nobody: Any = None
    ours = Session(nobody, nobody, nobody)
    for i in range(100):
        ours.note_known(b"function %d" % i, [b"class %d" % i])
        assert {b"function %d" % i, b"class %d" % i} <= ours.known
        assert len(ours.known) <= 12


def test_globals_that_are_copied_are_others() -> None:
    """Also where the mark came along that tells them apart."""
    scope: dict[str, Any] = {"__name__": "test_code_copied"}
    home = HOMES.of(scope)
    assert HOMES.of(scope) is home
    copied = dict(scope)
    assert HOMES.of(copied).module != home.module
    assert HOMES.find(home.module) is scope
    pickled = pickle.loads(pickle.dumps(scope))
    assert HOMES.of(pickled).module != home.module
