"""`wool worker`: started, found, drained and stopped as an operator would."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

import wool
from support.jobs import add, block, fib, hold, pid
from support.serving import CLI, TOKEN, Spoken, environment
from support.waiting import pid_in
from wool._security import certificates
from wool.cli.worker import TOGETHER


@pytest.mark.parametrize("scheme", ["grpc", "ws"])
async def test_it_serves_and_drains(scheme: str, start: Any, folder: Path) -> None:
    served = start("--address", f"{scheme}://127.0.0.1:0", "--tag", "gpu", "--tag", "big")
    address = await served.address()
    assert (await served.says("serves at")).endswith("tags big gpu")
    async with wool.WorkerPool(discovery=[address]) as pool:
        assert await add(1, 2) == 3
        assert pool.workers[0].tags == {"gpu", "big"}
        held = asyncio.create_task(hold(folder / "pid", folder / "go"))
        await pid_in(folder / "pid")
        served.process.send_signal(signal.SIGTERM)
        assert (await served.says("SIGTERM: takes no more calls")).endswith("1 call")
        assert not held.done()
        (folder / "go").touch()
        assert await held == served.process.pid
    assert await served.exit() == 0
    assert served.lines[-1].endswith("wool: left")


@wool.routine
async def relay(path: Path, release: Path) -> tuple[int, int]:
    path.write_text(str(os.getpid()))
    while not release.exists():
        await asyncio.sleep(0.01)
    return await pid(), await fib(4)


async def test_asked_to_leave_it_runs_what_its_calls_call(start: Any, folder: Path) -> None:
    """They could not finish otherwise where there is no other worker."""
    served = start("--address", f"unix://{folder}/s/w")
    async with wool.WorkerPool(discovery=[await served.address()]):
        running = asyncio.create_task(relay(folder / "pid", folder / "go"))
        await pid_in(folder / "pid")
        served.process.send_signal(signal.SIGTERM)
        await served.says("SIGTERM: takes no more calls")
        (folder / "go").touch()
        async with asyncio.timeout(30):
            assert await running == (served.process.pid, 3)
    assert await served.exit() == 0


async def test_a_terminal_that_is_closed(start: Any, folder: Path) -> None:
    """It leaves as if it was told to, unless `nohup` says that it is to stay."""
    served = start("--address", f"unix://{folder}/a/w")
    await served.address()
    served.process.send_signal(signal.SIGHUP)
    await served.says("SIGHUP: takes no more calls")
    assert await served.exit() == 0
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        stays = start("--address", f"unix://{folder}/b/w")
    finally:
        signal.signal(signal.SIGHUP, before)
    await stays.address()
    stays.process.send_signal(signal.SIGHUP)
    async with wool.WorkerPool(discovery=[await stays.address()]):
        assert await add(1, 2) == 3
    stays.process.send_signal(signal.SIGINT)
    assert await stays.exit() == 0
    assert "SIGHUP" not in "".join(stays.lines)


@wool.routine
async def can_import(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


@pytest.mark.parametrize("safe", ["", "1"])
async def test_what_is_in_the_folder_can_be_imported_unless_the_path_is_to_be_safe(
    safe: str, start: Any, folder: Path
) -> None:
    (folder / "only_in_this_folder.py").touch()
    served = start("--address", f"unix://{folder}/s/w", PYTHONSAFEPATH=safe)
    async with wool.WorkerPool(discovery=[await served.address()]):
        assert await can_import("only_in_this_folder") == (not safe)


async def test_a_folder_that_is_gone(folder: Path) -> None:
    (folder / "gone").mkdir()
    command = [*CLI, "worker", "--address", f"unix://{folder}/s/w"]
    process = subprocess.Popen(
        ["sh", "-c", 'rmdir "$PWD" && exec "$@"', "sh", *command],
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder / "gone",
        env=environment(),
    )
    with process:
        try:
            spoken = Spoken(process)
            await spoken.says("serves at")
            process.send_signal(signal.SIGTERM)
            assert await spoken.exit() == 0
        finally:
            process.kill()


async def test_asked_twice_it_stops_whatever_a_routine_does(start: Any, folder: Path) -> None:
    served = start("--address", f"unix://{folder}/s/w", WOOL_CANCEL_GRACE="0.1")
    async with wool.WorkerPool(discovery=[await served.address()]):
        stuck = asyncio.create_task(block(600, folder / "pid"))
        await pid_in(folder / "pid")
        for said in ("no more calls", "again: cancels"):
            served.process.send_signal(signal.SIGINT)
            await served.says(said)
            await asyncio.sleep(TOGETHER)
        assert await served.exit() == 128 + signal.SIGINT
        assert "did not end" in served.lines[-1]
        with pytest.raises((wool.WorkerLost, wool.WorkerStopped)):
            await stuck


async def test_events_for_programs(folder: Path) -> None:
    place = f"unix://{folder}/s/w"
    process = subprocess.Popen(
        [*CLI, "worker", "--address", place, "--tag", "gpu", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    try:
        assert process.stdout is not None
        serving = json.loads(await asyncio.to_thread(process.stdout.readline))
        assert (serving["event"], serving["address"]) == ("serving", place)
        assert (serving["pid"], serving["tags"]) == (process.pid, ["gpu"])
        process.send_signal(signal.SIGTERM)
        out, err = await asyncio.to_thread(process.communicate, timeout=30)
    finally:
        process.kill()
    draining, left = map(json.loads, out.splitlines())
    assert (draining["event"], draining["signal"]) == ("draining", "SIGTERM")
    assert draining["calls"] == 0
    assert left["event"] == "left" and left["time"] >= serving["time"]
    assert err == ""


async def test_without_authentication_a_line_warns(start: Any) -> None:
    served = start("--address", "ws://127.0.0.1:0", "--insecure", WOOL_TOKEN="")
    await served.address()
    served.process.send_signal(signal.SIGTERM)
    assert await served.exit() == 0
    words = [line.partition(" wool: ")[2].split()[0] for line in served.lines]
    assert words == ["warning:", "worker", "SIGTERM:", "left"]


async def test_credentials_from_files(start: Any, folder: Path) -> None:
    (folder / "token").write_text(TOKEN + "\n")
    served = start(
        *("--address", "ws://127.0.0.1:0", "--token-file", str(folder / "token")), WOOL_TOKEN=""
    )
    async with wool.WorkerPool(discovery=[await served.address()]):
        assert await add(1, 2) == 3
    assert TOKEN not in Path(f"/proc/{served.process.pid}/cmdline").read_text()


async def test_certificates_from_files(start: Any, folder: Path) -> None:
    certificates.make_authority(folder, 1)
    certificates.make_certificate(folder, "own", ["127.0.0.1"], 1)
    files = {"ca": "ca.pem", "cert": "own.pem", "key": "own-key.pem"}
    options = [word for name, file in files.items() for word in (f"--{name}", str(folder / file))]
    served = start("--address", "grpc://127.0.0.1:0", *options, WOOL_TOKEN="")
    tls = wool.Credentials.tls(**{name: str(folder / file) for name, file in files.items()})
    async with wool.WorkerPool(discovery=[await served.address()], credentials=tls):
        assert await add(1, 2) == 3


async def test_what_is_wrong_with_a_discovery_is_a_line(start: Any, folder: Path) -> None:
    (folder / "dev").mkdir(mode=0o755)
    (folder / "dev" / f"wool-shm-1-{os.geteuid()}").mkdir(mode=0o755)
    served = start("--discovery", "shm", WOOL_SHM__DIRECTORY=str(folder / "dev"))
    assert await served.exit() == 1
    assert len(served.lines) == 1 and "is open to other users" in served.lines[0]


async def test_systemd_is_told(start: Any, folder: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(folder / "notify"))
        notified.settimeout(20)
        served = start("--address", f"unix://{folder}/s/w", NOTIFY_SOCKET=str(folder / "notify"))
        assert await asyncio.to_thread(notified.recv, 100) == b"READY=1"
        served.process.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(notified.recv, 100) == b"STOPPING=1"
        assert await served.exit() == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--address", "ws://0.0.0.0:0"], "takes credentials"),
        (["--address", "nonsense"], "does not say which transport"),
        (["--address", "ws://127.0.0.1:0", "--advertise", "here"], "does not say which transport"),
        (["--discovery", "statik"], "Did you mean 'static'"),
        (["--address", "memory://here"], "cannot be reached from other processes"),
        (["--transport", "memory"], "'memory' cannot be reached from other processes"),
    ],
    ids=["no credentials", "no address", "no advertised address", "discovery", "at", "in process"],
)
async def test_what_cannot_work_is_said_in_a_line(
    arguments: list[str], message: str, start: Any
) -> None:
    served = start(*arguments, WOOL_TOKEN="")
    assert await served.exit() == 1
    assert len(served.lines) == 1 and message in served.lines[0]
