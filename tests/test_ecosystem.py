"""Other libraries with routines: each example in docs/examples/ecosystem does what it says."""

from __future__ import annotations

import asyncio
import importlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest

import wool

EXAMPLES = Path(__file__).parent.parent / "docs" / "examples" / "ecosystem"

OUTPUT = {
    "anyio_tasks": [
        "3 ticks are enough",
        "[1.0, 2.0, 3.0]",
        "cancelled: True",
        "the group's has tidied up",
        "the scope's has tidied up",
    ],
    "arrays": [
        "499999500000.0",
        "[0. 2. 4.] owns its memory: False",
        "{'a': 499999.5, 'b': -499999.5}",
    ],
    "progress_bars": ["9900"] * 3,
    "stream_operators": [
        "['a', 'l', 'n', 'o', 'o', 'r', 'w', 'y']",
        "['s', 'h']",
        "[('w', 'y'), ('o', 'a'), ('o', 'r'), ('l', 'n')]",
        "[0, 4, 16, 36, 64]",
    ],
    "threads": ["['49']", "['line 0', 'line 1', 'line 2', '']"],
}
"""What each prints, sorted: workers print too."""

TRIED_OTHERWISE = {"asgi", "test_orders", "web"}


def run(folder: Path, *command: str | Path, **variables: str) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", *command],
        capture_output=True,
        text=True,
        timeout=50,
        cwd=folder,
        env={**os.environ, **variables},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout, done.stderr


def test_every_example_is_tried() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == OUTPUT.keys() | TRIED_OTHERWISE


@pytest.mark.parametrize("name", OUTPUT)
def test_a_script(name: str, tmp_path: Path) -> None:
    out, err = run(tmp_path, EXAMPLES / f"{name}.py")
    lines = [line for line in out.splitlines() if not line.startswith("Doubling")]
    assert sorted(lines) == OUTPUT[name]
    if name == "progress_bars":
        assert "100/100" in err  # tqdm's
        assert re.search("Doubling.*100%", out)  # that of rich
    elif name == "threads":
        assert all(" 200 " in line for line in err.splitlines())  # the log of the server
    else:
        assert err == ""


@pytest.mark.parametrize("transport", ["grpc", "ws"])
def test_arrays_over_a_network(transport: str, tmp_path: Path) -> None:
    out, err = run(tmp_path, EXAMPLES / "arrays.py", WOOL_TRANSPORT=transport)
    assert (sorted(out.splitlines()), err) == (OUTPUT["arrays"], "")


def test_pytest_asyncio(tmp_path: Path) -> None:
    options = ["-q", "-p", "no:cacheprovider", "-o", "asyncio_default_fixture_loop_scope=function"]
    (tmp_path / "test_orders.py").write_bytes((EXAMPLES / "test_orders.py").read_bytes())
    out, _ = run(tmp_path, "-m", "pytest", *options)
    assert "9 passed" in out


# FastAPI ------------------------------------------------------------------------------------------


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield importlib.import_module("web")
    del sys.modules["web"]


def client_of(web: ModuleType) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(web.app), base_url="http://app")


async def check_factors(client: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(*(client.get(f"/factors/{n}") for n in range(2, 22)))
    assert [answer.status_code for answer in answers] == [200] * 20
    assert answers[10].json() == [2, 2, 3]
    refused = await client.get(f"/factors/{10**13}")
    assert (refused.status_code, refused.json()) == (
        422,
        {"detail": f"{10**13} has too many digits"},
    )


def pids(text: str) -> set[int]:
    return {int(found) for found in re.findall(r"line \d+ of process (\d+)", text)}


async def test_endpoints_without_a_pool(web: ModuleType) -> None:
    async with client_of(web) as client:
        await check_factors(client)
        assert pids((await client.get("/lines/3")).text) == {os.getpid()}


async def test_endpoints_with_a_pool(web: ModuleType) -> None:
    async with web.lifespan(web.app), client_of(web) as client:
        await check_factors(client)
        text = (await client.get("/lines/3")).text
        assert len(text.splitlines()) == 3
        assert pids(text) and os.getpid() not in pids(text)


# Any ASGI application -----------------------------------------------------------------------------


@pytest.fixture
def asgi(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield importlib.import_module("asgi")
    del sys.modules["asgi"]


async def test_a_pool_around_an_application(asgi: ModuleType) -> None:
    received = ["lifespan.startup", "lifespan.shutdown"]
    sent: list[Any] = []
    pools: list[Any] = []

    async def receive() -> Any:
        if len(received) == 1:
            await application({"type": "http"}, receive, send)
        return {"type": received.pop(0)}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    async def app(*_: Any) -> None:
        pools.append(wool.current_pool())

    application = asgi.WithPool(app, size=1, transport="memory")
    await application({"type": "lifespan"}, receive, send)
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert len(pools) == 1 and pools[0] is not None

    received.append("lifespan.startup")
    await asgi.WithPool(app, size=1, transport="no such")({"type": "lifespan"}, receive, send)
    assert sent[2:] == ["lifespan.startup.failed"]


@pytest.fixture
def uvicorn(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Serves the application at a port that the system chooses."""
    command = ["-m", "uvicorn", "web:app", "--port", "0", "--app-dir", str(EXAMPLES)]
    process = subprocess.Popen(
        [sys.executable, *command], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    yield process
    process.kill()
    process.wait()
    assert process.stderr is not None
    process.stderr.close()


async def address_of(process: subprocess.Popen[str]) -> str:
    assert process.stderr is not None
    said = ""
    while "running on" not in said:
        line = await asyncio.to_thread(process.stderr.readline)
        assert line, said
        said += line
    return said.partition("running on ")[2].split()[0]


async def test_a_real_server(uvicorn: subprocess.Popen[str]) -> None:
    address = await address_of(uvicorn)
    async with httpx.AsyncClient(base_url=address, trust_env=False, timeout=50) as client:
        await check_factors(client)
        workers: set[int] = set()
        while len(workers) < 2:
            texts = [client.get("/lines/3") for _ in range(4)]
            workers |= pids("".join([answer.text for answer in await asyncio.gather(*texts)]))
        async with client.stream("GET", "/lines/1000000000") as endless:
            lines = endless.aiter_lines()
            assert (await anext(lines)).startswith("line 0 of process")
        # Whoever leaves ends the stream, so its worker has nothing to do.
        await check_factors(client)
    uvicorn.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(uvicorn.wait, 30) in (0, -signal.SIGTERM)
    for worker in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(worker, 0)
