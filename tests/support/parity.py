"""Helpers of the parity suite: the places, a journal on disk, comparing outcomes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass
from typing import Any

from support.waiting import until, until_sync

#: Where every case runs. `local` is no pool at all; any other name is a transport, after which a
#: serializer may follow: `unix+dill`. With `served-` before it, the workers are not the pool's own
#: and have none of the tests' modules: `served-grpc`. Add places here, or choose those of one run
#: in the environment: `CONTRACT_PLACES=local,unix`.
CHOSEN = os.environ.get("CONTRACT_PLACES", "")
PLACES: list[str] = (CHOSEN or "local,memory,unix,grpc,ws").split(",")

#: Those that differ in more than how messages travel: for what is decided before or after that.
NEAR = [place for place in PLACES if CHOSEN or place not in ("grpc", "ws")]

#: All of them, and workers that have to be sent the tests' modules: on one transport, or on each.
AND_SERVED = list(dict.fromkeys([*PLACES, "served-unix"]))
AND_SERVED_BY_ALL = list(dict.fromkeys([*AND_SERVED, "served-grpc", "served-ws"]))

#: How many times as many random examples to run: for a soak, `CONTRACT_EXAMPLES=50`.
SOAK = int(os.environ.get("CONTRACT_EXAMPLES", "0"))


@dataclass(frozen=True)
class Place:
    """Where the routines of a test run.

    Attributes:
        name: `"local"`, or a transport, or a transport and a serializer.
        pool: the open pool, None when there is none.
    """

    name: str
    pool: Any = None

    @property
    def transport(self) -> str:
        return self.name.partition("+")[0].removeprefix("served-")

    @property
    def remote(self) -> bool:
        return self.name != "local"

    @property
    def elsewhere(self) -> bool:
        """True if the routines run in another process."""
        return self.transport not in ("local", "memory")


class Journal:
    """Lines in a file, so that any process can tell what happened and in which order."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)

    def write(self, line: object) -> None:
        data = f"{line}\n".encode()
        descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        try:
            os.write(descriptor, data)
        finally:
            os.close(descriptor)

    def lines(self) -> list[str]:
        try:
            with open(self.path, encoding="utf-8") as file:
                return file.read().splitlines()
        except FileNotFoundError:
            return []

    def count(self, line: str) -> int:
        return self.lines().count(line)

    async def wait(self, line: str, count: int = 1) -> None:
        """Wait until `line` has been written `count` times."""
        await until(lambda: self.count(line) >= count, what=f"{count} × {line!r} in the journal")

    def block(self, line: str) -> None:
        """Blocks the loop until `line` has been written: what arrives meanwhile is taken later."""
        until_sync(lambda: self.count(line), what=f"{line!r} in the journal")


async def started(awaitable: Awaitable[Any], journal: Journal, line: str = "started") -> Any:
    """A task for `awaitable`, once it has written `line`."""
    before = journal.count(line)
    task = asyncio.ensure_future(awaitable)
    try:
        await until(lambda: task.done() or journal.count(line) > before, what=line)
    except BaseException:
        task.cancel()
        raise
    if journal.count(line) == before:
        raise AssertionError(f"ended without {line!r}: {await task!r}")
    return task


async def when_started(timeout: asyncio.Timeout, journal: Journal) -> None:
    """Let `timeout` expire as soon as the routine has started."""
    await journal.wait("started")
    timeout.reschedule(asyncio.get_running_loop().time())


def describe(error: BaseException | None, *, depth: int = 6) -> Any:
    """An exception and all that hangs on it, in a form that `==` compares."""
    if error is None or depth == 0:
        return None
    described: dict[str, Any] = {
        "type": type(error),
        "args": describe_args(error.args),
        "notes": list(getattr(error, "__notes__", [])),
        "cause": describe(error.__cause__, depth=depth - 1),
        "context": describe(error.__context__, depth=depth - 1),
        "suppress": error.__suppress_context__,
    }
    if isinstance(error, BaseExceptionGroup):
        described["message"] = error.message
        described["members"] = [describe(member, depth=depth - 1) for member in error.exceptions]
    return described


def describe_args(args: Iterable[Any]) -> list[Any]:
    def one(value: Any) -> Any:
        if isinstance(value, BaseException):
            return describe(value)
        if isinstance(value, (list, tuple)):
            return [one(item) for item in value]
        return value

    return [one(value) for value in args]
