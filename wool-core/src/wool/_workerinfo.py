"""Facts about a worker."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerInfo:
    """A worker as discovery, the handshake and its replies describe it.

    A discovery may know no more than an address; the other fields then have their defaults until
    the worker has been dialled.

    Attributes:
        id: unique for the life of the worker; a restarted worker has another one.
        address: what others dial, `scheme://…`.
        tags: labels a pool or routine may require.
        host: name of the machine.
        pid: its process there.
        python: minor version, such as `"3.12"`.
        version: of wool-core.
        serializers: names of the serializers the worker can load.
        load: calls begun and waiting when the worker last told.
    """

    id: str = ""
    address: str
    tags: frozenset[str] = frozenset()
    host: str = ""
    pid: int = 0
    python: str = ""
    version: str = ""
    serializers: tuple[str, ...] = ()
    load: int = 0
