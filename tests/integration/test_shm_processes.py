"""The discovery `shm` between processes: who comes and goes, and who is killed, and when."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from support.processes import alive
from support.waiting import until
from wool.abc import Changed, Discovery, Joined, Left, Snapshot, WorkerInfo
from wool_shm import Options, wool_discoveries

linux = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere they have to look")

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
        elif do == "update":
            began = time.monotonic()
            await announced[args[0]][1].update(worker(*args))
            say(began)
        elif do == "leave":
            await announced.pop(args[0])[0].__aexit__(None, None, None)
            say("left")
        elif do == "watch":
            watching = asyncio.create_task(watch())
        elif do == "child":
            say(CHILDREN[args[0]]())

async def watch():
    async with discovery.watch() as events:
        async for event in events:
            one = isinstance(event, Snapshot)
            ids = sorted(w.id for w in event.workers) if one else [event.worker.id]
            say(type(event).__name__, ids, time.monotonic())

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
if len(sys.argv) > 3:
    import ctypes, wool_shm._discovery  # which it could not read any more
    asyncio.run(asyncio.to_thread(int))
    os.setuid(int(sys.argv[3]))
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
    """What somebody finds who comes now."""
    async with watching(discovery) as known:
        return known.workers


async def test_processes_find_each_other(discovery: Discovery, start: Start) -> None:
    one, other = await start(), await start()
    await one.ask("announce", "a")
    async with watching(discovery) as known:
        assert set(known.workers) == {"a"}
        assert known.workers["a"].pid == one.pid
        await other.tell("watch")
        assert (await other.answer())[:2] == ["Snapshot", ["a"]]
        await one.ask("announce", "b")
        assert isinstance(await known.next(), Joined)
        assert (await other.answer())[:2] == ["Joined", ["b"]]
        await one.ask("update", "b", 5)
        assert isinstance(await known.next(), Changed)
        assert known.workers["b"].load == 5
        assert (await other.answer())[:2] == ["Changed", ["b"]]
        await one.ask("leave", "a")
        assert isinstance(await known.next(), Left)
        assert (await other.answer())[:2] == ["Left", ["a"]]
        assert set(await present(discovery)) == {"b"}


@linux
async def test_changes_are_told_at_once(discovery: Discovery, start: Start) -> None:
    peer = await start()
    await peer.ask("announce", "a")
    async with watching(discovery) as known:
        seconds: list[float] = []
        for load in range(1, 101):
            await peer.tell("update", "a", load)
            await known.until(lambda workers, load=load: workers["a"].load == load)
            arrived = time.monotonic()
            (began,) = await peer.answer()
            seconds.append(arrived - began)
    print(f"from the beginning of an update to its event: {statistics.median(seconds):.6f} s")
    assert statistics.median(seconds) < 0.05


# Killed


async def test_a_killed_process_is_gone_for_all_within_a_second(
    base: Path, discovery: Discovery, start: Start
) -> None:
    watchers = [await start() for _ in range(3)]
    victims = [await start() for _ in range(5)]
    for number, victim in enumerate(victims):
        for letter in "xyz":
            await victim.ask("announce", f"{number}{letter}")
    async with watching(discovery) as known:
        for watcher in watchers:
            await watcher.tell("watch")
            assert len((await watcher.answer())[1]) == 15
        seconds: list[float] = []
        for number, victim in enumerate(victims):
            killed = time.monotonic()
            await victim.end()
            gone = {f"{number}{letter}" for letter in "xyz"}
            await known.until(lambda workers, gone=gone: not gone & set(workers))
            for watcher in watchers:
                left = [await watcher.answer() for _ in gone]
                assert {event for event, _, _ in left} == {"Left"}
                assert {id for _, (id,), _ in left} == gone
                seconds.append(max(when for _, _, when in left) - killed)
            assert len(known.workers) == 12 - 3 * number
    print(f"from kill to event: {statistics.median(seconds):.6f} s")
    assert statistics.median(seconds) < 1.0
    for watcher in watchers:
        await watcher.end()
    await present(discovery)
    assert list(base.iterdir()) == []


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


FORKING = """
run = asyncio.new_event_loop().run_until_complete
announcing, watching = make().announce(worker("parent")), make().watch()
announcement, events = run(announcing.__aenter__()), run(watching.__aenter__())
run(anext(events))
pid = os.fork()
if pid:
    os.waitpid(pid, 0)
    say("child has ended")
    sys.stdin.readline()
    run(announcing.__aexit__(None, None, None))
    run(watching.__aexit__(None, None, None))
else:
    run = asyncio.new_event_loop().run_until_complete
    run(announcement.update(worker("parent", 9)))  # none of this does anything, as it is not ours
    run(announcing.__aexit__(None, None, None))

    async def of_child():
        async with make().announce(worker("child")), make().watch() as events:
            say(sorted(worker.id for worker in (await anext(events)).workers))
            sys.stdin.readline()

    run(of_child())
    os._exit(0)
"""


async def test_a_forked_child_begins_with_nothing(
    base: Path, discovery: Discovery, start: Start
) -> None:
    peer = await start(FORKING)
    assert (await peer.answer()) == [["child", "parent"]]
    async with watching(discovery) as known:
        assert set(known.workers) == {"parent", "child"}
        assert known.workers["parent"].load == 0
        await peer.tell("end")
        await known.until(lambda workers: set(workers) == {"parent"})
        assert await peer.answer() == ["child has ended"]
        assert set(await present(discovery)) == {"parent"}
        await peer.tell("end")
        await known.until(lambda workers: not workers)
    await peer.end(kill=False)
    assert list(base.iterdir()) == []


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


STORM = """
import select
discovery = make()

async def live():
    async with AsyncExitStack() as stack:
        announced = []
        for number in range(random.randrange(1, 4)):
            id = f"{os.getpid()}.{number}"
            announced.append((id, await stack.enter_async_context(discovery.announce(worker(id)))))
        for load in range(random.randrange(20)):
            id, announcement = random.choice(announced)
            await announcement.update(worker(id, load))
            await asyncio.sleep(0)

async def main(seed):
    random.seed(seed)
    while True:
        if random.random() < 0.3:
            async with discovery.watch() as events:
                snapshot = await anext(events)
        await live()

children = []
for seed in range(6):
    pid = os.fork()
    if not pid:
        asyncio.run(main(seed))
    children.append(pid)
turn = 0
while turn < 20 or not select.select([sys.stdin], [], [], 0)[0]:  # until somebody has seen enough
    turn += 1
    time.sleep(0.05)
    os.kill(children[0], signal.SIGKILL)
    os.waitpid(children.pop(0), 0)
    pid = os.fork()
    if not pid:
        asyncio.run(main(turn + 10))
    children.append(pid)
for pid in children:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
say("ended")
"""


async def test_a_storm(base: Path, discovery: Discovery, start: Start) -> None:
    """Many come, change, go and are killed at random; what watchers know is right in the end."""
    async with watching(discovery) as known:
        peer = await start(STORM)
        async with asyncio.timeout(45):
            ended = asyncio.ensure_future(peer.answer())
            seen = 0
            while not ended.done():
                following = asyncio.ensure_future(known.next())
                await asyncio.wait([following, ended], return_when=asyncio.FIRST_COMPLETED)
                if following.done():
                    following.result()
                    seen += 1
                    if seen == 101:
                        await peer.tell("enough")
                else:
                    following.cancel()
                    await asyncio.wait([following])
            assert await ended == ["ended"]
            await known.until(lambda workers: not workers)
        assert await present(discovery) == {}
        assert list(base.glob("*/*")) == []
    assert list(base.iterdir()) == []


# Many, few, and others


MANY = """
async def main(number, reading, writing):
    discovery = make()
    async with AsyncExitStack() as stack:
        began = time.perf_counter()
        for index in range(200):
            one = worker(f"{number}.{index}")
            await stack.enter_async_context(discovery.announce(one))
        say((time.perf_counter() - began) / 200)
        os.read(reading, 1)

reading, writing = os.pipe()
for number in range(50):
    if not os.fork():
        os.close(writing)
        asyncio.run(main(number, reading, writing))
        os._exit(0)
sys.stdin.readline()
os.close(writing)
for number in range(50):
    os.wait()
say("ended")
"""


async def test_ten_thousand_workers(base: Path, discovery: Discovery, start: Start) -> None:
    async with watching(discovery) as known:
        peer = await start(MANY)
        await known.until(lambda workers: len(workers) == 10_000)
        each = [(await peer.answer())[0] for _ in range(50)]
    seconds: list[float] = []
    for _ in range(3):
        began = time.perf_counter()
        found = await present(discovery)
        seconds.append(time.perf_counter() - began)
        assert found == known.workers
    async with watching(discovery) as known:
        assert known.workers == found
        size = sum(path.stat().st_size for path in base.glob("*/*"))
        print(
            f"announcing: {statistics.median(each) * 1000:.3f} ms; snapshot of 10,000: "
            f"{min(seconds) * 1000:.0f} ms; {size} bytes in {len(list(base.glob('*/*')))} files"
        )
        await peer.tell("end")
        assert await peer.answer() == ["ended"]
        await known.until(lambda workers: not workers)
    assert list(base.iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be several users")
async def test_users_do_not_meet(base: Path, discovery: Discovery, start: Start) -> None:
    base.chmod(0o1777)
    others = [await start(PEER, "default", str(user)) for user in (4321, 4322)]
    for other in others:
        await other.ask("announce", "a")
        await other.tell("watch")
        assert (await other.answer())[:2] == ["Snapshot", ["a"]]
    assert await present(discovery) == {}
    assert sorted(path.stat().st_uid for path in base.iterdir()) == [4321, 4322]


NO_INOTIFY = """
import logging
logging.basicConfig(format="%(message)s")
peers = []

async def main():
    async with make().watch() as events:
        say(type(await anext(events)).__name__)
        pid = os.fork()
        if not pid:
            await make().announce(worker("a")).__aenter__()
            time.sleep(600)
        say(type(await anext(events)).__name__)
        os.kill(pid, signal.SIGKILL)
        say(type(await anext(events)).__name__)
        os.waitpid(pid, 0)

asyncio.run(main())
"""


@linux
def test_no_instance_of_inotify_is_left(base: Path) -> None:
    """In a user namespace of its own, where there may be none."""
    enter = ["unshare", "--user", "--map-root-user", "sh", "-c"]
    forbid = "echo 0 > /proc/sys/user/max_inotify_instances"
    try:
        subprocess.run([*enter, forbid], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("user namespaces are not allowed here")
    script = [sys.executable, "-W", "ignore", "-c", COMMON + NO_INOTIFY, str(base)]
    done = subprocess.run(
        [*enter, f'{forbid} && exec "$@"', "sh", *script],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.stdout.split() == ['["Snapshot"]', '["Joined"]', '["Left"]'], done.stderr
    assert done.stderr.count("no instance of inotify") == done.stderr.count("\n") == 1
    assert list(base.iterdir()) == []
