"""A worker, and beside it a plain TCP server, until standard input is closed.

    WOOL_TOKEN=… python serve.py ws://127.0.0.1:0 4194304

prints the address of each. The number is the credit of a call, in bytes.
"""

from __future__ import annotations

import asyncio
import sys
from urllib.parse import urlsplit

import jobs  # noqa: F401  so that no call has to wait for the import
import plain

import wool
from wool._client import pool
from wool._worker import server


def set_credit(size: int) -> None:
    """Sets how many bytes of one call may be under way to this process, from now on."""
    pool.WINDOW = server.WINDOW = size


async def main(address: str, credit: int) -> None:
    set_credit(credit)
    async with wool.Worker(address=address, drain_timeout=0.0) as worker:
        host = urlsplit(worker.info.address).hostname
        assert host is not None
        print(worker.info.address, plain.listen(host), flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
