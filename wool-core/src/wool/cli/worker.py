"""`wool worker`: serves calls until it is told to leave."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
import time

import click

import wool
from wool._worker.discoveries import choose_discovery
from wool._worker.main import new_loop
from wool.cli.active import read_settings


@click.command()
@click.option("--address", metavar="ADDRESS", help="Where to listen, such as grpc://0.0.0.0:7000.")
@click.option("--advertise", metavar="ADDRESS", help="What others are told to dial instead.")
@click.option("--transport", metavar="NAME", help="Transport, if there is no address.")
@click.option("--discovery", metavar="NAME", help="Where to announce the worker.")
@click.option("--namespace", metavar="NAME", help="Of the discovery: only those in it meet.")
@click.option(
    "--interface",
    "interfaces",
    multiple=True,
    metavar="NAME",
    help="Of the discovery: network interface, or its address; repeatable. By default all.",
)
@click.option("--serializer", metavar="NAME", help="Serializer of arguments and results.")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="A label it offers; repeatable.")
@click.option("--concurrency", type=click.IntRange(min=1), help="Calls it runs at once.")
@click.option("--drain", type=click.FloatRange(min=0), help="Seconds calls get to finish.")
@click.option("--insecure", is_flag=True, help="No authentication; loopback interface only.")
def command(
    address: str | None,
    advertise: str | None,
    transport: str | None,
    discovery: str | None,
    namespace: str | None,
    interfaces: tuple[str, ...],
    serializer: str | None,
    tags: tuple[str, ...],
    concurrency: int | None,
    drain: float | None,
    insecure: bool,
) -> None:
    """Serve calls in this process.

    Routines are imported from the current folder or from what is installed. Credentials are those
    of the settings: WOOL_TOKEN, WOOL_TOKEN_FILE or [tool.wool.tls]. A Unix socket needs none.

    Ctrl-C or SIGTERM has it leave: it takes no more calls, and running ones get to finish. A second
    one cancels them.
    """
    sys.path.insert(0, os.getcwd())
    settings = read_settings()
    options = {"namespace": namespace, "interfaces": interfaces or None}
    chosen = choose_discovery(settings, discovery or settings.get("discovery").value, options)
    if chosen is None and any(options.values()):
        raise click.UsageError("--namespace and --interface are for a --discovery; name one")
    worker = wool.Worker(
        address=address,
        advertise=advertise,
        transport=transport,
        discovery=chosen,
        serializer=serializer,
        tags=tags,
        concurrency=concurrency,
        drain_timeout=drain,
        insecure=insecure,
    )
    kind = settings.get("loop").value
    with asyncio.Runner(loop_factory=lambda: new_loop(kind)) as runner:
        runner.run(_serve(worker))


async def _serve(worker: wool.Worker) -> None:
    leaving = _Leaving(worker)
    with contextlib.suppress(asyncio.CancelledError):
        async with worker:
            leaving.listen()
            info = worker.info
            tags = f", tags {' '.join(sorted(info.tags))}" if info.tags else ""
            _log(f"worker {info.id} serves at {info.address}, process {info.pid}{tags}")
            _notify("READY=1")
            await worker.serve()
            _notify("STOPPING=1")
    _log("left" if not leaving.hurried else "left in a hurry")


class _Leaving:
    """What signals do: the first one drains, the second one cancels."""

    def __init__(self, worker: wool.Worker) -> None:
        self.hurried = False
        self._worker = worker
        self._task = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        self._asked = False

    def listen(self) -> None:
        # Python's own handlers: they also run while user code blocks the loop.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, frame: self._on_signal(number))

    def _on_signal(self, number: int) -> None:
        name = signal.Signals(number).name
        if not self._asked:
            self._asked = True
            _log(f"{name}: takes no more calls, waits for those that run")
            self._worker.drain()
        elif not self.hurried:
            self.hurried = True
            _log(f"{name} again: cancels what runs")
            if self._task is not None:
                self._loop.call_soon_threadsafe(self._task.cancel)
        else:
            os._exit(128 + number)


def _log(event: str) -> None:
    click.echo(f"{time.strftime('%Y-%m-%dT%H:%M:%S%z')} wool: {event}", err=True)


def _notify(state: str) -> None:
    """Tells systemd, if that has started this process (the protocol of sd_notify)."""
    path = os.environ.get("NOTIFY_SOCKET")
    if path:
        address = "\0" + path[1:] if path.startswith("@") else path
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(state.encode(), address)
