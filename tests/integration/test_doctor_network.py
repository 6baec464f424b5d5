"""`wool doctor` on machines of a network: what it finds of the network, and of workers there."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import wool
from integration.lanmachines import Served, environment
from support.network import Host, lan
from support.serving import CLI
from wool._plugins import lookup
from wool._security import tokens
from wool._security.credentials import Token
from wool._settings.settings import Settings
from wool.cli.common import Where
from wool.cli.trials import Trial, check_serving

DOCTOR = [sys.executable, "-m", "wool.cli", "doctor", "--discovery", "zeroconf", "--json"]


async def examined(host: Host, folder: Path, **variables: str) -> tuple[int, dict[str, Any]]:
    """Has a machine examined; of several findings with one name, the last counts."""
    doctor = host.popen(
        DOCTOR,
        cwd=folder,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    out, err = await asyncio.to_thread(doctor.communicate, timeout=50)
    assert err == ""
    return doctor.returncode, {one["check"]: one for one in json.loads(out)["findings"]}


async def test_a_network(folder: Path) -> None:
    async with lan(2) as (one, two):
        code, found = await examined(two, folder)
        assert code == 0, found
        assert "is heard on this machine" in found["discovery zeroconf"]["text"]
        assert "can be called at grpc://10.99.0.2:" in found["worker"]["text"]
        assert found["workers"]["state"] == "advice"

        await Served(one, folder, ["--discovery", "zeroconf"]).address()
        for _ in range(3):  # it listens for a second, in which a machine may be stalled
            code, found = await examined(two, folder)
            if found["workers"]["state"] != "advice":
                break
        assert (code, found["workers"]["state"]) == (0, "ok")
        assert "found 1, of which 1 can be used" in found["workers"]["text"]

        for _ in range(3):
            code, found = await examined(two, folder, WOOL_TOKEN=wool.Credentials.new_token())
            if found["workers"]["state"] != "advice":
                break
        assert (code, found["workers"]["state"]) == (1, "problem")
        assert "secret" in found["workers"]["text"]


async def test_a_network_without_ipv4_and_none_at_all(folder: Path) -> None:
    async with lan(1) as (host,):
        host.forget_ipv4()
        code, found = await examined(host, folder)
        assert code == 0, found
        assert "is heard on this machine" in found["discovery zeroconf"]["text"]
        assert "can be called at grpc://[fd99::1]:" in found["worker"]["text"]
        host.down()
        code, found = await examined(host, folder)
        assert (code, found["worker"]["state"]) == (1, "problem")
        assert "only this machine reaches" in found["worker"]["text"]


@pytest.mark.parametrize("transport", ["ws", "grpc"])
async def test_a_machine_without_a_default_route(transport: str, folder: Path) -> None:
    """An interface tells where others find a worker; the machine's name may mean the loopback."""
    async with lan(2) as (one, two):
        for host in one, two:
            host.run(["ip", "route", "del", "default"])
            host.run(["ip", "-6", "route", "del", "default"])
        served = Served(one, folder, ["--address", f"{transport}://0.0.0.0:0"])
        address = await served.address()
        assert "://10.99.0.1:" in address
        two.run([*CLI, "workers", address], env=environment())  # fails if it cannot be used


async def test_an_address_that_only_the_machine_itself_reaches(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The address that the doctor dials there answers, and yet it is a problem."""
    monkeypatch.setattr("wool._addresses.outward_host", lambda version: "127.0.1.1")
    settings = Settings.read(lookup.names)
    trial = Trial(
        settings=settings,
        where=Where("zeroconf", "nobody", ()),
        transport="ws",
        credentials=Token(tokens.generate()),
    )
    found = [one async for one in check_serving(trial)]
    (worker,) = [one for one in found if one.check == "worker"]
    assert "which only this machine reaches" in worker.text and "--advertise" in worker.remedy
