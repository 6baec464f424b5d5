"""The transport that an address is for."""

from __future__ import annotations

from typing import Any

import pytest

from wool._plugins import lookup
from wool._plugins.lookup import Lookup, scheme_transport
from wool.exceptions import ConfigurationError
from wool.plugins import TransportPlugin, hookimpl


class Plugin:
    """Has transports of these names."""

    def __init__(self, *names: str) -> None:
        self.names = names

    @hookimpl
    def wool_transports(self) -> Any:
        for name in self.names:
            yield TransportPlugin(name=name, api=1, options=object, factory=lambda o: o)


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("unix:///tmp/x", "unix"),
        ("memory://1", "memory"),
        ("grpc://host:7000", "grpc"),
        ("grpc+unix:///tmp/x", "grpc"),
        ("grpcs://host:7000", "grpc"),
        ("grpcs+unix:///tmp/x", "grpc"),
        ("ws://host/path", "ws"),
        ("wss://host/path", "ws"),
        ("WSS://host", "ws"),
        ("carrier-pigeon://roof", "carrier-pigeon"),
        ("pigeons://roof", "pigeons"),
        ("ss://roof", "ss"),
    ],
)
def test_the_scheme_names_the_transport(address: str, name: str) -> None:
    assert scheme_transport(address, Lookup()) == name


@pytest.mark.parametrize(
    ("names", "name"),
    [(("pigeon",), "pigeon"), (("pigeon", "pigeons"), "pigeons"), (("pigeons",), "pigeons")],
)
def test_an_s_is_part_of_a_name_that_exists(names: tuple[str, ...], name: str) -> None:
    here = Lookup()
    with here.register(Plugin(*names)):
        assert scheme_transport("pigeons://roof", here) == name


def test_this_process_is_asked_by_default() -> None:
    assert scheme_transport("unixs:///x") == "unix"


def test_no_metadata_is_read_for_a_name_without_an_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lookup, "read_entries", lambda groups: pytest.fail("read"))
    assert scheme_transport("grpc://host", Lookup()) == "grpc"


@pytest.mark.parametrize("address", ["host:7000", "/tmp/x", "", "://host", "grpc:host", "7://x"])
def test_an_address_without_a_scheme(address: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        scheme_transport(address)
    assert str(caught.value) == (
        f"The address {address!r} does not say which transport it is for: write it as "
        f"transport://…, such as grpc://host:7000"
    )
