"""Workers on a transport of a third party: where they listen, and how it ends."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import wool
from support.waiting import until
from wool import abc
from wool._transports import unix
from wool.exceptions import ConfigurationError
from wool.plugins import TransportPlugin, hookimpl, register


@dataclass(frozen=True)
class Options:
    pass


class Watched(abc.Listener):
    """Leaves closing to whoever listens; may fail."""

    def __init__(self, inner: abc.Listener, error: Exception | None) -> None:
        self.inner, self.error = inner, error
        self.address = inner.address.replace("unix://", "courier+unix://")
        self.closed = 0

    async def serve(self, handler: abc.Handler) -> None:
        if self.error is not None:
            raise self.error
        await self.inner.serve(handler)

    async def aclose(self) -> None:
        self.closed += 1
        await self.inner.aclose()


class Courier(abc.Transport):
    """Unix sockets by another name."""

    def __init__(self) -> None:
        self.inner = unix.UnixTransport(unix.Options())
        self.listeners: list[Watched] = []
        self.error: Exception | None = None

    async def connect(self, address: str, **options: Any) -> abc.Connection:
        return await self.inner.connect(address.removeprefix("courier+"), **options)

    async def listen(self, address: str | None, **options: Any) -> abc.Listener:
        assert address is not None
        inner = await self.inner.listen(address.removeprefix("courier+"), **options)
        self.listeners.append(Watched(inner, self.error))
        return self.listeners[-1]


class Plugin:
    def __init__(self, courier: Courier, *capabilities: str) -> None:
        self.courier, self.capabilities = courier, frozenset(capabilities)

    @hookimpl
    def wool_transports(self) -> Iterator[TransportPlugin]:
        yield TransportPlugin(
            name="courier",
            api=1,
            options=Options,
            factory=lambda options: self.courier,
            capabilities=self.capabilities,
        )


@pytest.fixture
def courier() -> Iterator[Courier]:
    courier = Courier()
    with register(Plugin(courier, "local", "uid", "unix")):
        yield courier


@wool.routine
async def where() -> int:
    return os.getpid()


async def test_a_place_of_its_own(courier: Courier) -> None:
    async with wool.Worker(transport="courier") as worker:
        assert worker.info.address.startswith("courier+unix:///")
        directory = Path(worker.info.address.partition("://")[2]).parent
        assert directory.stat().st_mode & 0o777 == 0o700
        async with wool.WorkerPool(discovery=[worker.info.address]):
            assert await where() == os.getpid()
    assert not directory.exists()


async def test_the_one_that_was_registered_last_is_taken(courier: Courier) -> None:
    latest = Courier()
    with register(Plugin(latest, "local", "uid", "unix")):
        async with wool.Worker(transport="courier"):
            assert (len(latest.listeners), len(courier.listeners)) == (1, 0)
    async with wool.Worker(transport="courier"):
        assert (len(latest.listeners), len(courier.listeners)) == (1, 1)


async def test_its_listener_is_closed(courier: Courier, folder: Path) -> None:
    """Whether it has begun to serve or not."""
    for turns in (0, 5):
        async with wool.Worker(address=f"courier+unix://{folder}/s/w"):
            for _ in range(turns):
                await asyncio.sleep(0)
    assert [listener.closed for listener in courier.listeners] == [1, 1]
    assert not (folder / "s" / "w").exists()


async def test_a_listener_that_fails(
    courier: Courier, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Is no secret."""
    courier.error = RuntimeError("no more ink")
    async with wool.Worker(address=f"courier+unix://{folder}/s/w"):
        await until(lambda: caplog.records)
    (record,) = caplog.records
    assert record.getMessage() == (
        f"the transport 'courier' listens no more at courier+unix://{folder}/s/w, for it has failed"
    )
    assert record.exc_info is not None
    assert record.exc_info[1] is courier.error
    assert courier.listeners[0].closed == 1


@pytest.mark.parametrize(
    "address", ["courier://0.0.0.0:7000", "courier://10.1.2.3:7000", "courier:///tmp/x/w"]
)
@pytest.mark.parametrize("insecure", [True, False])
def test_it_never_listens_on_a_network(courier: Courier, address: str, insecure: bool) -> None:
    with pytest.raises(ConfigurationError, match=r"never leaves this machine.*courier\+unix:///"):
        wool.Worker(address=address, insecure=insecure)


@pytest.mark.parametrize("address", [None, "courier+unix:///tmp/x/w"])
def test_one_that_does_not_know_its_callers(address: str | None) -> None:
    with register(Plugin(Courier(), "local", "unix")):
        with pytest.raises(ConfigurationError, match="does not tell who is at the other end"):
            wool.Worker(transport="courier", address=address)
