"""The program that is attacked: a worker on a network, or a pool with one on this machine."""

from __future__ import annotations

import asyncio
import faulthandler
import json
import resource
import sys

import wool


async def main(channel: str) -> None:
    """Serves until standard input ends."""
    if channel == "unix" or channel.endswith("+unix"):
        async with wool.WorkerPool(
            size=1, transport=channel.removesuffix("+unix"), quorum_timeout=25
        ) as pool:
            await stay(pool.workers[0], pool._pool.keyring.local.secret)
    else:
        async with wool.Worker(address=f"{channel}://127.0.0.1:0") as worker:
            await stay(worker.info, b"")


async def stay(worker: wool.WorkerInfo, secret: bytes) -> None:
    """Tells the tests, which started us, what its callers would know."""
    told = {"address": worker.address, "pid": worker.pid, "secret": secret.hex()}
    print(json.dumps(told), flush=True)
    faulthandler.cancel_dump_traceback_later()
    await asyncio.to_thread(sys.stdin.buffer.read)


resource.setrlimit(resource.RLIMIT_NOFILE, (1024, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
faulthandler.dump_traceback_later(30, exit=True)
asyncio.run(main(sys.argv[1]))
