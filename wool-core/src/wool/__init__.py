"""Wool runs async functions and async generators on other processes, with the semantics they have
locally.

    @wool.routine
    async def add(x: int, y: int) -> int:
        return x + y

    async with wool.WorkerPool(size=4):
        result = await add(1, 2)

Names are loaded when they are first used, so importing this package costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wool import abc, exceptions, plugins, testing
    from wool._client.calltree import CallNode, CallTree
    from wool._client.current import current_call, current_worker
    from wool._client.mapping import map
    from wool._client.residents import remote
    from wool._client.routine import routine
    from wool._client.view import current_pool
    from wool._pool.groups import Group
    from wool._pool.worker_pool import WorkerPool
    from wool._protocol.status import CallStatus, Line, ProcessStatus
    from wool._security.credentials import Credentials
    from wool._sync.executor import Executor
    from wool._sync.sync_pool import SyncPool
    from wool._values.references import reference
    from wool._worker.worker import Worker
    from wool._workerinfo import WorkerInfo
    from wool.exceptions import (
        AuthenticationError,
        BrokenWorkerPool,
        ConfigurationError,
        ContextWarning,
        NoWorkersAvailable,
        PluginError,
        ProtocolError,
        Rejected,
        RemoteError,
        SerializationError,
        VersionMismatch,
        WoolError,
        WorkerLost,
        WorkerStopped,
    )

__all__ = [
    "AuthenticationError",
    "BrokenWorkerPool",
    "CallNode",
    "CallStatus",
    "CallTree",
    "ConfigurationError",
    "ContextWarning",
    "Credentials",
    "Executor",
    "Group",
    "Line",
    "NoWorkersAvailable",
    "PluginError",
    "ProcessStatus",
    "ProtocolError",
    "Rejected",
    "RemoteError",
    "SerializationError",
    "SyncPool",
    "VersionMismatch",
    "WoolError",
    "Worker",
    "WorkerInfo",
    "WorkerLost",
    "WorkerPool",
    "WorkerStopped",
    "abc",
    "current_call",
    "current_pool",
    "current_worker",
    "exceptions",
    "map",
    "plugins",
    "reference",
    "remote",
    "routine",
    "testing",
]

_HOMES = {
    "CallNode": "wool._client.calltree",
    "CallStatus": "wool._protocol.status",
    "CallTree": "wool._client.calltree",
    "Credentials": "wool._security.credentials",
    "Executor": "wool._sync.executor",
    "Group": "wool._pool.groups",
    "Line": "wool._protocol.status",
    "ProcessStatus": "wool._protocol.status",
    "SyncPool": "wool._sync.sync_pool",
    "Worker": "wool._worker.worker",
    "WorkerInfo": "wool._workerinfo",
    "WorkerPool": "wool._pool.worker_pool",
    "current_call": "wool._client.current",
    "current_pool": "wool._client.view",
    "current_worker": "wool._client.current",
    "map": "wool._client.mapping",
    "reference": "wool._values.references",
    "remote": "wool._client.residents",
    "routine": "wool._client.routine",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(_unknown(name))
    if name in ("abc", "exceptions", "plugins", "testing"):
        return import_module(f"wool.{name}")
    value = getattr(import_module(_HOMES.get(name, "wool.exceptions")), name)
    globals()[name] = value
    return value


def _unknown(name: str) -> str:
    message = f"module 'wool' has no attribute {name!r}"
    if name.startswith("_"):
        return message
    from wool import _namesake  # perhaps a name of the other distribution is meant

    problem = _namesake.problem()
    return message if problem is None else f"{message}; {problem}"


def __dir__() -> list[str]:
    return list(__all__)
