"""The discoveries `static` and `dns`, with a resolver that says what the test wants."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import Any

import pytest

import wool
from wool import abc
from wool._plugins import lookup
from wool._settings.settings import Settings
from wool._worker.backends import choose_discovery
from wool.exceptions import ConfigurationError

AGAIN = socket.gaierror(socket.EAI_AGAIN, "no server answers")
NONE = socket.gaierror(socket.EAI_NONAME, "no such name")

pytestmark = pytest.mark.usefixtures("unset")


def made(which: str, **arguments: Any) -> abc.Discovery:
    chosen = choose_discovery(Settings.read(lookup.names), which, arguments)
    assert chosen is not None
    return chosen.backend


async def first(discovery: abc.Discovery) -> list[str]:
    async with asyncio.timeout(10), discovery.watch() as events:
        event = await anext(events)
    assert isinstance(event, abc.Snapshot)
    return [worker.address for worker in event.workers]


# static


async def test_addresses_of_an_argument_or_a_setting(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool.wool.static]\naddresses = ['ws://file:1']\n")
    assert await first(made("static")) == ["ws://file:1"]
    monkeypatch.setenv("WOOL_STATIC__ADDRESSES", "ws://a:1, grpc://b:2")
    assert await first(made("static")) == ["ws://a:1", "grpc://b:2"]
    assert await first(made("static", addresses=["ws://c:3"])) == ["ws://c:3"]


def test_an_address_of_no_use() -> None:
    with pytest.raises(ConfigurationError, match="'host:7000' is no address"):
        made("static", addresses=["host:7000"])
    with pytest.raises(ConfigurationError, match="'host:7000' is no address"):
        wool.WorkerPool(discovery=["host:7000"])


async def test_no_addresses() -> None:
    """Nobody waits for what will never be found."""
    with pytest.raises(ConfigurationError, match="set WOOL_STATIC__ADDRESSES"):
        async with asyncio.timeout(20), wool.WorkerPool(discovery="static"):
            pass
    async with wool.WorkerPool(size=1, transport="memory", discovery="static"):
        pass  # its own worker will do


# dns


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict[str, Any]]]:
    """Has names resolve to one after the other of some answers, and the last one for ever."""

    def install(*answers: Any) -> list[dict[str, Any]]:
        asked: list[dict[str, Any]] = []

        async def getaddrinfo(host: str, port: int, **options: Any) -> list[Any]:
            answer = answers[min(len(asked), len(answers) - 1)]
            asked.append({"host": host, "port": port, **options})
            if isinstance(answer, Exception):
                raise answer
            return [(0, 0, 0, "", (address, port)) for address in answer]

        monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
        return asked

    return install


async def snapshots(count: int, **options: Any) -> list[list[str]]:
    discovery = made("dns", **{"name": "w.test", "interval": 0.001, **options})
    async with asyncio.timeout(10), discovery.watch() as events:
        found = [await anext(events) for _ in range(count)]
    return [[worker.address for worker in event.workers] for event in found]


async def test_addresses_of_both_kinds(resolver: Any) -> None:
    asked = resolver(["10.0.0.2", "fd00::1", "10.0.0.1", "10.0.0.1"])
    assert await snapshots(1, scheme="ws", port=80) == [
        ["ws://10.0.0.1:80", "ws://10.0.0.2:80", "ws://[fd00::1]:80"]
    ]
    assert asked == [{"host": "w.test", "port": 80, "type": socket.SOCK_STREAM}]


async def test_only_changes_are_told(resolver: Any) -> None:
    one, two = ["10.0.0.1"], ["10.0.0.2", "10.0.0.1"]
    asked = resolver(one, one, two, two[::-1], two, one)
    found = await snapshots(3)
    assert [len(snapshot) for snapshot in found] == [1, 2, 1]
    assert len(asked) >= 6


async def test_a_name_that_ceases_to_exist_and_returns(resolver: Any) -> None:
    resolver(["10.0.0.1"], NONE, NONE, ["10.0.0.2"])
    assert await snapshots(3) == [["grpc://10.0.0.1:7000"], [], ["grpc://10.0.0.2:7000"]]


async def test_a_server_that_does_not_answer_changes_nothing(resolver: Any) -> None:
    resolver(["10.0.0.1"], AGAIN, AGAIN, ["10.0.0.1"], AGAIN, ["10.0.0.2"])
    assert await snapshots(2) == [["grpc://10.0.0.1:7000"], ["grpc://10.0.0.2:7000"]]


async def test_a_server_that_has_never_answered(resolver: Any) -> None:
    resolver(AGAIN)
    with pytest.raises(OSError, match=r"'w\.test' cannot be resolved: no server answers"):
        await snapshots(1)


def test_what_it_needs() -> None:
    with pytest.raises(ConfigurationError, match="set WOOL_DNS__NAME"):
        made("dns")
    for options in ({"port": 0}, {"port": 70_000}, {"interval": 0.0}):
        (name,) = options
        with pytest.raises(ConfigurationError, match=name):
            made("dns", name="w.test", **options)
