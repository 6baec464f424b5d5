"""Modules that have been sent to a worker."""

from __future__ import annotations

import threading
from types import ModuleType
from typing import Any

import pytest

from wool._code.code import CodeBook, CodeStore
from wool._code.modules import Modules
from wool._code.received import ReceivedModules
from wool._code.sources import Source, module_key
from wool._code.units import CodeUnit, digest


def unit(text: str, edition: int = 0) -> CodeUnit:
    data = Source("sent_twice", False, None, text, edition=edition).dump()
    return CodeUnit(digest(data), data, (module_key("sent_twice"),))


def test_one_that_is_sent_twice_is_executed_once() -> None:
    """As the caller and another worker both do: what it has made stays what it is."""
    received = ReceivedModules("here")
    received.add(unit("made = object()"))
    made = received.find("sent_twice").made
    received.add(unit("made = object()"))
    assert received.find("sent_twice").made is made
    received.add(unit("made = object()  # edited"))
    assert received.find("sent_twice").made is not made
    received.leave()


def test_an_edition_that_arrives_while_an_older_one_is_looked_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """On the I/O thread, that is; calls that come after it are for the newer one."""
    received = ReceivedModules("here")
    store = CodeStore(CodeBook(Modules(received=received, arriving=True)))
    store.add(unit("def f(): return 1"))
    find = received.find

    def find_late(name: str) -> ModuleType:
        module = find(name)
        store.add(unit("def f(): return 2", edition=1))
        return module

    monkeypatch.setattr(received, "find", find_late)
    assert store.target("sent_twice:f")() == 1
    received.enter()
    assert store.target("sent_twice:f")() == 2
    received.leave()


def test_another_thread_that_looks_for_one_waits_for_its_end() -> None:
    """A routine imports it in a thread, or on a worker in this process, as a call for it comes."""
    received = ReceivedModules("here")
    begun, go_on = threading.Event(), threading.Event()
    received.builtins.update(begun=begun, go_on=go_on)
    received.add(unit("begun.set()\ngo_on.wait(10)\nlast = 1"))
    importing = threading.Thread(target=received.find, args=["sent_twice"])
    importing.start()
    found: list[Any] = []

    def look() -> None:
        found.append(vars(received.find("sent_twice")).get("last"))

    looking = threading.Thread(target=look)
    try:
        assert begun.wait(10)
        looking.start()
        looking.join(0.1)  # as long as it may take to find the beginning of it
    finally:
        go_on.set()
        importing.join()
    looking.join()
    assert found == [1]
    received.leave()
