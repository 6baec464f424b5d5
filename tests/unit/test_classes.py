"""Classes by their keys."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from types import ModuleType
from typing import Any

from wool._code.code import CodeBook, CodeStore
from wool._code.identity import IdentityTable
from wool._code.loading import LOADING, NO_REFERENTS, find_class
from wool._code.modules import Modules


class Plain:
    pass


class ByName:
    """Has the definition of a class that its owner could import when it wrote it."""

    def __init__(self) -> None:
        self.builtins: dict[str, Any] = {}

    def load(self, key: bytes) -> Any:
        return Plain

    def namespace(self, owner: bytes, module: str, base: dict[str, Any]) -> dict[str, Any]:
        raise NotImplementedError

    def module(self, name: str) -> ModuleType:
        raise NotImplementedError


def test_a_definition_that_is_a_name() -> None:
    """It has no key here, and is the class all the same: asking again would bring nothing else."""
    context = copy_context()
    context.run(LOADING.set, (ByName(), None, NO_REFERENTS))
    assert context.run(find_class, b"of another process") is Plain


def test_other_threads_see_a_class_when_all_of_it_is_there() -> None:
    seen: list[Any] = []

    class Table(IdentityTable):
        def look(self) -> None:
            with ThreadPoolExecutor(1) as other:
                seen.append(other.submit(self.find, b"key").result())

        def _add(self, key: bytes, obj: object) -> None:
            super()._add(key, obj)
            self.look()

    def fill(cls: Any, state: object) -> None:
        table.look()
        assert table.find(b"key") is cls, "what it is made of may name it"
        cls.state = state

    table = Table()
    cls = table.make(b"key", lambda: type("Made", (), {}), ())
    table.finish(cls, b"key", fill, "all")
    table.look()
    assert seen == [None, None, cls]


def test_two_threads_that_load_one_function() -> None:
    """It is one there as well: what it keeps in its closure is there once."""
    both = threading.Barrier(2)

    class Meeting(Modules):
        def require(self, wanted: Iterable[str]) -> None:
            both.wait(20)

    unit = CodeBook(Modules()).function(lambda: None)
    store = CodeStore(CodeBook(Meeting()))
    store.add(unit)
    with ThreadPoolExecutor(2) as threads:
        one, other = threads.map(store.load, [unit.key] * 2)
    assert one is other
