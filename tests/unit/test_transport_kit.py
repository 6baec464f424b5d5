"""The conformance kit of transports: ours pass it, broken ones do not."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import uvloop

from unit.brokenkit import Run, running
from unit.transports.tcp import TcpConnection, TcpTransport
from wool._transports import memory, unix
from wool.abc import Segments, Tls, Transport
from wool.testing import TransportSuite, throwaway_tls
from wool.testing._transport.pumping import Pumping


class TestUnix(TransportSuite):
    def transport(self) -> Transport:
        return unix.UnixTransport(unix.Options())

    def address(self, tmp_path: Path) -> str:
        return f"unix://{tmp_path}/socket"


@pytest.mark.filterwarnings("ignore:Overriding the .event_loop_policy:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.asyncio.*Policy. is deprecated:DeprecationWarning")
class TestUnixOnUvloop(TestUnix):
    @pytest.fixture
    def event_loop_policy(self) -> asyncio.AbstractEventLoopPolicy:
        return uvloop.EventLoopPolicy()


class TestMemory(TransportSuite):
    in_process = True

    def transport(self) -> Transport:
        return memory.MemoryTransport()


class TestTcp(TransportSuite):
    def transport(self) -> Transport:
        return TcpTransport()


class Slow(TcpConnection):
    async def send(self, messages: Sequence[Segments]) -> None:
        for segments in messages:
            await asyncio.sleep(sum(map(len, segments)) / 10e6)
            await super().send([segments])


@pytest.mark.asyncio(loop_scope="function")
class TestSlow(Pumping):
    """No transport has to be quick."""

    patience = 4.0

    def transport(self) -> Transport:
        transport: Any = TcpTransport()
        transport.connection = Slow
        return transport


class TestTcpWithTls(TestTcp):
    def credentials(self) -> Tls:
        return throwaway_tls()


KINDS = ("messages", "flow", "places", "security")


@pytest.fixture(scope="module", autouse=True)
def runs(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Run]]:
    folder = tmp_path_factory.mktemp("broken")
    yield from running(request, folder, [f"unit.transports.broken_{kind}" for kind in KINDS])


@pytest.mark.timeout(150)
@pytest.mark.parametrize("name", KINDS)
def test_broken_transports_fail(name: str, runs: dict[str, Run]) -> None:
    """Each at least in those tests that are about its defect."""
    assert len(runs[name].suites) >= 7
    assert runs[name].missed() == []


@pytest.mark.parametrize("name", ["pytest", "pytest_asyncio", "hypothesis"])
def test_a_library_that_is_missing(name: str) -> None:
    code = f"import sys; sys.modules[{name!r}] = None; from wool.testing import TransportSuite"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    expected = f'ImportError: wool.testing needs {name}: pip install "wool-core[testing]"'
    assert done.stderr.strip().endswith(expected)
