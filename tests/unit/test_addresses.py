"""Addresses, and what they say of where they are."""

from __future__ import annotations

import pytest

from wool._addresses import (
    host_of,
    is_loopback,
    is_socket,
    scheme_of,
    socket_directory,
    socket_path,
    socket_scheme,
)


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST", "127.0.0.1", "127.1.2.3", "[::1]"])
def test_the_loopback_interface(host: str) -> None:
    assert is_loopback(f"ws://{host}:7000/path")
    assert is_loopback(f"grpc://{host}")


@pytest.mark.parametrize(
    "host",
    [
        "0.0.0.0",
        "[::]",
        "192.0.2.7",
        "[fe80::1%eth0]",
        "localhost.example",
        "127.0.0.1.example",
        "127.0.0.1:80@192.0.2.7",
        "127.1",
        "",
        "[::1",
    ],
)
def test_what_is_not_for_certain(host: str) -> None:
    assert not is_loopback(f"ws://{host}:7000")


@pytest.mark.parametrize(
    ("address", "scheme", "host", "socket"),
    [
        ("unix:///run/wool/a", "unix", "", True),
        ("ws+unix:///run/wool/a", "ws+unix", "", True),
        ("grpc://Host.example:7000", "grpc", "host.example", False),
        ("units://host:1", "units", "host", False),
        ("memory://a", "memory", "a", False),
        ("grpc://[::1", "grpc", "", False),
    ],
)
def test_what_an_address_says(address: str, scheme: str, host: str, socket: bool) -> None:
    assert scheme_of(address) == scheme
    assert host_of(address) == host
    assert is_socket(address) is socket


def test_sockets() -> None:
    assert socket_path("ws+unix:///run/wool://a") == "/run/wool://a"
    assert socket_directory("unix:///run/wool/a") == "/run/wool"
    assert [socket_scheme(transport) for transport in ("unix", "ws")] == ["unix", "ws+unix"]
