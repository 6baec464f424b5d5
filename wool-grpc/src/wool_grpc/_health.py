"""The service `grpc.health.v1`, for probes such as those of Kubernetes.

Its library takes a tenth of a second to import, so that waits for the first probe.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Awaitable, Callable
from typing import Any

from wool_grpc._library import grpc

SERVICES = ("", "wool.Transport")
"""What can be asked for; the empty name is the server as a whole."""

_PREFIX = "/grpc.health.v1.Health/"


class Health:
    """Answers probes; also the handler of calls that gRPC asks for."""

    def __init__(self) -> None:
        self._stopped = False
        self._library: Any = None
        self._servicer: Any = None
        self._loading: asyncio.Lock = asyncio.Lock()

    def service(self, details: Any) -> Any:
        """Returns what handles a call; None: it is not for this service."""
        match str(details.method).removeprefix(_PREFIX):
            case "Check":
                return grpc.unary_unary_rpc_method_handler(self._check)
            case "Watch":
                return grpc.unary_stream_rpc_method_handler(self._watch)
            case _:
                return None

    async def stop(self) -> None:
        """Tells from now on that nothing is served."""
        self._stopped = True
        if self._servicer is not None:
            await self._servicer.enter_graceful_shutdown()

    async def _check(self, request: bytes, context: Any) -> bytes:
        asked = await self._parse(request, context)
        answer = await self._servicer.Check(asked, context)
        return answer.SerializeToString()

    async def _watch(self, request: bytes, context: Any) -> None:
        asked = await self._parse(request, context)
        await self._servicer.Watch(asked, _Writer(context.write))

    async def _parse(self, request: bytes, context: Any) -> Any:
        async with self._loading:
            if self._servicer is None:
                await self._load()
        try:
            return self._library.HealthCheckRequest.FromString(request)
        except Exception:  # a stranger's mistakes are not our log's business
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, "not a HealthCheckRequest")

    async def _load(self) -> None:
        health = await asyncio.to_thread(importlib.import_module, "grpc_health.v1.health")
        self._library = importlib.import_module("grpc_health.v1.health_pb2")
        servicer = health.aio.HealthServicer()
        for name in SERVICES:
            await servicer.set(name, self._library.HealthCheckResponse.SERVING)
        if self._stopped:
            await servicer.enter_graceful_shutdown()
        self._servicer = servicer


class _Writer:
    """What of a context the library uses for a stream of answers."""

    def __init__(self, write: Callable[[bytes], Awaitable[None]]) -> None:
        self._write = write

    async def write(self, answer: Any) -> None:
        await self._write(answer.SerializeToString())
