"""The discovery and the transport that a worker or a pool chooses; what does not go together."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

import wool
import wool.plugins
from wool._plugins import lookup
from wool._settings.settings import Settings
from wool._worker.backends import ChosenDiscovery, choose_discovery, choose_transport
from wool.exceptions import ConfigurationError
from wool.plugins import DiscoveryPlugin, hookimpl

pytestmark = pytest.mark.usefixtures("unset")


@dataclass(frozen=True)
class Options:
    namespace: str = "default"


class Nothing(wool.abc.Discovery):
    """Finds nobody."""

    announce = watch = None  # type: ignore[assignment]


@pytest.fixture
def discoveries() -> Iterator[list[Any]]:
    """Discoveries `far` and `near`; gives the options they were made with."""
    made: list[Any] = []

    def plugin(name: str, *capabilities: str) -> DiscoveryPlugin:
        return DiscoveryPlugin(
            name=name,
            api=1,
            options=Options,
            factory=lambda options: made.append(options) or Nothing(),
            capabilities=frozenset(capabilities),
        )

    class Plugin:
        @hookimpl
        def wool_discoveries(self) -> Any:
            yield plugin("far", "network")
            yield plugin("near", "local")
            yield plugin("silent")

    with wool.plugins.register(Plugin()):
        yield made


def test_options_of_an_argument_precede_those_that_are_set(
    discoveries: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WOOL_FAR__NAMESPACE", "set")
    settings = Settings.read(lookup.names)
    assert choose_discovery(settings, None) is None
    choose_discovery(settings, "far")
    choose_discovery(settings, "far", {"namespace": "argued"})
    choose_discovery(settings, "far", {"namespace": None})
    assert [options.namespace for options in discoveries] == ["set", "argued", "set"]


@pytest.mark.parametrize(
    ("name", "reaches_out", "place"),
    [
        ("far", True, "grpc://0.0.0.0:0"),
        ("near", False, None),
        ("silent", False, "grpc://0.0.0.0:0"),
    ],
)
def test_what_a_discovery_can_do(
    discoveries: list[Any], name: str, reaches_out: bool, place: str | None
) -> None:
    chosen = choose_discovery(Settings.read(lookup.names), name)
    assert chosen is not None
    assert chosen.reaches_out is reaches_out
    assert chosen.place("grpc") == place
    assert str(chosen) == f"the discovery {name!r}"


def far(scheme: str = "") -> ChosenDiscovery:
    """A discovery that reaches other machines."""

    class Far(wool.abc.Discovery):
        announce = watch = None  # type: ignore[assignment]

    Far.scheme = scheme
    return ChosenDiscovery(Far(), lookup.discovery("dns").plugin)


@pytest.mark.parametrize(
    ("installed", "scheme", "expected"),
    [
        ({"unix", "ws", "grpc"}, "", "grpc"),
        ({"unix", "ws"}, "", "ws"),
        ({"unix", "ws", "grpc"}, "ws", "ws"),
        ({"unix", "ws", "grpc"}, "wss", "ws"),
        ({"unix", "ws"}, "grpc", "ws"),
    ],
)
def test_the_transport_that_reaches_others(
    monkeypatch: pytest.MonkeyPatch, installed: set[str], scheme: str, expected: str
) -> None:
    others = far(scheme)
    monkeypatch.setattr(lookup.Lookup, "names_of", lambda self, kind: installed)
    assert choose_transport(None, others) == expected
    assert choose_transport("mine", others) == "mine"
    assert choose_transport(None, None) == "unix"


def test_a_worker_listens_where_those_who_find_it_reach_it(
    discoveries: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WOOL_TOKEN", wool.Credentials.new_token())
    for options, transport, address in [
        ({"discovery": "far"}, "grpc", "grpc://0.0.0.0:0"),
        ({"discovery": "far", "transport": "ws"}, "ws", "ws://0.0.0.0:0"),
        ({"discovery": "far", "address": "ws://127.0.0.1:0"}, "ws", "ws://127.0.0.1:0"),
        ({"discovery": "near"}, "unix", None),
        ({"discovery": "near", "transport": "ws"}, "ws", None),
        ({"discovery": "silent"}, "unix", None),
        ({}, "unix", None),
        ({"transport": "grpc"}, "grpc", None),
    ]:
        worker = wool.Worker(**options)
        assert (worker._transport, worker._address) == (transport, address), options


def test_a_worker_nobody_who_finds_it_could_reach(
    discoveries: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WOOL_TOKEN", wool.Credentials.new_token())
    for options, place in [
        ({"transport": "unix"}, "the transport 'unix'"),
        ({"address": "unix:///tmp/x/y"}, "unix:///tmp/x/y"),
        ({"address": "ws+unix:///tmp/x/y"}, r"ws\+unix:///tmp/x/y"),
    ]:
        with pytest.raises(ConfigurationError, match=f"cannot reach {place}"):
            wool.Worker(discovery="far", **options)
    wool.Worker(discovery="far", address="ws+unix:///tmp/x/y", advertise="ws://host:80")


async def test_found_by_others_takes_credentials(discoveries: list[Any]) -> None:
    with pytest.raises(ConfigurationError, match="takes credentials"):
        wool.Worker(discovery="far")
    with pytest.raises(ConfigurationError, match="have to share"):
        async with wool.WorkerPool(size=1, discovery="far"):
            pass


def test_a_worker_for_dns_listens_where_callers_expect_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WOOL_TOKEN", wool.Credentials.new_token())
    monkeypatch.setenv("WOOL_DNS__NAME", "workers.example")
    monkeypatch.setenv("WOOL_DNS__PORT", "7123")
    assert wool.Worker(discovery="dns")._address == "grpc://0.0.0.0:7123"
    assert wool.Worker(discovery="dns", transport="ws")._address == "ws://0.0.0.0:7123"
    monkeypatch.setenv("WOOL_DNS__SCHEME", "ws")
    assert wool.Worker(discovery="dns")._address == "ws://0.0.0.0:7123"
