"""Proxies, which stand for objects that live elsewhere."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import pytest

from wool._peer.proxies import make_proxy
from wool._values.references import OBJECT, Interface


def proxy(*methods: str) -> Any:
    held: Any = SimpleNamespace(interface=Interface(OBJECT, "the Queue", methods))
    return make_proxy(held)


def test_it_has_the_methods_of_the_object_and_says_so_of_others() -> None:
    queue = proxy("get", "put")
    assert callable(queue.get)
    with pytest.raises(AttributeError, match="'put_nowait': of what lives elsewhere, only what is"):
        queue.put_nowait(1)


def test_one_without_its_object_has_no_attributes() -> None:
    """As while it is being copied."""
    bare = type(proxy()).__new__(type(proxy()))
    assert not hasattr(bare, "_held")
    assert copy.copy(proxy("get")).get
