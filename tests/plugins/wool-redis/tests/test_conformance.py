"""The discovery passes Wool's conformance kit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest

from wool.abc import Discovery
from wool.testing import DiscoverySuite
from wool_redis import Options
from wool_redis._discovery import RedisDiscovery

URL = "WOOL_REDIS_TESTS_URL"
"""Where other processes of the suite find the server."""


class TestRedis(DiscoverySuite):
    gone_within = 3.0

    @pytest.fixture(autouse=True)
    def one_server(self, shared: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
        monkeypatch.setenv(URL, shared.url)
        self.server = shared
        yield
        assert shared.cli("keys", "*").strip() == "", "something is left behind"

    def discovery(self, namespace: str) -> Discovery:
        return RedisDiscovery(Options(url=os.environ[URL], namespace=namespace, ttl=2.0))

    async def disturb(self) -> None:
        self.server.cli("client", "kill", "type", "pubsub")
