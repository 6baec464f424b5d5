"""The workers that are asked what the calls of a pool are doing."""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from types import SimpleNamespace
from typing import Any

from wool import WorkerInfo
from wool._client.inspecting import inspect
from wool._protocol.status import CallStatus, ProcessStatus
from wool.exceptions import ConnectFailed


def telling(ident: str, *calls_at: str) -> ProcessStatus:
    """Returns what a worker tells that has made calls which others have."""
    makes = tuple(
        CallStatus(id=f"{ident}>{at}", routine="r", state="sent", worker=at) for at in calls_at
    )
    return ProcessStatus(key=ident.encode(), pid=1, host="h", worker=ident, makes=makes)


class Cluster:
    """A client that is connected to some workers, and knows others."""

    def __init__(self, connected: Sequence[str], told: dict[str, ProcessStatus]) -> None:
        self.asked: list[str] = []
        self.told = told
        members = {name: WorkerInfo(id=name, address=f"at://{name}") for name in [*told, "gone"]}
        self.client: Any = SimpleNamespace(
            pool=SimpleNamespace(members=members, status=lambda: telling("me")),
            links={name: self.link(members[name]) for name in connected},
        )

    def link(self, info: WorkerInfo) -> Any:
        async def ask() -> Sequence[ProcessStatus]:
            return await self.ask(f"link://{info.id}")

        return SimpleNamespace(info=info, peer=SimpleNamespace(ask=ask))

    async def ask(self, address: str) -> Sequence[ProcessStatus]:
        self.asked.append(address)
        name = address.partition("://")[2]
        if name not in self.told:
            raise ConnectFailed("nobody is there")
        return [self.told[name]]

    def inspect(self) -> Awaitable[list[ProcessStatus]]:
        return inspect(self.client, self.ask)


async def test_workers_that_have_calls_of_others_are_dialled() -> None:
    told = {
        "a": telling("a", "b", "a"),
        "b": telling("b", "c", "a"),
        "c": telling("c", "gone", "stranger"),
        "idle": telling("idle"),
    }
    cluster = Cluster(["a"], told)
    found = [process.worker for process in await cluster.inspect()]
    assert found == ["me", "a", "b", "c"]
    assert cluster.asked == ["link://a", "at://b", "at://c", "at://gone"]
