"""`wool worker`: serves calls until it is told to leave."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import os
import signal
import socket
import sys
import threading
import time
import warnings
from typing import Any, cast

import click

import wool
from wool._code.names import find_name
from wool._peer.running import RUNNING
from wool._plugins import lookup
from wool._plugins.lookup import scheme_transport
from wool._settings.sources import TOKEN
from wool._texts import reason_of
from wool._worker.backends import ChosenDiscovery
from wool._worker.loops import new_loop
from wool.cli.common import (
    Files,
    Where,
    credential_options,
    discovery_options,
    name_option,
    read_settings,
    seconds_option,
    transport_option,
)
from wool.exceptions import ConfigurationError

SPARE = 1.0
"""Seconds for the process to end by itself after its last call has, or was given up."""

TOGETHER = 0.2
"""Seconds within which signals are one that came twice: `timeout` sends it to the process, then to
its group, and a terminal to all that run there, also by a script that passes on what it gets."""

LEAVE = ("SIGINT", "SIGTERM", "SIGHUP")
"""Signals that have it leave, where the system has them."""


EXAMPLES = """\b
Examples:
  wool worker --discovery shm
  wool worker --discovery zeroconf --tag gpu --concurrency 2
  wool worker --address grpc://0.0.0.0:7000 --token-file token
  wool worker --address ws://0.0.0.0:7000 --advertise wss://a.example:443
"""


@click.command(epilog=EXAMPLES)
@click.option("--address", metavar="ADDRESS", help="Where to listen, such as grpc://0.0.0.0:7000.")
@click.option("--advertise", metavar="ADDRESS", help="What others are told to dial instead.")
@transport_option
@discovery_options("Where to announce the worker.")
@name_option("serializer", "Serializer of arguments and results.")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="A label it offers; repeatable.")
@click.option("--concurrency", type=click.IntRange(min=1), help="Calls it runs at once.")
@seconds_option("--drain-timeout", "Time calls get to finish.")
@click.option(
    "--lifespan",
    metavar="MODULE:NAME",
    help="Entered before it takes calls: a function that returns an async context manager.",
)
@credential_options
@click.option("--insecure", is_flag=True, help="No authentication; loopback interface only.")
@click.option("--json", "as_json", is_flag=True, help="Tell events as JSON on standard output.")
def worker(
    address: str | None,
    advertise: str | None,
    transport: str | None,
    where: Where,
    serializer: str | None,
    tags: tuple[str, ...],
    concurrency: int | None,
    drain_timeout: float | None,
    lifespan: str | None,
    files: Files,
    insecure: bool,
    as_json: bool,
) -> None:
    """Serve calls in this process.

    Routines are imported from the current folder, unless PYTHONSAFEPATH is set, or from what is
    installed. Credentials are those of the options or settings: WOOL_TOKEN, WOOL_TOKEN_FILE or
    [tool.wool.tls]. A Unix socket needs none.

    Ctrl-C, SIGTERM or SIGHUP has it leave: it takes no more calls, and running ones get to finish.
    A second one cancels them: they get to clean up (cancel_grace, 10 s), then the process ends. A
    third one ends it at once. Those that come within 0.2 s are one.

    Each event is a line on standard error; with --json, an object on standard output.

    Exit codes: 0 after it has left, 1 if it cannot serve, 2 for a wrong command line, 128 and the
    number of the signal if routines did not end.
    """
    if not sys.flags.safe_path:
        with contextlib.suppress(FileNotFoundError):  # it was removed, so there is nothing in it
            sys.path.insert(0, os.getcwd())
    events = Events(as_json=as_json)
    events.tell_warnings()
    settings = read_settings()
    chosen = where.choose(settings)
    worker = _LoneWorker(
        address=address,
        advertise=advertise,
        transport=transport,
        discovery=cast(Any, chosen),  # more than users may give
        serializer=serializer,
        tags=tags,
        concurrency=concurrency,
        credentials=files.read(),
        drain_timeout=drain_timeout,
        lifespan=None if lifespan is None else _find(lifespan),
        insecure=insecure,
    )
    if not os.environ.get("PYTHONBREAKPOINT"):
        sys.breakpointhook = _no_breakpoint
    _check_callable(address, transport or settings.get("transport").value)
    kind, grace = settings.get("loop").value, settings.get("cancel_grace").value
    with asyncio.Runner(loop_factory=lambda: new_loop(kind)) as runner:
        runner.run(_serve(worker, chosen, events, grace))


def _no_breakpoint(*args: object, **options: object) -> None:
    """Stands in for a debugger, which would stop the calls of all."""
    raise RuntimeError(
        f"breakpoint() is off on worker {os.getpid()} on {socket.gethostname()}, for it would stop "
        "the calls of all: start `wool worker` with PYTHONBREAKPOINT=pdb.set_trace to have it open "
        "a debugger at the terminal that it runs in"
    )


class _LoneWorker(wool.Worker):
    _alone = True


def _find(lifespan: str) -> Any:
    """Imports it, or raises ConfigurationError."""
    try:
        return find_name(lifespan)
    except Exception as error:
        raise ConfigurationError(
            f"--lifespan {lifespan} cannot be imported ({reason_of(error)}): give module:name, "
            "of a module in the current folder or one that is installed"
        ) from error


def _check_callable(address: str | None, transport: str | None) -> None:
    """Raises ConfigurationError if there could be no callers: this process is not theirs."""
    name = transport if address is None else scheme_transport(address)
    if name is not None and "in-process" in lookup.transport(name).plugin.capabilities:
        raise ConfigurationError(
            f"{address or f'the transport {name!r}'} cannot be reached from other processes, so "
            "nobody could call this worker: give another address or transport, or neither"
        )


async def _serve(
    worker: wool.Worker, chosen: ChosenDiscovery | None, events: Events, grace: float
) -> None:
    leaving = _Leaving(worker, events, grace)
    with contextlib.suppress(asyncio.CancelledError):
        async with worker:
            leaving.listen()
            os.environ.pop(TOKEN, None)  # what routines start would inherit it
            info = worker.info
            tags = f", tags {' '.join(sorted(info.tags))}" if info.tags else ""
            events.tell(
                "serving",
                f"worker {info.id} serves at {info.address}, process {info.pid}{tags}",
                id=info.id,
                address=info.address,
                pid=info.pid,
                tags=sorted(info.tags),
            )
            if chosen is not None and chosen.backend.announces:
                events.tell("announced", f"announced by {chosen}")
            _notify("READY=1")
            await worker.serve()
            _notify("STOPPING=1")
    events.tell("left", "left" if not leaving.hurried else "left in a hurry")


class _Leaving:
    """The effect of signals: the first one drains, the second one cancels."""

    def __init__(self, worker: wool.Worker, events: Events, grace: float) -> None:
        self.hurried = False
        self._worker = worker
        self._events = events
        self._grace = grace
        self._task = asyncio.current_task()
        self._loop = asyncio.get_running_loop()
        self._asked = False
        self._last = -math.inf

    def listen(self) -> None:
        # Python's own handlers: they also run while user code blocks the loop.
        for name in LEAVE:
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:  # nohup
                signal.signal(number, lambda number, frame: self._on_signal(number))

    def _on_signal(self, number: int) -> None:
        now = time.monotonic()
        if now < self._last + TOGETHER:
            return
        self._last = now
        name = signal.Signals(number).name
        if not self._asked:
            self._asked = True
            load = self._worker.info.load
            calls = f"{load} call{'s' * (load != 1)}" if load else "no call"
            text = f"{name}: takes no more calls, waits for those that run: {calls}"
            self._events.tell("draining", text, signal=name, calls=load)
            self._worker.drain()
        elif not self.hurried:
            self.hurried = True
            self._events.tell("cancelling", f"{name} again: cancels what runs", signal=name)
            if self._task is not None:
                self._loop.call_soon_threadsafe(self._task.cancel)
            late = threading.Timer(self._grace + SPARE, self._give_up, [number])
            late.daemon = True
            late.start()
        else:
            os._exit(128 + number)

    def _give_up(self, number: int) -> None:
        """Ends the process although a routine blocks its loop, or cannot be cancelled."""
        self._events.tell("abandoned", "a routine did not end; the process does")
        os._exit(128 + number)


def _notify(state: str) -> None:
    """Tells systemd, if that has started this process (the protocol of sd_notify)."""
    path = os.environ.get("NOTIFY_SOCKET")
    if path:
        address = "\0" + path[1:] if path.startswith("@") else path
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(state.encode(), address)


class Events:
    """Tells of events: in words on standard error, or as JSON objects on standard output."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._stream = sys.stdout if as_json else sys.stderr  # not that of a call that is running

    def tell(self, event: str, text: str, **facts: Any) -> None:
        """Says what has happened, and when.

        Args:
            event: a word for it.
            text: the same for people.
            facts: what programs may want to know of it.
        """
        when = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        with contextlib.suppress(OSError):  # the terminal is closed, or who has read is gone
            line = f"{when} wool: {text}"
            if self._as_json:
                line = json.dumps({"time": when, "event": event, "message": text, **facts})
            click.echo(line, file=self._stream)

    def tell_warnings(self) -> None:
        """Says what is warned of in the same way: in the log of Wool, or by Python's `warnings`."""
        logging.getLogger("wool").addHandler(_Lines(self))

        of_python = warnings.showwarning

        def show(message: Warning | str, *where: Any, **options: Any) -> None:
            running = RUNNING.get()
            if running is not None and running.output() is not None:
                of_python(message, *where, **options)  # on the standard error of the call
            else:
                self.tell("warning", f"warning: {' '.join(str(message).split())}")

        warnings.showwarning = show


class _Lines(logging.Handler):
    def __init__(self, events: Events) -> None:
        super().__init__(logging.WARNING)
        self._events = events

    def emit(self, record: logging.LogRecord) -> None:
        level, words = record.levelname.lower(), " ".join(record.getMessage().split())
        self._events.tell(level, f"{level}: {words}")
