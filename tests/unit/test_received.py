"""Modules that have been sent to a worker."""

from __future__ import annotations

from wool._serialization.received import ReceivedModules
from wool._serialization.sources import Source, module_key
from wool._serialization.units import CodeUnit, digest


def unit(text: str) -> CodeUnit:
    data = Source("sent_twice", False, None, text, edition=0).dump()
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
