"""`wool top`: on a screen that the test reads, and in a browser."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from websockets.asyncio.client import connect

import wool
from integration.test_status import stay
from support.processes import alive, children
from support.serving import CLI
from support.waiting import caught, until
from wool.cli.common import Files, Where
from wool.cli.dashboard import Dashboard
from wool.cli.ps import question_of

pytestmark = [pytest.mark.asyncio, pytest.mark.timeout(120)]

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")


@wool.routine
async def outer() -> None:
    await stay()


@pytest_asyncio.fixture
async def pool() -> AsyncIterator[wool.WorkerPool]:
    async with wool.WorkerPool(size=2, transport="unix") as pool:
        await until(lambda: len(pool.workers) == 2)
        yield pool


def dashboard(*, read_only: bool = False, timeout: float = 3.0) -> Dashboard:
    question = question_of(Where(None, None, ()), Files(None, None, None, None), timeout)
    return Dashboard(question, [str(os.getpid())], 0.1, read_only=read_only)


def rows(app: Dashboard, table: str) -> list[list[str]]:
    shown: Any = app.query_one(f"#{table}")
    return [[str(cell) for cell in shown.get_row_at(n)] for n in range(shown.row_count)]


async def test_calls_are_shown_and_cancelled(pool: wool.WorkerPool) -> None:
    call = asyncio.create_task(outer())
    app = dashboard()
    async with app.run_test(size=(160, 40)) as pilot:
        both = [["outer", "waiting"], ["stay", "running"]]
        await until(lambda: [row[1:3] for row in rows(app, "calls")] == both)
        assert {row[0].split()[0] for row in rows(app, "workers")} == {
            str(worker.pid) for worker in pool.workers
        }
        await pilot.press("down")
        tree: Any = app.query_one("#tree")
        await until(lambda: "in stay" in str(tree.render()).split("\n\n")[-1])
        assert re.search(r"└─ outer\(\), waiting .*\n   └─ stay\(\)", str(tree.render()))
        await pilot.press("c", "n")
        assert not call.done()
        await pilot.press("c", "y")
        assert "from outside" in str(await caught(call))
        await until(lambda: not rows(app, "calls"))


async def test_a_worker_is_drained_and_replaced(pool: wool.WorkerPool) -> None:
    before = {worker.pid for worker in pool.workers}
    app = dashboard()
    call = asyncio.create_task(stay())
    async with app.run_test(size=(160, 40)) as pilot:
        await until(lambda: len(rows(app, "workers")) == 2)
        app.query_one("#workers").focus()
        drained = int(rows(app, "workers")[0][0].split()[0])
        await pilot.press("d", "y")
        await until(lambda: drained not in {worker.pid for worker in pool.workers})
        await until(lambda: len({worker.pid for worker in pool.workers} - before) == 1)
    call.cancel()


async def test_a_worker_falls_silent(pool: wool.WorkerPool) -> None:
    silent, other = (worker.pid for worker in pool.workers)
    app = dashboard(timeout=0.3)

    def states() -> dict[str, str]:
        return {row[0]: row[1] for row in rows(app, "workers")}

    async with app.run_test(size=(160, 40)):
        await until(lambda: list(states().values()) == ["serving"] * 2)
        os.kill(silent, signal.SIGSTOP)
        try:
            of = f"process {silent}"
            await until(lambda: re.fullmatch(r"silent [1-9]\d* s", states().get(of, "")))
            assert any(name.startswith(f"{other} ") for name in states())
        finally:
            os.kill(silent, signal.SIGCONT)
        await until(lambda: list(states().values()) == ["serving"] * 2)


async def test_who_may_only_look_cannot_act(pool: wool.WorkerPool) -> None:
    call = asyncio.create_task(stay())
    app = dashboard(read_only=True)
    async with app.run_test(size=(160, 40)) as pilot:
        await until(lambda: rows(app, "calls"))
        await pilot.press("c", "d")
        assert len(app.screen_stack) == 1
    call.cancel()


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium")
async def test_in_a_browser(pool: wool.WorkerPool, tmp_path: Path) -> None:
    """The page of the server shows the calls, and no key that acts."""
    call = asyncio.create_task(stay())
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    top = subprocess.Popen([*CLI, "top", "--web", "--port", str(port)], stdout=subprocess.DEVNULL)
    browser = subprocess.Popen(
        [
            *(str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
            *("--no-first-run", "--disable-background-networking", "--remote-debugging-port=0"),
            *(f"--user-data-dir={tmp_path}", "about:blank"),
        ],
        stderr=subprocess.DEVNULL,
    )
    try:
        where = tmp_path / "DevToolsActivePort"
        await until(lambda: where.exists() and len(where.read_text().split()) == 2, within=30)
        await until(lambda: answers(f"http://127.0.0.1:{port}/"), within=30)
        told = f"http://127.0.0.1:{where.read_text().split()[0]}/json"
        pages = json.load(urllib.request.urlopen(told))
        (page,) = (page for page in pages if page["type"] == "page")
        shown = await received(page["webSocketDebuggerUrl"], f"http://127.0.0.1:{port}/")
        assert "Cancel call" not in shown
        screens = children(top.pid)
        assert screens
        top.kill()  # and leaves nothing
        await until(lambda: not any(alive(pid) for pid in screens), within=30)
    finally:
        for process in (browser, top):
            process.kill()
            process.wait()
        call.cancel()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url) as answer:
            return answer.status == 200
    except OSError:
        return False


async def received(debugger: str, url: str) -> str:
    """What a page that a browser opens receives over its WebSocket, until it shows the call."""
    seen = b""
    async with connect(debugger, max_size=None) as browser:
        for number, method in enumerate(("Network.enable", "Page.navigate")):
            question = {"id": number, "method": method, "params": {"url": url} if number else {}}
            await browser.send(json.dumps(question))
        while not (b"in stay" in seen and b"Pause" in seen):
            told = json.loads(await browser.recv())
            if told.get("method") == "Network.webSocketFrameReceived":
                frame = told["params"]["response"]
                if frame["opcode"] == 2:  # binary: what the screen shows
                    seen += base64.b64decode(frame["payloadData"])
    return seen.decode(errors="ignore")
