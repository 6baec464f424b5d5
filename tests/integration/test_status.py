"""The state of calls, as their pool, `wool ps` and other machines see it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import wool
from integration import deadlock
from integration.lanmachines import Served, environment
from support import jobs
from support.network import Host, lan
from support.pools import TRANSPORTS, pids
from support.serving import CLI
from support.waiting import pid_in, until
from wool._client.pool import Pool
from wool._protocol.status import MOST_CALLS, ProcessStatus


@wool.routine
async def hold(folder: Path, name: str) -> str:
    """Waits until the folder has a file of this name."""
    while not (folder / name).exists():
        await asyncio.sleep(0.02)
    return name


@wool.routine
async def stay() -> None:
    await asyncio.Event().wait()


@wool.routine
async def stubborn(folder: Path) -> None:
    while not (folder / "go").exists():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0.05)


@wool.routine
async def busy(folder: Path) -> None:
    while not (folder / "go").exists():
        await asyncio.sleep(0)
        end = time.monotonic() + 0.02
        while time.monotonic() < end:
            pass


@wool.routine
async def block(folder: Path, name: str) -> str:
    while not (folder / name).exists():
        time.sleep(0.02)
    return name


async def spin(folder: Path, name: str) -> str:
    while not (folder / name).exists():
        time.sleep(0.02)
    return name


@wool.routine
async def block_in_a_task(folder: Path, name: str) -> str:
    return await asyncio.create_task(spin(folder, name))


@wool.routine
async def fan(folder: Path) -> list[str]:
    return await asyncio.gather(hold(folder, "go"), block(folder, "go"))


@wool.routine
async def ticks(folder: Path) -> AsyncIterator[int]:
    yield 0
    yield 1
    await hold(folder, "go")


def edges(nodes: Sequence[wool.CallNode], parent: str = "") -> set[tuple[str, str]]:
    """Returns who awaits whom, by the names of the routines."""
    found = {(parent, node.call.routine) for node in nodes}
    return found.union(*(edges(node.children, node.call.routine) for node in nodes))


async def seen(look: Callable[[], Any], expected: object) -> None:
    """Waits until what is looked at is as it has to be."""
    last: list[object] = []

    async def same() -> bool:
        last[:] = [await look()]
        return last[0] == expected

    try:
        await until(same)
    except AssertionError:
        assert not last or last[0] == expected
        raise


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_a_pool_tells_what_its_calls_do(transport: str, folder: Path) -> None:
    async with wool.WorkerPool(size=2, quorum=2, transport=transport) as pool:

        async def states() -> set[tuple[str, str, int]]:
            return {(call.routine, call.state, call.steps) for call in await pool.calls()}

        assert await pool.calls() == []
        stream = ticks(folder)
        assert [await anext(stream), await anext(stream)] == [0, 1]
        await seen(states, {("ticks", "suspended", 2)})
        call = asyncio.create_task(fan(folder))
        expected = {
            ("ticks", "suspended", 2),
            ("fan", "waiting", 0),
            ("hold", "running", 0),
            ("block", "blocked", 0),
        }
        await seen(states, expected)
        tree = await pool.tree()
        assert edges([node for nodes in tree.roots.values() for node in nodes]) == {
            ("", "ticks"),
            ("", "fan"),
            ("fan", "hold"),
            ("fan", "block"),
        }
        lines = {c.routine: c.stack[-1] for c in await pool.calls() if c.stack}
        assert {name: line.function for name, line in lines.items()} == {
            "fan": "fan",
            "hold": "hold",
            "block": "block",
        }
        assert {line.file for line in lines.values()} == {__file__}
        (folder / "go").touch()
        assert await call == ["go", "go"]
        assert [value async for value in stream] == []
        await seen(pool.calls, [])


async def test_the_task_that_waits(folder: Path) -> None:
    async def outer() -> None:
        await hold(folder, "go")

    async with wool.WorkerPool(size=1, transport="memory") as pool:
        waiting = asyncio.create_task(outer())
        await seen(lambda: _names(pool), {"hold"})
        [[node]] = (await pool.tree()).roots.values()
        assert node.awaited is not None
        assert node.awaited.stack[-1].function.endswith("outer")
        assert "awaited at" in str(await pool.tree())
        (folder / "go").touch()
        await waiting


async def _names(pool: wool.WorkerPool) -> set[str]:
    return {call.routine for call in await pool.calls()}


async def test_calls_that_no_worker_has(folder: Path) -> None:
    async with wool.WorkerPool(size=1, concurrency=1, transport="memory") as pool:
        calls = [asyncio.create_task(hold(folder, "go")) for _ in range(3)]

        async def states() -> list[str]:
            return sorted(call.state for call in await pool.calls())

        await seen(states, ["pending", "pending", "running"])
        (folder / "go").touch()
        await asyncio.gather(*calls)


async def test_more_calls_than_are_told() -> None:
    """The calls that are left out are counted."""
    async with wool.WorkerPool(size=1, transport="memory") as pool:
        calls = [asyncio.create_task(stay()) for _ in range(MOST_CALLS + 500)]

        async def counted() -> list[tuple[int, int]]:
            processes = (await pool.tree()).processes
            return [(len(p.serves), p.omitted) for p in processes if p.worker]

        await seen(counted, [(MOST_CALLS, 500)])
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)


async def test_calls_that_do_not_end_share_a_question(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many that are cancelled at once, each has its note, and the workers are asked once."""
    monkeypatch.setenv("WOOL_CANCEL_GRACE", "1")
    asked = 0
    inspect = Pool.inspect

    async def counting(pool: Pool) -> list[ProcessStatus]:
        nonlocal asked
        asked += 1
        return await inspect(pool)

    async with wool.WorkerPool(size=1, transport="memory") as pool:
        calls = [asyncio.create_task(stubborn(folder)) for _ in range(20)]
        await seen(lambda: _states(pool), ["running"] * 20)
        monkeypatch.setattr(Pool, "inspect", counting)
        for call in calls:
            call.cancel()
        await asyncio.wait(calls)
        for call in calls:
            with pytest.raises(asyncio.CancelledError) as caught:
                call.result()
            assert "in stubborn" in "".join(caught.value.__notes__)
        assert asked <= 2
        (folder / "go").touch()
        await seen(pool.calls, [])


async def _states(pool: wool.WorkerPool) -> list[str]:
    return [call.state for call in await pool.calls()]


async def test_a_pool_that_is_closed() -> None:
    pool = wool.WorkerPool(size=1, transport="memory")
    with pytest.raises(wool.WorkerStopped):
        await pool.calls()
    with pytest.raises(wool.WorkerStopped):
        await pool.tree()


# `wool ps`


async def ps(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(
        subprocess.run,
        [*CLI, "ps", *arguments],
        capture_output=True,
        text=True,
        timeout=50,
        env={**os.environ, **variables},
    )


async def test_a_call_that_runs_has_a_line(folder: Path) -> None:
    async with wool.WorkerPool(size=1) as pool:
        call = asyncio.create_task(busy(folder))

        async def runs() -> bool:
            return [one.state for one in await pool.calls()] == ["running"]

        await until(runs)
        told = [one for _ in range(20) for one in await pool.calls()]
        assert sum(bool(one.stack) and one.stack[-1].function == "busy" for one in told) > 10
        (folder / "go").touch()
        await call


@pytest.mark.parametrize("transport", ["unix", "grpc"])
async def test_another_terminal(transport: str, folder: Path) -> None:
    """A program that knows nothing of it is found by its process number and by its name."""
    async with wool.WorkerPool(size=2, quorum=2, transport=transport) as pool:
        call = asyncio.create_task(fan(folder))
        me = str(os.getpid())
        own = [f"process {pid} " for pid in (me, *pids(pool))]

        async def states() -> set[tuple[str, str]]:
            """Workers of other tests may be silent, which it says as well."""
            done = await ps("--json", me)
            served = [call for process in json.loads(done.stdout) for call in process["serves"]]
            lines = [line for line in done.stderr.splitlines() if line.startswith(tuple(own))]
            said = {("stderr", line) for line in lines}
            return said | {(call["routine"], call["state"]) for call in served}

        async def table() -> set[str]:
            return {line.split()[1] for line in (await ps(me)).stdout.splitlines()[1:]}

        await seen(states, {("fan", "waiting"), ("hold", "running"), ("block", "blocked")})
        await seen(table, {"fan", "hold", "block"})
        tree = (await ps("--tree", me)).stdout.splitlines()
        assert f"(process {me} on " in tree[0]
        assert tree[1].startswith("└─ fan(), waiting for ")
        assert {line.split("(")[0].split()[-1] for line in tree[2:]} == {"hold", "block"}
        other = await ps("no-such-program")
        assert (other.returncode, other.stdout) == (1, "no calls\n")
        (folder / "go").touch()
        await call


@pytest.mark.parametrize("how", ["stopped", "seized"])
async def test_a_worker_that_does_not_answer(how: str, folder: Path) -> None:
    """It is named, with how long its call has been out, and the others are shown."""
    if how == "seized":
        os.mkfifo(folder / "go")
    routine = jobs.seize_until if how == "seized" else jobs.hold
    async with wool.WorkerPool(size=2, quorum=2) as pool:
        other = asyncio.create_task(hold(folder, "end"))
        await seen(lambda: _states(pool), ["running"])
        call = asyncio.create_task(routine(folder / "pid", folder / "go"))
        silent = await pid_in(folder / "pid")
        if how == "stopped":
            os.kill(silent, signal.SIGSTOP)
        try:
            shown = await ps("--timeout", "0.5", str(os.getpid()))
            assert f"process {silent} has not answered" in shown.stderr
            rows = [line.split()[1:3] for line in shown.stdout.splitlines()[1:]]
            assert sorted(rows) == sorted([["hold", "running"], [routine.__name__, "sent"]])
            tree = await pool.tree()
            [nodes] = tree.roots.values()
            assert {node.call.state: node.process is None for node in nodes} == {
                "sent": True,
                "running": False,
            }
            assert "whose worker has not answered" in str(tree)
        finally:
            os.kill(silent, signal.SIGCONT)
            (folder / "go").write_bytes(b".")
        (folder / "end").touch()
        assert await asyncio.gather(call, other) == [silent, "end"]
        await seen(pool.calls, [])


# Machines


@pytest.fixture
async def hosts() -> AsyncIterator[list[Host]]:
    async with lan(3) as hosts:
        yield hosts


class Program:
    """A program on a machine that has begun calls, and says who awaits whom when it is asked."""

    def __init__(self, host: Host, folder: Path, addresses: Sequence[str]) -> None:
        self._process = host.popen(
            [sys.executable, "-m", "integration.deadlock", *addresses],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
            env=environment(PYTHONPATH=os.pathsep.join(sys.path)),
        )

    async def ask(self) -> dict[str, Any]:
        return await asyncio.to_thread(self._ask)

    def _ask(self) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())


async def test_a_deadlock_over_three_machines(hosts: list[Host], folder: Path) -> None:
    """Five routines wait in a chain, the last one for what the first one would do."""
    served = [
        Served(
            host,
            folder,
            ["--address", f"wss://{host.address}:7000", "--tag", f"m{number}"],
            PYTHONPATH=os.pathsep.join(sys.path),
        )
        for number, host in enumerate(hosts)
    ]
    addresses = [await one.address() for one in served]
    program = Program(hosts[0], folder, addresses)
    truth = [["", "a"], ["a", "b"], ["b", "c"], ["c", "d"], ["d", "e"]]

    async def told() -> tuple[list[list[str]], dict[str, str]]:
        answer = await program.ask()
        return answer["edges"], answer["states"]

    waiting = dict.fromkeys("abcd", "waiting")
    await seen(told, (truth, {**waiting, "e": "running"}))
    lines = (await program.ask())["text"].splitlines()
    assert "in e" in lines[-1]
    assert f"{deadlock.__file__}:" in lines[-1]
    # One machine is stopped: its calls are as those know them who have made them.
    served[1].process.send_signal(signal.SIGSTOP)
    silent = {"a": "waiting", "b": "sent", "c": "waiting", "d": "waiting", "e": "sent"}
    await seen(told, (truth, silent))
    served[1].process.send_signal(signal.SIGCONT)
    await seen(told, (truth, {**waiting, "e": "running"}))
    # One is cut off.
    hosts[1].cut()
    await seen(told, (truth, silent))


async def test_what_keeps_a_loop_from_turning_is_named(folder: Path, start: Any) -> None:
    """Once, with the line where it stands, in the log of the worker."""
    served = start("--address", f"unix://{folder}/s/w")
    named: list[str] = []
    async with wool.WorkerPool(discovery=[await served.address()]) as pool:
        waits = asyncio.create_task(hold(folder, "last"))
        for number, (routine, name) in enumerate(
            [(block, "block()"), (block_in_a_task, "a task that a routine has started")]
        ):
            call = asyncio.create_task(routine(folder, str(number)))
            [worker] = pool.workers
            text = f"{name} has kept the event loop of worker {worker.pid} on"
            named.append(await served.says(text))
            (folder / str(number)).touch()
            assert await call == str(number)
        (folder / "last").touch()
        await waits
    assert ["in block:" in named[0], "in spin:" in named[1]] == [True, True]
    assert all("test_status.py:" in line for line in named)
    assert [line for line in served.lines if "has kept" in line] == named
