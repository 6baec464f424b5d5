"""What the parts of the suite share: the methods that authors override, and `Site`."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import secrets
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, TypeVar

import pytest
import pytest_asyncio

from wool.abc import Announcement, Discovery, WorkerInfo
from wool.testing._discovery.events import Watcher
from wool.testing._kit import descriptors, here, until
from wool.testing._process import Process

T = TypeVar("T")


@asynccontextmanager
async def held(
    context: AbstractAsyncContextManager[T], what: str, seconds: float
) -> AsyncGenerator[T]:
    """Holds a context, as Wool does: entered and left by the same task. Both in bounded time."""
    value = await here(context.__aenter__(), f"entering {what}", seconds)
    try:
        yield value
    except BaseException as error:
        leaving = context.__aexit__(type(error), error, error.__traceback__)
        if await here(leaving, f"leaving {what}", seconds):
            pytest.fail(f"{what} swallows {error!r}")
        raise
    await here(context.__aexit__(None, None, None), f"leaving {what}", seconds)


@asynccontextmanager
async def tidy(caplog: pytest.LogCaptureFixture, patience: float) -> AsyncGenerator[None]:
    """Fails if a test leaves tasks behind, or has anything logged that alarms."""
    gc.collect(1)  # complaints of finalizers belong to their test; older garbage takes long
    before = asyncio.all_tasks()
    yield
    left = asyncio.all_tasks() - before - {asyncio.current_task()}
    if left:
        await asyncio.wait(left, timeout=patience)
    left = {task for task in left if not task.done()}
    assert not left, (
        "tasks are left behind: leaving a watch or an announcement must cancel and await what it "
        f"has started: {left}"
    )
    gc.collect(1)
    await asyncio.sleep(0)
    for record in (*caplog.get_records("call"), *caplog.records):
        message = record.getMessage()
        assert record.levelno < logging.WARNING, (
            f"logged, though nothing was wrong; mend the cause, or log it as INFO: {message}"
        )


async def leaves_nothing(use: Callable[[], Awaitable[None]], patience: float) -> None:
    """Fails if using something again and again leaves descriptors or threads."""

    def open_now() -> tuple[int, int]:
        """Threads of the loop's executor stay: there are some for everybody."""
        running = [one for one in threading.enumerate() if "asyncio_" not in one.name]
        return descriptors(), len(running)

    def as_before() -> bool:
        return all(now <= then for now, then in zip(open_now(), before, strict=True))

    await use()  # what is opened for the first time may stay
    before = open_now()
    for _ in range(10):
        await use()
    await until(as_before, f"having {before} descriptors and threads again, as before,", patience)


class Site:
    """A namespace of its own for one test, and its workers."""

    def __init__(self, suite: Base, namespace: str | None = None) -> None:
        self.suite = suite
        self.patience: float = suite.patience
        self.namespace: str = namespace or f"wool-{secrets.token_hex(8)}"
        self.ours: Discovery = suite.discovery(self.namespace)
        self.withdrawn: set[str] = set()
        self._number = 0

    def another(self) -> Discovery:
        """Another discovery of the same namespace, as other processes have."""
        return self.suite.discovery(self.namespace)

    def worker(self, **fields: Any) -> WorkerInfo:
        """A worker that nobody has announced yet."""
        self._number += 1
        values: dict[str, Any] = {"id": secrets.token_hex(8), "host": "here", "pid": self._number}
        values["address"] = self.suite.address(self._number)
        return WorkerInfo(**(values | fields))

    def workers(self, count: int) -> list[WorkerInfo]:
        return [self.worker() for _ in range(count)]

    @asynccontextmanager
    async def announce(
        self, worker: WorkerInfo, discovery: Discovery | None = None
    ) -> AsyncGenerator[Announcement]:
        """Announces a worker while the context is open."""
        context = (discovery or self.ours).announce(worker)
        try:
            async with held(context, "an announcement", self.patience) as announcement:
                yield announcement
        finally:
            self.withdrawn.add(worker.id)

    @asynccontextmanager
    async def announce_all(
        self, workers: Sequence[WorkerInfo], *discoveries: Discovery
    ) -> AsyncGenerator[list[Announcement]]:
        """Announces workers, taking turns with discoveries."""
        using = discoveries or (self.ours,)
        async with contextlib.AsyncExitStack() as stack:
            yield [
                await stack.enter_async_context(self.announce(worker, using[turn % len(using)]))
                for turn, worker in enumerate(workers)
            ]

    @asynccontextmanager
    async def watch(self, discovery: Discovery | None = None) -> AsyncGenerator[Watcher]:
        """Watches while the context is open."""
        context = (discovery or self.ours).watch()
        async with held(context, "a watch", self.patience) as events:
            yield Watcher(events, self.withdrawn, self.patience)

    async def settle(self, *workers: WorkerInfo, watchers: Sequence[Watcher]) -> None:
        """Checks that watchers know these workers, and that this was not on its way to change.

        One more is announced, which is not known before whatever had happened earlier.
        """
        for known in ((*workers, self.worker()), workers):
            async with self.announce_all(known[len(workers) :]):
                for watcher in watchers:
                    await watcher.sees(*known)

    @asynccontextmanager
    async def elsewhere(self, *workers: WorkerInfo) -> AsyncGenerator[Process]:
        """Another process that announces workers, and withdraws them when told `leave`."""
        order = {
            "namespace": self.namespace,
            "workers": [[worker.id, worker.address, worker.pid] for worker in workers],
        }
        async with Process(
            self.suite, "wool.testing._discovery.peer", self.patience, **order
        ) as process:
            assert await process.line() == "announced"
            yield process


class Base:
    """What authors override."""

    in_process: bool = False
    gone_within: float = 10.0
    patience: float = 10.0
    runs: int = 20

    def discovery(self, namespace: str) -> Discovery:
        """Makes a discovery whose workers are found by those of the same namespace.

        Called several times in a test, and in other processes; each namespace is new.
        """
        raise NotImplementedError("override discovery() to make the discovery that is tested")

    def address(self, number: int) -> str:
        """An address that can be announced; nobody dials it. Each number gives another one."""
        return f"grpc://127.0.0.1:{7000 + number}"

    async def disturb(self) -> None:
        """Has watchers miss something, for instance by cutting their connections.

        What is announced must be found again after a while. Without it that is not tested.
        """
        pytest.skip("disturb() is not overridden")

    @pytest.fixture
    def elsewhere(self) -> None:
        """Skips tests with other processes that a discovery within one process cannot have."""
        if self.in_process:
            pytest.skip("workers are found in this process alone")

    @pytest_asyncio.fixture(loop_scope="function")
    async def site(self, caplog: pytest.LogCaptureFixture) -> AsyncIterator[Site]:
        """Checks, besides, that tests leave no tasks behind and log nothing that alarms."""
        async with tidy(caplog, self.patience):
            yield Site(self)
