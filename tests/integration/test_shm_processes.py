"""The discovery `shm` between processes: who comes and goes, and who is killed, and when."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from support.processes import alive
from support.waiting import until
from wool.abc import Changed, Discovery, Joined, Left, Snapshot, WorkerInfo
from wool_shm import Options, wool_discoveries

COMMON = """
import asyncio, fcntl, itertools, json, multiprocessing, os, random, signal, subprocess, sys, time
from contextlib import AsyncExitStack
from pathlib import Path
from wool.abc import Joined, Left, Snapshot, WorkerInfo
from wool_shm import Options, _directory, _records, wool_discoveries

def make(namespace="default"):
    (plugin,) = wool_discoveries()
    return plugin.factory(Options(namespace=namespace, directory=Path(sys.argv[1])))

def worker(id, load=0):
    address = "unix:///tmp/wool/" + id + "/socket"
    return WorkerInfo(id=id, address=address, pid=os.getpid(), load=load, tags={"gpu"})

def say(*words):
    os.write(1, json.dumps(words).encode() + b"\\n")
"""

PEER = """
async def main():
    loop = asyncio.get_running_loop()
    announced = {}
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        do, *args = json.loads(line)
        if do == "announce":
            context = discovery.announce(worker(*args))
            announced[args[0]] = context, await context.__aenter__()
            say("announced")
        elif do == "watch":
            watching = asyncio.create_task(watch())
        elif do == "child":
            say(CHILDREN[args[0]]())

async def watch():
    async with discovery.watch() as events:
        async for event in events:
            one = isinstance(event, Snapshot)
            ids = sorted(w.id for w in event.workers) if one else [event.worker.id]
            say(type(event).__name__, ids)

def fork():
    pid = os.fork()
    if not pid:
        sleep()
        os._exit(0)
    return pid

def process():
    child = multiprocessing.get_context("fork").Process(target=sleep)
    child.start()
    return child.pid

def program():
    return subprocess.Popen(["sleep", "600"], stdout=subprocess.DEVNULL).pid

def sleep():
    os.close(1)
    time.sleep(600)

CHILDREN = {"fork": fork, "process": process, "program": program}
discovery = make(*sys.argv[2:3])
asyncio.run(main())
"""


class Peer:
    """A process that does as it is told."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self.pid = process.pid
        self._process = process
        self._stdin = process.stdin
        self._stdout = process.stdout

    async def tell(self, *words: Any) -> None:
        self._stdin.write(json.dumps(words) + "\n")
        self._stdin.flush()

    async def answer(self) -> list[Any]:
        line = await asyncio.wait_for(asyncio.to_thread(self._stdout.readline), 20)
        assert line, "it has ended"
        return json.loads(line)

    async def ask(self, *words: Any) -> Any:
        await self.tell(*words)
        return (await self.answer())[0]

    async def end(self, *, kill: bool = True, group: bool = False) -> None:
        if kill:
            with suppress(ProcessLookupError):
                os.kill(self.pid if not group else -self.pid, signal.SIGKILL)
        await asyncio.to_thread(self._process.wait, 20)
        self._stdin.close()
        self._stdout.close()


Start = Callable[..., Awaitable[Peer]]


@pytest.fixture
def base() -> Iterator[Path]:
    """A folder, in shared memory if there is any."""
    shared = "/dev/shm" if os.path.isdir("/dev/shm") else None
    path = Path(tempfile.mkdtemp(prefix="wool-test-", dir=shared))
    yield path
    shutil.rmtree(path)


@pytest.fixture
async def start(base: Path) -> AsyncIterator[Start]:
    """Starts processes with a script and arguments."""
    peers: list[Peer] = []

    async def start(script: str = PEER, *args: str) -> Peer:
        process = subprocess.Popen(
            [sys.executable, "-c", COMMON + script, str(base), *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        peers.append(Peer(process))
        return peers[-1]

    yield start
    for peer in peers:
        await peer.end(group=True)


@pytest.fixture
def discovery(base: Path) -> Discovery:
    return make(base)


def make(base: Path, namespace: str = "default") -> Discovery:
    (plugin,) = wool_discoveries()
    return plugin.factory(Options(namespace=namespace, directory=base))


class Known:
    """What somebody who watches knows; checks that events fit together."""

    def __init__(self, events: AsyncIterator[Any]) -> None:
        self._events = events
        self.workers: dict[str, WorkerInfo] = {}

    async def next(self) -> Any:
        async with asyncio.timeout(20):
            event = await anext(self._events)
        match event:
            case Snapshot():
                self.workers = {worker.id: worker for worker in event.workers}
            case Joined():
                assert event.worker.id not in self.workers
                self.workers[event.worker.id] = event.worker
            case Changed():
                assert self.workers[event.worker.id] != event.worker
                self.workers[event.worker.id] = event.worker
            case Left():
                assert self.workers.pop(event.worker.id) == event.worker
        return event

    async def until(self, condition: Callable[[dict[str, WorkerInfo]], Any]) -> None:
        while not condition(self.workers):
            await self.next()


@asynccontextmanager
async def watching(discovery: Discovery) -> AsyncIterator[Known]:
    async with discovery.watch() as events:
        known = Known(events)
        assert isinstance(await known.next(), Snapshot)
        yield known


async def present(discovery: Discovery) -> dict[str, WorkerInfo]:
    """Returns what somebody finds who comes now."""
    async with watching(discovery) as known:
        return known.workers


# Killed


@pytest.mark.parametrize("kind", ["fork", "process", "program"])
async def test_a_child_does_not_keep_a_dead_process(
    discovery: Discovery, start: Start, kind: str
) -> None:
    peer = await start()
    await peer.ask("announce", "a")
    await peer.tell("watch")
    await peer.answer()
    child = await peer.ask("child", kind)
    try:
        async with watching(discovery) as known:
            assert set(known.workers) == {"a"}
            await peer.end()
            await known.until(lambda workers: not workers)
            assert alive(child)
            assert await present(discovery) == {}
    finally:
        os.kill(child, signal.SIGKILL)


STEPS = """
COUNTED = set("open write rename unlink close mkdir rmdir lstat listdir fstat lockf".split())

class Steps:
    '''Stands for a module, and counts what it is asked to do that others could notice.'''

    done = 0

    def __init__(self, module):
        self.module = module

    def __getattr__(self, name):
        return getattr(self, "_" + name) if name in COUNTED else getattr(self.module, name)

    def step(self):
        Steps.done += 1
        if Steps.done == target:
            os.kill(os.getpid(), SIGNAL)

    def _write(self, descriptor, data):
        self.step()  # it is written in two halves
        return self.module.write(descriptor, data[: len(data) // 2 + 1])

def counted(name):
    def call(self, *args):
        self.step()
        return getattr(self.module, name)(*args)
    return call

for name in COUNTED - {"write"}:
    setattr(Steps, "_" + name, counted(name))

def count_steps():
    for module in (_directory, _records):
        module.os = Steps(os)
    _records.fcntl = Steps(fcntl)

async def use():
    async with make().announce(worker("a")) as a:
        async with make().announce(worker("b")):
            await a.update(worker("a", 1))

for target in itertools.count(1):
    pid = os.fork()
    if not pid:
        count_steps()
        asyncio.run(use())
        os._exit(0)
    _, status = os.waitpid(pid, os.WUNTRACED)
    if os.WIFEXITED(status):
        assert status == 0
        break
    if os.WIFSTOPPED(status):
        say(pid)
        sys.stdin.readline()
        os.waitpid(pid, 0)
say("ended", target)
"""


async def test_stopped_and_killed_at_every_step(
    base: Path, discovery: Discovery, start: Start
) -> None:
    """Whatever it was about to do, others can work, see the old or the new, and lose nothing."""
    states = [{}, {"a": 0}, {"a": 0, "b": 0}, {"a": 1, "b": 0}, {"a": 1}]
    async with AsyncExitStack() as stack:
        known = await stack.enter_async_context(watching(discovery))
        stable = WorkerInfo(id="stable", address="x://")
        await stack.enter_async_context(discovery.announce(stable))
        await known.until(lambda workers: workers == {"stable": stable})
        peer = await start("SIGNAL = signal.SIGSTOP\n" + STEPS)
        turns, seen = 0, list[dict[str, int]]()
        while (answer := await peer.answer())[0] != "ended":
            turns += 1
            (pid,) = answer
            found = {id: worker.load for id, worker in (await present(discovery)).items()}
            del found["stable"]
            assert found in states
            seen.append(found)
            async with discovery.announce(WorkerInfo(id=str(turns), address="y://")) as another:
                await another.update(WorkerInfo(id=str(turns), address="z://"))
                await known.until(lambda workers: workers.get(str(turns), stable).address == "z://")
                assert {"a", "b"} & set(known.workers) <= set(found)
            os.kill(pid, signal.SIGKILL)
            await known.until(lambda workers: workers == {"stable": stable})
            await until(lambda: len(list(base.glob("*/*"))) == 2, what="files to be gone")
            await peer.tell("killed")
        assert answer == ["ended", turns + 1]
        assert turns > 30
        assert [state for state, _ in itertools.groupby(seen)] == [*states, {}]
    assert list(base.iterdir()) == []


async def test_the_next_user_sweeps(base: Path, discovery: Discovery, start: Start) -> None:
    """All were killed, at every step of what they did, which is to sweep after one another."""
    peers = [await start(PEER, "one"), await start(PEER, "two")]
    for peer in peers:
        await peer.ask("announce", "a")
        await peer.tell("watch")
        await peer.answer()
    for peer in peers:
        await peer.end()
    peer = await start("SIGNAL = signal.SIGKILL\n" + STEPS)
    word, steps = await peer.answer()
    assert word == "ended"
    assert steps > 30
    assert list(base.iterdir()) == []  # the last one was not killed

    peers = [await start(PEER, "one"), await start(PEER, "two")]
    for peer in peers:
        await peer.ask("announce", "a")
    for peer in peers:
        await peer.end()
    assert len(list(base.glob("*/*"))) == 4
    async with make(base, "three").announce(WorkerInfo(id="c", address="x://")):
        assert len(list(base.glob("*/*"))) == 2
    assert list(base.iterdir()) == []
