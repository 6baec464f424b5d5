"""A program that announces or watches workers, for tests to run on the machines of a network.

    python zeroconf_peer.py watch '{"namespace": "n"}'
    python zeroconf_peer.py announce '{"namespace": "n"}' ID ADDRESS [TAG …]

It prints a line of JSON for each event. An announcer takes other tags from a line on its standard
input, and leaves at its end.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from dataclasses import replace
from typing import Any

from wool.abc import ConfigurationError, Snapshot, WorkerInfo
from wool_zeroconf import Options
from wool_zeroconf._discovery import ZeroconfDiscovery


def tell(event: str, **more: Any) -> None:
    print(json.dumps({"event": event, "time": time.monotonic(), **more}), flush=True)


def plain(worker: WorkerInfo) -> list[Any]:
    return [worker.id, worker.address, sorted(worker.tags)]


async def watch(discovery: ZeroconfDiscovery) -> None:
    async with discovery.watch() as events:
        async for event in events:
            if isinstance(event, Snapshot):
                tell("Snapshot", workers=sorted(map(plain, event.workers)))
            else:
                tell(type(event).__name__, worker=plain(event.worker))


async def announce(discovery: ZeroconfDiscovery, ident: str, address: str, *tags: str) -> None:
    worker = WorkerInfo(id=ident, address=address, tags=frozenset(tags))
    async with discovery.announce(worker) as announcement:
        tell("announced")
        while line := await asyncio.to_thread(sys.stdin.readline):
            await announcement.update(replace(worker, tags=frozenset(line.split())))
            tell("updated")
        tell("leaving")


def main() -> None:
    role, options, *rest = sys.argv[1:]
    given = json.loads(options)
    given["interfaces"] = tuple(given.get("interfaces", ()))
    discovery = ZeroconfDiscovery(Options(**given))
    roles = {"watch": watch, "announce": announce}
    try:
        asyncio.run(roles[role](discovery, *rest))
    except ConfigurationError as error:
        tell("refused", worker=str(error))


if __name__ == "__main__":
    main()
