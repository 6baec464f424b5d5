"""Five routines that wait for each other on three machines, and a program that looks at them."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator, Sequence

import wool


@wool.routine(tags=["m0"])
async def a() -> None:
    await b()


@wool.routine(tags=["m1"])
async def b() -> None:
    await c()


@wool.routine(tags=["m2"])
async def c() -> None:
    await d()


@wool.routine(tags=["m0"])
async def d() -> None:
    await e()


@wool.routine(tags=["m1"])
async def e() -> None:
    await asyncio.Event().wait()  # that nobody sets before this has ended


def walk(nodes: Sequence[wool.CallNode], parent: str = "") -> Iterator[tuple[str, wool.CallNode]]:
    for node in nodes:
        yield parent, node
        yield from walk(node.children, node.call.routine)


async def main(addresses: Sequence[str]) -> None:
    credentials = wool.Credentials.token()
    async with wool.WorkerPool(discovery=addresses, quorum=3, credentials=credentials) as pool:
        call = asyncio.create_task(a())
        while await asyncio.to_thread(sys.stdin.readline):
            tree = await pool.tree()
            found = list(walk([node for nodes in tree.roots.values() for node in nodes]))
            answer = {
                "edges": sorted([parent, node.call.routine] for parent, node in found),
                "states": {node.call.routine: node.call.state for _, node in found},
                "text": str(tree),
            }
            print(json.dumps(answer), flush=True)
        call.cancel()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
