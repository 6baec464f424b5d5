"""The unit for systemd: it is valid, and what it starts does as systemd expects."""

from __future__ import annotations

import asyncio
import configparser
import os
import re
import secrets
import shlex
import shutil
import signal
import socket
import subprocess
from pathlib import Path
from typing import Any

import wool
from recipes.kit import CLUSTERS, EXAMPLES, need
from support.waiting import until

UNIT = EXAMPLES / "systemd" / "wool-worker@.service"


class Unit(configparser.RawConfigParser):
    """A unit file; of keys that stand there more than once, the last."""

    def __init__(self) -> None:
        super().__init__(strict=False)
        self.read_string(UNIT.read_text())

    def optionxform(self, optionstr: str) -> str:
        return optionstr


def test_it_is_valid(folder: Path) -> None:
    """Only that the program is where the page installs it is beyond this machine."""
    need(("systemd-analyze", "systemd"))
    text = UNIT.read_text().replace("/opt/wool/bin/wool", shutil.which("true") or "")
    (folder / UNIT.name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(folder / UNIT.name)],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


async def test_what_it_starts(folder: Path, variables: dict[str, str]) -> None:
    """With the environment that systemd would make of the unit, and its protocol of readiness."""
    service = Unit()["Service"]
    credentials = folder / "credentials"
    credentials.mkdir()
    name, _, source = service["LoadCredential"].partition(":")
    assert source in (CLUSTERS / "systemd.md").read_text()
    (credentials / name).write_text(wool.Credentials.new_token() + "\n")
    variable, _, value = service["Environment"].partition("=")
    environment = {variable: value.replace("%d", str(credentials))}
    environment["WOOL_ZEROCONF__INTERFACES"] = "127.0.0.1"
    environment["WOOL_ZEROCONF__NAMESPACE"] = secrets.token_hex(4)
    program, *arguments = shlex.split(service["ExecStart"])
    assert program == "/opt/wool/bin/wool"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notified:
        notified.bind(str(folder / "notify"))
        notified.settimeout(30)
        process = subprocess.Popen(
            [str(folder / "bin" / "wool"), *arguments],
            env={**os.environ, **variables, **environment, "NOTIFY_SOCKET": str(folder / "notify")},
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            assert await asyncio.to_thread(notified.recv, 1000) == b"READY=1"
            found = await _workers(variables, environment)
            assert found.endswith("yes")
            process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(notified.recv, 1000) == b"STOPPING=1"
            _, journal = await asyncio.to_thread(process.communicate, timeout=30)
        finally:
            process.kill()
    assert process.returncode == 0, "a success for systemd, which does not restart it"
    lines = [re.sub(r"^\S+ wool: ", "", line) for line in journal.splitlines()]
    assert [line.split()[0] for line in lines] == ["worker", "announced", "SIGTERM:", "left"]


async def _workers(variables: dict[str, str], environment: dict[str, str]) -> str:
    def look() -> str | None:
        done = subprocess.run(
            ["wool", "workers", "--discovery", "zeroconf"],
            env={**os.environ, **variables, **environment},
            capture_output=True,
            text=True,
        )
        return done.stdout.strip() if done.returncode == 0 else None

    return await until(look, within=30, what="a worker")


def test_its_times_leave_room_for_draining() -> None:
    service: Any = Unit()["Service"]
    assert service["Type"] == "notify"
    assert int(service["TimeoutStopSec"]) > 30 + 10, "to drain, and to clean up what is cancelled"
