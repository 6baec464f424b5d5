"""The command that starts a worker: it carries standard input and output between here and an actor.

Ray ends the actor when this process ends, however that happens, and the worker ends when the actor
does. The actor's class is of `__main__`, so that it travels and nodes need not have this package.
"""

# pyright: reportUnknownMemberType=false
from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import sys
import threading
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import ray
from ray.exceptions import RayError

PATIENCE = 3.0
"""Seconds after which it is said what is being waited for."""


@ray.remote
class Host:
    """Runs a worker on a node of the cluster."""

    async def begin(self, python: str, arguments: Sequence[str]) -> None:
        """Starts the interpreter."""
        if python and shutil.which(python) is None:
            raise FileNotFoundError(f"{socket.gethostname()} has no program {python}")
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            python or sys.executable, *arguments, stdin=pipe, stdout=pipe, stderr=pipe
        )

    async def write(self, data: bytes) -> None:
        """Writes to its standard input; nothing is the end of that."""
        stdin = self._process.stdin
        assert stdin is not None
        if data:
            stdin.write(data)
            await stdin.drain()
        else:
            stdin.close()

    async def read(self, number: int) -> AsyncGenerator[bytes]:
        """Yields what comes to its standard output, 1, or standard error, 2."""
        stream = self._process.stdout if number == 1 else self._process.stderr
        assert stream is not None
        while data := await stream.read(65536):
            yield data

    async def wait(self) -> int:
        """Waits until it has ended; returns its return code."""
        return await self._process.wait()


async def forward(host: Any) -> None:
    """Carries standard input there."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    data = b"."
    while data:
        data = await reader.read(65536)
        await host.write.remote(data)


async def back(host: Any, number: int) -> None:
    """Carries standard output or standard error here."""
    async for reference in host.read.options(num_returns="streaming").remote(number):
        os.write(number, await reference)


async def bridge(actor: dict[str, Any], python: str, arguments: Sequence[str]) -> int:
    """Runs a worker; returns the exit code."""
    host: Any = Host.options(**actor).remote()
    waiting = f"the cluster has no room yet for {words(actor)}"
    late = asyncio.get_running_loop().call_later(PATIENCE, complain, waiting)
    await host.begin.remote(python, arguments)
    late.cancel()
    carrying = [asyncio.create_task(forward(host))]
    carrying += [asyncio.create_task(back(host, number)) for number in (1, 2)]
    code = await host.wait.remote()
    await asyncio.wait(carrying[1:])
    return code if code >= 0 else 128 - code


def words(actor: dict[str, Any]) -> str:
    """Says what an actor needs."""
    needs = {"CPU": actor["num_cpus"], "GPU": actor["num_gpus"], **actor["resources"]}
    return ", ".join(f"{name}={amount:g}" for name, amount in needs.items() if amount)


def complain(text: str) -> None:
    """Says something that is not of the worker."""
    print(f"wool-ray: {text}", file=sys.stderr, flush=True)


def end_at_sigterm() -> None:
    """Ends this process at once, also while Ray waits for a cluster and runs no handler."""
    signal.sigwait({signal.SIGTERM})
    os._exit(128 + signal.SIGTERM)


def main() -> int:
    """Does what the command line says."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=end_at_sigterm, daemon=True).start()
    address, python, actor = json.loads(sys.argv[1])
    late = threading.Timer(PATIENCE, complain, [f"the Ray cluster {address} does not answer yet"])
    late.start()
    try:
        ray.init(address, log_to_driver=False, configure_logging=False)
        late.cancel()
        return asyncio.run(bridge(actor, python, sys.argv[2:]))
    except (RayError, ConnectionError, OSError) as error:
        complain(str(error).strip().splitlines()[-1])
        return 1


if __name__ == "__main__":
    os._exit(main())  # at once: Ray would take a second for what it does in any case
