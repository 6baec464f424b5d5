"""What failures of gRPC mean, in words of ours."""

from __future__ import annotations

from typing import Any

from wool.abc import ConnectFailed
from wool_grpc._library import aio, grpc


def broken(error: BaseException) -> str:
    """Returns why a stream has broken."""
    if not isinstance(error, aio.AioRpcError):
        return "the connection was lost"
    failure: Any = error
    if "ping" in (failure.details() or "").lower():
        return "the peer has not shown a sign of life for too long"
    if failure.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
        return "the peer has sent more at once than it may"
    return "the connection to the peer broke"


def refusal(address: str, code: Any) -> ConnectFailed | None:
    """Returns what to raise for the status of a call that was not taken; None: it says nothing."""
    if code in (grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.NOT_FOUND):
        return ConnectFailed(f"{address} speaks gRPC, but is not a worker of Wool")
    if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
        return None
    return ConnectFailed(f"{address} refused the call ({code.name.lower().replace('_', ' ')})")
