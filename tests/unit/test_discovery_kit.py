"""The conformance kit of discoveries: ours pass it."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from wool._backends import dns, static
from wool.abc import Discovery
from wool.testing import AddressDiscoverySuite, DiscoverySuite
from wool_shm import Options as ShmOptions
from wool_shm import _directory
from wool_shm._discovery import ShmDiscovery
from wool_zeroconf import Options as ZeroconfOptions
from wool_zeroconf._discovery import ZeroconfDiscovery


class TestShm(DiscoverySuite):
    gone_within = 4.0

    def discovery(self, namespace: str) -> Discovery:
        return ShmDiscovery(ShmOptions(namespace=namespace, directory=self._base))

    async def disturb(self) -> None:
        """More happens in the folder than the kernel keeps for its reader."""
        folder = Path(_directory.path_of(self._base))
        most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
        if most > 100_000:
            pytest.skip("the kernel keeps very many")
        for number in range(most + 100):
            os.close(os.open(folder / "xy"[number % 2], os.O_WRONLY | os.O_CREAT))

    @property
    def _base(self) -> Path:
        return Path(_directory.path_of(None)).parent / "wool-test-kit"

    @pytest.fixture(autouse=True)
    def _folder(self) -> Iterator[None]:
        self._base.mkdir(exist_ok=True)
        yield
        shutil.rmtree(self._base, ignore_errors=True)


class TestZeroconf(DiscoverySuite):
    def discovery(self, namespace: str) -> Discovery:
        options = ZeroconfOptions(namespace=namespace, interfaces=("127.0.0.1",), interval=1.0)
        return ZeroconfDiscovery(options)


class TestStatic(AddressDiscoverySuite):
    def discovery(self) -> Discovery:
        return static.StaticDiscovery(static.Options(tuple(self.addresses)))


class TestDns(AddressDiscoverySuite):
    addresses = ("grpc://192.0.2.1:7000", "grpc://[2001:db8::1]:7000")

    def discovery(self) -> Discovery:
        self.found = self.addresses
        return dns.DnsDiscovery(dns.Options(name="workers.test", interval=0.01))

    async def change(self, addresses: Sequence[str]) -> None:
        self.found = addresses

    @pytest.fixture(autouse=True)
    def _resolver(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def getaddrinfo(host: str, port: int, **_: object) -> Any:
            assert host == "workers.test"
            hosts = [urlsplit(address).hostname for address in self.found]
            if not hosts:
                raise socket.gaierror(socket.EAI_NONAME, "no such name")
            return [(0, 0, 0, "", (host, port)) for host in hosts]

        monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **_: getaddrinfo(*args[:2]))
