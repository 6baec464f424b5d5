"""Classes by their keys."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from wool._serialization.classes import Loading, find_class


class Plain:
    pass


class ByName:
    """Has the definition of a class that its owner could import when it wrote it."""

    def load(self, key: bytes) -> Any:
        return Plain

    def namespace(self, owner: bytes, module: str, base: dict[str, Any]) -> dict[str, Any]:
        raise NotImplementedError

    def module(self, name: str) -> ModuleType:
        raise NotImplementedError


def test_a_definition_that_is_a_name() -> None:
    """It has no key here, and is the class all the same: asking again would bring nothing else."""
    with Loading(ByName()):
        assert find_class(b"of another process") is Plain
