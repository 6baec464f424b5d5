"""Plug-ins whose authors got something wrong: each is told, in a sentence, whose fault it is."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

import wool
from wool import abc
from wool.exceptions import NoWorkersAvailable, PluginError
from wool.plugins import (
    DiscoveryPlugin,
    SerializerPlugin,
    TransportPlugin,
    hookimpl,
    register,
)


@dataclass(frozen=True)
class Options:
    pass


class Plugin:
    """One back-end of a kind, with something about it that is not as it should be."""

    def __init__(self, kind: Any, **fields: Any) -> None:
        plain = {"name": "odd", "api": 1, "options": Options, "factory": lambda options: None}
        self.kind, self.record = kind, kind(**{**plain, **fields})

    @hookimpl
    def wool_transports(self) -> list[Any]:
        return [self.record] if self.kind is TransportPlugin else []

    @hookimpl
    def wool_discoveries(self) -> list[Any]:
        return [self.record] if self.kind is DiscoveryPlugin else []

    @hookimpl
    def wool_serializers(self) -> list[Any]:
        return [self.record] if self.kind is SerializerPlugin else []


KINDS = {"transport": TransportPlugin, "discovery": DiscoveryPlugin, "serializer": SerializerPlugin}
HERE = frozenset({"in-process"})


async def error_of(plugin: object, **choice: Any) -> str:
    """Returns what somebody is told who chooses it."""
    with register(plugin), pytest.raises((PluginError, NoWorkersAvailable)) as raised:
        async with asyncio.timeout(20), wool.WorkerPool(size=1, **choice):
            pass
    return str(raised.value)


def raising(error: BaseException) -> Callable[[Any], Any]:
    def make(options: Any) -> Any:
        raise error

    return make


@pytest.mark.parametrize("word", KINDS)
async def test_factories_that_make_something_else(word: str) -> None:
    told = await error_of(Plugin(KINDS[word]), **{"transport": "memory", word: "odd"})
    assert f"makes None, which is no wool.abc.{word.capitalize()}" in told


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("oh"), SystemExit(3), ImportError("no"), BaseException("panic")]
)
@pytest.mark.parametrize("word", KINDS)
async def test_factories_that_fail(word: str, error: BaseException) -> None:
    plugin = Plugin(KINDS[word], factory=raising(error))
    told = await error_of(plugin, **{"transport": "memory", word: "odd"})
    assert "'odd' (from" in told
    assert f"cannot be used: {type(error).__name__}" in told


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"api": "1"}, "says '1' of its version of the interface, which is no number"),
        ({"capabilities": frozenset({"netwrok"})}, "'netwrok'"),
        ({"capabilities": ["local"]}, "a frozenset of in-process, local, network, uid, unix"),
        ({"capabilities": "local"}, "a frozenset of in-process, local, network, uid, unix"),
    ],
)
async def test_records(fields: dict[str, Any], words: str) -> None:
    assert words in await error_of(Plugin(TransportPlugin, **fields), transport="odd")


@pytest.mark.parametrize("name", ["Odd", "o dd", "9odd", "odd+tls"])
async def test_names_of_transports_that_are_no_schemes(name: str) -> None:
    told = await error_of(Plugin(TransportPlugin, name=name), transport=name)
    assert f"calls a transport {name!r}, which cannot be the scheme of addresses" in told


class Transport(abc.Transport):
    """Listens as it is told to."""

    def __init__(self, result: Any) -> None:
        self.result = result

    async def connect(self, address: str, **options: Any) -> Any:
        raise KeyError("never")

    async def listen(self, address: str | None, **options: Any) -> Any:
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


class Listener(abc.Listener):
    def __init__(self, address: Any) -> None:
        if address is not None:
            self.address = address

    async def serve(self, handler: abc.Handler) -> None:
        await asyncio.Event().wait()

    async def aclose(self) -> None:
        pass


LISTENING = [
    (KeyError("raw"), "the transport 'odd' fails to listen: KeyError: 'raw'"),
    ("a string", "calls that None, which is no address odd://…"),
    (Listener(None), "calls that None, which is no address odd://…"),
    (Listener("other://x"), "calls that 'other://x', which is no address odd://…"),
]


@pytest.mark.parametrize(("result", "words"), LISTENING)
async def test_listening_in_a_pool(result: Any, words: str) -> None:
    """A worker that cannot listen says why, also where it is a thread."""
    plugin = Plugin(TransportPlugin, factory=lambda options: Transport(result), capabilities=HERE)
    assert words in await error_of(plugin, transport="odd")


async def test_what_only_this_process_has() -> None:
    """Is no use to workers in others, which is said at once."""
    make = lambda options: Transport("")  # noqa: E731
    told = await error_of(Plugin(TransportPlugin, factory=make), transport="odd")
    assert told.startswith("'odd' is known to this process only")
    from wool._backends.cloudpickle import CloudpickleSerializer

    plugin = Plugin(SerializerPlugin, factory=lambda options: CloudpickleSerializer())
    assert (await error_of(plugin, serializer="odd")).startswith("'odd' is known to this")
    with register(plugin):
        async with wool.WorkerPool(size=1, serializer="odd", transport="memory") as pool:
            assert pool.workers[0].serializers == ("odd",)


class Unmarked:
    def wool_transports(self) -> list[Any]:
        return []


@pytest.mark.parametrize(
    ("plugin", "words"),
    [
        (Plugin, "is a class: register an instance of it"),
        (Unmarked(), "has no hooks"),
        ("wool_zmq", "has no hooks"),
        (sys, "has no hooks"),
        (None, "has no hooks"),
    ],
)
def test_registering_what_is_no_plugin(plugin: object, words: str) -> None:
    with pytest.raises(PluginError, match=words):
        register(plugin)
