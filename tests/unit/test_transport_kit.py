"""The conformance kit of transports: ours pass it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
import uvloop

from unit.scaffold import scaffold
from wool._transports import memory, unix
from wool.abc import Tls, Transport
from wool.testing import TransportSuite, throwaway_tls

tcp = scaffold("transport", "sound")


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
    """The sound one, of which broken ones are made."""

    def transport(self) -> Transport:
        return tcp.SoundTransport(tcp.Options())


class TestTcpWithTls(TestTcp):
    def credentials(self) -> Tls:
        return throwaway_tls()


@pytest.mark.parametrize("name", ["pytest", "pytest_asyncio", "hypothesis"])
def test_a_library_that_is_missing(name: str) -> None:
    kits = "SerializerSuite, TransportSuite"
    code = f"import sys; sys.modules[{name!r}] = None; from wool.testing import {kits}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    expected = f'ImportError: wool.testing needs {name}: pip install "wool-core[testing]"'
    assert done.stderr.strip().endswith(expected)
