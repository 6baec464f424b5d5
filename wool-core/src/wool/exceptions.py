"""Every exception Wool raises, in one tree under `WoolError`.

An exception of the user's own code is never wrapped: it arrives as itself. The errors listed here
are for what can go wrong *between* the caller and the routine.
"""

from __future__ import annotations

import concurrent.futures
from typing import Any, Literal

__all__ = [
    "AuthenticationError",
    "BrokenWorkerPool",
    "ConfigurationError",
    "ConnectFailed",
    "ConnectionLost",
    "ContextWarning",
    "MessageTooLarge",
    "NoWorkersAvailable",
    "PluginError",
    "ProtocolError",
    "Rejected",
    "RemoteError",
    "SerializationError",
    "TransportError",
    "VersionMismatch",
    "WoolError",
    "WorkerLost",
    "WorkerStopped",
]

Outcome = Literal["not started", "unknown"]


class WoolError(Exception):
    """Base class of everything Wool raises on its own account."""


class ContextWarning(UserWarning):
    """A context variable does not travel with calls; it keeps its value where it was set."""


class NoWorkersAvailable(WoolError):
    """No worker that fits the call exists, or none appeared in time."""


class WorkerLost(WoolError):
    """The worker running a call died or could no longer be reached.

    Attributes:
        outcome: `"not started"` when the routine provably never began, so that calling again is
            safe; `"unknown"` when it may have run, wholly or in part.
        exitcode: exit status of the worker process, if it is known and the process exited.
        signal: number of the signal that killed the worker process, if that is known.
        host, pid: where the worker ran, if that is known.
    """

    def __init__(
        self,
        *args: Any,
        outcome: Outcome = "unknown",
        exitcode: int | None = None,
        signal: int | None = None,
        host: str | None = None,
        pid: int | None = None,
    ) -> None:
        super().__init__(*args)
        self.outcome: Outcome = outcome
        self.exitcode = exitcode
        self.signal = signal
        self.host = host
        self.pid = pid


class BrokenWorkerPool(WorkerLost, concurrent.futures.BrokenExecutor):
    """A function given to an executor has lost its worker, or there is no worker for it.

    Other functions run on: workers are replaced. Only if the first of them could not be started,
    the executor is of no more use.
    """


class WorkerStopped(WoolError):
    """The pool or worker that a call belongs to has been closed on purpose."""


class Rejected(WoolError):
    """A worker refused a call before it began, for a reason the message gives."""


class SerializationError(WoolError):
    """Something could not be turned into bytes, or not be rebuilt from them.

    The message names the argument, result or variable and says what to do about it; the cause is
    the error of the serializer.
    """


class RemoteError(WoolError):
    """Stands for an exception of the routine that could not be rebuilt here.

    Attributes:
        type_name: module and qualified name of the class of the original exception.
        message: `str()` of the original exception.
        traceback: the traceback as it was formatted on the worker.
    """

    def __init__(self, type_name: str = "", message: str = "", traceback: str = "") -> None:
        super().__init__(type_name, message, traceback)
        self.type_name = type_name
        self.message = message
        self.traceback = traceback

    def __str__(self) -> str:
        text = f"{self.type_name}: {self.message}" if self.message else self.type_name
        return f"{text}\n\n{self.traceback}" if self.traceback else text


class ProtocolError(WoolError):
    """The peer sent something that the protocol does not allow; its connection is closed."""


class VersionMismatch(WoolError):
    """The two sides cannot work together; the message names the difference."""


class AuthenticationError(WoolError):
    """The peer did not prove that it knows the secret, or refused our proof."""


class PluginError(WoolError):
    """A back-end is missing, broken, ambiguous or too old; names distribution and remedy."""


class ConfigurationError(WoolError):
    """A setting or argument has no usable value; names it, where it came from and what would do."""


class TransportError(WoolError):
    """Base class of what a transport raises; see `wool.abc`.

    Callers meet `WorkerLost` instead; a `Worker` that cannot listen raises `ConnectFailed`.
    """


class ConnectFailed(TransportError):
    """No connection could be made.

    Attributes:
        reason: `"refused"`, `"timeout"`, `"tls"` or `"unknown"`.
    """

    def __init__(
        self, *args: Any, reason: Literal["refused", "timeout", "tls", "unknown"] = "unknown"
    ) -> None:
        super().__init__(*args)
        self.reason = reason


class ConnectionLost(TransportError):
    """The connection ended, orderly or not; nothing more will arrive or leave."""


class MessageTooLarge(TransportError):
    """A message exceeds the transport's `max_message_size`."""
