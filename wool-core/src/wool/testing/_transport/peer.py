"""The program of the other process in tests of transports."""

from __future__ import annotations

import asyncio
import functools
import importlib.util
import json
import os
import sys
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from wool.testing._transport.base import Base


def main() -> None:
    """Does what the order on the command line says, until the test's process lets go of us."""
    order = json.loads(sys.argv[1])
    sys.path[:] = order["path"]
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    asyncio.run(_run(_load(order), order["role"], order["address"]))


def _leave_with_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


def _load(order: dict[str, Any]) -> Base:
    """Imports the suite from its file: pytest may import modules that nobody else can name."""
    spec = importlib.util.spec_from_file_location(order["module"], order["file"])
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[order["module"]] = module
    spec.loader.exec_module(module)
    return functools.reduce(getattr, order["suite"].split("."), module)()  # type: ignore[return-value]


async def _run(suite: Base, role: str, address: str | None) -> None:
    from wool.testing._transport.listening import echo

    transport, credentials = suite.transport(), suite.credentials()
    if role == "dials":
        assert address is not None
        await echo(await transport.connect(address, credentials=credentials, timeout=30))
    else:
        listener = await transport.listen(address, credentials=credentials)
        print(listener.address, flush=True)  # noqa: T201
        await listener.serve(echo)
