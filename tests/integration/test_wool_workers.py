"""`wool workers`, and workers that outlive the programs that use them."""

from __future__ import annotations

import asyncio
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import wool
from support.jobs import block, fib, pid
from support.serving import CLI, TOKEN, environment
from support.waiting import until

ROOT = Path(__file__).parents[2]


@pytest.fixture
def namespace(monkeypatch: pytest.MonkeyPatch) -> str:
    """A namespace of the discovery `shm` that nobody else uses."""
    name = secrets.token_hex(8)
    monkeypatch.setenv("WOOL_SHM__NAMESPACE", name)
    return name


async def command(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs `wool` to its end."""
    return await asyncio.to_thread(
        subprocess.run,
        [*CLI, *arguments],
        capture_output=True,
        text=True,
        timeout=50,
        env=environment(**variables),
    )


async def workers(*arguments: str, **variables: str) -> list[dict[str, Any]]:
    done = await command("workers", "--json", *arguments, **variables)
    assert done.stderr == ""
    return json.loads(done.stdout)


# Two shells


async def test_workers_of_other_shells(start: Any, namespace: str) -> None:
    """The quickstart uses them, `wool workers` shows them, and a third one joins."""
    served = [start("--discovery", "shm") for _ in range(2)]
    pids = {one.process.pid for one in served}
    for one in served:
        await one.says("announced by the discovery 'shm'")
    table = await command("workers", WOOL_DISCOVERY="shm")
    assert table.returncode == 0, table.stderr
    rows = [line.split() for line in table.stdout.splitlines()]
    assert {int(row[4]) for row in rows[1:]} == pids
    assert {row[-1] for row in rows[1:]} == {"yes"}

    async def quickstart(**variables: str) -> subprocess.CompletedProcess[str]:
        return await asyncio.to_thread(
            subprocess.run,
            [sys.executable, str(ROOT / "docs" / "examples" / "quickstart.py")],
            capture_output=True,
            text=True,
            timeout=50,
            env=environment(WOOL_DISCOVERY="shm", **variables),
        )

    done = await quickstart()
    assert done.returncode == 0, done.stderr
    assert "1 + 2 = 3" in done.stdout and "(found)" in done.stdout

    async with wool.WorkerPool(discovery="shm", quorum=2) as pool:
        assert set(await asyncio.gather(*(block(0.05) for _ in range(20)))) == pids
        third = start("--discovery", "shm")
        await third.address()
        began = time.monotonic()
        await until(lambda: third.process.pid in {w.pid for w in pool.workers})
        while third.process.pid not in await asyncio.gather(*(block(0.02) for _ in range(6))):
            pass
        print(f"from its being ready to its first call: {time.monotonic() - began:.3f} s")
        assert await fib(8) == 21
        for one in served:
            one.process.send_signal(signal.SIGTERM)
        await until(lambda: len(pool.workers) == 1)
        assert {await pid() for _ in range(5)} == {third.process.pid}
        third.process.kill()
        await until(lambda: not pool.workers)
    done = await quickstart(WOOL_QUORUM_TIMEOUT="0.5")
    assert "the discovery 'shm' has " in done.stderr, "it had used those workers"


async def test_workers_of_a_pool_are_for_others_too(folder: Path, namespace: str) -> None:
    """A program that has its own workers announces them; another one uses them."""
    async with wool.WorkerPool(size=2, discovery="shm") as pool:
        await pool.wait(2, timeout=20)
        pids = {worker.pid for worker in pool.workers}
        rows = await workers("--discovery", "shm", "--quorum", "2", "--wait", "40")
        assert {row["pid"] for row in rows} == pids
        guest = """
import asyncio, os, time, wool

@wool.routine
async def where():
    time.sleep(0.05)
    return os.getpid()

async def main():
    async with wool.WorkerPool(discovery="shm", quorum=2):
        print(*set(await asyncio.gather(*(where() for _ in range(20)))))

asyncio.run(main())
"""
        done = await asyncio.to_thread(
            subprocess.run,
            [sys.executable, "-c", guest],
            capture_output=True,
            text=True,
            timeout=50,
            cwd=folder,
            env=environment(),
        )
        assert {int(word) for word in done.stdout.split()} == pids, done.stderr
        assert {await pid() for _ in range(10)} <= pids, "they are still its own"
    assert await workers("--discovery", "shm") == []


async def test_a_namespace(start: Any, namespace: str) -> None:
    one = start("--discovery", "shm", "--namespace", f"{namespace}-a")
    other = start("--discovery", "shm", "--namespace", f"{namespace}-b")
    for served, letter in ((one, "a"), (other, "b")):
        await served.says("announced")
        (row,) = await workers("--discovery", "shm", "--namespace", f"{namespace}-{letter}")
        assert row["pid"] == served.process.pid


async def test_killed_workers_leave_nothing(start: Any, folder: Path, namespace: str) -> None:
    temporary = folder / "tmp"
    temporary.mkdir()
    served = start("--discovery", "shm", TMPDIR=str(temporary))
    await served.address()
    (left,) = temporary.iterdir()
    served.process.kill()
    await served.exit()
    os.utime(left, (1, 1))  # whoever comes a minute later
    again = start(TMPDIR=str(temporary))
    await again.address()
    assert left not in temporary.iterdir()
    again.process.send_signal(signal.SIGTERM)
    assert await again.exit() == 0
    assert list(temporary.iterdir()) == []


# The table


@pytest.mark.parametrize("scheme", ["grpc", "ws"])
async def test_what_is_said_of_a_worker(scheme: str, start: Any) -> None:
    served = start("--address", f"{scheme}://127.0.0.1:0", "--tag", "gpu", "--tag", "big")
    address = await served.address()
    (row,) = await workers(address)
    assert re.fullmatch(r"[0-9a-f]{16}", row.pop("id"))
    assert row.pop("age") >= 0
    assert row.pop("host") and row.pop("version") and row.pop("serializers")
    assert row == {
        "address": address,
        "tags": ["big", "gpu"],
        "pid": served.process.pid,
        "python": ".".join(map(str, sys.version_info[:2])),
        "load": 0,
        "usable": True,
        "problem": None,
    }


async def test_why_workers_cannot_be_used(start: Any, folder: Path) -> None:
    served = start("--address", "ws://127.0.0.1:0")
    address = await served.address()
    nobody = "ws://127.0.0.1:1"
    rows = {row["address"]: row for row in await workers(address, nobody)}
    assert (rows[address]["usable"], rows[nobody]["usable"]) == (True, False)
    assert rows[nobody]["problem"] == "nobody listens there"
    done = await command("workers", address, nobody, WOOL_TOKEN="")
    assert done.returncode == 1
    assert "it takes credentials: set WOOL_TOKEN" in done.stdout
    done = await command("workers", address, WOOL_TOKEN=wool.Credentials.new_token())
    assert done.returncode == 1
    assert "could not prove that it knows the secret" in done.stdout
    file = folder / "token"
    file.write_text(TOKEN)
    done = await command("workers", address, "--token-file", str(file), WOOL_TOKEN="")
    assert done.returncode == 0
    done = await command("workers", "--discovery", "static", WOOL_STATIC__ADDRESSES=nobody)
    assert done.returncode == 1
    assert f"\n{nobody}:\n" in done.stdout


async def test_nobody_is_there(namespace: str) -> None:
    done = await command("workers", "--discovery", "shm")
    assert (done.returncode, done.stdout) == (1, "the discovery 'shm' has found no workers\n")
    assert await workers("--discovery", "shm") == []


async def test_waiting_for_some(start: Any, namespace: str) -> None:
    await start("--discovery", "shm").says("announced")
    wanted = ["workers", "--discovery", "shm", "--quorum", "2", "--json"]
    done = await command(*wanted)
    assert done.returncode == 1 and len(json.loads(done.stdout)) == 1
    waiting = asyncio.create_task(command(*wanted, "--wait", "40"))
    await start("--discovery", "shm").says("announced")
    done = await waiting
    assert done.returncode == 0 and len(json.loads(done.stdout)) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "say where to look"),
        (["ws://x:1", "--discovery", "shm"], "not both"),
        (["--namespace", "x"], "name one"),
        (["ws://x:1", "--ca", "ca.pem"], "does not exist"),
        (["ws://x:1", "--token-file", __file__, "--ca", __file__], "not both"),
        (["ws://x:1", "--cert", __file__], "takes all of --ca, --cert and --key"),
        (["ws://x:1", "--insecure", "--token-file", __file__], "not both"),
    ],
)
async def test_a_wrong_command_line(arguments: list[str], message: str) -> None:
    done = await command("workers", *arguments)
    assert done.returncode == 2
    assert message in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--discovery", "static", "--namespace", "x"], "static has no option 'namespace'"),
        (["--discovery", "statik"], "Did you mean 'static'"),
        (["nonsense"], "'nonsense' is no address"),
        (["--discovery", "static"], "wool: the discovery 'static' needs addresses"),
    ],
)
async def test_what_cannot_work(arguments: list[str], message: str) -> None:
    done = await command("workers", *arguments)
    assert done.returncode == 1
    assert message in done.stderr and done.stderr.count("\n") == 1
