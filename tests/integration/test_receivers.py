"""Spans and metrics reach receivers of others, without a line of code: as any program's would."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.network import free_port
from support.waiting import until_sync

pytestmark = pytest.mark.timeout(120)

PROGRAM = """
import asyncio, wool

@wool.routine
async def leaf(n):
    return 1 / n

@wool.routine
async def ticks(n):
    for i in range(n):
        yield await leaf(i + 1)

async def main():
    async with wool.WorkerPool(size=1):
        print([i async for i in ticks(2)])
        try:
            await leaf(0)
        except ZeroDivisionError as error:
            print(error)

asyncio.run(main())
"""


@contextmanager
def serving(
    name: str, package: str, *arguments: str, answers: str, **variables: str
) -> Generator[None]:
    """Runs a receiver, and waits until it answers."""
    if shutil.which(name) is None:
        missing = pytest.fail if os.environ.get("REQUIRE_TOOLS") else pytest.skip
        missing(f"{name} is missing: install it, with `{package}`")

    def up() -> bool:
        assert process.poll() is None, f"{name} has ended"
        try:
            return httpx.get(answers).is_success
        except httpx.TransportError:
            return False

    with subprocess.Popen(
        [name, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **variables},
    ) as process:
        try:
            until_sync(up, within=100)
            yield
        finally:
            process.terminate()


def run(folder: Path, **variables: str) -> None:
    """Runs the program, with exporters that the environment chooses."""
    (folder / "program.py").write_text(PROGRAM)
    instrument = Path(sys.executable).with_name("opentelemetry-instrument")
    exporters = {f"OTEL_{kind}_EXPORTER": "none" for kind in ("TRACES", "METRICS", "LOGS")}
    variables = {**exporters, "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf", **variables}
    done = subprocess.run(
        [instrument, sys.executable, folder / "program.py"],
        capture_output=True,
        text=True,
        timeout=50,
        env={**os.environ, "WOOL_OBSERVERS": "opentelemetry", **variables},
    )
    assert (done.stdout, done.stderr) == ("[1.0, 0.5]\ndivision by zero\n", "")


def test_spans(folder: Path) -> None:
    """Phoenix has who called whom, over two processes."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with serving(
        "phoenix",
        "uv tool install arize-phoenix",
        "serve",
        answers=f"{url}/healthz",
        PHOENIX_HOST="127.0.0.1",
        PHOENIX_PORT=str(port),
        PHOENIX_GRPC_PORT=str(free_port()),
        PHOENIX_WORKING_DIR=str(folder),
        PHOENIX_TELEMETRY_ENABLED="false",
    ):
        run(
            folder,
            OTEL_TRACES_EXPORTER="otlp",
            OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{url}/v1/traces",
        )
        found: list[dict[str, Any]] = []

        def complete() -> bool:
            answer = httpx.get(f"{url}/v1/projects/default/spans/otlpv1")
            found[:] = answer.raise_for_status().json()["data"]
            return len(found) == 8

        until_sync(complete, what="eight spans")
    labels = {"": ("", "")}
    for span in found:
        span["attributes"] = {
            each["key"]: next((v for v in each["value"].values() if v is not None), None)
            for each in span["attributes"]
        }
        side = "caller" if "wool.worker.id" in span["attributes"] else "worker"
        labels[span["span_id"]] = side, span["name"]
    edges = Counter((labels[s["parent_span_id"] or ""], labels[s["span_id"]]) for s in found)
    leaf, ticks = "__main__:leaf", "__main__:ticks"
    assert edges == {
        (("", ""), ("caller", ticks)): 1,
        (("caller", ticks), ("worker", ticks)): 1,
        (("worker", ticks), ("caller", leaf)): 2,
        (("", ""), ("caller", leaf)): 1,
        (("caller", leaf), ("worker", leaf)): 3,
    }
    assert {len({s["trace_id"] for s in found})} == {2}
    for span in found:
        told = span["attributes"]
        assert (told["rpc.system.name"], told["rpc.method"]) == ("wool", span["name"])
        assert told["wool.stream"] is (span["name"] == ticks)
    ends = Counter(
        (s["attributes"]["wool.outcome"], s["attributes"].get("error.type")) for s in found
    )
    assert ends == {("returned", None): 6, ("raised", "ZeroDivisionError"): 2}


def test_metrics(folder: Path) -> None:
    """VictoriaMetrics has the figures of both processes."""
    place = f"127.0.0.1:{free_port()}"
    url = f"http://{place}"
    with serving(
        "victoria-metrics",
        "apt-get install victoria-metrics",
        f"-httpListenAddr={place}",
        f"-storageDataPath={folder}",
        answers=f"{url}/health",
    ):
        run(
            folder,
            OTEL_METRICS_EXPORTER="otlp",
            OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=f"{url}/opentelemetry/v1/metrics",
        )
        figures: dict[tuple[str, str], list[float]] = {}

        def complete() -> bool:
            httpx.get(f"{url}/internal/force_flush").raise_for_status()
            answer = httpx.get(f"{url}/api/v1/export", params={"match[]": '{__name__!=""}'})
            figures.clear()
            for line in answer.text.splitlines():
                series = json.loads(line)
                labels = series["metric"]
                if not labels["__name__"].endswith(("_bucket", "_sum")):
                    key = labels["__name__"], labels["rpc.method"].partition(":")[2]
                    figures[key] = sorted([*figures.get(key, []), series["values"][-1]])
            return len(figures) == 10

        until_sync(complete, what=figures)
    assert figures == {
        ("rpc.client.call.duration_count", "leaf"): [1, 2],  # one that raised, by the program
        ("rpc.client.call.duration_count", "ticks"): [1],
        ("rpc.server.call.duration_count", "leaf"): [1, 2],
        ("rpc.server.call.duration_count", "ticks"): [1],
        ("wool.server.queue.duration_count", "leaf"): [3],
        ("wool.server.queue.duration_count", "ticks"): [1],
        ("wool.client.active_calls", "leaf"): [0, 0],
        ("wool.client.active_calls", "ticks"): [0],
        ("wool.server.active_calls", "leaf"): [0],
        ("wool.server.active_calls", "ticks"): [0],
    }
